"""The six metrics of the Virtual Cell Challenge 2026 from raw counts, beside cell-eval2 on CPU.

cell-eval2 cannot share this environment: put it into a folder of its own, with its dependencies,
and name that in PYTHONPATH. Without it only our seconds are given.
"""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from reporter import farthest, main, row, timed

from perturbcore.score.cells import CONTROL, SIX, TARGET, measure
from perturbcore.score.metrics.cells import Pair, rows_by_group, summarise

# ours -> theirs; their expression error is the ratio of two of their means
THEIRS = {
    "pds_cosine": "pds_cosine",
    "direction_fidelity": "de_wilcoxon_direction_fidelity_yield_raw",
    "direction_reach": "de_wilcoxon_direction_reach_raw",
    "sig_jaccard": "de_wilcoxon_sig_jaccard",
    "fold_change_error": "de_wilcoxon_lfc_nmae",
}


def cells(n, k, per, genes, drift):
    """Raw counts of `k` perturbations with `per` cells each, and as many control cells as `n`."""
    rng = np.random.default_rng(7)
    base = rng.lognormal(0, 1.5, genes)
    effects = rng.normal(size=(k, genes)) * (rng.random((k, genes)) < 0.1)
    effects += drift * rng.normal(size=(k, genes)) * (rng.random((k, genes)) < 0.1)
    rng = np.random.default_rng(int(10 * drift))
    parts = []
    for shift, size in [(np.zeros(genes), n), *((e, per) for e in effects)]:
        share = base * np.exp(shift)
        depth = rng.lognormal(np.log(0.25 * genes), 0.4, size)[:, None]
        parts.append(sp.csr_matrix(rng.poisson(depth * share / share.sum()).astype(np.float32)))
    names = np.repeat([CONTROL, *(f"g{3 * i}" for i in range(k))], [n, *[per] * k])
    obs = pd.DataFrame({TARGET: pd.Categorical(names)}, index=[f"c{i}" for i in range(len(names))])
    var = pd.DataFrame(index=[f"g{i}" for i in range(genes)])
    return AnnData(sp.vstack(parts, format="csr"), obs=obs, var=var)


def ours(predicted, measured):
    """Means of the metrics over perturbations."""
    groups, said = rows_by_group(measured.obs[TARGET]), rows_by_group(predicted.obs[TARGET])
    real = summarise(measured, groups, groups.pop(CONTROL))
    said.pop(CONTROL)
    return measure(Pair(summarise(predicted, said, real.control), real))


def theirs(predicted, measured):
    """The same of cell-eval2."""
    from cell_eval2 import EvalConfig, compute_metrics

    config = replace(EvalConfig.from_preset("vcc2026"), cache_strict=False)
    table = compute_metrics(predicted.copy(), measured.copy(), config=config).to_pandas()
    means = table.groupby("metric")["value"].mean()
    error = means["expr_mse_unbiased_capped"] / means["expr_distance_unbiased"]
    return {"expression_error": error} | {mine: means[name] for mine, name in THEIRS.items()}


def cases(options):
    """Yield the row."""
    k, per, genes = (12, 40, 300) if options.small else (300, 400, 5000)
    n = 4 * per if options.small else 4000
    measured, predicted = (cells(n, k, per, genes, drift) for drift in (0.0, 0.5))
    few = measured.obs[TARGET].isin([CONTROL, "g0", "g3"]).to_numpy()
    ours(predicted[few].copy(), measured[few].copy())  # compiled before it is timed
    mine, seconds = timed(lambda: ours(predicted, measured))
    other = agreement = None
    if find_spec("cell_eval2"):
        found, other = timed(lambda: theirs(predicted, measured))
        agreement = farthest([mine[n] for n in SIX], [found[n] for n in SIX])
    task = f"{k} perturbations x {per} cells x {genes:,} genes"
    yield row(task, "cell-eval2 (vcc2026, CPU)", seconds, other, agreement)


if __name__ == "__main__":
    main(__doc__, cases)
