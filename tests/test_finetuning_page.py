"""The comparison of frozen and adapted representations, and what the chapter says of it."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from toys import scores

from perturbcore.core.errors import ParameterError
from perturbcore.report import finetuning as page

MORE = """
embeddings:
  - {name: Interactome, modality: Prior knowledge, builder: network, source: simulated, dim: 16}
  - {name: GNN, modality: Prior knowledge, builder: gnn, source: simulated, dim: 8, max_epochs: 4}
"""
CELLS = dict(dim=8, layers=1, latents=4, pretraining_epochs=1, hidden=(8,), epochs=1, epochs_ko=1,
             lrs=(1e-2,), n_eval=8, n_cells=2, batch_size=32)  # fmt: skip
GRAPH = {"lrs": [0.01], "batch_sizes": [32], "epochs": 2, "patience": 1}


@pytest.fixture(scope="module")
def study(study_of):
    return study_of("fine_tuning", MORE)


@pytest.fixture(scope="module")
def made(study):
    return page.run_fine_tuning(
        study, "simulated", frozen=["Interactome", "Elsewhere"], graphs=["GNN"], graph=GRAPH, cells=CELLS,
        links="gnn/none.txt", k=[40, 50], k_few=[3, 5], n_components=8, n_outer=2, n_inner=2,
    )  # fmt: skip


def test_everything_is_scored_on_the_same_folds(made):
    scores = made.scores[made.scores["metric"] == "L2"]
    folds = scores.groupby(["embedding", "predictor"])["fold"].nunique()
    assert (folds == 5).all()
    uses = {
        ("Interactome", "knn"), ("GNN", "knn"), ("GNN", "fine-tuned"), ("GNN", "frozen + linear"),
        ("Cell transformer", "knn"), ("Cell transformer", "frozen + MLP"), ("Cell transformer", "indexing"),
        ("Cell transformer", "in-silico KO"), ("", "train_mean"), ("", "no_change"),
        ("", "experimental_error"), ("", "noise_floor"), ("", "repeated_experiment"),
        ("random", "knn"), ("idealized", "knn"),
    }  # fmt: skip
    assert set(folds.index) == uses
    knn = scores[scores["predictor"] == "knn"]
    assert set(knn["chosen"]) <= {"3", "5"}  # few perturbations, so the small grid
    said = page.setting([made])
    assert "Not at hand for this data set: Elsewhere." in said
    assert "gnn/none.txt is not in the authors' folder" in said
    assert list(page.networks([made, made])["embedding"]) == ["GNN", "Cell transformer"]


def test_a_second_run_trains_nothing(study, made, monkeypatch):
    monkeypatch.setattr("perturbcore.models.finetuning.model.fit", None)
    again = page.run_fine_tuning(
        study, "simulated", frozen=["Interactome"], graphs=["GNN"], graph=GRAPH, cells=CELLS, k_few=[3, 5],
        n_components=8, n_outer=2, n_inner=2,
    )  # fmt: skip
    key = ["embedding", "predictor", "cell_line", "fold", "metric"]
    a, b = (run.scores.sort_values(key)["value"].to_numpy() for run in (made, again))
    np.testing.assert_array_equal(a, b)
    assert not list((study.profile.results / "models").glob("fine-tuned-*"))


def test_only_a_graph_network_is_fine_tuned(study):
    with pytest.raises(ParameterError, match="not made by builder gnn.*has: GNN"):
        page.graph_models(study, "simulated", "Interactome")


def test_a_file_of_scored_links(study, tmp_path):
    rng = np.random.default_rng(0)
    pairs = np.unique(np.sort(rng.integers(50, size=(200, 2)), axis=1), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    table = pd.DataFrame(pairs, columns=["protein1", "protein2"]).astype(str).radd("E")
    table["combined_score"] = rng.integers(400, 1000, len(table))
    table.to_csv(tmp_path / "links.txt", sep="\t", index=False)
    pretraining, path = {"dim": 4, "max_epochs": 2}, tmp_path / "links.txt"
    embedding, models, about = page.links_models(study, path, "ensembl", pretraining, lrs=[0.1])
    assert embedding.dim == 4 and embedding.identifier == "ensembl" and len(embedding) == 50
    assert [m.predictor for m in models] == ["fine-tuned", "frozen + linear"]
    weights = models[0].pretrained.A
    first = table.iloc[0]
    at = embedding.ids.get_indexer([first["protein1"], first["protein2"]])
    assert weights[at[0], at[1]] == pytest.approx(first["combined_score"] / 1000)
    assert about["learnt"] == f"{len(table)} links of 50 genes"


def test_older_names_lead_to_the_node(monkeypatch):
    older = pd.Series({"OLDB": "B", "A": "C", "X": "Y"})
    monkeypatch.setattr("perturbcore.report.finetuning.previous_symbols", lambda: older)
    nodes = page.numbers(np.array(["A", "B", "C"]), {"aliases": "previous_symbols"})
    assert nodes.to_dict() == {"A": 0, "B": 1, "C": 2, "OLDB": 1}
    assert page.numbers(np.array(["A"]), {}).to_dict() == {"A": 0}


# tables and sentences, from scores with known differences


def toy(uses: dict, floor=10.0, noise=0.01):
    """A run with this L2 of each (embedding, predictor)."""
    means = {(*use, "Prior knowledge"): value for use, value in uses.items()}
    means["", "train_mean", "Negative control"] = floor
    means["idealized", "knn", "Positive control"] = 1.0
    found, data = scores(means, noise=noise, lines=["A"]), SimpleNamespace(title="Toy", name="toy")
    return page.FineTuningRun(data, found, pd.DataFrame(columns=page.NETWORKS), [], [])


def test_the_figure_shows_each_gain():
    runs = [
        toy({("G", "knn"): 6.0, ("G", "fine-tuned"): v, ("G", "kernel"): 5.5}) for v in (5.0, 7.0)
    ]
    nothing = toy({("G", "knn"): 6.0})
    figure = page.gain_figure([*runs, nothing])
    assert len(figure.axes) == 2
    for axis, run in zip(figure.axes, runs, strict=True):
        shown = sorted(line.get_xdata()[0] for line in axis.lines if len(line.get_xdata()) == 1)
        np.testing.assert_allclose(shown, np.sort(page.gains(run)["gain"]))
        labels = [t.get_text() for t in axis.get_yticklabels()]
        assert set(labels) == {"G, fine-tuned", "G, kernel"}
    assert "Nothing could be adapted" in page.gain_figure([nothing]).texts[0].get_text()
    assert page.joined([nothing]).empty
    assert page.joined(runs)["beats"].tolist() == [True, True, True, False]
