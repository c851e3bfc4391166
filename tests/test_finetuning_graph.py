"""Fine-tuning a graph network: exact neighbourhoods, no look at test responses.

What it gains and when.
"""

import copy

import numpy as np
import pandas as pd
import pytest
import torch

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.folds import add_folds
from perturbcore.data.responses import make_responses
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.gcn import normalised, sparse_tensor
from perturbcore.embeddings.graph_network import pretrained_network
from perturbcore.models.finetuning.graph import (
    GraphObjective,
    Neighbourhood,
    graph_model,
    read_nodes,
)
from perturbcore.models.finetuning.model import TrainingLabels
from perturbcore.models.simple import evaluate_embeddings as evaluate
from perturbcore.models.simple.knn import KNN
from perturbcore.models.simple.space import Protocol
from perturbcore.score.evaluate import evaluate as evaluate_models
from perturbcore.score.labels import Labels
from perturbcore.score.metrics.pairs import auroc_within
from perturbcore.score.model import Fold, blank, fit_predict
from perturbcore.score.task import task_of

QUICK = dict(lrs=[1e-2], batch_sizes=[32], epochs=15, patience=4)


def predicted(model, train, test, fold=0):
    """Run a model on a fold of its own making."""
    task, lines = task_of(train), tuple(test.obs["cell_line"].astype(str).unique())
    return fit_predict(copy.copy(model), Fold(fold, task, lines, train, test))


def blanked(test):
    return blank(test)


def planted(n, k, inside=0.2, outside=0.005, seed=0):
    """Random network with planted communities; returns edges and the community of each node."""
    rng = np.random.default_rng(seed)
    community = np.arange(n) % k
    p = np.where(community[:, None] == community, inside, outside)
    i, j = np.nonzero(np.triu(rng.random((n, n)) < p, 1))
    names = np.array([f"N{v:04d}" for v in range(n)])
    return pd.DataFrame({"source": names[i], "target": names[j]}), pd.Series(community, names)


@pytest.fixture(scope="module")
def graph():
    edges, community = planted(160, 4)
    model, ids = pretrained_network(
        edges,
        dim=12,
        layers=2,
        dropout=0.0,
        lr=1e-2,
        batch_size=10_000,
        max_epochs=60,
        patience=20,
    )
    return model, pd.Series(np.arange(len(ids)), ids), community


def responses_of(community, task="lfc", g=12, noise=0.3, unknown=5, seed=0):
    """Responses that depend on the community; the last perturbations are no node of the graph."""
    rng = np.random.default_rng(seed)
    names = [*community.index, *(f"X{i}" for i in range(unknown))]
    kind = np.r_[community.to_numpy(), rng.integers(4, size=unknown)]
    effect = rng.normal(size=(4, g)) + 1
    X = effect[kind] + noise * rng.normal(size=(len(names), g))
    obs = pd.DataFrame({"perturbation": names, "cell_line": "A"})
    genes = [f"g{i}" for i in range(g)]
    if task == "lfc":
        return add_folds(make_responses(X, obs, genes, dataset="toy"))
    deg = np.where(X > 1.5, 1, np.where(X < 0.3, -1, 0))
    observed = rng.random(deg.shape) < 0.6 if task.endswith("pairs") else None
    return add_folds(make_responses(deg, obs, genes, dataset="toy", task=task, observed=observed))


def halves(responses, fold=0):
    test = (responses.obs["fold"] == fold).to_numpy()
    return responses[~test].copy(), blanked(responses[test].copy())


# the network


def test_neighbourhood_gives_the_value_and_gradient_of_the_whole_graph(graph):
    model, _, _ = graph
    A = normalised(model.A)
    nodes = np.array([5, 90, 17, 5])
    whole, part = copy.deepcopy(model.network), copy.deepcopy(model.network)
    weight = torch.randn(4, 12)
    want = whole(sparse_tensor(A))[torch.as_tensor(nodes)]
    got = read_nodes(part, **Neighbourhood(A, 2).around(nodes))
    torch.testing.assert_close(got, want)
    for z in (want, got):
        (weight * z.square()).sum().backward()
    for a, b in zip(whole.parameters(), part.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad)


def test_neighbourhood_leaves_out_what_is_too_far(graph):
    model, _, _ = graph
    near = Neighbourhood(normalised(model.A), 1).around(np.array([0]))
    assert set(near["start"].tolist()) == {0, *model.A[0].indices}


@pytest.mark.parametrize("task", ["lfc", "deg", "deg_pairs", "dir_pairs"])
def test_head_starts_at_what_the_training_responses_say(graph, task):
    model, _, community = graph
    train, _ = halves(responses_of(community, task))
    data = TrainingLabels(Fold(0, task_of(train), ("A",), train, train))
    head = GraphObjective(
        copy.deepcopy(model.network),
        np.zeros(12, "f"),
        np.ones(12, "f"),
        data.bias(),
        data.task,
        1e-3,
    )
    found = head(**Neighbourhood(normalised(model.A), 2).around(np.array([3, 8]))).detach().numpy()
    if task == "lfc":
        np.testing.assert_allclose(found, np.tile(train.X.mean(axis=0), (2, 1)), rtol=1e-5)
    elif task == "deg":
        share = [np.bincount(train.layers["deg"][:, 4] + 1, minlength=3) + 1]
        np.testing.assert_allclose(np.exp(found[:, 0, 4]), share[0] / share[0].sum(), rtol=1e-5)
    else:
        deg, known = train.layers["deg"], train.layers["observed"]
        label, known = (deg != 0, known) if task == "deg_pairs" else (deg > 0, known & (deg != 0))
        rate = Labels.from_dense(label.astype(float), known).rates()
        np.testing.assert_allclose(1 / (1 + np.exp(-found[0])), rate, rtol=1e-3)


def test_unknown_labels_have_no_weight(graph):
    model, _, community = graph
    train, _ = halves(responses_of(community, "deg_pairs"))
    data = TrainingLabels(Fold(0, task_of(train), ("A",), train, train))
    torch.manual_seed(0)
    head = GraphObjective(
        copy.deepcopy(model.network),
        np.zeros(12, "f"),
        np.ones(12, "f"),
        data.bias(),
        data.task,
        1e-3,
    )
    torch.nn.init.normal_(head.weight)
    batch = Neighbourhood(normalised(model.A), 2).around(np.arange(6))
    label, known = torch.as_tensor(data.label[:6]), torch.as_tensor(data.known[:6])
    want = head.loss({**batch, "response": label, "known": known})["loss"]
    other = head.loss({**batch, "response": torch.where(known, label, 1 - label), "known": known})[
        "loss"
    ]
    assert want == other
    p = 1 / (1 + np.exp(-head(**batch).detach().numpy()))
    y, o = data.label[:6], data.known[:6]
    by_hand = [
        -np.log(p[i, j] if y[i, j] else 1 - p[i, j]) for i, j in zip(*np.nonzero(o), strict=True)
    ]
    assert want.item() == pytest.approx(np.mean(by_hand), rel=1e-4)


# the model


def test_it_learns_where_responses_follow_the_graph(graph):
    model, nodes, community = graph
    responses = responses_of(community)
    vectors = Embedding("G", "Prior knowledge", nodes.index, model.vectors())
    models = [graph_model(model, nodes, **QUICK), graph_model(model, nodes, **QUICK, frozen=True)]
    joint = evaluate_models(responses, models, folds=[0, 1], metrics=["L2"], progress=False)
    frozen = evaluate(
        responses,
        [vectors],
        [KNN([5, 10])],
        protocol=Protocol(10),
        folds=[0, 1],
        metrics=["L2"],
        progress=False,
    )
    value = pd.concat([joint, frozen]).groupby("predictor")["value"].mean()
    assert value["fine-tuned"] < 0.7 * value["train_mean"]
    assert value["frozen + linear"] < 0.9 * value["train_mean"]
    assert value["knn"] < 0.7 * value["train_mean"]
    covered = joint.drop_duplicates("fold")["coverage"]
    np.testing.assert_allclose(covered, 160 / 165)


def test_it_learns_nothing_where_responses_are_noise(graph):
    model, nodes, community = graph
    rng = np.random.default_rng(1)
    mixed = pd.Series(rng.permutation(community.to_numpy()), community.index)
    joint = evaluate_models(
        responses_of(mixed),
        [graph_model(model, nodes, **QUICK)],
        folds=[0],
        metrics=["L2"],
        progress=False,
    )
    responses = responses_of(mixed)
    train, test = responses[responses.obs["fold"] != 0], responses[responses.obs["fold"] == 0]
    floor = np.linalg.norm(test.X - train.X.mean(axis=0), axis=1).mean()
    assert joint["value"].iloc[0] > 0.95 * floor


def test_partial_labels_and_classes(graph):
    model, nodes, community = graph
    for task in ("deg_pairs", "dir_pairs"):
        responses = responses_of(community, task)
        scores = evaluate_models(
            responses, [graph_model(model, nodes, **QUICK)], folds=[0], progress=False
        )
        value = scores.set_index("metric")["value"]
        assert value["auroc_within"] > 0.7 and value["macro_F1"] > 0.6
    train, test = halves(responses_of(community, "deg"))
    found = predicted(graph_model(model, nodes, **QUICK), train, test, fold=0).values
    np.testing.assert_allclose(found.sum(axis=0), 1, rtol=1e-5)
    truth = responses_of(community, "deg")
    label = truth[test.obs_names].layers["deg"] == 1
    gene = np.tile(np.arange(12), (len(label), 1))
    assert auroc_within(label.ravel().astype(float), found[2].ravel(), gene.ravel()) > 0.7


def test_a_gene_without_a_known_label_is_predicted_at_the_overall_rate(graph):
    model, nodes, community = graph
    responses = responses_of(community, "deg_pairs")
    observed = responses.layers["observed"]
    observed[:, 3] = False
    responses.layers["deg"][:, 3] = 0
    train, test = halves(responses)
    found = predicted(graph_model(model, nodes, **QUICK), train, test, fold=0).values
    label, known = (train.layers["deg"] != 0), train.layers["observed"]
    np.testing.assert_allclose(found[:, 3], label[known].mean(), rtol=1e-4)


def test_perturbations_outside_the_graph_get_the_training_mean(graph):
    model, nodes, community = graph
    responses = responses_of(community)
    train, test = halves(responses)
    found = predicted(graph_model(model, nodes, **QUICK), train, test, fold=0)
    outside = test.obs["perturbation"].str.startswith("X").to_numpy()
    assert outside.any()
    np.testing.assert_allclose(
        found.values[outside], np.tile(train.X.mean(axis=0), (outside.sum(), 1)), rtol=1e-5
    )
    assert found.coverage == pytest.approx(160 / 165)
    nothing = predicted(
        graph_model(model, pd.Series([0], ["elsewhere"]), **QUICK), train, test, fold=0
    )
    np.testing.assert_allclose(
        nothing.values, np.tile(train.X.mean(axis=0), (len(test), 1)), rtol=1e-5
    )


def test_test_responses_do_not_reach_the_model(graph):
    model, nodes, community = graph
    responses = responses_of(community, "deg_pairs")
    train, test = halves(responses)
    one = predicted(graph_model(model, nodes, **QUICK), train, test, fold=0).values
    poisoned = test.copy()
    poisoned.layers["deg"] = np.ones(test.shape, np.int8)
    poisoned.X = np.full(test.shape, np.inf, np.float32)
    other = predicted(graph_model(model, nodes, **QUICK), train, poisoned, fold=0).values
    np.testing.assert_array_equal(one, other)


def test_same_seed_same_numbers_whatever_the_order_of_rows(graph):
    model, nodes, community = graph
    before = copy.deepcopy(model.network.state_dict())
    train, test = halves(responses_of(community))
    one = predicted(graph_model(model, nodes, **QUICK), train, test, fold=0).values
    order = np.random.default_rng(0).permutation(train.n_obs)
    again = predicted(graph_model(model, nodes, **QUICK), train[order].copy(), test, fold=0).values
    np.testing.assert_allclose(one, again, atol=1e-5)
    np.testing.assert_array_equal(
        one, predicted(graph_model(model, nodes, **QUICK), train, test, fold=0).values
    )
    other = predicted(graph_model(model, nodes, **QUICK, seed=1), train, test, fold=0).values
    assert np.abs(one - other).max() > 1e-4
    for name, value in model.network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_rate_and_batch_size_are_chosen_by_validation_loss(graph):
    model, nodes, community = graph
    train, test = halves(responses_of(community))
    grid = dict(QUICK, lrs=[1e-2, 1e-6], batch_sizes=[16, 64], epochs=6)
    found = predicted(graph_model(model, nodes, **grid), train, test, fold=0)
    losses = found.note["losses"]
    assert len(losses) == 4
    assert found.chosen.startswith(min(losses, key=losses.get) + ",") and "lr 0.01" in found.chosen


def test_a_diverging_rate_is_not_chosen(graph):
    model, nodes, community = graph
    train, test = halves(responses_of(community))
    found = predicted(
        graph_model(model, nodes, **dict(QUICK, lrs=[1e30, 1e-2])), train, test, fold=0
    )
    assert "lr 0.01" in found.chosen and np.isfinite(found.values).all()
    with pytest.raises(InputError, match="every learning rate"):
        predicted(graph_model(model, nodes, **dict(QUICK, lrs=[1e30])), train, test, fold=0)


def test_a_killed_run_resumes_to_the_same_numbers(graph, tmp_path, monkeypatch):
    model, nodes, community = graph
    train, test = halves(responses_of(community))
    grid = dict(QUICK, lrs=[1e-2, 1e-3], epochs=6)
    want = predicted(graph_model(model, nodes, **grid), train, test, fold=0).values
    loss, calls = GraphObjective.loss, []

    def counted(self, batch):
        calls.append(1)
        if len(calls) == limit:
            raise KeyboardInterrupt
        return loss(self, batch)

    monkeypatch.setattr(GraphObjective, "loss", counted)
    limit = 45  # in the second learning rate
    with pytest.raises(BaseException):  # noqa: B017, PT011 - however lightning leaves the loop
        predicted(graph_model(model, nodes, **grid, folder=tmp_path), train, test, fold=0)
    finished = list(tmp_path.glob("*/done.json"))
    assert len(finished) == 1
    calls.clear()
    limit = 10**9
    again = predicted(
        graph_model(model, nodes, **grid, folder=tmp_path), train, test, fold=0
    ).values
    np.testing.assert_array_equal(again, want)
    assert len(calls) < 45
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong", [{"lrs": []}, {"batch_sizes": [0]}, {"epochs": 0}, {"validation": 1.0}]
)
def test_options_out_of_range(graph, wrong):
    model, nodes, _ = graph
    with pytest.raises(ParameterError):
        graph_model(model, nodes, **QUICK | wrong)


def test_what_decides_the_numbers_is_in_the_key(graph):
    model, nodes, _ = graph
    base = graph_model(model, nodes, **QUICK)
    assert base.digest == graph_model(model, nodes, **QUICK).digest
    assert base.spec != graph_model(model, nodes, **QUICK, frozen=True).spec
    assert base.digest != graph_model(model, nodes.iloc[::-1], **QUICK).digest
    assert not base.joint
