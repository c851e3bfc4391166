"""Data sets made once and opened from disk: the same in every value.

And made anew when they must.
"""

import json
import os

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import perturbcore.core.digest as code
import perturbcore.data.stored as stored
from perturbcore.core.digest import digest, imports_of
from perturbcore.data.sets.base import load
from perturbcore.data.stored import open_dataset

OPTIONS = dict(n_cell_lines=1, n_perturbations=40, n_genes=60, n_batches=4, n_control_cells=100)
DRUGS = dict(n_drugs=30, n_cell_lines=1, n_genes=60)


def same(a: ad.AnnData, b: ad.AnnData):
    """Hold two tables against each other, types included."""
    pd.testing.assert_frame_equal(a.obs, b.obs)
    pd.testing.assert_frame_equal(a.var, b.var)
    assert digest(a.X) == digest(b.X) and a.X.dtype == b.X.dtype
    assert sorted(a.layers) == sorted(b.layers)
    np.testing.assert_equal(dict(a.uns), dict(b.uns))
    assert all(digest(a.layers[k]) == digest(b.layers[k]) for k in a.layers)


KINDS = [("simulated", OPTIONS | {"task": "deg"}), ("simulated_drugs", DRUGS)]


@pytest.mark.parametrize("loader, options", KINDS)
def test_what_is_opened_is_what_was_loaded(tmp_path, loader, options):
    made, kept = load(loader, **options), open_dataset("mine", loader, options, tmp_path)
    same(kept.responses, made.responses)
    same(kept.screen, made.screen)
    pd.testing.assert_frame_equal(kept.card, made.card)
    for name in ("name", "title", "task", "simulated", "sources", "citations", "notes"):
        assert getattr(kept, name) == getattr(made, name), name
    assert kept.replicates is None and kept.ceiling is None and not kept.holds("ceiling")
    a, b = kept.extras["simulation"], made.extras["simulation"]
    same(a.true_effects, b.true_effects)
    assert digest(a.knowledge.network) == digest(b.knowledge.network)
    assert a.knowledge.annotation == b.knowledge.annotation
    assert json.dumps(a.parameters) == json.dumps(b.parameters)
    assert set(kept.extras) == set(made.extras) and len(kept.extras) == len(made.extras)
    if made.extras.get("drugs") is not None:
        pd.testing.assert_frame_equal(kept.extras["drugs"], made.extras["drugs"])
    # the responses are a plain .h5ad that anyone can read
    (file,) = tmp_path.glob("mine-*.h5ad")
    np.testing.assert_array_equal(ad.read_h5ad(file).X, made.responses.X)


def test_a_second_opening_loads_nothing_and_a_change_does(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(stored, "load", lambda *a, **o: calls.append(o) or load(*a, **o))
    for _ in range(2):
        data = open_dataset("mine", "simulated", OPTIONS, tmp_path)
        assert data.screen.n_obs and data.extras["simulation"].knowledge.network.shape[0]
    assert len(calls) == 1
    open_dataset("mine", "simulated", OPTIONS | {"seed": 1}, tmp_path)
    assert len(calls) == 2 and len(list(tmp_path.glob("mine-*"))) == 2
    monkeypatch.setattr(stored, "code_digest", lambda *a: "a changed formula")
    open_dataset("mine", "simulated", OPTIONS | {"seed": 1}, tmp_path)
    assert len(calls) == 3
    monkeypatch.setattr(stored, "_files", lambda names: {"pinned": "another file"})
    open_dataset("mine", "simulated", OPTIONS | {"seed": 1}, tmp_path)
    assert len(calls) == 4


def test_a_users_file_counts_by_its_content_and_large_cells_stay_there(tmp_path, monkeypatch):
    screen = load("simulated", **OPTIONS).screen
    path = tmp_path / "screen.h5ad"
    screen.write_h5ad(path)
    options = {"screen": str(path), "scale": "counts"}
    options |= dict(perturbation="perturbation", batch="batch", cell_line="cell_line", control="control")  # fmt: skip
    monkeypatch.setattr(stored, "_LARGEST", 10)
    first = open_dataset("mine", "from_files", options, tmp_path / "kept")
    assert first.holds("screen") and "screen" in first._facts["elsewhere"]
    assert digest(first.screen.X) == digest(screen.X)
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    other = screen.copy()
    other.X[0, 0] += 1
    other.write_h5ad(path)
    os.utime(path, ns=times)  # as rsync and cp -p do
    assert open_dataset("mine", "from_files", options, tmp_path / "kept").key != first.key


# digests


def test_equal_content_has_equal_digest_and_a_changed_value_does_not():
    a = np.arange(6.0).reshape(2, 3)
    assert digest(a) == digest(a.copy(order="F"))
    b = a.copy()
    b[1, 2] += 1e-12
    assert digest(a) != digest(b)
    assert digest(a) != digest(a.T.copy())
    frame = pd.DataFrame({"x": [1, 2]}, index=["a", "b"])
    assert digest(frame) != digest(frame.rename(columns={"x": "y"}))
    assert digest(frame) != digest(frame.rename(index={"b": "c"}))
    m = sp.random(5, 5, 0.4, format="csr", random_state=0)
    assert digest(m) == digest(m.tocsc())
    assert digest(m) != digest(sp.csr_matrix((m.data, m.indices, m.indptr), (5, 6)))
    assert digest(2, 12) != digest(21, 2)  # numbers of draws: one ceiling was taken for the other
    assert digest("ab", "c") != digest("a", "bc") and digest("1") != digest(1)


def test_a_result_depends_on_what_its_code_imports_and_on_nothing_else():
    found = imports_of("perturbcore.models.fusion.transformer")
    assert {"perturbcore.models.fusion.network", "perturbcore.core.training"} <= found
    assert not any(m.startswith(("perturbcore.report", "perturbcore.book")) for m in found)


def package(tmp_path, monkeypatch, **files):
    """A stand-in for the package, of the files given."""
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(code, "_ROOT", tmp_path)
    for kept in (code._imported, code._normal, code.code_digest):
        kept.cache_clear()
    return code.code_digest("perturbcore.a")


A = '"""Doc."""\nfrom perturbcore.b import two\n\n\ndef one():\n    """Say one."""\n    return 1 + two\n'


def test_prose_and_layout_change_no_key_and_a_formula_does(tmp_path, monkeypatch):
    files = {"a": A, "b": "two = 2\n", "c": "red = 1\n"}
    first = package(tmp_path, monkeypatch, **files)
    assert package(tmp_path, monkeypatch, **files | {"c": "red = 2\n"}) == first
    reworded = A.replace("Say one.", "Return one.").replace("return", "# a comment\n    return")
    assert package(tmp_path, monkeypatch, **files | {"a": reworded}) == first
    assert package(tmp_path, monkeypatch, **files | {"a": A.replace("1 +", "1 -")}) != first
    assert package(tmp_path, monkeypatch, **files | {"b": "two = 3\n"}) != first
    (tmp_path / "facts.csv").write_text("1")
    first = package(tmp_path, monkeypatch, **files | {"b": 'two = "facts.csv"\n'})
    (tmp_path / "facts.csv").write_text("2")
    assert package(tmp_path, monkeypatch, **files | {"b": 'two = "facts.csv"\n'}) != first
    for kept in (code._imported, code._normal, code.code_digest):
        kept.cache_clear()
