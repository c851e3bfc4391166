"""BA-ATE of a big backed screen, against scanpy in memory: seconds and peak memory.

Each contender runs in a process of its own, so that peak memory is its own. The baseline is what
a user would write: read the file, normalise with scanpy, ``scanpy.get.aggregate`` per (batch,
perturbation), then the mean over batches with pandas.
"""

import importlib
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from reporter import Seconds, apart, farthest, main, peak_mb, row, timed

FULL = {"n_cells": 300_000, "n_genes": 6_640, "n_perturbations": 1_500, "n_batches": 48}
SMALL = {"n_cells": 6_000, "n_genes": 400, "n_perturbations": 30, "n_batches": 6}


def write_screen(path, *, n_cells, n_genes, n_perturbations, n_batches, seed=0, distinct=10**6):
    """Write a CSR screen block by block; mean density about 0.15.

    Counts beyond `distinct` cells repeat earlier ones, under labels of their own.
    """
    import h5py
    from anndata import AnnData

    rng = np.random.default_rng(seed)
    share = rng.lognormal(0.0, 1.8, n_genes)
    share /= share.sum()
    code = np.where(
        rng.random(n_cells) < 0.05, n_perturbations, rng.integers(0, n_perturbations, n_cells)
    )
    names = np.array([f"P{i:05d}" for i in range(n_perturbations)] + ["control"], dtype=object)
    obs = pd.DataFrame(
        {
            "perturbation": pd.Categorical(names[code]),
            "batch": pd.Categorical(rng.integers(1, n_batches + 1, n_cells).astype(str)),
            "cell_line": pd.Categorical(np.full(n_cells, "K562")),
            "is_control": code == n_perturbations,
        },
        index=[f"c{i}" for i in range(n_cells)],
    )
    frame = AnnData(obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(n_genes)]))
    frame.uns["perturbcore"] = {
        "scale": "counts", "dataset": "benchmark", "identifier": "symbol", "simulated": True,
        "unmatched": "keep",
    }  # fmt: skip
    frame.write_h5ad(path)
    depth = 0.3 * n_genes
    indptr = [0]
    with h5py.File(path, "a") as f:
        f.pop("X", None)
        x = f.create_group("X")
        x.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
        x.attrs["shape"] = np.array([n_cells, n_genes])
        for name, kind in (("data", "f4"), ("indices", "i4")):
            x.create_dataset(name, (0,), kind, maxshape=(None,), chunks=(1 << 18,))
        made = []
        for start in range(0, n_cells, 2000):
            n, before = min(2000, n_cells - start), start // 2000 - max(1, distinct // 2000)
            if n == 2000 and before >= 0:
                per_cell, parts = made[before % len(made)]
            else:
                library = rng.lognormal(np.log(depth), 0.35, n)
                block = rng.poisson(library[:, None] * share).astype(np.float32)
                block[:, 0] += block.sum(1) == 0
                r, c = np.nonzero(block)
                per_cell = np.bincount(r, minlength=n)
                parts = {"data": block[r, c], "indices": c.astype(np.int32)}
                if distinct < n_cells:
                    made.append((per_cell, parts))
            end = indptr[-1] + len(parts["data"])
            for name, values in parts.items():
                x[name].resize((end,))
                x[name][indptr[-1] : end] = values
            indptr.extend((indptr[-1] + np.cumsum(per_cell)).tolist())
        x["indptr"] = np.array(indptr, dtype=np.int64)
    return indptr[-1] / (n_cells * n_genes)


def ours(path, control):
    from perturbcore.data.effects import ba_ate
    from perturbcore.data.screens.declare import read_screen

    screen = read_screen(path, backed=True)
    return ba_ate(screen, control=control, batches="with_controls", progress=False).to_df()


def baseline(path, control):
    import anndata
    import scanpy as sc

    adata = anndata.read_h5ad(path)
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    means = sc.get.aggregate(adata, by=["perturbation", "batch"], func="mean")
    frame = pd.DataFrame(means.layers["mean"], columns=means.var_names)
    labels = [
        means.obs["perturbation"].astype(str).to_numpy(),
        means.obs["batch"].astype(str).to_numpy(),
    ]
    frame.index = pd.MultiIndex.from_arrays(labels, names=["perturbation", "batch"])
    del adata, means
    control_means = frame.loc["control"]
    treated = frame.drop(index="control", level="perturbation")
    treated = treated[treated.index.get_level_values("batch").isin(control_means.index)]
    if control == "matched":
        batch = treated.index.get_level_values("batch")
        treated = treated - control_means.loc[batch].to_numpy()
        effect = treated.groupby(level="perturbation").mean()
    else:
        effect = treated.groupby(level="perturbation").mean() - control_means.mean()
    effect.index = "K562|" + effect.index
    return effect


WAYS = {"ours": ours, "baseline": baseline}


def child(who, path, control, out):
    run = WAYS[who]
    # imports are not what is compared
    importlib.import_module({"ours": "perturbcore.data.effects", "baseline": "scanpy"}[who])
    effect, seconds = timed(lambda: run(path, control))
    np.save(out, effect.sort_index().to_numpy(dtype=np.float32))
    return {"seconds": seconds.times, "peak_mb": peak_mb()}


def cases(options):
    """Yield a row for each kind of control."""
    sizes = SMALL if options.small else FULL
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path, kept = Path(folder) / "screen.h5ad", {w: Path(folder) / f"{w}.npy" for w in WAYS}
        density = write_screen(path, **sizes)
        # one call on a tiny screen, so that compiling is not timed: it happens once per machine
        warm = Path(folder) / "warm.h5ad"
        write_screen(warm, **SMALL)
        apart(__file__, "ours", warm, "global", kept["ours"])
        size = f"{sizes['n_cells']:,} cells x {sizes['n_genes']:,} genes, density {density:.2f}"
        for control in ("global", "matched"):
            found = [apart(__file__, who, path, control, kept[who]) for who in WAYS]
            yield row(
                f"BA-ATE, {control} control, {size}, backed on disk",
                "scanpy.get.aggregate in memory + pandas", *(Seconds(f["seconds"]) for f in found),
                farthest(*map(np.load, kept.values())), ours_peak_mb=found[0]["peak_mb"],
                baseline_peak_mb=found[1]["peak_mb"],
            )  # fmt: skip


if __name__ == "__main__":
    main(__doc__, cases, child)
