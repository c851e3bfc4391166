"""The comparison of frozen and adapted representations, and what the chapter says of it."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from test_foundation_models import saved
from toys import scores, tokenizer_of
from worlds import communities

from perturbcore.core.errors import ParameterError
from perturbcore.embeddings.network import adjacency
from perturbcore.report import finetuning as page

MORE = """
embeddings:
  - {{name: Interactome, modality: Prior knowledge, builder: network, source: simulated, dim: 16}}
  - {{name: GNN, modality: Prior knowledge, builder: gnn, source: simulated, dim: 8, max_epochs: 4}}
  - {{name: Toy, builder: language_model, source: simulated, model: {model}}}
"""
CELLS = dict(dim=8, layers=1, latents=4, pretraining_epochs=1, hidden=(8,), epochs=1, epochs_ko=1,
             lrs=(1e-2,), n_eval=8, n_cells=2, batch_size=32)  # fmt: skip
GRAPH = {"lrs": [0.01], "batch_sizes": [32], "epochs": 2, "patience": 1}
RUN = dict(
    frozen=["Interactome", "Elsewhere"], graphs=["GNN"], graph=GRAPH, cells=CELLS, texts=["Toy"],
    text=GRAPH | {"max_length": 16}, links="gnn/none.txt", k=[40, 50], k_few=[3, 5],
    n_components=8, n_outer=2, n_inner=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def study(study_of, tmp_path_factory):
    folder = saved(tmp_path_factory.mktemp("toy"), tokenizer_of(["gene"]))
    return study_of("fine_tuning", MORE.format(model=folder))


@pytest.fixture(scope="module")
def made(study):
    return page.run_fine_tuning(study, "simulated", **RUN)


def test_everything_is_scored_on_the_same_folds(made):
    scores = made.scores[made.scores["metric"] == "L2"]
    folds = scores.groupby(["embedding", "predictor"])["fold"].nunique()
    assert (folds == 5).all()
    uses = folds.reset_index().groupby("embedding")["predictor"].agg(set)
    assert uses["GNN"] == {"knn", "fine-tuned", "frozen + linear"}
    assert uses["Toy"] == {"knn", "LoRA + linear", "frozen + linear"}
    assert uses["Cell transformer"] == {"knn", "frozen + MLP", "indexing", "in-silico KO"}
    assert uses["Interactome"] == uses["idealized"] == uses["random"] == {"knn"}
    assert {"train_mean", "experimental_error", "repeated_experiment"} < uses[""]
    knn = scores[scores["predictor"] == "knn"]
    assert set(knn["chosen"]) <= {"3", "5"}  # few perturbations, so the small grid
    adapted = page.gains(made).set_index("method")["adapted"]
    assert adapted.sum() == 4 and adapted["Toy, LoRA + linear"]
    said = page.setting([made])
    assert "Not at hand for this data set: Elsewhere." in said
    assert "gnn/none.txt is not in the authors' folder" in said
    networks = page.networks([made, made]).set_index("embedding")["learnt"]
    assert list(networks.index) == ["GNN", "Toy", "Cell transformer"]
    assert "first 16 tokens" in networks["Toy"] and "(8) in its last 1 layer" in networks["Toy"]


def test_a_second_run_trains_nothing(study, made, monkeypatch):
    monkeypatch.setattr("perturbcore.core.training._Run.train", None)
    again = page.run_fine_tuning(study, "simulated", **RUN)
    columns = ["embedding", "predictor", "cell_line", "fold", "metric", "value"]
    pd.testing.assert_frame_equal(made.scores[columns], again.scores[columns])
    assert not list((study.profile.results / "models").glob("fine-tuned-*"))
    # a fine-tuning starts from the network that the builder trained: nothing is trained twice
    assert len(list((study.profile.results / "embeddings/models").glob("gnn-*/done.json"))) == 1


def test_only_a_graph_network_is_fine_tuned(study):
    with pytest.raises(ParameterError, match="not made by builder gnn.*has: GNN"):
        page.graph_models(study, "simulated", "Interactome")


def test_a_file_of_scored_links(study, tmp_path):
    edges = communities(50, 2, inside=0.3)[0].round({"weight": 3})
    table = edges.assign(weight=1000 * edges["weight"])
    table.columns = ["protein1", "protein2", "combined_score"]
    table.to_csv(path := tmp_path / "links.txt", sep="\t", index=False)
    pretraining = {"dim": 4, "max_epochs": 2}
    embedding, models, about = page.links_models(study, path, "ensembl", pretraining, lrs=[0.1])
    assert embedding.dim == 4 and embedding.identifier == "ensembl" and len(embedding) == 50
    assert [m.predictor for m in models] == ["fine-tuned", "frozen + linear"]
    ids, weights = adjacency(edges)
    assert list(embedding.ids) == list(ids) and about["learnt"] == f"{len(edges)} links of 50 genes"
    np.testing.assert_allclose(models[0].pretrained.A.toarray(), weights.toarray())


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
    uses = {("G", "knn"): 6.0, ("G", "kernel"): 5.5}
    runs = [toy(uses | {("G", "fine-tuned"): value}) for value in (5.0, 7.0)]
    nothing = toy({("G", "knn"): 6.0})
    for axis, run in zip(page.gain_figure([*runs, nothing]).axes, runs, strict=True):
        shown = sorted(line.get_xdata()[0] for line in axis.lines if len(line.get_xdata()) == 1)
        np.testing.assert_allclose(shown, np.sort(page.gains(run)["gain"]))
        labels = {t.get_text() for t in axis.get_yticklabels()}
        assert labels == {"G, fine-tuned", "G, kernel"}
    assert "Nothing could be adapted" in page.gain_figure([nothing]).texts[0].get_text()
    assert page.joined([nothing]).empty
    assert page.joined(runs)["beats"].tolist() == [True, True, True, False]
