"""Fusion transformer: masking, published sizes, training that can be killed, and no peeking."""

from dataclasses import replace

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from sklearn.model_selection import train_test_split
from worlds import responses_of

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.embeddings.base import Embedding
from perturbcore.models.fusion import network as nw
from perturbcore.models.fusion import transformer as tr
from perturbcore.models.fusion.learner import FusionLearner, LabelSums
from perturbcore.models.fusion.sources import lay_out, normalise
from perturbcore.score.evaluate import evaluate
from perturbcore.score.model import Fold, fit_predict

torch.set_num_threads(1)
TINY = dict(
    d_model=12, heads=3, layers=2, batch=8, max_epochs=3, patience=3, warmup=0.5, ae_widths=(8,)
)
ESSENTIAL = [
    *(4352, 384, 1024, 1280, 2304, 2304, 1024, 2048, 512, 128, 256, 640, 128, 256, 640, 512, 512),
    *[1536] * 6,
    *(318, 256, 128, 256, 128, 512),
]
SCIPLEX = [384, 384, 126, 2000, 2000, 315, 2000, 167, 2000, 1536]
TAHOE = [
    *(384, 384, 1536, 167, 2000, 512, 1000, 800, 2000, 315, 1024, 2000, 2000, 1536),
    *(300, 300, 1000, 800, 881, 189, 223, 2000, 2000, 79, 511, 511, 519, 519, 1920),
]


def make(task="lfc", n=24, genes=10, lines=("A", "B"), seed=0):
    """Responses that are a linear map of two embeddings; three embeddings that miss some ids."""
    rng = np.random.default_rng(seed)
    ids = np.array([f"P{i:02d}" for i in range(n)])
    z = rng.normal(size=(n, 6)).astype(np.float32)
    first = Embedding("first", "Prior knowledge", ids, z[:, :3])
    second = Embedding("second", "Protein", ids[3:], z[3:, 3:])
    third = Embedding(
        "third", "Protein", ids[::2], rng.normal(size=(len(ids[::2]), 4)).astype(np.float32)
    )
    W = rng.normal(size=(6, genes))
    Y = np.concatenate([z @ W + i for i in range(len(lines))])
    how = dict(n_folds=4, seed=seed, genes=[f"P{i:02d}" for i in range(genes)], task=task)
    if task != "lfc":
        Y = np.sign(Y) * (np.abs(Y) > 1.5)
    if task.endswith("pairs"):
        how["observed"] = rng.random(Y.shape) < 0.7
    return responses_of(Y, ids, lines, **how), [first, second, third]


def untrained(model, responses):
    """An untrained learner of all rows, and the numbers of these."""
    obs = responses.obs[["perturbation", "cell_line"]]
    rows = np.ones(len(obs), dtype=bool)
    everything = replace(Fold.of(responses, 0), train=responses)
    sources = lay_out(model.embeddings, obs, rows)
    return model.build(everything, obs, sources, rows), torch.arange(len(obs))


def network(settings, n_sources=3, n_lines=2, n_out=5, seed=0):
    """A network of sources of width 4, and tables of 9 vectors for them."""
    names = [f"s{j}" for j in range(n_sources)]
    net = nw.FusionNetwork(settings, names, [4] * n_sources, n_lines, n_out, seed=seed).eval()
    draw = torch.Generator().manual_seed(1)
    return net, [torch.randn(10, 4, generator=draw) for _ in names]


@pytest.mark.parametrize(
    ("name", "dims", "lines", "outputs", "count"),
    [
        ("lfc_simple", ESSENTIAL, 4, 6640, 3_910_440),
        ("lfc_full", ESSENTIAL, 4, 6640, 23_677_386),
        ("deg_essential", ESSENTIAL, 4, 3 * 6640, 5_500_820),
        ("deg_sciplex", SCIPLEX, 3, 3 * 18590, 7_376_370),
        ("deg_tahoe", TAHOE, 45, 3 * 19937, 9_363_111),
    ],
)
def test_presets_have_the_published_number_of_parameters(name, dims, lines, outputs, count):
    profiles = np.zeros((lines, 6640), np.float32)
    names = [f"s{j}" for j in range(len(dims))]
    net = nw.FusionNetwork(nw.preset(name), names, dims, lines, outputs, profiles=profiles)
    assert sum(p.numel() for p in net.parameters()) == count


@pytest.mark.parametrize("line", ["add", "token", "apart"])
def test_a_masked_source_changes_no_bit(line):
    settings = nw.Settings(d_model=12, heads=3, layers=2, line=line, gate=True, token_norm=True)
    net, tables = network(settings)
    # parts draw from streams of their own: three sources of four start as they do among three
    more, extended = network(settings, n_sources=4)
    at = torch.tensor([[0, 1, 2], [3, 9, 4], [9, 9, 5], [9, 9, 9]])
    number = torch.tensor([0, 1, 1, 0])
    expected = net(tables, at, number)
    masked = torch.cat([at, torch.full((4, 1), 9)], dim=1)
    assert torch.equal(more([*tables, extended[3]], masked, number), expected)
    # what stands in the place of a missing vector is never read
    for table in tables:
        table[9] = torch.randn(4)
    assert torch.equal(net(tables, at, number), expected)


def test_an_encoder_layer_is_torch_s_where_nothing_is_masked():
    torch.manual_seed(0)
    ours = nw.EncoderLayer(12, 3, 0.0, gate=False)
    theirs = torch.nn.TransformerEncoderLayer(12, 3, 24, 0.0, "gelu", batch_first=True)
    parts = (ours.query, ours.key, ours.value)
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
        theirs.self_attn.in_proj_bias.copy_(torch.cat([p.bias for p in parts]))
    theirs.self_attn.out_proj.load_state_dict(ours.out.state_dict())
    for mine, name in (("up", "linear1"), ("down", "linear2"), ("norm1",) * 2, ("norm2",) * 2):
        getattr(theirs, name).load_state_dict(getattr(ours, mine).state_dict())
    x = torch.randn(4, 5, 12)
    alive = torch.ones(4, 5, dtype=torch.bool)
    assert torch.allclose(ours(x, alive)[0], theirs(x), atol=1e-5)
    alive[1:, 3:] = False
    masked, weights = ours(x, alive, weights=True)
    assert torch.allclose(masked[:, :3], theirs(x, src_key_padding_mask=~alive)[:, :3], atol=1e-5)
    assert weights[1:, :, 3:].abs().max() == 0
    assert torch.allclose(ours(x, alive, n=1)[0], masked[:, :1], atol=1e-6)
    assert all(
        not p.any() for n, p in nw.Encoder(12, 3, 2, 0.0, True).named_parameters() if "bias" in n
    )
    gated = nw.EncoderLayer(12, 3, 0.0, gate=True)
    gated.load_state_dict(ours.state_dict(), strict=False)
    with torch.no_grad():
        gated.gate.weight.zero_()
        gated.gate.bias.fill_(40.0)
    assert torch.allclose(gated(x, alive)[0], masked, atol=1e-6)


def model_of(embeddings, name="lfc_simple", **changes):
    """A tiny model of a preset."""
    controls = pd.DataFrame(np.random.default_rng(5).random((2, 10)), index=["A", "B"])
    settings = nw.preset(name, **{**TINY, **changes})
    return tr.TransformerFusion(embeddings, settings, controls=controls)


CASES = [
    ("lfc", "lfc_simple", {}),
    ("lfc", "lfc_full", {}),
    ("deg", "deg_sciplex", {}),
    ("deg_pairs", "labels", {"validation": 0.2}),
]


@pytest.mark.parametrize(("task", "name", "changes"), CASES)
def test_trains_and_predicts_with_missing_sources_without_looking_at_test_rows(
    task, name, changes, tmp_path, monkeypatch
):
    responses, embeddings = make(task)
    model = model_of(embeddings, name, **changes)
    cut = Fold.of(responses, 0)
    first = fit_predict(replace(model, folder=tmp_path), cut)
    assert not cut.test.layers and np.isnan(cut.test.X).all()
    assert first.values.shape == cut.task.shape(*cut.test.shape)
    assert np.isfinite(first.values).all()
    if task == "deg":
        assert np.allclose(first.values.sum(axis=0), 1, atol=1e-5)
    # the same seed, the embeddings in another order: the same scores
    again = replace(model, embeddings=embeddings[::-1])
    assert again.digest == model.digest
    assert np.array_equal(fit_predict(again, cut).values, first.values)
    other = fit_predict(replace(model, seed=7), cut)
    assert not np.array_equal(other.values, first.values)
    # a finished training is loaded
    monkeypatch.setattr(FusionLearner, "loss", lambda *_: 1 / 0)
    assert np.array_equal(fit_predict(replace(model, folder=tmp_path), cut).values, first.values)


@pytest.mark.parametrize(("task", "name", "changes"), CASES)
def test_gradients_reach_every_parameter(task, name, changes):
    responses, embeddings = make(task)
    model = model_of(embeddings, name, **changes)
    learner, every = untrained(model, responses)
    optimizer = learner.train().optimizer()
    reached = {n: torch.zeros_like(p) for n, p in learner.named_parameters()}
    # heads that start at zero let gradients through after the first step
    for _ in range(3):
        optimizer.zero_grad()
        learner.loss(every)["loss"].backward()
        for n, p in learner.named_parameters():
            assert p.grad is not None, n
            reached[n] += p.grad.abs()
        optimizer.step()
    # a key's bias shifts all attention logits alike, and softmax takes that out
    still = [n for n, g in reached.items() if float(g.max()) == 0 and not n.endswith("key.bias")]
    assert still == []


def test_validation_is_as_published():
    ids = np.array(list("bacbedafgh"))
    _, held = train_test_split(list("bacedfgh"), test_size=0.2, random_state=42)
    marked = tr.validation_rows(ids, 0.2, ["A"] * 10)
    assert set(ids[marked]) == set(held) and not set(ids[~marked]) & set(held)
    assert not tr.validation_rows(ids, 0, ["A"] * 10).any()


def test_losses_are_the_published_ones():
    responses, embeddings = make("deg")
    model = model_of(embeddings, "deg_sciplex")
    learner, every = untrained(model, responses)
    learner, batch = learner.eval(), every[::3]
    logit = torch.as_tensor(learner.predict(batch)).reshape(len(batch), -1, 3)
    label = np.asarray(responses.layers["deg"]) + 1
    each = []
    for g in range(label.shape[1]):
        n = np.bincount(label[:, g], minlength=3)
        weight = torch.tensor([len(label) / (3 * c) if c else 0.0 for c in n], dtype=torch.float32)
        target = torch.as_tensor(label[batch.numpy(), g]).long()
        each.append(torch.nn.functional.cross_entropy(logit[:, g], target, weight=weight))
    assert float(learner.validation_loss(batch).detach()) == pytest.approx(
        float(torch.stack(each).mean()), rel=1e-5
    )
    responses, embeddings = make("lfc")
    learner = untrained(model_of(embeddings), responses)[0].eval()
    error = learner.predict(batch) - responses.X[batch.numpy()]
    expected = np.linalg.norm(error, axis=1).mean()
    assert float(learner.validation_loss(batch).detach()) == pytest.approx(expected, rel=1e-5)


def test_neighbours_start_as_the_smoother_they_say_and_never_see_their_own_labels():
    responses, embeddings = make("deg_pairs", n=16, genes=6)
    model = model_of(embeddings, "labels")
    learner, every = untrained(model, responses)
    score, obs = learner.predict(every), responses.obs
    label, observed = responses.layers["deg"] != 0, responses.layers["observed"]
    ids, line = obs["perturbation"].to_numpy(), obs["cell_line"].to_numpy()
    K = np.zeros((len(ids), len(ids)))
    for e in embeddings:
        at = e.ids.get_indexer(ids)
        X = e.X[np.unique(at[at >= 0])]
        Z = np.where(at[:, None] >= 0, (e.X[at] - X.mean(axis=0)) / X.std(axis=0), 0)
        Z = Z / np.maximum(np.linalg.norm(Z, axis=1, keepdims=True), 1e-9)
        K += np.maximum(Z @ Z.T, 0)
    K = (K + 1e-8) ** 3
    K[ids[:, None] == ids] = 0
    K *= np.where(line[:, None] == line, 1, 0.3)
    K *= 60 / K.sum(axis=1, keepdims=True)
    for i in range(len(ids)):
        here = line == line[i]
        overall = label[here][observed[here]].mean()
        rate = ((label & observed)[here].sum(axis=0) + 5 * overall) / (
            observed[here].sum(axis=0) + 5
        )
        z = (K[i] @ (label & observed) + 3 * rate) / (K[i] @ observed + 3)
        assert np.allclose(score[i], np.log(z / (1 - z)), atol=1e-3)
    around = [learner.neighbours.strength.data, learner.neighbours.alike.data]
    for part in around:
        part.fill_(0.3)
    batch, row = torch.tensor([1, 30, len(ids) - 1]), torch.tensor([0, 0, 1, 2, 2])
    where = (learner.vector(batch), batch, learner.line[batch], learner.alive(batch))
    gene, vector = torch.tensor([3, 4, 5, 0, 1]), where[0]
    all_genes = learner.scores(vector, batch) - learner.network.head(vector)
    assert torch.allclose(learner.neighbours(*where, row, gene), all_genes[row, gene], atol=1e-5)
    for part in around:
        part.zero_()
    # in training, labels of the perturbation itself do not move its score
    batch = torch.tensor([2])
    where = (learner.vector(batch), batch, learner.line[batch], learner.alive(batch))
    ask = (*where, torch.zeros(6, dtype=torch.long), torch.arange(6))
    own = torch.as_tensor((label & observed)[2].astype(np.float32))
    asked = observed[2]
    before = learner.neighbours(*ask, own)[asked]
    flipped = responses.copy()
    flipped.layers["deg"][2] = np.where(label[2], 0, 1)
    changed, _ = untrained(model, flipped)
    # the line's overall rate, towards which a gene's is pulled, is common to all: it is kept here
    changed.neighbours.overall.copy_(learner.neighbours.overall)
    after = changed.neighbours(*ask, 1 - own)[asked]
    assert torch.allclose(before, after, atol=1e-6)


def test_label_sums_and_their_gradient_are_those_by_listing():
    rng = np.random.default_rng(0)
    start = torch.tensor([0, 2, 2, 7])
    column = torch.as_tensor(rng.integers(0, 6, 7))
    label = torch.as_tensor(rng.integers(0, 2, 7).astype(np.float32))
    row, gene = torch.tensor([0, 1, 1, 3]), torch.tensor([0, 2, 1, 2])

    def listed(weight, row, gene, start, column, label):
        each = [slice(start[g], start[g + 1]) for g in gene]
        w = [weight[r, column[e]] for r, e in zip(row, each, strict=True)]
        hit = [(x * label[e]).sum() for x, e in zip(w, each, strict=True)]
        return torch.stack(hit), torch.stack([x.sum() for x in w])

    found = []
    for function in (LabelSums.apply, listed):
        weight = torch.arange(24.0).reshape(4, 6).requires_grad_()
        hit, seen = function(weight, row, gene, start, column, label)
        (hit.square().sum() + 2 * seen.square().sum()).backward()
        found.append((hit.detach(), seen.detach(), weight.grad))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b)


def test_evaluates_jointly_and_refuses_a_line_without_training_rows():
    responses, embeddings = make("lfc")
    model = model_of(embeddings)
    scores = evaluate(responses, [model], folds=[1], metrics=["L2"], progress=False)
    assert set(scores["cell_line"]) == {"A", "B"}
    cut = Fold.of(responses, 0)
    cut.test.obs["cell_line"] = "C"
    pytest.raises(InputError, model.fit, cut).match("'C' has no training rows")


def test_expression_of_one_line_can_serve_all():
    ids = ["P1", "P2"]
    obs = pd.DataFrame({"perturbation": ids * 2, "cell_line": ["A", "A", "B", "B"]})
    train = np.ones(4, dtype=bool)
    a = Embedding("cells", "Expression", ids, np.array([[1.0], [2.0]]), cell_line="A")
    b = Embedding("cells", "Expression", ids, np.array([[3.0], [4.0]]), cell_line="B")
    own = lay_out([b, a], obs, train)
    assert own.tables[0][own.at[:, 0], 0].tolist() == [1, 2, 3, 4]
    quirk = lay_out([a, b], obs, train, expression_line="B")
    assert quirk.tables[0][quirk.at[:, 0], 0].tolist() == [3, 4, 3, 4]
    only = lay_out([a], obs, train)
    assert only.present[:, 0].tolist() == [True, True, False, False]
    pytest.raises(ParameterError, lay_out, [a, b], obs, train, expression_line="C").match("'C'")
    pytest.raises(InputError, lay_out, [a, a], obs, train).match("two embeddings")


def test_sources_are_normalised_over_training_rows():
    responses, embeddings = make("lfc")
    train = (responses.obs["fold"] != 0).to_numpy()
    sources = lay_out(embeddings, responses.obs, train)
    z, unit = (normalise(sources, train, kind).tables for kind in ("zscore", "unit"))
    rows = sources.tables[1][sources.at[train, 1]]
    expected = (sources.tables[1] - rows.mean(axis=0)) / rows.std(axis=0, ddof=1)
    assert np.allclose(z[1], expected, atol=1e-5)
    assert np.allclose(np.linalg.norm(unit[2][:-1], axis=1), 2, atol=1e-5)
    assert not unit[2][-1].any()


def test_control_profiles_follow_the_published_quirk():
    table = pd.DataFrame([[1.0, 2.0], [3.0, 2.0]], index=["A", "B"])
    quirk = nw.line_profiles(table, ["B", "A"])
    assert quirk[0, 0] == pytest.approx((np.log1p(3) - 2) / np.sqrt(2))
    pytest.raises(InputError, nw.line_profiles, table, ["C"]).match("'C'")


@pytest.mark.parametrize(("task", "name"), [("deg_pairs", "labels"), ("lfc", "lfc_simple")])
def test_attention_is_shared_by_the_sources_that_are_there(task, name):
    responses, embeddings = make(task)
    cut = Fold.of(responses, 0)
    model = model_of(embeddings, name).fit(cut)
    share = model.attention(np.arange(len(cut.train_ids), responses.n_obs))
    assert np.allclose(np.nansum(share, axis=1), 1, atol=1e-5)
    assert np.array_equal(np.isnan(share[:, 2]), ~cut.test_ids.isin(embeddings[2].ids))
    noted = model.predict(cut).note["weights"]
    expected = dict(zip(noted, np.nanmean(share, axis=0), strict=True))
    assert noted == pytest.approx(expected, abs=1e-4)


RATE = {"low": 1e-3, "high": 1e-2, "log": True}
SPACE = {"layers": {"low": 1, "high": 2}, "lr": RATE, "line": ["add", "token"]}


@pytest.mark.parametrize("wrong", [{"low": 1}, {"low": 1, "high": 0.1}, 3, []])
def test_a_space_that_is_not_understood_is_refused(wrong):
    assert list(tr.search_space(None)) == list(tr.search_space(SPACE)) == list(SPACE)
    pytest.raises(ParameterError, tr.search_space, {"lr": wrong}).match("space")


def tried(folder) -> list:
    """Settings and loss of each trial of the one search in a folder."""
    (name,) = optuna.get_all_study_names(storage := f"sqlite:///{folder / 'search.sqlite'}")
    return [(t.params, t.value) for t in optuna.load_study(study_name=name, storage=storage).trials]


def test_trials_search_each_fold_on_its_training_rows_and_go_on_where_they_were(tmp_path):
    responses, embeddings = make("lfc", n=12)
    cut, plain = Fold.of(responses, 0), model_of(embeddings, max_epochs=1)
    model = replace(plain, trials=3, space=SPACE, folder=tmp_path)
    assert model.spec != plain.spec and replace(plain, trials=0, space=SPACE).spec == plain.spec
    searches = tmp_path / "searches"
    tr.tune(model, cut, trials=2, folder=searches)
    two = tried(searches)
    told = fit_predict(model, cut)  # goes on with the third
    three = tried(searches)
    assert len(three) == told.note["trials"] == 3 and three[:2] == two
    chosen = tr.tune(model, cut, trials=3, folder=searches)
    assert told.note["tuned"] == chosen == min(three, key=lambda t: t[1])[0]
    best = replace(plain, settings=plain.settings.changed(**chosen))
    for same in (best, replace(model, folder=None)):
        np.testing.assert_array_equal(told.values, fit_predict(same, cut).values)
    with pytest.raises(ParameterError, match="validation > 0"):
        replace(plain, settings=plain.settings.changed(validation=0.0), trials=2)


def test_genes_have_vectors_of_their_own():
    _, embeddings = make()
    vectors = tr.gene_vectors(embeddings, ["P00", "P04", "other", "P06"])
    assert vectors.shape == (4, 4)
    assert np.isfinite(vectors).all()
    assert tr.gene_vectors(embeddings, ["x", "y"]).tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("labels", {"head": "big"}, "head='big'.*'linear' or 'mlp'"),
        ("labels", {"heads": 7}, "shared by 7 heads"),
        ("labels", {"width": 3}, "unknown key width"),
        ("labels", {"dropout": 1.0}, "dropout=1.0"),
        ("large", {}, "preset 'large' is not one of: lfc_simple"),
        ("lfc_full", {}, "control profiles: give controls="),
    ],
)
def test_settings_refuse_what_cannot_be(name, changes, message):
    with pytest.raises(ParameterError, match=message):
        tr.TransformerFusion(make()[1], nw.preset(name, **changes))
