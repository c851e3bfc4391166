"""Fine-tuning a graph network or a text encoder: exact parts, no look at test responses, gains."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
import worlds
from toys import tokenizer_of
from transformers import BertConfig, BertModel
from worlds import communities

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.gcn import normalised, sparse_tensor
from perturbcore.embeddings.network import pretrained_network
from perturbcore.models.finetuning import graph as fg
from perturbcore.models.finetuning.model import TrainingLabels
from perturbcore.models.simple import evaluate_embeddings as evaluate
from perturbcore.models.simple.knn import KNN
from perturbcore.models.simple.space import Protocol
from perturbcore.report import finetuning
from perturbcore.score.evaluate import evaluate as evaluate_models
from perturbcore.score.labels import Labels
from perturbcore.score.metrics.pairs import auroc_within
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


def head_of(model, data):
    network = copy.deepcopy(model.network)
    z = np.outer(np.float32([-1, 1]), np.ones(12, "f"))
    return fg.GraphObjective(network, z, data.bias(), data.task, 1e-3)


@pytest.fixture(scope="module")
def tune(graph):
    """Make the model of the graph, quick to train, with some options changed."""
    model, nodes, _ = graph
    return lambda **changes: fg.FineTunedGraph(model, nodes, **QUICK | changes)


def test_neighbourhood_gives_the_value_and_gradient_of_the_whole_graph(graph):
    model, _, _ = graph
    A = normalised(model.A)
    nodes = np.array([5, 90, 17, 5])
    whole, part = copy.deepcopy(model.network), copy.deepcopy(model.network)
    want = whole(sparse_tensor(A))[torch.as_tensor(nodes)]
    got = fg.read_nodes(part, **fg.neighbourhood(A, 2, nodes))
    torch.testing.assert_close(got, want)
    weight = torch.randn(4, 12)
    for z in (want, got):
        (weight * z.square()).sum().backward()
    for a, b in zip(whole.parameters(), part.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad)
    # nothing that is too far is read
    near = fg.neighbourhood(A, 1, np.array([0]))
    assert set(near["start"].tolist()) == {0, *model.A[0].indices}


@pytest.mark.parametrize("task", ["lfc", "deg", "deg_pairs", "dir_pairs"])
def test_head_starts_at_what_the_training_responses_say(graph, task):
    model, _, community = graph
    fold = Fold.of(responses_of(community, task), 0)
    head, train = head_of(model, TrainingLabels(fold)), fold.train
    found = head(**fg.neighbourhood(normalised(model.A), 2, np.array([3, 8]))).detach().numpy()
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
    data = TrainingLabels(Fold.of(responses_of(community, "deg_pairs"), 0))
    torch.manual_seed(0)
    head = head_of(model, data)
    torch.nn.init.normal_(head.weight)
    batch = fg.neighbourhood(normalised(model.A), 2, np.arange(6))
    label, known = torch.as_tensor(data.label[:6]), torch.as_tensor(data.known[:6])
    flipped = torch.where(known, label, 1 - label)
    want, other = (
        head.loss({**batch, "response": v, "known": known})["loss"] for v in (label, flipped)
    )
    assert want == other
    p = 1 / (1 + np.exp(-head(**batch).detach().numpy()))
    y, o = data.label[:6], data.known[:6]
    by_hand = -np.log(np.where(y == 1, p, 1 - p))[o]
    assert want.item() == pytest.approx(by_hand.mean(), rel=1e-4)


def test_it_learns_where_responses_follow_the_graph(graph, tune):
    model, nodes, community = graph
    responses = responses_of(community)
    vectors = Embedding("G", "Prior knowledge", nodes.index, model.vectors())
    options = dict(folds=[0], metrics=["L2"], progress=False)
    joint = evaluate_models(responses, [tune(), tune(frozen=True)], **options)
    frozen = evaluate(responses, [vectors], [KNN([5, 10])], protocol=Protocol(10), **options)
    value = pd.concat([joint, frozen]).groupby("predictor")["value"].mean()
    assert value["fine-tuned"] < 0.7 * value["train_mean"]
    assert value["frozen + linear"] < 0.9 * value["train_mean"]
    assert value["knn"] < 0.7 * value["train_mean"]
    covered = joint.drop_duplicates("fold")["coverage"]
    np.testing.assert_allclose(covered, 160 / 165)


@pytest.mark.parametrize("task", ["deg_pairs", "dir_pairs"])
def test_partial_labels(graph, tune, task):
    scores = evaluate_models(responses_of(graph[2], task), [tune()], folds=[0], progress=False)
    value = scores.set_index("metric")["value"]
    assert value["auroc_within"] > 0.7 and value["macro_F1"] > 0.6


def test_classes(graph, tune):
    truth = responses_of(graph[2], "deg")
    fold = Fold.of(truth, 0)
    found = fit_predict(tune(), fold).values
    np.testing.assert_allclose(found.sum(axis=0), 1, rtol=1e-5)
    label = truth[fold.test.obs_names].layers["deg"] == 1
    gene = np.tile(np.arange(12), (len(label), 1))
    assert auroc_within(label.ravel().astype(float), found[2].ravel(), gene.ravel()) > 0.7


def test_a_gene_without_a_known_label_is_predicted_at_the_overall_rate(graph, tune):
    responses = responses_of(graph[2], "deg_pairs")
    responses.layers["observed"][:, 3] = False
    responses.layers["deg"][:, 3] = 0
    fold = Fold.of(responses, 0)
    label, known = fold.train.layers["deg"] != 0, fold.train.layers["observed"]
    found = fit_predict(tune(), fold).values
    np.testing.assert_allclose(found[:, 3], label[known].mean(), rtol=1e-4)


def test_perturbations_outside_the_graph_get_the_training_mean(graph, tune):
    fold = Fold.of(responses_of(graph[2]), 0)
    outside = fold.test_ids.str.startswith("X")
    found = fit_predict(tune(), fold)
    nothing = fg.FineTunedGraph(graph[0], pd.Series([0], ["elsewhere"]), **QUICK)
    for values in (found.values[outside], fit_predict(nothing, fold).values):
        assert len(values)
        mean = np.tile(fold.train.X.mean(axis=0), (len(values), 1))
        np.testing.assert_allclose(values, mean, rtol=1e-5)
    assert found.coverage == pytest.approx(160 / 165)


def test_same_seed_same_numbers_whatever_the_order_of_rows(graph, tune):
    model, nodes, community = graph
    before = copy.deepcopy(model.network.state_dict())
    responses = responses_of(community)
    fold, turned = Fold.of(responses, 0), Fold.of(responses, 0)
    turned.train = turned.train[np.random.default_rng(0).permutation(fold.train.n_obs)].copy()
    one, again, moved = (fit_predict(tune(), f).values for f in (fold, fold, turned))
    np.testing.assert_array_equal(one, again)
    np.testing.assert_allclose(one, moved, atol=1e-5)
    assert np.abs(one - fit_predict(tune(seed=1), fold).values).max() > 1e-4
    for name, value in model.network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    # and what decides them is in the key
    assert tune().digest == tune().digest and tune().spec != tune(frozen=True).spec
    assert tune().digest != fg.FineTunedGraph(model, nodes.iloc[::-1], **QUICK).digest


def test_a_diverging_rate_is_not_chosen(graph, tune):
    fold = Fold.of(responses_of(graph[2]), 0)
    found = fit_predict(tune(lrs=[1e30, 1e-2]), fold)
    assert "lr 0.01" in found.chosen and np.isfinite(found.values).all()
    pytest.raises(InputError, fit_predict, tune(lrs=[1e30]), fold).match("every learning rate")


def test_a_killed_run_resumes_to_the_same_numbers(graph, tune, tmp_path, monkeypatch):
    fold, grid = Fold.of(responses_of(graph[2]), 0), dict(lrs=[1e-2, 1e-3], epochs=6)
    want = fit_predict(tune(**grid), fold).values
    loss, calls = fg.GraphObjective.loss, []

    def counted(self, batch):
        calls.append(1)
        if len(calls) == limit:
            raise KeyboardInterrupt
        return loss(self, batch)

    monkeypatch.setattr(fg.GraphObjective, "loss", counted)
    limit = 45  # in the second learning rate
    with pytest.raises(KeyboardInterrupt):
        fit_predict(tune(**grid, folder=tmp_path), fold)
    assert len(list(tmp_path.glob("*/done.json"))) == 1
    calls.clear()
    limit = 10**9
    again = fit_predict(tune(**grid, folder=tmp_path), fold).values
    np.testing.assert_array_equal(again, want)
    assert len(calls) < 45
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [{"lrs": []}, {"batch_sizes": [0]}, {"epochs": 0}])
def test_options_out_of_range(tune, wrong):
    with pytest.raises(ParameterError):
        tune(**wrong)


# texts

ENCODER = dict(
    name="Toy", modality="Language model", lrs=[0.01], batch_sizes=[16], epochs=12, patience=3
)
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
    tokenizer, encoder, texts, _ = made
    names = pd.Series(np.arange(len(texts)), index=list(texts))
    return fg.FineTunedText(tokenizer, encoder, texts, names, **ENCODER | options)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_the_layers_on_the_states_below_are_the_whole_encoder(made, layers):
    model, (tokenizer, encoder, texts, _) = model_of(made, layers=layers), made
    at = np.array([3, 41, 7, 60])
    tokens = tokenizer([list(texts.values())[i] for i in at], padding=True, return_tensors="pt")
    part = {k: tokens[k] for k in ("input_ids", "attention_mask")}
    with torch.no_grad():
        hidden, there = encoder.eval()(**part).last_hidden_state, part["attention_mask"][..., None]
        whole = (hidden * there).sum(1) / there.sum(1)
        flat = np.zeros((2, 32), "f"), np.zeros(2)
        objective = fg.TextObjective(copy.deepcopy(model.top), *flat, None, 0.1)
        read = model.read(at)
        torch.testing.assert_close(objective.eval().embed(**read), whole, atol=1e-5, rtol=0)
    np.testing.assert_allclose(model.states()[2][at], whole, atol=1e-5)


def test_adapters_and_head_learn_and_the_given_encoder_stays(made):
    before = {k: v.clone() for k, v in made[1].state_dict().items()}
    models = [model_of(made), model_of(made, layers=0)]
    responses = responses_of(made[3], noise=0.2)
    scores = evaluate(responses, [], [], models=models, folds=[0, 1], progress=False)
    l2 = scores[scores["metric"] == "L2"].groupby("predictor")["value"].mean()
    assert l2["LoRA + linear"] < l2["frozen + linear"] < l2["train_mean"]
    assert l2["LoRA + linear"] < 0.9 * l2["train_mean"]
    for k, v in made[1].state_dict().items():
        assert torch.equal(v, before[k]), k


def test_what_cannot_be_adapted_is_refused(made):
    pytest.raises(InputError, model_of, made, layers=4).match("layers=4 of 3")
    with pytest.raises(InputError, match="keep their layers as BERT does"):
        fg.FineTunedText(made[0], torch.nn.Linear(2, 2), made[2], pd.Series(dtype=int), **ENCODER)


def test_the_page_takes_encoder_and_texts_from_an_embedding(study_of, made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    made[1].save_pretrained(folder)
    made[0].save_pretrained(folder)
    spec = f"{{name: Toy, builder: language_model, source: simulated, model: {folder}}}"
    study = study_of("fine_tuning", f"\nembeddings:\n  - {spec}\n")
    quick = {"lrs": [0.01], "batch_sizes": [32], "epochs": 1, "max_length": 16}
    run = finetuning.run_fine_tuning(
        study, "simulated", texts=["Toy", "Gone"], text=quick, k=[3, 5], n_components=8, n_outer=2,
        n_inner=2,
    )  # fmt: skip
    assert run.absent == ["Gone"]
    gains = finetuning.gains(run)
    gains = gains[gains["embedding"] == "Toy"].set_index("predictor")["adapted"]
    assert gains["LoRA + linear"] and not gains["frozen + linear"]
    learnt = run.networks.set_index("embedding").loc["Toy", "learnt"]
    assert "first 16 tokens" in learnt and "(8) in its last 1 layer" in learnt
