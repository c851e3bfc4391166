"""Fine-tuning a graph network or a text encoder: exact parts, no look at test responses, gains."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
import worlds
from sklearn.metrics import log_loss
from toys import tokenizer_of
from transformers import BertConfig, BertModel
from worlds import communities

from perturbcore.core.digest import digest
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.embeddings.gcn import normalised
from perturbcore.embeddings.network import pretrained_network
from perturbcore.models.finetuning import graph as fg
from perturbcore.models.finetuning.model import TrainingLabels
from perturbcore.score.evaluate import evaluate
from perturbcore.score.model import Fold, fit_predict

QUICK = dict(lrs=[1e-2], batch_sizes=[32], epochs=15, patience=4)


@pytest.fixture(scope="module")
def graph():
    edges, community = communities(160, 4)
    model, ids = pretrained_network(
        edges.drop(columns="weight"), dim=12, layers=2, dropout=0.0, lr=1e-2, batch_size=10_000, max_epochs=60, patience=20,
    )  # fmt: skip
    return model, pd.Series(np.arange(len(ids)), ids), community


def responses_of(community, task="lfc", g=12, noise=0.3, unknown=5, seed=0):
    """Responses that depend on the community; of the last perturbations nothing is known."""
    rng = np.random.default_rng(seed)
    names = [*community.index, *(f"X{i}" for i in range(unknown))]
    kind = np.r_[community.to_numpy(), rng.integers(4, size=unknown)]
    effect = rng.normal(size=(4, g)) + 1
    X = effect[kind] + noise * rng.normal(size=(len(names), g))
    if task == "lfc":
        return worlds.responses_of(X, names)
    deg = np.where(X > 1.5, 1, np.where(X < 0.3, -1, 0))
    observed = rng.random(deg.shape) < 0.6 if task.endswith("pairs") else None
    return worlds.responses_of(deg, names, task=task, observed=observed)


@pytest.fixture(scope="module")
def tune(graph):
    """Make the model of the graph, quick to train, with some options changed."""
    model, nodes, _ = graph
    return lambda **changes: fg.FineTunedGraph(model, nodes, **QUICK | changes)


@pytest.mark.parametrize("task", ["lfc", "deg", "deg_pairs", "dir_pairs"])
def test_head_starts_at_the_floor_of_the_training_responses(graph, tune, task):
    responses = responses_of(graph[2], task)
    if task == "deg_pairs":  # a gene without a known label
        responses.layers["observed"][:, 3], responses.layers["deg"][:, 3] = False, 0
    fold = Fold.of(responses, 0)
    found = fit_predict(tune(lrs=[1e-9], epochs=1), fold).values
    floor = fold.task.floor(fold.truth, fold.test.n_obs)
    np.testing.assert_allclose(found, floor, rtol=1e-3)


def test_unknown_labels_have_no_weight(graph):
    model, data = graph[0], TrainingLabels(Fold.of(responses_of(graph[2], "deg_pairs"), 0))
    z = np.outer(np.float32([-1, 1]), np.ones(12, "f"))
    head = fg.GraphObjective(copy.deepcopy(model.network), z, data.bias(), data.task, 1e-3)
    torch.nn.init.normal_(head.weight)
    batch = fg.neighbourhood(normalised(model.A), 2, np.arange(6))
    label, known = data.label[:6], data.known[:6]
    given = {"response": np.where(known, label, 1 - label), "known": known}
    found = head.loss(batch | {k: torch.as_tensor(v) for k, v in given.items()})["loss"].item()
    p = 1 / (1 + np.exp(-head(**batch).detach().numpy()))
    assert found == pytest.approx(log_loss(label[known], p[known]), rel=1e-4)


@pytest.mark.parametrize(
    ("task", "metric"),
    [
        ("lfc", "Pearson_delta"),
        ("deg", "roc_auc"),
        ("deg_pairs", "auroc_within"),
        ("dir_pairs", "macro_F1"),
    ],
)
def test_it_learns_where_responses_follow_the_graph(graph, tune, task, metric):
    scores = evaluate(responses_of(graph[2], task), [tune()], folds=[0], progress=False)
    assert scores.set_index("metric")["value"][metric] > (0.6 if metric == "macro_F1" else 0.7)


def test_perturbations_outside_the_graph_get_the_training_mean(graph, tune):
    fold = Fold.of(responses_of(graph[2]), 0)
    outside = fold.test_ids.str.startswith("X")
    found = fit_predict(tune(), fold)
    nothing = fg.FineTunedGraph(graph[0], pd.Series([0], ["elsewhere"]), **QUICK)
    assert found.coverage == pytest.approx(160 / 165)
    for values in (found.values[outside], fit_predict(nothing, fold).values):
        assert len(values)
        mean = np.tile(fold.train.X.mean(axis=0), (len(values), 1))
        np.testing.assert_allclose(values, mean, rtol=1e-5)


def test_same_seed_same_numbers_whatever_the_order_of_rows(graph, tune):
    model, nodes, community = graph
    before, responses = tune().digest, responses_of(community)
    fold, turned = Fold.of(responses, 0), Fold.of(responses, 0)
    turned.train = turned.train[np.random.default_rng(0).permutation(fold.train.n_obs)].copy()
    one, again, moved = (fit_predict(tune(), f).values for f in (fold, fold, turned))
    np.testing.assert_array_equal(one, again)
    np.testing.assert_allclose(one, moved, atol=1e-5)
    assert np.abs(one - fit_predict(tune(seed=1), fold).values).max() > 1e-4
    # the pretrained network stays as it is, and what decides the numbers is in the key
    assert tune().digest == before and tune().spec != tune(frozen=True).spec
    assert before != fg.FineTunedGraph(model, nodes.iloc[::-1], **QUICK).digest


def test_a_diverging_rate_is_not_chosen(graph, tune):
    for wrong in ({"lrs": []}, {"batch_sizes": [0]}, {"epochs": 0}):
        pytest.raises(ParameterError, tune, **wrong).match(next(iter(wrong)))
    fold = Fold.of(responses_of(graph[2]), 0)
    found = fit_predict(tune(lrs=[1e30, 1e-2]), fold)
    assert "lr 0.01" in found.chosen and np.isfinite(found.values).all()
    pytest.raises(InputError, fit_predict, tune(lrs=[1e30]), fold).match("every learning rate")


def test_a_killed_run_resumes_to_the_same_numbers(graph, tune, tmp_path, monkeypatch):
    fold, grid = Fold.of(responses_of(graph[2]), 0), dict(lrs=[1e-2, 1e-3], epochs=6)
    want = fit_predict(tune(**grid), fold).values
    loss, calls = fg.GraphObjective.loss, []

    def killed(self, batch):
        calls.append(1)
        if len(calls) == 45:  # in the second learning rate
            raise KeyboardInterrupt
        return loss(self, batch)

    monkeypatch.setattr(fg.GraphObjective, "loss", killed)
    with pytest.raises(KeyboardInterrupt):
        fit_predict(tune(**grid, folder=tmp_path), fold)
    assert len(list(tmp_path.glob("*/done.json"))) == 1
    again = fit_predict(tune(**grid, folder=tmp_path), fold).values
    np.testing.assert_array_equal(again, want)
    assert len(calls) < 90 and not list(tmp_path.iterdir())


# texts

TOPICS = ["kinase", "channel", "receptor", "ribosome"]


@pytest.fixture(scope="module")
def made():
    """Tokenizer, encoder, texts of 80 genes with one topic each, and the topics."""
    words = [*TOPICS, *(f"w{i}" for i in range(30))]
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48)
    encoder = BertModel(BertConfig(vocab_size=40, max_position_embeddings=40, **sizes))
    rng = np.random.default_rng(0)
    topic = pd.Series(np.arange(80) % 4, [f"G{i:02d}" for i in range(80)])
    texts = {
        g: " ".join(rng.permutation([TOPICS[t], *rng.choice(words[4:], rng.integers(2, 9))]))
        for g, t in topic.items()
    }
    return tokenizer_of(words), encoder, texts, topic


def model_of(made, **options):
    names = pd.Series(np.arange(len(made[2])), index=list(made[2]))
    how = dict(name="Toy", modality="Language model", lrs=[0.01], batch_sizes=[16], epochs=12)
    return fg.FineTunedText(*made[:3], names, **how, patience=3, **options)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_the_layers_on_the_states_below_are_the_whole_encoder(made, layers):
    model, at = model_of(made, layers=layers), [3, 41, 7, 60]
    tokens = made[0]([list(made[2].values())[i] for i in at], padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = made[1].eval()(**tokens).last_hidden_state.numpy()
        there = np.broadcast_to(tokens["attention_mask"].numpy()[..., None], hidden.shape)
        whole = np.average(hidden, axis=1, weights=there)
        objective = fg.TextObjective(model.top, np.zeros((2, 32), "f"), np.zeros(2), None, 0.1)
        np.testing.assert_allclose(objective.eval().embed(**model.read(at)), whole, atol=1e-5)
    np.testing.assert_allclose(model.states()[2][at], whole, atol=1e-5)


def test_adapters_and_head_learn_and_the_given_encoder_stays(made):
    pytest.raises(InputError, model_of, made, layers=4).match("layers=4 of 3")
    other = made[0], torch.nn.Linear(2, 2), *made[2:]
    pytest.raises(InputError, model_of, other).match("keep their layers as BERT does")
    before, truth = digest(made[1]), responses_of(made[3], noise=0.2)
    both = [model_of(made), model_of(made, layers=0)]
    scores = evaluate(truth, both, folds=[0, 1], metrics=["L2"], progress=False)
    l2 = scores.groupby("predictor")["value"].mean()
    floor = np.linalg.norm(truth.X - truth.X.mean(axis=0), axis=1).mean()
    assert l2["LoRA + linear"] < l2["frozen + linear"] < floor and l2["LoRA + linear"] < 0.9 * floor
    assert digest(made[1]) == before
