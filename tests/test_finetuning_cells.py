import copy
import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from worlds import cells_of, logged, responses_of

from perturbcore.core.errors import DownloadError, InputError, ParameterError
from perturbcore.embeddings.cell_models import cells as ct
from perturbcore.embeddings.cell_models.huggingface import load_huggingface
from perturbcore.embeddings.cell_models.tokens import control_cells
from perturbcore.models.finetuning import cells as ft
from perturbcore.models.finetuning.model import FineTuned
from perturbcore.score.evaluate import evaluate as evaluate_models
from perturbcore.score.model import Fold, fit_predict

N_GENES, N_MODULES = 40, 4
MODULE = np.arange(N_GENES) % N_MODULES
GENES = [f"G{i:02d}" for i in range(N_GENES)]
TINY = dict(dim=8, heads=2, layers=1, latents=4, epochs=2, batch_size=16, asked=20)


def planted_screen(n=300, seed=0, lines=("A", "B")):
    """Genes of a module rise and fall together; two batches differ in every gene.

    The last gene is silent.
    """
    rng = np.random.default_rng(seed)
    blocks, obs = [], []
    for line in lines:
        level = rng.uniform(1.0, 2.5, N_GENES)
        batch = rng.integers(0, 2, n)
        factor = rng.normal(size=(n, N_MODULES))
        rate = level + 0.7 * factor[:, MODULE] + 0.8 * batch[:, None] * rng.normal(size=N_GENES)
        counts = rng.poisson(np.exp(rate))
        counts[:, -1] = 0
        blocks.append(counts)
        obs.append(pd.DataFrame({"batch": np.where(batch, "b2", "b1"), "cell_line": line}))
    obs = pd.concat(obs, ignore_index=True)
    obs["perturbation"] = np.where(obs.index % 10 == 0, "G00", "control")
    return cells_of(np.concatenate(blocks), **obs, control="control", genes=GENES)


def planted_responses(seed=0, lines=("A", "B"), names=None):
    """Perturbing a gene of a module has the effect of that module."""
    rng = np.random.default_rng(seed)
    effect = rng.normal(size=(N_MODULES, 30))
    names = GENES[:32] + ["not measured"] if names is None else names
    at = [GENES.index(n) % N_MODULES if n in GENES else 0 for n in names]
    X = np.concatenate([effect[at] + 0.1 * rng.normal(size=(len(at), 30)) for _ in lines])
    # two output genes are none of the cells' genes
    return responses_of(X, names, lines, 4, genes=[*GENES[:28], "X1", "X2"])


@pytest.fixture(scope="module")
def cells():
    return control_cells(planted_screen())


@pytest.fixture(scope="module")
def trained(cells):
    return ct.pretrain(
        cells, dim=16, heads=2, layers=1, latents=8, epochs=8, batch_size=16, lr=1e-2, asked=20
    )


def test_control_cells_are_read_normalised_and_centred(cells):
    screen = planted_screen()
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


def test_what_cannot_be_read_is_refused(cells):
    screen = planted_screen(20)
    pytest.raises(ParameterError, control_cells, screen, max_cells=1).match("max_cells=1")
    screen.obs.loc[screen.obs["cell_line"] == "B", "is_control"] = False
    pytest.raises(InputError, control_cells, screen).match("'B' has 0 control cells")
    pytest.raises(InputError, cells.take, ["G01", "nope"]).match("first 'nope'")
    pytest.raises(ParameterError, cells.of, "Z").match("no control cells of 'Z'")
    for wrong in (dict(asked=0), dict(dim=10, heads=4)):
        pytest.raises(ParameterError, ct.pretrain, cells, **wrong).match(next(iter(wrong)))


def test_pretraining_beats_the_mean_and_finds_the_modules(cells, trained):
    assert 0.9 < trained.error_of_mean < 1.1
    # the planted factors explain a good part of each gene
    assert trained.error < 0.8 * trained.error_of_mean
    vectors = ct.gene_vectors(trained.encoder, cells, "A")[:-1]
    vectors = vectors - vectors.mean(0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    nearest = (vectors @ vectors.T - 2 * np.eye(len(vectors))).argmax(1)
    assert (MODULE[:-1][nearest] == MODULE[:-1]).mean() > 0.9


def test_start_vectors_are_principal_components(cells):
    start = ct.components(cells, 4)
    np.testing.assert_allclose(np.linalg.norm(start, axis=1), 2.0, rtol=1e-4)
    z = (cells.values - cells.mean[cells.line]) / cells.sd[cells.line]
    _, s, vt = np.linalg.svd(z[:, :-1].astype(float), full_matrices=False)
    expected = vt[:4].T * s[:4]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(start[:-1] @ start[:-1].T / 4, expected @ expected.T, atol=5e-3)


def fresh(cells, layers=1, latents=4):
    return ct.CellTransformer(
        cells.genes, cells.mean, cells.sd, dim=8, heads=2, layers=layers, latents=latents
    )


def test_the_value_of_a_masked_gene_never_enters(cells):
    encoder, values = fresh(cells), torch.from_numpy(cells.values[:5].copy())
    visible, query = torch.arange(0, N_GENES, 2), torch.tensor([1, 3, 4])
    before = encoder(values, 0, query, visible)
    changed = values.clone()
    changed[:, 1::2] = torch.tensor([float("nan"), 9.0]).repeat(10)
    assert torch.equal(before, encoder(changed, 0, query, visible))
    values[:, 2] += 1.0
    assert not torch.equal(before, encoder(values, 0, query, visible))


def test_queries_and_genes_can_be_taken_in_any_order(cells):
    encoder = fresh(cells, layers=2).double()
    values = torch.from_numpy(cells.values[:3].astype(np.float64))
    everything = encoder(values, 1)
    query = torch.tensor([7, 0, 7])
    torch.testing.assert_close(everything[:, query], encoder(values, 1, query))
    order = torch.randperm(N_GENES, generator=torch.manual_seed(0))
    other = copy.deepcopy(encoder)
    for name in ("gene", "mean", "sd"):
        axis = 0 if name == "gene" else 1
        getattr(other, name).data = getattr(encoder, name).data.index_select(axis, order)
    torch.testing.assert_close(other(values[:, order], 1), everything[:, order])


@pytest.mark.parametrize("n_cells", [2, 3, 5])
def test_reading_genes_is_attention_with_shared_weights(cells, n_cells):
    """One matrix product in place of attention cell by cell, written out here."""
    encoder = fresh(cells, latents=3).double()
    gene, direction = encoder.gene, encoder.direction(encoder.gene)
    z = torch.randn(n_cells, N_GENES, dtype=torch.float64)
    a, read = encoder.read.attention, encoder.read
    expected = []
    for cell in z:
        q, k, v = a.query(read.latent), a.key(gene), cell[:, None] * a.value(direction)
        heads = [
            torch.softmax(q[:, s] @ k[:, s].T / 2.0, -1) @ v[:, s]
            for s in (slice(0, 4), slice(4, 8))
        ]
        expected.append(read.feed(read.latent + a.out(torch.cat(heads, 1) * N_GENES**0.5)))
    # the bias of the value projection belongs to the projection of the direction
    v = a.value(direction)
    assert v.shape == (N_GENES, 8)
    torch.testing.assert_close(read(z, gene, direction), torch.stack(expected))


def test_same_seed_same_encoder_and_a_finished_one_is_loaded(cells, tmp_path, monkeypatch):
    first, other = (ct.pretrain(cells, **TINY, seed=s, folder=tmp_path).encoder for s in (0, 1))
    again = ct.pretrain(cells, **TINY).encoder
    assert ct.encoder_digest(first) == ct.encoder_digest(again) != ct.encoder_digest(other)
    monkeypatch.setattr(ct.MaskedExpression, "loss", lambda *a: 1 / 0)
    loaded = ct.pretrain(cells, **TINY, folder=tmp_path).encoder
    assert ct.encoder_digest(loaded) == ct.encoder_digest(first)


def test_frozen_vectors_are_means_over_cells_and_leave_the_encoder_alone(cells, trained):
    before = ct.encoder_digest(trained.encoder)
    with torch.no_grad():
        each = [trained.encoder(torch.from_numpy(c[None]), 1)[0].numpy() for c in cells.of("B")]
    np.testing.assert_allclose(
        ct.gene_vectors(trained.encoder, cells, "B", max_cells=1000), np.mean(each, 0), atol=1e-5
    )
    made = ct.frozen_embeddings(trained.encoder, cells, name="mine")
    assert [(e.name, e.cell_line) for e in made] == [("mine", "A"), ("mine", "B")]
    assert GENES[-1] not in made[0].ids and len(made[0]) == N_GENES - 1
    assert ct.encoder_digest(trained.encoder) == before


def test_knock_out_of_a_silent_gene_changes_nothing(cells, trained):
    outputs, mean = cells.genes.get_indexer([*GENES[:28], "X1", "X2"]), torch.arange(30.0)
    position = cells.position("A")
    knock_out = ft.KnockOutHead(
        trained.encoder, cells.mean[0], position, outputs, mean, hidden=(8,)
    )
    torch.nn.init.normal_(knock_out.eval().head[-1].weight)
    silent, loud = torch.tensor([N_GENES - 1]), torch.tensor([3])
    profile = torch.from_numpy(cells.mean[:1])
    with torch.no_grad():
        embedded = trained.encoder(profile, 0)[0]
        embedded = (embedded - embedded.mean(0)) / embedded.std(0)
        as_is = knock_out.head(embedded[None, :28]).squeeze(-1)
        torch.testing.assert_close(knock_out(silent)[:, :28], mean[:28] + as_is)
        assert (knock_out(loud)[:, :28] - knock_out(silent)[:, :28]).abs().max() > 1e-4
        # output genes that the cells lack stay at the training mean
        assert torch.equal(knock_out(loud)[0, 28:], mean[28:])
    expected = profile.repeat(2, 1)
    expected[0, 3] = expected[1, 5] = 0
    assert torch.equal(knock_out.knocked_out(torch.tensor([3, 5])), expected)


def test_losses_against_numpy(cells, trained):
    a, b = np.random.default_rng(0).normal(size=(2, 5, 7)).astype(np.float32)
    found = ft.unsquared_l2(torch.from_numpy(a), torch.from_numpy(b)).item()
    assert found == pytest.approx(np.linalg.norm(a - b, axis=1).mean(), rel=1e-5)
    mean, batch = np.zeros(28, "f"), {"target": torch.arange(4), "response": torch.ones(4, 28)}
    knock_out = ft.KnockOutHead(trained.encoder, cells.mean[0], 0, np.arange(28), mean, asked=14)
    # every gene is off by 1: the error of a draw of genes stands for that of all
    for mode in (knock_out.train, knock_out.eval):
        assert mode().loss(batch)["loss"].item() == pytest.approx(28**0.5, rel=1e-5)


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


def trainable(module):
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def test_adapters_change_nothing_at_first_and_leave_the_weights_as_they_were(cells, trained):
    encoder = copy.deepcopy(trained.encoder)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    values = torch.from_numpy(cells.values[:3])
    expected = encoder(values)
    ft.adapt(encoder, 2)
    torch.testing.assert_close(encoder(values), expected)
    adapted = [n for n, _ in encoder.named_parameters() if "lora_A" in n]
    # direction; query, key and value of read, process and write: each 16 x 2 + 2 x 16
    assert len(adapted) == 10 and trainable(encoder) == 10 * (16 * 2 + 2 * 16)
    assert trainable(encoder) < 0.25 * sum(p.numel() for p in trained.encoder.parameters())
    assert trainable(models(trained.encoder, cells)[1]._adapted()) == trainable(encoder)

    optimizer = torch.optim.Adam([p for p in encoder.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        encoder(values).square()[..., 0].sum().backward()
        optimizer.step()
    after = {
        k.replace(".base_layer", ""): v for k, v in encoder.state_dict().items() if "lora_" not in k
    }
    assert after.keys() == before.keys()
    assert all(torch.equal(after[k], before[k]) for k in before)
    assert not torch.allclose(encoder(values), expected)

    whole = ft.adapt(copy.deepcopy(trained.encoder), 0)
    assert trainable(whole) == sum(p.numel() for p in trained.encoder.parameters())
    pytest.raises(ParameterError, ft.adapt, copy.deepcopy(trained.encoder), -1).match("rank=-1")


def tuned(use, encoder, cells, **options):
    common = dict(hidden=(16,), rank=2, lrs=(1e-2,), batch_sizes=[8], epochs=4)
    return use(encoder, cells, name="CT", modality="Expression", **common | options)


def models(encoder, cells, **options):
    return [
        tuned(ft.FrozenMLP, encoder, cells, **options),
        tuned(ft.Indexing, encoder, cells, n_cells=4, n_eval=16, **options),
        tuned(ft.InSilicoKO, encoder, cells, asked=10, hidden=(8,), **options),
    ]


def test_models_are_scored_beat_the_mean_and_leave_the_encoder_alone(cells, trained):
    before, responses = ct.encoder_digest(trained.encoder), planted_responses(lines=("A",))
    made = models(trained.encoder, cells, epochs=25)
    scores = evaluate_models(responses, made, folds=[0], metrics=["L2"], progress=False)
    assert ct.encoder_digest(trained.encoder) == before
    test = (responses.obs["fold"] == 0).to_numpy()
    floor = np.linalg.norm(responses.X[test] - responses.X[~test].mean(0), axis=1).mean()
    by_model = scores.set_index("predictor")["value"]
    assert set(by_model.index) == {"frozen + MLP", "indexing", "in-silico KO"}
    # modules are planted in cells and responses alike
    assert by_model["frozen + MLP"] < 0.7 * floor and by_model["indexing"] < 0.9 * floor
    assert by_model["in-silico KO"] < 0.99 * floor
    assert scores["chosen"].str.match(r"lr 0.01, batch 8, epoch \d+").all()


@pytest.mark.parametrize("kind", [1, 2])
def test_the_seed_decides_and_the_order_of_the_file_does_not(cells, trained, kind):
    responses = planted_responses(lines=("A",))
    fold, turned = Fold.of(responses, 1), Fold.of(responses[::-1].copy(), 1)
    model, other = (models(trained.encoder, cells, epochs=2, seed=s)[kind] for s in (0, 5))
    first = fit_predict(model, fold).values
    torch.manual_seed(99)
    np.testing.assert_allclose(fit_predict(model, turned).values[::-1], first, atol=1e-4)
    assert not np.allclose(fit_predict(other, fold).values, first)
    assert model.spec != other.spec
    json.dumps(model.spec)


def test_validation_comes_from_training_perturbations_and_chooses_the_rate(
    cells, trained, monkeypatch
):
    fold = Fold.of(planted_responses(lines=("A",)), 1)
    model = tuned(ft.FrozenMLP, trained.encoder, cells, lrs=(1e-9, 1e-2), epochs=5)
    seen, batches = {}, FineTuned._batches

    def watched(self, at, rows, size, shuffle):
        seen[shuffle] = set(at[rows])
        return batches(self, at, rows, size, shuffle)

    monkeypatch.setattr(FineTuned, "_batches", watched)
    prediction = fit_predict(model, fold)
    losses = prediction.note["losses"]
    assert min(losses, key=losses.get) == "lr 0.01, batch 8"
    assert prediction.chosen.startswith("lr 0.01, batch 8, epoch")
    targets, tested = (set(cells.genes.get_indexer(i)) for i in (fold.train_ids, fold.test_ids))
    fitted, checked = seen[True], seen[False]
    assert fitted | checked == targets - {-1} and not fitted & checked
    assert len(checked) == round(0.2 * len(targets - {-1})) and not targets & tested - {-1}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny random BERT whose tokens are genes."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(vocab_size=N_GENES + 2, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=16, max_position_embeddings=48)  # fmt: skip
    BertModel(config).save_pretrained(folder)
    (folder / "genes.json").write_text(json.dumps({g: i + 2 for i, g in enumerate(GENES[:30])}))
    return folder


def test_hugging_face_checkpoint_is_an_encoder_like_ours(cells, checkpoint):
    encoder = load_huggingface(checkpoint, cells)
    assert list(encoder.genes) == GENES[:30] and encoder.dim == 16
    before = ct.encoder_digest(encoder)
    assert ct.frozen_embeddings(encoder, cells, max_cells=8)[0].dim == 16
    for model in models(encoder, cells, epochs=1):
        prediction = fit_predict(model, Fold.of(planted_responses(lines=("A",)), 1))
        assert np.isfinite(prediction.values).all()
        assert prediction.coverage == pytest.approx(30 / 33)
    assert ct.encoder_digest(encoder) == before


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


def test_a_registered_architecture_reads_values(cells, tmp_path):
    """As AIDO.Cell does: expression in, one position a gene and two more out."""
    from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
    from transformers.modeling_outputs import BaseModelOutput

    class ToyConfig(PretrainedConfig):
        model_type = "toy_cell"
        hidden_size = 4

    class Toy(PreTrainedModel):
        config_class = ToyConfig

        def __init__(self, config):
            super().__init__(config)
            self.line = torch.nn.Linear(1, 4)
            self.post_init()

        def get_input_embeddings(self):
            return None

        def forward(self, input_ids, attention_mask=None):
            x = torch.nn.functional.pad(input_ids * attention_mask, (0, 2))
            return BaseModelOutput(last_hidden_state=self.line(x.unsqueeze(-1)))

    AutoConfig.register("toy_cell", ToyConfig)
    AutoModel.register(ToyConfig, Toy)
    model = Toy(ToyConfig())
    model.save_pretrained(tmp_path)
    (tmp_path / "genes.txt").write_text("\n".join(["absent", *GENES[::-1]]))
    encoder = load_huggingface(tmp_path, cells, encoding="values")
    assert list(encoder.genes) == GENES
    values = torch.from_numpy(cells.values[:3]).clamp_min(0)
    torch.testing.assert_close(encoder(values), model.line(values.unsqueeze(-1)))


def test_checkpoints_that_are_not_safe_or_not_complete_are_refused(cells, checkpoint, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint, folder)
    (folder / "genes.json").unlink()
    with pytest.raises(InputError, match="no vocabulary.*write genes.json"):
        load_huggingface(folder, cells)
    with pytest.raises(ParameterError, match="rank, values"):
        load_huggingface(folder, cells, encoding="words")
    config = json.loads((folder / "config.json").read_text())
    for change, genes, message in (
        ({}, ["ENSG1", "ENSG2"], "none of the 40 genes"),
        ({}, {"G00": "one"}, "maps them"),
        ({}, {"G00": 99}, "a token 99"),
        ({"vocab_size": 9}, GENES, "other sizes than config.json says"),
        ({"model_type": "cellfoundation"}, GENES, "never run"),
    ):
        (folder / "config.json").write_text(json.dumps(config | change))
        (folder / "genes.json").write_text(json.dumps(genes))
        pytest.raises(InputError, load_huggingface, folder, cells).match(message)
    (folder / "config.json").write_text(json.dumps(config))

    weights = load_file(folder / "model.safetensors")
    lost = "encoder.layer.0.attention.self.key.weight"
    weights.pop(lost)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    pytest.raises(InputError, load_huggingface, folder, cells).match(
        f"1 weights are missing.*{lost}"
    )

    # weights that would run code when opened
    class Boom:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (folder / "model.safetensors").unlink()
    torch.save(Boom(), folder / "pytorch_model.bin")
    pytest.raises(InputError, load_huggingface, folder, cells).match("only safetensors are opened")
    assert not (tmp_path / "ran").exists()
    with pytest.raises(InputError, match="neither a folder nor a name"):
        load_huggingface(str(tmp_path / "nowhere" / "at" / "all"), cells)


def test_a_gene_is_averaged_over_the_cells_that_express_it(cells, checkpoint):
    """Eq. 11: an encoder of variable gene sets reads a gene in some cells only."""
    encoder = load_huggingface(checkpoint, cells)
    own = cells.take(encoder.genes)
    values = own.values.copy()
    values[10:, 3] = 0  # a gene seen in ten cells
    values[:, 4] = 0  # and one in none
    few = replace(own, values=values)
    got = ct.gene_vectors(encoder, few, "A", max_cells=50, batch_size=7)
    rows = few.of("A")
    some = rows[ct.spread_rows(len(rows), 50)]
    with torch.no_grad():
        each = np.stack([encoder(torch.from_numpy(row[None]))[0].numpy() for row in some])
    there = (some > 0)[:, :, None]
    seen = there.sum(axis=0)
    assert 0 < seen[3] < 50 and seen[4] == 0
    expected = (each * there).sum(axis=0) / np.maximum(seen, 1)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert GENES[4] not in ct.frozen_embeddings(encoder, few, max_cells=50)[0].ids
    # the same mean where a fine-tuning starts from
    head = ft.IndexingHead(encoder, rows, 0, np.zeros(6, np.float32), hidden=(), n_eval=50)
    embedded = encoder(head.cells[head.fixed])
    np.testing.assert_allclose(ct.mean_over_cells(embedded)[3], got[3], atol=1e-5)


def test_code_in_a_checkpoint_is_never_run(cells, checkpoint, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    encoder = load_huggingface(folder, cells)
    assert type(encoder.model).__name__ == "BertModel" and not (tmp_path / "ran").exists()


def test_an_unreachable_hub_is_said(cells, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="some/model.*give the folder"):
        load_huggingface("some/model", cells)


def test_a_chapter_gets_all_of_it_from_plain_numbers(checkpoint, tmp_path):
    screen = planted_screen(120)
    sizes = dict(dim=8, layers=1, latents=4, pretraining_epochs=1, hidden=(8,), epochs=1,
                 epochs_ko=1)  # fmt: skip
    made = ft.cell_models(screen, rank=2, lrs=(1e-2,), folder=tmp_path, **sizes)
    assert made.models[1].rank == 2
    assert [e.cell_line for e in made.embeddings] == ["A", "B"]
    loaded = ft.cell_models(screen, checkpoint=str(checkpoint), rank=0, **sizes)
    assert loaded.pretrained is None and loaded.embeddings[0].dim == 16
    assert loaded.models[2].rank == 0
