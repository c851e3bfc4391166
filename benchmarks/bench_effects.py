"""BA-ATE of a big backed screen, against scanpy in memory: seconds and peak memory.

Each contender runs in a process of its own, so that peak memory is its own. The baseline is what
a user would write: read the file, normalise with scanpy, ``scanpy.get.aggregate`` per (batch,
perturbation), then the mean over batches with pandas.
"""

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

FULL = {"n_cells": 300_000, "n_genes": 6_640, "n_perturbations": 1_500, "n_batches": 48}
SMALL = {"n_cells": 6_000, "n_genes": 400, "n_perturbations": 30, "n_batches": 6}


def write_screen(path, *, n_cells, n_genes, n_perturbations, n_batches, seed=0):
    """Write a CSR screen block by block; mean density about 0.15."""
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
        for start in range(0, n_cells, 2000):
            n = min(2000, n_cells - start)
            library = rng.lognormal(np.log(depth), 0.35, n)
            block = rng.poisson(library[:, None] * share).astype(np.float32)
            block[:, 0] += block.sum(1) == 0
            r, c = np.nonzero(block)
            end = indptr[-1] + len(r)
            for name, values in (("data", block[r, c]), ("indices", c)):
                x[name].resize((end,))
                x[name][indptr[-1] : end] = values
            indptr.extend((indptr[-1] + np.cumsum(np.bincount(r, minlength=n))).tolist())
        x["indptr"] = np.array(indptr, dtype=np.int64)
    return indptr[-1] / (n_cells * n_genes)


def ours(path, control):
    from perturbcore.data.effects.ba_ate import ba_ate
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


def child(who, path, control, out):
    run = {"ours": ours, "baseline": baseline}[who]
    # imports are not what is compared
    importlib.import_module({"ours": "perturbcore.data.effects", "baseline": "scanpy"}[who])
    start_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    effect = run(path, control)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    np.save(out, effect.sort_index().to_numpy(dtype=np.float32))
    print(json.dumps({"seconds": seconds, "peak_mb": peak, "start_mb": start_mb}))


def measure(who, path, control, out):
    command = [sys.executable, __file__, "--child", who, str(path), control, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    if done.returncode:
        raise RuntimeError(f"{who} ({control}) failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def run(sizes=FULL, folder=None, repeats=1) -> list:
    """Measure both variants; rows of the benchmark table."""
    rows = []
    with tempfile.TemporaryDirectory(dir=folder) as folder:
        path = Path(folder) / "screen.h5ad"
        density = write_screen(path, **sizes)
        # one call on a tiny screen, so that compiling is not timed: it happens once a machine
        warm = Path(folder) / "warm.h5ad"
        write_screen(warm, **SMALL)
        measure("ours", warm, "global", Path(folder) / "warm.npy")
        for control in ("global", "matched"):
            best = {}
            for who in ("ours", "baseline"):
                tries = [
                    measure(who, path, control, Path(folder) / f"{who}.npy") for _ in range(repeats)
                ]
                best[who] = min(tries, key=lambda t: t["seconds"])
            a, b = (np.load(Path(folder) / f"{who}.npy") for who in ("ours", "baseline"))
            rows.append(
                {
                    "task": f"BA-ATE ({control} control), {sizes['n_cells']:,} cells x "
                    f"{sizes['n_genes']:,} genes, density {density:.2f}, backed on disk",
                    "baseline": "scanpy.get.aggregate in memory + pandas",
                    "ours_seconds": round(best["ours"]["seconds"], 2),
                    "baseline_seconds": round(best["baseline"]["seconds"], 2),
                    "ratio": round(best["baseline"]["seconds"] / best["ours"]["seconds"], 2),
                    "ours_peak_mb": round(best["ours"]["peak_mb"]),
                    "baseline_peak_mb": round(best["baseline"]["peak_mb"]),
                    "agreement": float(np.abs(a - b).max()),
                }
            )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--small", action="store_true", help="a run of seconds, to see that it works"
    )
    parser.add_argument("--out", type=Path, help="write the table as JSON here")
    parser.add_argument(
        "--folder", type=Path, help="where the file is written (5 GB); default: temporary"
    )
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(*args.child)
        return
    rows = run(SMALL if args.small else FULL, args.folder, args.repeats)
    print(pd.DataFrame(rows).drop(columns="baseline").to_string(index=False))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
