"""Dynamic range fraction and bound discrimination score of metrics on a screen."""

from types import SimpleNamespace

import numpy as np
import pytest

from perturbcore.data.simulate.screen import simulate_screen
from perturbcore.score.ceiling.halves import calibrate_metrics, dynamic_range_fraction
from perturbcore.score.metrics.registry import metric


def test_a_duplicate_lies_between_the_train_mean_and_perfect_as_scperteval_places_it():
    positive, negative = np.array([1.0, 3.0, 5.0, 0.0]), np.array([4.0, 3.0, 2.0, 0.0])
    drf = dynamic_range_fraction(positive, negative, metric("L2"))
    np.testing.assert_allclose(drf, [0.75, 0.0, -1.0, np.nan])
    scperteval = pytest.importorskip("scperteval.calibrators")
    asked = SimpleNamespace(perfect=0.0, better="lower")
    theirs = [
        scperteval._drf_per_pert({"positive": p, "negative": n}, asked)
        for p, n in zip(positive[:3], negative[:3], strict=True)
    ]
    np.testing.assert_allclose(drf[:3], theirs, atol=1e-5)


def test_metrics_tell_nothing_where_perturbations_do_nothing():
    sizes = dict(n_cell_lines=1, n_perturbations=40, n_genes=60, n_batches=2, n_control_cells=200)
    strong = calibrate_metrics(simulate_screen(**sizes, seed=0).screen).set_index("metric")
    assert (strong["bds"] > 0.6).all() and (strong["n_perturbations"] == 40).all()
    screen = simulate_screen(**sizes, seed=0).screen
    other = ~screen.obs["is_control"].to_numpy()
    names = screen.obs["perturbation"].astype(str).to_numpy()
    names[other] = np.random.default_rng(0).permutation(names[other])
    screen.obs["perturbation"] = names
    none = calibrate_metrics(screen).set_index("metric")
    assert (none.loc[["L2", "MSE", "MAE", "Pearson"], "drf"] < 0).all()
    assert abs(none.loc["discrimination", "drf"]) < 0.1 and none.loc["L2", "bds"] < 0.1
