"""Data sets made once and opened from disk: the same in every value.

And made anew when they must.
"""

import json
import os

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import perturbcore.data.stored as stored
from perturbcore.core.digest import digest
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
