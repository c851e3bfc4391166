import shutil
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from toys import scores
from worlds import cells_of

from perturbcore.core.digest import seed_of
from perturbcore.core.errors import InputError, LeakError
from perturbcore.data.effects import ba_ate
from perturbcore.data.folds import add_folds
from perturbcore.data.sets.base import load
from perturbcore.embeddings.base import Embedding
from perturbcore.models.decoders import distributions as dist
from perturbcore.models.decoders import evaluation
from perturbcore.models.decoders.cells import Cells
from perturbcore.models.decoders.evaluation import DecoderModel, GearsPredictions, Shift, generate
from perturbcore.models.simple.embedding import Floor, OnEmbedding
from perturbcore.models.simple.knn import KNN
from perturbcore.models.simple.space import Protocol
from perturbcore.report.decoders import page
from perturbcore.report.decoders.run import MEAN_SHIFTED, SHIFTED, UNCHANGED, DecoderRun
from perturbcore.report.figures.points import cell_grid, pareto_front, pareto_plot
from perturbcore.score.evaluate import evaluate as evaluate_models
from perturbcore.score.model import Fold, fit_predict
from perturbcore.score.store import ScoreStore

N_GENES, PERTURBATIONS = 6, [f"P{i}" for i in range(12)]


def predicted(model, responses, number=0):
    """Prediction of a fold, with its training and test responses."""
    held = responses.obs["fold"].to_numpy() == number
    return fit_predict(model, Fold.of(responses, number)), responses[~held], responses[held]


def scored(responses, *models, **options):
    return evaluate_models(responses, models, metrics=["L2"], progress=False, **options)


@pytest.fixture(scope="module")
def screen():
    """Log-normalised cells in three batches of unequal size; perturbations shift the mean."""
    rng = np.random.default_rng(0)
    shift = rng.normal(0, 0.5, (len(PERTURBATIONS), N_GENES))
    rows, labels = [], []
    for p, name in [(-1, "control"), *enumerate(PERTURBATIONS)]:
        for b, n in enumerate((5, 9, 14) if p < 0 else rng.integers(2, 6, 3)):
            mean = 2 + 0.3 * b + (shift[p] if p >= 0 else 0)
            rows.append(np.maximum(mean + rng.normal(0, 0.2, (n, N_GENES)), 0.01))
            labels += [(name, f"b{b}")] * n
    perturbation, batch = zip(*labels, strict=True)
    rows = np.concatenate(rows)
    return cells_of(rows, perturbation, batch=batch, control="control", scale="log1p")


@pytest.fixture(scope="module")
def responses(screen):
    return add_folds(ba_ate(screen, min_cells=1, progress=False), 3, 0)


@pytest.fixture(scope="module")
def cells(screen, responses):
    return Cells.of(screen, responses.var_names)


def embedding(names=PERTURBATIONS, seed=1):
    X = np.random.default_rng(seed).normal(size=(len(names), 4))
    return Embedding("toy", "Prior knowledge", pd.Index(names), X)


@dataclass
class Spy:
    """A generator that remembers what it was given and adds the vector's first coordinate."""

    seen: list
    spec = {"class": "spy"}
    chosen, history, seconds = "nothing", None, 0.0

    def fit(self, data):
        self.data = data
        self.seen.append(data)

    def sample(self, controls, index, names, seed):
        move = self.data.vectors.loc[list(names)].to_numpy()[:, 0]
        return controls.toarray() + move[index][:, None]


@pytest.fixture
def model(cells, tmp_path):
    def made(make, **changes):
        values = {"name": "toy", "predictor": "spy", "embedding": embedding(), "folder": tmp_path}
        return DecoderModel(changes.pop("cells", cells), make, **values | changes)

    return made


# ---- distances


def brute(x, y, w, function):
    """Mean of a function of the distance within x, plus within y, less twice that between."""

    def mean(a, b, wa, wb, same):
        total = weight = 0.0
        for i in range(len(a)):
            for j in range(len(b)):
                if not (same and i == j):
                    total += wa[i] * wb[j] * function(np.sqrt(((a[i] - b[j]) ** 2).sum()))
                    weight += wa[i] * wb[j]
        return total / weight

    one = np.ones(len(y))
    return mean(x, x, w, w, True) + mean(y, y, one, one, True) - 2 * mean(x, y, w, one, False)


@pytest.mark.parametrize("weighted", [False, True])
def test_distances_equal_loops(weighted):
    rng = np.random.default_rng(0)
    x, y = rng.normal(5, 1, (13, 4)), rng.normal(4, 2, (17, 4))
    w = rng.random(13) if weighted else np.ones(13)
    given = w if weighted else None
    want = -brute(x, y, w, lambda d: d)
    assert dist.energy_distance(x, y, given) == pytest.approx(want, rel=1e-9)
    want = brute(x, y, w, lambda d: np.exp(-(d**2) / (2 * 1.7**2)))
    assert dist.mmd(x, y, 1.7, given) == pytest.approx(want, rel=1e-9)


def test_variance_ratio_is_that_of_numpy_and_leaves_out_constant_genes():
    rng = np.random.default_rng(3)
    x, y = rng.normal(0, 2, (30, 3)), rng.normal(0, 1, (25, 3))
    y[:, 1] = 4.1
    got = dist.variance_ratio(x, y)
    want = x.var(axis=0, ddof=1) / y.var(axis=0, ddof=1)
    assert got[[0, 2]] == pytest.approx(want[[0, 2]])
    assert np.isnan(got[1])


def test_one_cell_has_no_distribution():
    one, many = np.zeros((1, 2)), np.random.default_rng(0).normal(size=(5, 2))
    assert np.isnan(dist.energy_distance(one, many)) and np.isnan(dist.mmd(many, one, 1.0))
    assert np.isnan(dist.variance_ratio(one, many)).all()
    assert dist.median_distance(np.array([[0.0], [1.0], [3.0]])) == 2.0
    assert dist.median_distance(np.ones((4, 2))) == 1.0


def test_weights_bring_one_composition_of_batches_to_another():
    w = dist.batch_weights(["a", "a", "a", "b"], ["a", "b"])
    assert w == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])
    assert dist.batch_weights(["a", "c"], ["a"]) == pytest.approx([1, 0])
    assert dist.batch_weights(["c", "c"], ["a"]) == pytest.approx([0.5, 0.5])


# ---- evaluation


def test_cells_of_test_perturbations_are_never_handed_over(model, cells, responses):
    seen = []
    scored(responses, model(lambda: Spy(seen)))
    assert len(seen) == 3
    tested = [set(data.fold.test_ids) for data in seen]
    assert set().union(*tested) == set(PERTURBATIONS)
    for data, test in zip(seen, tested, strict=True):
        learnt = set(data.perturbation)
        assert learnt == set(PERTURBATIONS) - test
        n = np.isin(cells.perturbation, list(learnt)).sum()
        assert data.cells.shape[0] == n and data.controls.shape[0] == cells.is_control.sum()


def test_per_batch_averages_equal_a_loop(model, cells, responses):
    found, _, test = predicted(model(lambda: Spy([]), cells_per_batch=4), responses)
    drawn = cells.draw_controls("A", 4, seed_of(0, "A", 0))
    X, vectors, batches = cells.X.toarray(), embedding(), ("b0", "b1", "b2")
    level = [X[cells.is_control & (cells.batch == b)].mean(axis=0) for b in batches]
    for i, name in enumerate(test.obs["perturbation"]):
        a, means = vectors.X[list(vectors.ids).index(name), 0], []
        for b in batches:
            rows = [r for r in drawn if cells.batch[r] == b]
            assert len(rows) == 4
            means.append((X[rows] + a).mean(axis=0))
        want = np.mean(means, axis=0) - np.mean(level, axis=0)
        assert found.values[i] == pytest.approx(want, abs=1e-5)


def test_a_perturbation_without_embedding_gets_the_train_mean(model, responses):
    lost, seen = {"P3", "P4"}, []
    known = embedding([p for p in PERTURBATIONS if p not in lost])
    m = model(lambda: Spy(seen), embedding=known)
    for fold in range(3):
        prediction, train, test = predicted(m, responses, fold)
        for i in np.flatnonzero(test.obs["perturbation"].isin(lost)):
            assert prediction.values[i] == pytest.approx(train.X.mean(axis=0), abs=1e-6)
        assert prediction.coverage == pytest.approx(10 / 12)
    assert not any(lost & set(data.perturbation) for data in seen)


def test_shifted_controls_score_as_the_model_that_shifts_them(model, responses):
    knn = OnEmbedding(embedding(), KNN([1, 2, 3]), Protocol(3))
    by = [knn, Floor("train_mean"), Floor("no_change")]
    shifts = [model(partial(Shift, m), name=m.predictor) for m in by]
    want = scored(responses, *by).set_index(["predictor", "fold"]).sort_index()
    found = scored(responses, *shifts).set_index(["embedding", "fold"]).sort_index()
    np.testing.assert_allclose(found["value"], want["value"], rtol=1e-5)
    assert list(found.loc["knn", "chosen"]) == list(want.loc["knn", "chosen"])


def test_controls_are_drawn_batch_by_batch(cells):
    own = cells.draw_controls("A", 3, 5, {"b2"})
    assert set(cells.batch[own]) == {"b2"} and len(own) == 3
    assert set(cells.batch[cells.draw_controls("A", 3, 5)]) == {"b0", "b1", "b2"}
    assert list(own) == list(cells.draw_controls("A", 3, 5, {"b2", "nowhere"}))
    assert len(cells.draw_controls("A", 3, 5, {"nowhere"})) == 9
    assert len(cells.draw_controls("A", 100, 5)) == 28


def test_finished_units_and_kept_cells_are_found_again(model, responses, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "KEPT", 2)
    monkeypatch.setattr(evaluation, "KEPT_CELLS", 6)
    seen, store = [], ScoreStore(tmp_path / "scores.sqlite")
    m = model(lambda: Spy(seen))
    first, again = (scored(responses, m, store=store) for _ in range(2))
    assert len(seen) == 3
    pd.testing.assert_frame_equal(first, again)
    note = store.notes(first["key"])[first["key"].iloc[0]]
    assert set(note) == {"train_seconds", "sample_seconds", "sampled_cells", "training_cells"}
    kept = m.generated(responses, "A", 0)
    assert len(seen) == 3
    assert kept.obs["perturbation"].nunique() == 2 and kept.shape == (12, N_GENES)
    assert np.isfinite(kept.X).all()
    for file in (tmp_path / "cells").iterdir():
        file.unlink()
    made = m.generated(responses, "A", 0)
    assert len(seen) == 4
    assert np.array_equal(made.X, kept.X)


def test_genes_are_taken_by_name(model, screen, responses):
    turned = responses[:, ::-1].copy()
    cells = Cells.of(screen, turned.var_names)
    assert list(cells.genes) == list(turned.var_names)
    assert np.allclose(cells.X.toarray(), np.asarray(screen.X.todense())[:, ::-1])
    pytest.raises(InputError, Cells.of, screen, ["g1", "nowhere"]).match("nowhere")
    with pytest.raises(InputError, match="genes of the responses are not those"):
        predicted(model(lambda: Spy([]), cells=cells), responses)


@pytest.mark.parametrize("limit", [1, 6, 100])
def test_generation_in_parts_equals_one_call(monkeypatch, limit):
    controls = sp.csr_matrix(np.arange(6.0).reshape(3, 2))
    spy = Spy([])
    spy.fit(SimpleNamespace(vectors=pd.DataFrame([[1.0], [2.0], [3.0]], ["P1", "P2", "P3"])))
    monkeypatch.setattr(evaluation, "TOGETHER", limit)
    made = dict(generate(spy, controls, ["P1", "P2", "P3"], 0))
    assert list(made) == ["P1", "P2", "P3"]
    for name, found in made.items():
        assert np.array_equal(found, controls.toarray() + int(name[1]))


# ---- GEARS


def saved(responses, path, shift=0.0, drop=(), **changes):
    table = pd.DataFrame(np.asarray(responses.X) + shift, columns=list(responses.var_names))
    table.insert(0, "fold", responses.obs["fold"].to_numpy())
    table.insert(0, "perturbation", responses.obs["perturbation"].to_numpy())
    table = table[~table["perturbation"].isin(drop)].assign(**changes)
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.astype({"perturbation": str}).to_parquet(path, index=False)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_saved_predictions_are_scored(responses, tmp_path, suffix):
    # off by 0.3 in every gene: the L2 error is 0.3 * sqrt(genes)
    path = saved(responses[::-1, ::-1].copy(), tmp_path / f"gears{suffix}", shift=0.3)
    scores = scored(responses, GearsPredictions(path))
    assert scores["value"].to_numpy() == pytest.approx(0.3 * np.sqrt(N_GENES), rel=1e-4)
    assert set(scores["predictor"]) == {"gears"} and set(scores["coverage"]) == {1.0}


def test_what_gears_cannot_predict_gets_the_train_mean(responses, tmp_path):
    lost, fold = responses.obs["perturbation"].iloc[0], int(responses.obs["fold"].iloc[0])
    m = GearsPredictions(saved(responses, tmp_path / "g.csv", drop=[lost]))
    prediction, train, test = predicted(m, responses, fold)
    assert prediction.values[0] == pytest.approx(train.X.mean(axis=0), abs=1e-6)
    assert prediction.values[1:] == pytest.approx(test.X[1:], abs=1e-6)
    assert prediction.coverage == pytest.approx(1 - 1 / test.n_obs)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.csv", None, "does not exist"),
        ("a.csv", "perturbation,g0\nP0,1\n", "no column 'fold'"),
        ("b.csv", "perturbation,fold,g0\nP0,0,nan\n", "P0.*not finite"),
        ("c.csv", "perturbation,fold,g0\nP0,0,1\nP0,1,1\n", "two rows have.*'P0'"),
        ("d.parquet", "nothing", "cannot be read"),
    ],
)
def test_a_file_that_is_no_table_of_predictions_is_refused(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    pytest.raises(InputError, GearsPredictions, tmp_path / name).match(message)


def test_predictions_of_another_fold_or_of_too_few_genes_are_refused(responses, tmp_path):
    other = saved(responses, tmp_path / "a.csv", fold=(responses.obs["fold"].to_numpy() + 1) % 3)
    pytest.raises(LeakError, scored, responses, GearsPredictions(other)).match("trained on")
    few = saved(responses[:, :4].copy(), tmp_path / "b.csv")
    pytest.raises(InputError, scored, responses, GearsPredictions(few)).match("2 genes")


# ---- distributions and figures


def test_cells_moved_by_the_truth_come_closest(model, responses, cells):
    class Truth(Spy):
        def sample(self, controls, index, names, seed):
            rows = [list(responses.obs["perturbation"]).index(n) for n in names]
            return controls.toarray() + responses.X[rows][index]

    models = [
        model(lambda: Truth([]), name="truth"),
        model(lambda: Shift(Floor("no_change")), name="none", predictor="shift"),
    ]
    table = dist.distribution_table(models, responses, cells, folds=[0, 1], n_components=4)
    assert set(table["metric"]) == {"energy", "mmd", "energy_genes", "variance_ratio"}
    assert set(table["fold"]) == {0, 1}
    mean = table.groupby(["metric", "embedding"])["value"].mean().unstack()
    distances = ["energy", "mmd", "energy_genes"]
    assert (mean.loc[distances, "truth"] < 0.5 * mean.loc[distances, "none"]).all()
    assert (mean.loc[distances, dist.HALVES].abs() < 0.5 * mean.loc[distances, "none"]).all()
    # cells of the toy screen have the same spread everywhere
    assert mean.loc["variance_ratio", "truth"] == pytest.approx(1, abs=0.5)


def test_the_pareto_front_is_that_of_a_loop():
    rng = np.random.default_rng(0)

    def beats(a, b):
        return a[0] <= b[0] and a[1] <= b[1] and a != b

    for _ in range(20):
        cost, error = rng.integers(0, 6, 12).astype(float), rng.integers(0, 6, 12).astype(float)
        cost[3], error[5] = np.nan, np.inf
        points = list(zip(cost, error, strict=True))
        want = [np.isfinite(p).all() and not any(beats(q, p) for q in points) for p in points]
        assert pareto_front(cost, error).tolist() == want


def test_figures_show_every_method_and_panel():
    table = pd.DataFrame({
        "display": ["kNN", "Flow"], "modality": ["Prior knowledge", "Advanced"], "seconds": [0.1, 20.0],
        "value": [5.0, 5.2], "low": [4.8, 5.0], "high": [5.2, 5.4], "data": "toy",
    })  # fmt: skip
    lines = table[:1].assign(display="Train Mean", modality="Negative control", value=5.5)
    figure = pareto_plot(table, lines, xlabel="s", ylabel="L2")
    texts = {t.get_text() for t in figure.axes[0].texts}
    assert {"kNN", "Flow", "Train Mean"} <= texts and figure.axes[0].get_xscale() == "log"
    panels = (("", "control"), ("Observed", "observed"), ("Flow", "generated"))
    rows = [(p, c, s) for p in ("A", "B") for c, s in panels for _ in range(5)]
    rows = pd.DataFrame(rows, columns=["perturbation", "column", "sample"])
    rows[["x", "y"]] = np.random.default_rng(0).normal(size=(len(rows), 2))
    figure = cell_grid(rows, row="perturbation", column="column", xlabel="x", ylabel="y")
    assert len(figure.axes) == 4
    assert [a.get_title(loc="left") for a in figure.axes[:2]] == ["Observed", "Flow"]


# ---- the chapter's tables and sentences


def fake_run(decoder=0.0, ridge=0.1, title="Toy (screen)", floor=6.0):
    """Ten folds in which the decoder differs from kNN by `decoder` and ridge by `ridge`, about."""
    kind, low = "Prior knowledge", "Negative control"
    means = {
        ("toy", "knn", kind): 5.0, ("toy", "ridge", kind): 5.0 + ridge,
        ("Flow matching", "flow", "Advanced"): 5.0 + decoder, ("random", "flow", low): 6.2,
        ("", "train_mean", low): floor, ("", "no_change", low): 7.0,
        ("idealized", "knn", "Positive control"): 1.0,
    }  # fmt: skip
    found = scores(means, noise=0.01, folds=10, lines=["A"], n_train=90, n_test=10)
    seconds = np.where(found["predictor"] == "flow", 20.0, 0.1)
    found = found.assign(seconds=seconds, train_seconds=0.9 * seconds, sample_seconds=0.1 * seconds)
    data = SimpleNamespace(title=title, name="toy")
    return DecoderRun(data, None, None, "toy", list(range(10)), [], [], found)


@pytest.mark.parametrize("difference", [-0.5, 0.5])
def test_a_clear_difference_to_knn_is_found_with_its_sign(difference):
    found = page.score_table(fake_run(difference)).set_index("method")
    flow = found.loc["Flow matching"]
    assert flow["gain_low"] < -difference < flow["gain_high"]
    assert bool(flow["beats_knn"]) is (difference < 0)
    assert np.isnan(found.loc["toy, kNN", "gain"]) and not found.loc["toy, kNN", "beats_knn"]
    assert list(found["value"]) == sorted(found["value"])


def test_cost_and_front():
    runs = [fake_run(0.5)]
    points, lines = page.cost_points(runs)
    assert "Train Mean" not in set(points["display"]) and list(lines["display"]) == ["Train Mean"]
    cost = points.set_index("display").loc["Flow matching"]
    assert cost["times_knn"] == pytest.approx(200) and cost["train_seconds"] == pytest.approx(18)


def test_trainings_that_stopped_too_early_are_counted_and_curves_start_at_one():
    run = fake_run()
    losses = [("a", [3, 2, 1.0]), ("b", [3, 1, 2.0]), ("c", [1, 2, 3.0])]
    frames = [
        pd.DataFrame({"method": n, "cell_line": "A", "fold": 0, "epoch": range(3), "val": v})
        for n, v in losses
    ]
    run.histories = lambda: pd.concat(frames, ignore_index=True)
    assert "Toy (screen): 1 of 3." in page.training_sentence([run])
    curves = page.curve_table([run])
    assert (curves.loc[curves["epoch"] == 1, "value"] == 1).all()
    last = curves[curves["epoch"] == 3].set_index("panel")["value"]
    assert last.to_dict() == pytest.approx({"a": 1 / 3, "b": 2 / 3, "c": 3.0})


def distributions(energy):
    """Summary of cells that a decoder generates at this energy distance, about."""
    rng = np.random.default_rng(0)
    levels = {SHIFTED: 0.5, UNCHANGED: 1.0, dist.HALVES: 0.0, MEAN_SHIFTED: 0.7}
    levels["Flow matching"] = energy
    rows = [
        {"method": name, "embedding": name, "predictor": "p", "cell_line": "A", "fold": fold,
         "metric": metric, "value": value + 0.01 * rng.normal(), "n_train": 90, "n_test": 10}
        for fold in range(8) for metric in dist.METRICS for name, value in levels.items()
    ]  # fmt: skip
    return page.distribution_summary(fake_run(), pd.DataFrame(rows))


@pytest.mark.parametrize("energy", [0.3, 0.7, 0.5])
def test_distributions_are_compared_with_shifted_controls(energy):
    summary = distributions(energy)
    by = summary.set_index("method")
    flow = by.loc["Flow matching"]
    assert flow["gain"] == pytest.approx(0.5 - energy, abs=0.02)
    assert flow["low"] < flow["gain"] < flow["high"]
    assert flow["unexplained"] == pytest.approx(energy, abs=0.02)
    assert list(summary["method"])[0] == dist.HALVES and by["gain"].notna().sum() == 1


def test_published_sentences_print_no_empty_number(monkeypatch):
    full = SimpleNamespace(number="17 of 20", why="Why.")
    drawn = SimpleNamespace(number="", why="It needs tables.")
    told = {"cole-31": full, "cole-32": drawn}
    monkeypatch.setattr(page, "claim", lambda name, published: told[name])
    text = page.published_sentences(None)
    assert text == "**17 of 20.** Why.\n\n**Does Figure S14 mix runs?** It needs tables."
    drawn.number = "9 of 38 points"
    assert "**Figure S14 mixes runs: 9 of 38 points.** It" in page.published_sentences(None)


def test_published_rows_say_that_diffusion_beats_knn_on_the_full_set(mirror):
    from perturbcore.data.published.tables import load_published

    text = page.published_sentences(load_published())
    assert "17 of 20 folds" in text and "S14 mixes runs" in text


def test_the_authors_cells_come_with_their_responses(root, tmp_path, monkeypatch):
    monkeypatch.setenv("PERTURBCORE_PAPER_DATA", str(root))
    data = load("cole", dataset="norman", cells=True)
    cells = Cells.of(data.screen, data.responses.var_names)
    assert set(data.responses.obs["perturbation"]) <= set(cells.perturbation)
    assert set(data.responses.obs["cell_line"]) == set(cells.cell_line)
    lost = shutil.ignore_patterns("NormanWeissman*")
    shutil.copytree(root / "norman", tmp_path / "norman", ignore=lost)
    monkeypatch.setenv("PERTURBCORE_PAPER_DATA", str(tmp_path))
    without = load("cole", dataset="norman", cells=True)
    assert without.screen is None and any("No cells" in n for n in without.notes)
