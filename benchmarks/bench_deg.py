"""DEG labels against scanpy, and the classifier of labels against one scikit-learn model a gene.

Labels: each contender runs in a process of its own, so that peak memory is its own, once to warm up
and then to be timed, from raw counts in memory. The classifier is compared at its own job: one fit
with a given penalty on all genes, and class-balanced probabilities of the test perturbations.
"""

import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from reporter import Seconds, apart, main, peak_mb, row, timed

WHO = ("ours", "scanpy")
FULL = {"n_cells": 60_000, "n_genes": 5_000, "n_perturbations": 300}
SMALL = {"n_cells": 4_000, "n_genes": 300, "n_perturbations": 20}
FITS = [(400, 500), (400, 2_000), (1_600, 2_000), (1_600, 6_640)]
SMALL_FITS = [(120, 40)]
DIMENSIONS, C = 100, 1e5


def make_counts(n_cells, n_genes, n_perturbations, seed=0):
    """CSR counts of about a tenth non-zero entries, a twentieth of the cells controls."""
    rng = np.random.default_rng(seed)
    share = rng.lognormal(0.0, 1.8, n_genes)
    share /= share.sum()
    code = np.where(
        rng.random(n_cells) < 0.05, n_perturbations, rng.integers(0, n_perturbations, n_cells)
    )
    fold = np.where(rng.random((n_perturbations + 1, n_genes)) < 0.02, 2.5, 1.0)
    fold[-1] = 1
    blocks = []
    for start in range(0, n_cells, 2000):
        here = code[start : start + 2000]
        library = rng.lognormal(np.log(0.2 * n_genes), 0.35, len(here))
        block = rng.poisson(library[:, None] * share * fold[here]).astype(np.float32)
        block[:, 0] += block.sum(axis=1) == 0
        blocks.append(sp.csr_matrix(block))
    names = np.array([f"P{i:04d}" for i in range(n_perturbations)] + ["control"], dtype=object)
    obs = pd.DataFrame(
        {"perturbation": names[code], "batch": rng.integers(1, 21, n_cells).astype(str)},
        index=[f"c{i}" for i in range(n_cells)],
    )
    return sp.vstack(blocks, format="csr"), obs


def ours(adata, scale):
    """Return what prepares a run, and the run itself."""
    from perturbcore.data.deg import deg_labels
    from perturbcore.data.screens.declare import declare_screen

    screen = declare_screen(
        adata, dataset="benchmark", perturbation="perturbation", batch="batch", cell_line=None,
        cell_line_value="K562", control="control", scale=scale, simulated=True,
    )  # fmt: skip
    return lambda: None, lambda _: deg_labels(screen, progress=False)


def scanpy(adata, scale):
    import scanpy as sc

    adata.obs["perturbation"] = adata.obs["perturbation"].astype("category")

    def run(cells):
        if scale == "counts":
            sc.pp.normalize_total(cells, target_sum=1e4)
            sc.pp.log1p(cells)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sc.tl.rank_genes_groups(cells, "perturbation", reference="control", method="t-test")
        return cells

    # it normalises in place: the copy that repeated runs need is not timed
    return adata.copy, run


def table_of(who, result):
    """Return labels, of scanpy t and adjusted p, outside of what is timed."""
    if who == "ours":
        return {"label": result.layers["deg"][:, np.argsort(result.var_names)]}
    found = result.uns["rank_genes_groups"]
    names = sorted(found["names"].dtype.names)
    out = {}
    for key, field in (("t", "scores"), ("p_adj", "pvals_adj")):
        order = [np.argsort(found["names"][n]) for n in names]
        out[key] = np.stack([found[field][n][o] for n, o in zip(names, order, strict=True)])
    return out


def child(who, scale, folder):
    import anndata

    adata = anndata.read_h5ad(Path(folder) / "cells.h5ad")
    if scale == "log1p":
        import scanpy as sc

        sc.pp.normalize_total(adata, target_sum=1e4)
        sc.pp.log1p(adata)
    prepare, run = scanpy(adata, scale) if who == "scanpy" else ours(adata, scale)
    seconds, held = [], peak_mb()
    for _ in range(4):
        cells = prepare()
        result, one = timed(lambda: run(cells), 1)  # noqa: B023
        seconds.append(one)
    peak = peak_mb()
    np.savez(Path(folder) / f"{who}.npz", **table_of(who, result))
    # the first run compiles and imports
    return {"seconds": seconds[1:], "extra_mb": peak - held}


def label_rows(sizes):
    """Compare tests of every perturbation against control."""
    from anndata import AnnData

    with tempfile.TemporaryDirectory() as folder:
        X, obs = make_counts(**sizes)
        genes = pd.DataFrame(index=[f"g{i:05d}" for i in range(X.shape[1])])
        AnnData(X, obs=obs, var=genes).write_h5ad(Path(folder) / "cells.h5ad")
        what = (
            f"{sizes['n_cells']:,} cells x {sizes['n_genes']:,} genes, density "
            f"{X.nnz / np.prod(X.shape):.2f}, {sizes['n_perturbations']} perturbations"
        )
        before = {"counts": "normalize_total, log1p, ", "log1p": ""}
        for scale, more in before.items():
            found = {who: apart(__file__, who, scale, folder) for who in WHO}
            kept = [np.load(Path(folder) / f"{who}.npz") for who in WHO]
            mine, theirs = found.values()
            yield row(
                f"DEG labels from {scale}, {what}", f"scanpy {more}rank_genes_groups (t-test)",
                Seconds(mine["seconds"]), Seconds(theirs["seconds"]), compare(*kept),
                ours_extra_mb=mine["extra_mb"], baseline_extra_mb=theirs["extra_mb"],
            )  # fmt: skip


def compare(a, b) -> str:
    """Say in how many labels two contenders differ, away from the threshold."""
    clear = np.abs(b["p_adj"] - 0.05) > 1e-4
    theirs = np.sign(b["t"]) * (b["p_adj"] < 0.05)
    apart = ((a["label"] != theirs) & clear).sum()
    return f"{apart} labels differ, {(theirs != 0).sum()} are not 0"


def make_labels(n, n_genes, seed=0):
    """Coordinates, and labels of which a tenth follow them."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n + n // 4, DIMENSIONS)).astype(np.float32)
    score = X[:, :10] @ rng.normal(size=(10, n_genes)) / np.sqrt(10) + rng.normal(
        size=(len(X), n_genes)
    )
    label = np.where(score > 1.8, 1, np.where(score < -1.8, -1, 0)).astype(np.int8)
    label[:3] = [[-1], [0], [1]]
    return X[:n], label[:n], X[n:], label[n:]


def fit_row(n, n_genes, sample):
    """Compare one fit on all genes; the baseline is timed on a sample of them and scaled up."""
    from sklearn.linear_model import LogisticRegression

    from perturbcore.models.simple.deg import Softmax
    from perturbcore.score.metrics.deg import deg_metrics

    X, label, X_test, truth = make_labels(n, n_genes)
    model = Softmax()
    model.fit(X, label[:, :8] + 1, C)
    ours, seconds = timed(lambda: model.probabilities(model.fit(X, label + 1, C), X_test))
    genes = np.arange(n_genes)[:: max(1, n_genes // sample)][:sample]
    theirs = np.empty((3, len(X_test), len(genes)), dtype=np.float32)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it stops at 100 iterations, as ours does
        for i, gene in enumerate(genes):
            how = dict(C=C / (2 * n_genes * n), class_weight="balanced", max_iter=100)
            one = LogisticRegression(**how).fit(X, label[:, gene])
            theirs[:, :, i] = one.predict_proba(X_test).T
    other = (time.perf_counter() - start) * n_genes / len(genes)
    f1 = [
        round(deg_metrics(truth[:, genes], p, ["f1_score"])["f1_score"], 4)
        for p in (ours[:, :, genes], theirs)
    ]
    return row(
        f"Classifier, {n:,} perturbations x {n_genes:,} genes",
        f"scikit-learn LogisticRegression per gene ({len(genes)} timed)", seconds, other,
        f"macro F1: ours {f1[0]}, baseline {f1[1]}",
    )  # fmt: skip


def cases(options):
    """Yield the rows of labels, then those of the classifier."""
    yield from label_rows(SMALL if options.small else FULL)
    for n, n_genes in SMALL_FITS if options.small else FITS:
        yield fit_row(n, n_genes, 10 if options.small else 100)


if __name__ == "__main__":
    main(__doc__, cases, child)
