"""Vectors of genes by cell and DNA models: tiny random models against loops."""

import gzip
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from test_finetuning_cells import GENES, checkpoint, planted_screen  # noqa: F401
from test_foundation_models import saved, states
from toys import tokenizer_of

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.identifiers import tss_windows
from perturbcore.data.sets.base import Dataset
from perturbcore.embeddings.build import build_all
from perturbcore.embeddings.cell_models import huggingface
from perturbcore.embeddings.cell_models.huggingface import binned, load_huggingface
from perturbcore.embeddings.cell_models.tokens import control_cells, log_normalised
from perturbcore.embeddings.expression import cell_model
from perturbcore.embeddings.language_model import dna_model
from perturbcore.embeddings.sources import BuildContext


@pytest.fixture(scope="module")
def screen():
    return planted_screen(60)


def controls(screen, line):
    """Control cells of a line, normalised, as rows of numbers."""
    own = (screen.obs["cell_line"] == line) & screen.obs["is_control"]
    return log_normalised(screen, np.flatnonzero(own)).toarray()


def test_every_control_cell_counts_where_it_has_the_gene(screen, checkpoint):  # noqa: F811
    """Eq. 11 by a loop over cells, one at a time; the batches mean nothing."""
    made = cell_model(screen, model=str(checkpoint), batch_size=7)
    assert [e.cell_line for e in made] == ["A", "B"] and made[0].modality == "Cell model"
    encoder = load_huggingface(checkpoint, control_cells(screen))
    for e in made:
        rows = controls(screen, e.cell_line)
        total, seen = np.zeros((30, 16)), np.zeros(30)
        for row in rows:
            with torch.no_grad():
                one = encoder(torch.from_numpy(row[None, :30]))[0].numpy()
            total[row[:30] > 0] += one[row[:30] > 0]
            seen += row[:30] > 0
        known = seen > 0
        assert 0 < seen[known].min() < len(rows) and list(e.ids) == list(encoder.genes[known])
        np.testing.assert_allclose(e.X, total[known] / seen[known, None], atol=1e-5)
        assert f"{len(rows)} of {len(rows)} cells" in e.source
    half = cell_model(screen, model=str(checkpoint), cell_line="A", dtype="bfloat16")[0]
    np.testing.assert_allclose(half.X, made[0].X, atol=0.05)
    few = cell_model(screen, model=str(checkpoint), cell_line="A", max_cells=5)[0]
    assert "5 of" in few.source
    # no perturbed cell is looked at
    other = screen.copy()
    other.X = other.X.toarray() + 3 * ~other.obs[["is_control"]].to_numpy(bool)
    again = cell_model(other, model=str(checkpoint), cell_line="A", batch_size=7)[0]
    assert again.digest == made[0].digest


class Fixed(torch.nn.Module):
    """An encoder of a fixed set of genes: a gene's vector follows from its value."""

    def __init__(self):
        super().__init__()
        self.genes, self.dim = pd.Index(GENES[:4]), 2
        self.weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))

    def forward(self, values, line=0):
        return torch.tanh(values.unsqueeze(-1) - 1) * self.weight + 0.1


def test_a_fixed_set_of_genes_is_averaged_over_all_cells_and_a_killed_run_goes_on(
    screen, tmp_path, monkeypatch
):
    own = (screen.obs["cell_line"] == "A") & screen.obs["is_control"]
    rows, calls = np.flatnonzero(own), []
    want = np.mean(
        [(np.tanh(row[:4, None] - 1) * [1, -2] + 0.1) for row in controls(screen, "A")], axis=0
    )
    encoder, kept = Fixed(), tmp_path / "sums.npz"
    np.testing.assert_allclose(
        huggingface.streamed_means(encoder, screen, rows, 10), want, atol=1e-5
    )
    whole = Fixed.forward

    def killed(self, values, line=0):
        calls.append(len(values))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return whole(self, values, line)

    monkeypatch.setattr(huggingface, "SAVED_EVERY", 1)
    monkeypatch.setattr(Fixed, "forward", killed)
    with pytest.raises(KeyboardInterrupt):
        huggingface.streamed_means(encoder, screen, rows, 10, kept)
    got = huggingface.streamed_means(encoder, screen, rows, 10, kept)
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert sum(calls) == len(rows) + 10  # the batch that was killed is read again, no other
    kept.write_bytes(b"broken")
    np.testing.assert_allclose(
        huggingface.streamed_means(encoder, screen, rows, 10, kept), want, atol=1e-5
    )
    with pytest.raises(ParameterError, match="no CUDA device"):
        if torch.cuda.is_available():
            raise ParameterError("no CUDA device: there is one")
        huggingface.placed(encoder, "cuda", "float32")


def test_knock_outs_and_the_input_table(screen, checkpoint):  # noqa: F811
    encoder = load_huggingface(checkpoint, cells := control_cells(screen))
    average = cells.take(encoder.genes).mean[0].clip(0)
    average[7] = 0
    got = huggingface.knock_outs(encoder, average, 4)
    with torch.no_grad():
        before = encoder(torch.from_numpy(average[None]))[0].double().numpy()
        for gene in (0, 7, 29):
            without = average.copy()
            without[gene] = 0
            after = encoder(torch.from_numpy(without[None]))[0].double().numpy()
            rest = np.arange(30) != gene
            want = (after - before)[rest].mean(axis=0)
            np.testing.assert_allclose(got[gene], want, atol=1e-6)
    assert (got[7] == 0).all()
    table = cell_model(screen, model=str(checkpoint), use="input")[0]
    weight = encoder.model.get_input_embeddings().weight[encoder.tokens].numpy()
    np.testing.assert_array_equal(table.X, weight)
    made = cell_model(screen, model=str(checkpoint), use="knock-out", cell_line="B")[0]
    assert made.dim == 16 and "knock-out" in made.source


def test_expression_in_bins_by_loops():
    values = torch.tensor([[0.0, 3, 1, 2, 5, 0.5], [0, 0, 0, 0, 0, 0], [0, 2, 0, 0, 0, 0]])
    got = binned(values, n_bins=4)
    for row, out in zip(values.numpy(), got.numpy(), strict=True):
        there = row[row > 0]
        for value, b in zip(row, out, strict=True):
            if value == 0:
                assert b == 0
            else:  # halves of what the cell expresses, and the largest value
                assert b == sum(value >= np.quantile(there, q) for q in (0, 0.5, 1))


def test_a_profile_can_name_it_and_its_sums_are_kept(screen, checkpoint, tmp_path):  # noqa: F811
    spec = {"name": "C", "builder": "cell_model", "model": str(checkpoint), "max_cells": 20}
    data = Dataset("d", "D", "lfc", pd.DataFrame(), screen=screen, extras={})
    made = build_all([spec], BuildContext(dataset=data), cache=tmp_path)
    assert [(e.name, e.cell_line) for e in made] == [("C", "A"), ("C", "B")]
    assert len(list((tmp_path / "models").glob("cell-model-*.npz"))) == 2
    with pytest.raises(InputError, match="does not exist"):
        build_all([spec | {"model": "./nowhere"}], BuildContext(dataset=data))


# DNA


def genes_at(monkeypatch, *rows):
    """A gene table of such rows."""
    columns = ["symbol", "chromosome", "start", "end", "strand"]
    table = pd.DataFrame([row.split() for row in rows], columns=columns)
    monkeypatch.setattr("perturbcore.data.identifiers.gene_table", lambda: table)


def test_windows_around_the_start_are_read_along_the_strand(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    one, two = ("".join(rng.choice(list("ACGT"), 400)) for _ in range(2))
    fasta = tmp_path / "g.fa.gz"
    with gzip.open(fasta, "wt") as handle:
        handle.write(f">chr1 first\n{one[:250].lower()}\n{one[250:]}\n>2\n{two}\n>X\nNNNN\n")
    genes_at(monkeypatch, "A 1 100 120 1", "B 2 180 200 -1", "C 2 3 9 1", "D 9 5 9 1")
    got = tss_windows(fasta, width=20)
    assert got["A"] == one[89:109] and got["C"] == two[:12] and set(got) == set("ABC")
    pair = {"A": "T", "C": "G", "G": "C", "T": "A"}
    assert got["B"] == "".join(pair[b] for b in reversed(two[189:209]))
    genes_at(monkeypatch, "D 9 5 9 1")
    pytest.raises(InputError, tss_windows, fasta).match("none of the chromosomes")


@pytest.mark.parametrize("words", [True, False])
def test_dna_models_average_bases_alone_over_pieces(tmp_path, monkeypatch, words):
    """Per-base vectors by a loop; a tokenizer may take a base for a word, or part words."""
    from tokenizers import Regex, pre_tokenizers

    split = None if words else pre_tokenizers.Split(Regex("."), "isolated")
    folder = saved(tmp_path / "dna", tokenizer_of(list("ACGTN"), split))
    windows = {"G2": "ACGTTGCA" * 3, "G1": "GGGTACCA"}
    e = dna_model(windows, name="E", model=str(folder), piece=10, batch_size=2)
    for gene in windows:
        total, n = 0, len(windows[gene])
        for k in range(0, n, 10):
            part = windows[gene][k : k + 10]
            total += states(folder, " ".join(part) if words else part)[1:-1].sum(axis=0)
        np.testing.assert_allclose(e.X[list(e.ids).index(gene)], total / n, atol=1e-5)
    assert e.modality == "DNA model" and "2 windows in 4 pieces of 10 bases" in e.source
    (tmp_path / "g.fa").write_text(">1\n" + "ACGT" * 5 + "\n")
    genes_at(monkeypatch, "A 1 9 20 1", "B 1 1 5 -1")
    spec = {"name": "D", "builder": "dna_model", "file": "g.fa", "model": str(folder)}
    obs = pd.DataFrame({"perturbation": ["B"]})
    data = SimpleNamespace(screen=None, responses=SimpleNamespace(obs=obs, var_names=[], uns={}))
    context = BuildContext(dataset=data, folder=tmp_path)
    assert list(build_all([spec | {"piece": 40}], context)[0].ids) == ["A", "B"]
