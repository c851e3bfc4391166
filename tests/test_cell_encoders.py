"""Encoders of cells, ours and checkpoints: their vectors of genes, and fine-tuning them."""

import copy
import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity
from test_foundation_models import saved
from test_training import Evil
from toys import tokenizer_of
from worlds import cells_of, logged, responses_of

from perturbcore.core.errors import DownloadError, InputError, ParameterError
from perturbcore.data.sets.base import Dataset
from perturbcore.embeddings.build import build_all
from perturbcore.embeddings.cell_models import cells as ct
from perturbcore.embeddings.cell_models import huggingface
from perturbcore.embeddings.cell_models.huggingface import binned, load_huggingface
from perturbcore.embeddings.cell_models.tokens import control_cells
from perturbcore.embeddings.expression import cell_model
from perturbcore.embeddings.sources import BuildContext
from perturbcore.models.finetuning import cells as ft
from perturbcore.models.finetuning.model import FineTuned
from perturbcore.models.simple import evaluate_embeddings as evaluate
from perturbcore.score.model import Fold, fit_predict

N_GENES = 40
MODULE = np.arange(N_GENES) % 4
GENES = [f"G{i:02d}" for i in range(N_GENES)]


@pytest.fixture(scope="module")
def screen():
    """Genes of a module rise and fall together; two batches differ in every gene.

    The last gene is silent.
    """
    rng = np.random.default_rng(0)
    line, batch = np.repeat([0, 1], 300), rng.integers(0, 2, 600)
    rate = rng.uniform(1.0, 2.5, (2, N_GENES))[line] + 0.7 * rng.normal(size=(600, 4))[:, MODULE]
    rate += 0.8 * batch[:, None] * rng.normal(size=(2, N_GENES))[line]
    counts = rng.poisson(np.exp(rate)) * (np.arange(N_GENES) < N_GENES - 1)
    names = np.where(np.arange(600) % 10 == 0, "G00", "control")
    about = dict(batch=np.array(["b1", "b2"])[batch], cell_line=np.array(["A", "B"])[line])
    return cells_of(counts, names, control="control", genes=GENES, **about)


def planted_responses():
    """Perturbing a gene of a module has the effect of that module."""
    rng, names = np.random.default_rng(0), [*GENES[:32], "not measured"]
    effect = rng.normal(size=(4, 30))
    X = effect[np.r_[MODULE[:32], 0]] + 0.1 * rng.normal(size=(33, 30))
    # two output genes are none of the cells' genes
    return responses_of(X, names, n_folds=4, genes=[*GENES[:28], "X1", "X2"])


@pytest.fixture(scope="module")
def cells(screen):
    return control_cells(screen)


@pytest.fixture(scope="module")
def trained(cells):
    return ct.pretrain(
        cells, dim=16, heads=2, layers=1, latents=8, epochs=8, batch_size=16, lr=1e-2, asked=20
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny random BERT whose tokens are genes, with code of its own that must never be run."""
    folder = saved(tmp_path_factory.mktemp("bert"), tokenizer_of(GENES))
    (folder / "genes.json").write_text(json.dumps({g: i + 2 for i, g in enumerate(GENES[:30])}))
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text("raise SystemExit('this was run')")
    return folder


def averaged(encoder, rows):
    """Eq. 11 by a loop over cells, one at a time; also in how many cells each gene is."""
    with torch.no_grad():
        each = np.stack([encoder(torch.from_numpy(row[None]))[0].numpy() for row in rows])
    there = (rows > 0)[:, :, None]
    seen = there.sum(axis=0)
    return (each * there).sum(axis=0) / np.maximum(seen, 1), seen[:, 0]


# our own transformer, and its pretraining


def test_control_cells_are_read_normalised_and_centred(screen, cells):
    assert cells.values.shape == (540, N_GENES) and cells.lines == ("A", "B")
    rows = (screen.obs["cell_line"] == "B") & screen.obs["is_control"]
    expected, batch = logged(screen.X[rows.to_numpy()]), screen.obs.loc[rows, "batch"].to_numpy()
    np.testing.assert_allclose(cells.mean[1], expected.mean(0), rtol=1e-5)
    for b in ("b1", "b2"):
        # nothing but the batch's mean is taken away
        own, found = expected[batch == b], cells.of("B")[batch == b]
        np.testing.assert_allclose(found - cells.mean[1], own - own.mean(0), atol=1e-4)
    assert len(control_cells(screen, max_cells=50).values) == 100
    assert list(cells.take(["G05", "G01"]).mean[0]) == [cells.mean[0, 5], cells.mean[0, 1]]


def test_what_cannot_be_read_is_refused(screen, cells):
    pytest.raises(ParameterError, control_cells, screen, max_cells=1).match("max_cells=1")
    other = screen.copy()
    other.obs.loc[other.obs["cell_line"] == "B", "is_control"] = False
    pytest.raises(InputError, control_cells, other).match("'B' has 0 control cells")
    pytest.raises(InputError, cells.take, ["G01", "nope"]).match("first 'nope'")
    pytest.raises(ParameterError, cells.of, "Z").match("cell line 'Z' is not one of")
    for wrong in (dict(asked=0), dict(dim=10, heads=4)):
        pytest.raises(ParameterError, ct.pretrain, cells, **wrong).match(next(iter(wrong)))


def test_pretraining_beats_the_mean_and_finds_the_modules(cells, trained):
    assert 0.9 < trained.error_of_mean < 1.1
    # the planted factors explain a good part of each gene
    assert trained.error < 0.8 * trained.error_of_mean
    vectors = ct.gene_vectors(trained.encoder, cells, "A")[:-1]
    nearest = (cosine_similarity(vectors - vectors.mean(0)) - 2 * np.eye(len(vectors))).argmax(1)
    assert (MODULE[:-1][nearest] == MODULE[:-1]).mean() > 0.9
    # of a silent gene nothing is said
    assert GENES[-1] not in ct.frozen_embeddings(trained.encoder, cells)[0].ids


def test_start_vectors_are_principal_components(cells):
    start = ct.components(cells, 4)
    np.testing.assert_allclose(np.linalg.norm(start, axis=1), 2.0, rtol=1e-4)
    z = (cells.values - cells.mean[cells.line]) / cells.sd[cells.line]
    _, s, vt = np.linalg.svd(z[:, :-1].astype(float), full_matrices=False)
    expected = cosine_similarity(vt[:4].T * s[:4])
    np.testing.assert_allclose(start[:-1] @ start[:-1].T / 4, expected, atol=5e-3)


def fresh(cells, latents=4):
    sizes = dict(dim=8, heads=2, layers=1, latents=latents)
    return ct.CellTransformer(cells.genes, cells.mean, cells.sd, **sizes)


def test_the_value_of_a_masked_gene_never_enters(cells):
    encoder, values = fresh(cells), torch.from_numpy(cells.values[:5].copy())
    visible, query = torch.arange(0, N_GENES, 2), torch.tensor([4, 1, 4])
    before = encoder(values, 0, query, visible)
    torch.testing.assert_close(encoder(values, 0, None, visible)[:, query], before)
    changed = values.clone()
    changed[:, 1::2] = torch.tensor([float("nan"), 9.0]).repeat(10)
    assert torch.equal(before, encoder(changed, 0, query, visible))
    values[:, 2] += 1.0
    assert not torch.equal(before, encoder(values, 0, query, visible))


@pytest.mark.parametrize("n_cells", [2, 3])  # fewer cells than latent vectors, or not
def test_reading_genes_is_attention_with_shared_weights(cells, n_cells):
    """One matrix product in place of attention cell by cell."""
    encoder = fresh(cells, latents=3).double()
    gene, direction = encoder.gene, encoder.direction(encoder.gene)
    z = torch.randn(n_cells, N_GENES, dtype=torch.float64)
    a, read = encoder.read.attention, encoder.read
    # the bias of the value projection belongs to the projection of the direction
    value = a.split(z[..., None] * a.value(direction))
    found = torch.nn.functional.scaled_dot_product_attention(
        *(a.split(t).expand(n_cells, -1, -1, -1) for t in (a.query(read.latent), a.key(gene))),
        value,
    )
    found = found.transpose(-3, -2).flatten(-2) * N_GENES**0.5
    torch.testing.assert_close(read(z, gene, direction), read.feed(read.latent + a.out(found)))


def test_same_seed_same_encoder(cells):
    tiny = dict(dim=8, heads=2, layers=1, latents=4, epochs=1, batch_size=16, asked=20)
    made = [ct.encoder_digest(ct.pretrain(cells, **tiny, seed=s).encoder) for s in (0, 0, 1)]
    assert made[0] == made[1] != made[2]


# checkpoints


def test_ranks_are_what_the_model_is_given(cells, checkpoint):
    rank = load_huggingface(checkpoint, cells)
    values = torch.tensor(cells.take(rank.genes).values[:2])
    values[0, 4:] = 0.0  # four genes left
    usual = np.expm1(cells.take(rank.genes).mean.mean(0))
    order = np.argsort(-np.expm1(values[0, :4].numpy()) / usual[:4], kind="stable")
    direct = rank.model(input_ids=torch.tensor(order + 2)[None]).last_hidden_state[0]
    both = rank(values)
    torch.testing.assert_close(rank(values, 0, torch.tensor([5, 1])), both[:, [5, 1]])
    torch.testing.assert_close(both[0, order], direct, atol=1e-5, rtol=1e-4)
    assert (both[0, 4:] == 0).all()
    assert (rank(torch.zeros(2, 30)) == 0).all()


def test_an_architecture_may_read_values(cells, tmp_path, monkeypatch):
    """As AIDO.Cell does: expression in, one position a gene and two more out."""

    def model(input_ids, attention_mask):
        x = torch.nn.functional.pad(input_ids * attention_mask, (0, 2))
        return SimpleNamespace(last_hidden_state=torch.stack([x, 2 * x], -1))

    model.config, model.dtype = SimpleNamespace(hidden_size=2), torch.float32
    monkeypatch.setattr(huggingface, "load_model", lambda *a, **o: (model, []))
    (tmp_path / "genes.txt").write_text("\n".join(["absent", *GENES[::-1]]))
    encoder = load_huggingface(tmp_path, cells, encoding="values")
    assert list(encoder.genes) == GENES
    values = torch.from_numpy(cells.values[:3]).clamp_min(0)
    torch.testing.assert_close(encoder(values), torch.stack([values, 2 * values], -1))


def test_expression_in_bins():
    """Quantiles of what a cell expresses: here halves, and the largest value."""
    values = torch.tensor([[0.0, 3, 1, 2, 5, 0.5], [0, 0, 0, 0, 0, 0], [0, 2, 0, 0, 0, 0]])
    found = binned(values, n_bins=4)
    assert found.tolist() == [[0, 2, 1, 2, 3, 1], [0] * 6, [0, 3, 0, 0, 0, 0]]


def test_checkpoints_that_are_not_safe_or_not_complete_are_refused(
    cells, checkpoint, tmp_path, monkeypatch
):
    folder = shutil.copytree(checkpoint, tmp_path / "copy")

    def refused(message, error=InputError, source=folder, **options):
        pytest.raises(error, load_huggingface, source, cells, **options).match(message)

    (folder / "genes.json").unlink()
    refused("no vocabulary.*write genes.json")
    refused("rank, values", ParameterError, encoding="words")
    config = json.loads((folder / "config.json").read_text())
    for change, genes, message in (
        ({}, ["ENSG1", "ENSG2"], "none of the 40 genes"),
        ({}, {"G00": "one"}, "maps them"),
        ({}, {"G00": 99}, "a token 99"),
        ({"vocab_size": 9}, GENES, "other sizes than config.json says"),
        ({"model_type": "cellfoundation"}, GENES, "never run"),
        ({"num_hidden_layers": 3}, GENES[:30], r"16 weights are missing.*layer\.2\."),
    ):
        (folder / "config.json").write_text(json.dumps(config | change))
        (folder / "genes.json").write_text(json.dumps(genes))
        refused(message)
    # weights that would run code when opened
    (folder / "model.safetensors").unlink()
    torch.save(Evil(tmp_path / "ran"), folder / "pytorch_model.bin")
    refused("only safetensors are opened")
    assert not (tmp_path / "ran").exists()
    refused("neither a folder nor a name", source=str(tmp_path / "nowhere" / "at" / "all"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused("some/model.*give the folder", DownloadError, "some/model")


# vectors of genes by an encoder


def test_a_gene_is_averaged_over_the_cells_that_express_it(cells, checkpoint):
    """An encoder of variable gene sets reads a gene in some cells only."""
    encoder = load_huggingface(checkpoint, cells)
    own = cells.take(encoder.genes)
    few = replace(own, values=own.values * (np.arange(30) != 4))
    few.values[10:, 3] = 0  # a gene seen in ten cells; gene 4 is in none
    expected, seen = averaged(encoder, few.of("A")[ct.spread_rows(270, 50)])
    assert 0 < seen[3] < 50 and seen[4] == 0
    found = ct.gene_vectors(encoder, few, "A", max_cells=50, batch_size=7)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert GENES[4] not in ct.frozen_embeddings(encoder, few, max_cells=50)[0].ids


def test_every_control_cell_counts_where_it_has_the_gene(screen, cells, checkpoint):
    """The batches mean nothing, and no perturbed cell is looked at."""
    made = cell_model(screen, model=str(checkpoint), batch_size=7)
    assert [e.cell_line for e in made] == ["A", "B"] and made[0].modality == "Cell model"
    encoder = load_huggingface(checkpoint, cells)
    for e in made:
        own = (screen.obs["cell_line"] == e.cell_line) & screen.obs["is_control"]
        rows = logged(screen.X)[own.to_numpy(), :30].astype(np.float32)
        expected, seen = averaged(encoder, rows)
        known = seen > 0
        assert 0 < seen[known].min() < len(rows) and list(e.ids) == list(encoder.genes[known])
        np.testing.assert_allclose(e.X, expected[known], atol=1e-5)
        assert f"{len(rows)} of {len(rows)} cells" in e.source
    how = dict(model=str(checkpoint), cell_line="A")
    half = cell_model(screen, **how, dtype="bfloat16")[0]
    np.testing.assert_allclose(half.X, made[0].X, atol=0.05)
    assert "5 of" in cell_model(screen, **how, max_cells=5)[0].source
    other = screen.copy()
    other.X = other.X.toarray() + 3 * ~other.obs[["is_control"]].to_numpy(bool)
    assert cell_model(other, **how, batch_size=7)[0].digest == made[0].digest


def test_a_killed_average_over_cells_goes_on(screen, cells, checkpoint, tmp_path, monkeypatch):
    encoder, kept, calls = load_huggingface(checkpoint, cells), tmp_path / "sums.npz", []
    given = encoder, screen, np.flatnonzero(screen.obs["is_control"])[:54], 10
    want, whole = huggingface.streamed_means(*given), encoder._rank

    def killed(values):
        calls.append(len(values))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return whole(values)

    monkeypatch.setattr(huggingface, "SAVED_EVERY", 1)
    encoder._rank = killed
    with pytest.raises(KeyboardInterrupt):
        huggingface.streamed_means(*given, kept)
    np.testing.assert_allclose(huggingface.streamed_means(*given, kept), want)
    assert sum(calls) == 54 + 10  # the batch that was killed is read again, no other
    kept.write_bytes(b"broken")
    np.testing.assert_allclose(huggingface.streamed_means(*given, kept), want)


def test_knock_outs_and_the_input_table(screen, cells, checkpoint):
    encoder = load_huggingface(checkpoint, cells)
    average = cells.take(encoder.genes).mean[0].clip(0)
    average[7] = 0
    got = huggingface.knock_outs(encoder, average, 4)
    # the cell as it is, then without each gene
    without = np.r_[average[None], average * (1 - np.eye(30))].astype(np.float32)
    embedded = np.stack([encoder(torch.from_numpy(row[None]))[0].numpy() for row in without])
    change = embedded[1:] - embedded[0]
    want = (change.sum(axis=1) - np.einsum("ggd->gd", change)) / 29
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert (got[7] == 0).all()
    table = cell_model(screen, model=str(checkpoint), use="input")[0]
    weight = encoder.model.get_input_embeddings().weight[encoder.tokens].numpy()
    np.testing.assert_array_equal(table.X, weight)
    made = cell_model(screen, model=str(checkpoint), use="knock-out", cell_line="B")[0]
    assert made.dim == 16 and "knock-out" in made.source


def test_a_profile_can_name_it_and_its_sums_are_kept(screen, checkpoint, tmp_path, monkeypatch):
    spec = {"name": "C", "builder": "cell_model", "model": str(checkpoint), "max_cells": 20}
    data = Dataset("d", "D", "lfc", pd.DataFrame(), screen=screen, extras={})
    made = build_all([spec], BuildContext(dataset=data), cache=tmp_path)
    assert [(e.name, e.cell_line) for e in made] == [("C", "A"), ("C", "B")]
    assert len(list((tmp_path / "models").glob("cell-model-*.npz"))) == 2
    with pytest.raises(InputError, match="does not exist"):
        build_all([spec | {"model": "./nowhere"}], BuildContext(dataset=data))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    pytest.raises(ParameterError, huggingface.placed, None, "cuda", "float32").match("no CUDA")


# fine-tuning


@pytest.mark.parametrize("gene", [3, N_GENES - 1])  # the last one is silent
def test_a_knock_out_is_the_average_profile_without_the_gene(cells, trained, gene):
    outputs, mean = cells.genes.get_indexer([*GENES[:28], "X1", "X2"]), torch.arange(30.0)
    head = ft.KnockOutHead(trained.encoder, cells.mean[0], 0, outputs, mean, hidden=(8,)).eval()
    torch.nn.init.normal_(head.head[-1].weight)
    profiles = torch.from_numpy(cells.mean[:1]).repeat(2, 1)
    profiles[1, gene] = 0
    with torch.no_grad():
        as_is, without = trained.encoder(profiles, 0)
        change = head.head(((without - as_is.mean(0)) / as_is.std(0))[:28]).squeeze(-1)
        found = head(torch.tensor([gene]))[0]
    torch.testing.assert_close(found[:28], mean[:28] + change)
    assert torch.equal(without, as_is) == (gene == N_GENES - 1)
    # output genes that the cells lack stay at the training mean
    assert torch.equal(found[28:], mean[28:])


def test_the_loss_is_the_unsquared_l2_and_that_of_some_genes_stands_for_all(cells, trained):
    batch = {"target": torch.arange(4), "response": torch.randn(4, 28)}
    given = trained.encoder, cells.mean[0], 0, np.arange(28), np.zeros(28, "f")
    expected = np.linalg.norm(batch["response"].numpy(), axis=1).mean()
    for head in (ft.KnockOutHead(*given), ft.KnockOutHead(*given, asked=14).eval()):
        assert head.loss(batch)["loss"].item() == pytest.approx(expected, rel=1e-5)
    batch["response"] = torch.ones(4, 28)  # every gene is off by 1
    found = ft.KnockOutHead(*given, asked=7).loss(batch)["loss"].item()
    assert found == pytest.approx(28**0.5, rel=1e-5)


def test_indexing_averages_the_target_over_cells(cells, trained):
    values, mean = cells.of("A"), np.zeros(6, np.float32)
    head = ft.IndexingHead(trained.encoder, values, 0, mean, hidden=(), n_eval=10_000).eval()
    torch.nn.init.normal_(head.head[-1].weight)
    vectors = torch.from_numpy(ct.gene_vectors(trained.encoder, cells, "A", max_cells=10_000))
    with torch.no_grad():
        # the frozen head's prediction, until the encoder moves: standardised over genes of 32 cells
        some = trained.encoder(head.cells[head.fixed[:32]], 0).mean(0)
        expected = head.head((vectors[[4, 9]] - some.mean(0)) / some.std(0))
        torch.testing.assert_close(head(torch.tensor([4, 9])), expected, atol=1e-3, rtol=1e-3)


def test_adapters_change_nothing_at_first_and_leave_the_weights_as_they_were(cells, trained):
    encoder, values = copy.deepcopy(trained.encoder), torch.from_numpy(cells.values[:3])
    expected = encoder(values)
    ft.adapt(encoder, 2)
    torch.testing.assert_close(encoder(values), expected)
    learning = [p for p in encoder.parameters() if p.requires_grad]
    # direction; query, key and value of read, process and write: each 16 x 2 and 2 x 16
    assert [p.numel() for p in learning] == [2 * 16] * 20
    encoder(values).square()[..., 0].sum().backward()
    torch.optim.Adam(learning, lr=0.1).step()
    after = {k.replace(".base_layer", ""): v for k, v in encoder.state_dict().items()}
    assert all(torch.equal(after[k], v) for k, v in trained.encoder.state_dict().items())
    assert not torch.allclose(encoder(values), expected)
    pytest.raises(ParameterError, ft.adapt, encoder, -1).match("rank=-1")


def models(encoder, cells, **options):
    how = dict(rank=2, lrs=(1e-2,), batch_sizes=[8], name="CT", modality="Expression") | options
    return [
        ft.FrozenMLP(encoder, cells, hidden=(16,), **how),
        ft.Indexing(encoder, cells, hidden=(16,), n_cells=4, n_eval=16, **how),
        ft.InSilicoKO(encoder, cells, hidden=(8,), asked=10, **how),
    ]


def test_models_are_scored_beat_the_mean_and_leave_the_encoder_alone(cells, trained):
    before, responses = ct.encoder_digest(trained.encoder), planted_responses()
    made = models(trained.encoder, cells, epochs=25)
    scores = evaluate(responses, [], [], models=made, folds=[0], metrics=["L2"], progress=False)
    assert ct.encoder_digest(trained.encoder) == before
    l2 = scores.set_index("predictor")["value"]
    # modules are planted in cells and responses alike
    for predictor, share in {"frozen + MLP": 0.7, "indexing": 0.9, "in-silico KO": 0.99}.items():
        assert l2[predictor] < share * l2["train_mean"]


def test_validation_is_of_training_perturbations_and_chooses_the_rate(cells, trained, monkeypatch):
    fold, seen, batches = Fold.of(planted_responses(), 1), {}, FineTuned._batches
    model = models(trained.encoder, cells, lrs=(1e-9, 1e-2), epochs=5)[0]

    def watched(self, at, rows, size, shuffle):
        seen[shuffle] = set(at[rows])
        return batches(self, at, rows, size, shuffle)

    monkeypatch.setattr(FineTuned, "_batches", watched)
    found = fit_predict(model, fold)
    assert min(found.note["losses"], key=found.note["losses"].get) == "lr 0.01, batch 8"
    assert found.chosen.startswith("lr 0.01, batch 8, epoch")
    targets = set(cells.genes.get_indexer(fold.train_ids)) - {-1}
    assert seen[True] | seen[False] == targets and not seen[True] & seen[False]
    assert len(seen[False]) == round(0.2 * len(targets))


def test_a_chapter_gets_all_of_it_from_a_checkpoint_and_the_seed_decides(screen, checkpoint):
    sizes = dict(hidden=(8,), epochs=1, epochs_ko=1, lrs=(1e-2,), rank=0)
    made, other = (
        ft.cell_models(screen, checkpoint=str(checkpoint), seed=s, **sizes) for s in (0, 5)
    )
    encoder, fold = made.models[0].encoder, Fold.of(planted_responses(), 1)
    assert type(encoder.model).__name__ == "BertModel" and list(encoder.genes) == GENES[:30]
    assert made.pretrained is None and [e.dim for e in made.embeddings] == [16, 16]
    before = ct.encoder_digest(encoder)
    for model, seeded in zip(made.models, other.models, strict=True):
        first, again, moved = (fit_predict(m, fold) for m in (model, model, seeded))
        np.testing.assert_array_equal(first.values, again.values)
        assert np.isfinite(first.values).all() and not np.allclose(first.values, moved.values)
        assert first.coverage == pytest.approx(30 / 33)
        assert json.dumps(model.spec) != json.dumps(seeded.spec)
    assert ct.encoder_digest(encoder) == before
