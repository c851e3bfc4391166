"""Readers of the published score and experimental-error tables, into the book's scores schema."""

import pandas as pd

from perturbcore.data.published.names import parse_method

SCORE_COLUMNS = [
    *("dataset", "task", "cell_line", "fold", "embedding", "display", "modality", "predictor"),
    *("method", "perturbation_set", "metric", "value", "source"),
]
LFC_METRICS = ("L2", "MSE", "MAE", "Spearman", "Pearson")
DEG_METRICS = (
    *("f1_score", "recall", "precision", "roc_auc", "average_precision", "f1_classwise"),
    "f1_score_nans_are_zeros",
)
PRIMARY = {"lfc": "L2", "deg": "f1_score"}
# The plain Essential label is an older, smaller perturbation set with other folds; its scores are
# not comparable with those of the full set and are kept apart wherever scores are used.
OLDER = r"essential.regression$"
CROSS_METHODS = {
    "contextmean": ("context_mean", "Train Mean", "Negative control"),
    "knn": ("cross_context_knn", "kNN", "Advanced"),
    "mlpcontinuous": ("mlp_embedding", "MLP ({})", "Advanced"),
    "mlponehot": ("mlp_onehot", "MLP (One-Hot)", "Advanced"),
    "st": ("state", "STATE", "Advanced"),
}


def _read_csv(path) -> pd.DataFrame:
    missing = dict(keep_default_na=False, na_values=["", "nan"])
    return pd.read_csv(path, float_precision="round_trip", **missing)


def read_scores(path, *, dataset: str, task: str) -> pd.DataFrame:
    """Read one published score table, such as `essential_lfc.csv`.

    Returns one row per metric per (method, cell line, fold); columns `SCORE_COLUMNS`.
    `perturbation_set` is "older" for the plain Essential label and "full" otherwise. Metrics
    that were not computed (empty cells) have no row.

    Cole et al. 2026, score tables of the released repository.
    """
    table = _read_csv(path)
    # "<cell line>.<fold>", or the fold alone beside a column of cell lines
    parts = table["fold"].astype(str).str.extract(r"^(?:(?P<line>.+)\.)?(?P<fold>\d+)$")
    line = parts["line"].fillna(table["cell_line"]) if "cell_line" in table else parts["line"]
    # rows of the experimental error carry no label
    older = "dataset" in table and table["dataset"].dropna().str.contains(OLDER).any()
    methods = [
        parse_method(name, dataset=dataset, task=task, cell_line=cell_line)
        for name, cell_line in zip(table["name"], line, strict=True)
    ]
    wide = pd.DataFrame(methods, index=table.index).assign(
        dataset=dataset,
        task=task,
        cell_line=line,
        fold=parts["fold"].astype(int),
        method=table["name"],
        perturbation_set="older" if older else "full",
        source="published",
    )
    wanted = LFC_METRICS if task == "lfc" else DEG_METRICS
    metrics = [m for m in wanted if m in table.columns]
    wide[metrics] = table[metrics].astype(float)
    ids = [c for c in SCORE_COLUMNS if c not in ("metric", "value")]
    scores = wide.melt(ids, metrics, "metric", "value").dropna(subset="value")
    return scores[SCORE_COLUMNS].reset_index(drop=True)


def read_cross_context(path, *, dataset: str, metric: str) -> pd.DataFrame:
    """Read one summary table of the comparison with STATE on unseen cell lines.

    Returns columns `SCORE_COLUMNS`, task "cross_context": one row per method per held-out line,
    fold 0.

    Cole et al. 2026, Figures S12 and S13.
    """
    table = _read_csv(path)
    source = "WaveGC" if dataset == "essential" else "ChatGPT"
    out = []
    for column, (predictor, display, modality) in CROSS_METHODS.items():
        continuous = column == "mlpcontinuous"
        columns = {
            "dataset": dataset,
            "task": "cross_context",
            "cell_line": table["cell_type"],
            "fold": 0,
            "embedding": source.replace("WaveGC", "STRING WaveGC") if continuous else "",
            "display": display.format(source),
            "modality": modality,
            "predictor": predictor,
            "method": column,
            "perturbation_set": "cross-context",
            "metric": metric,
            "value": table[column],
            "source": "published",
        }
        out.append(pd.DataFrame(columns))
    return pd.concat(out, ignore_index=True)[SCORE_COLUMNS]


def read_ceiling(path, *, dataset: str, cell_line: str | None = None) -> pd.DataFrame:
    """Read one published table of per-perturbation experimental error.

    `path`: for instance `exp_err_essential_k562_outer_10_inner_10_seed_5050.csv`; `cell_line`:
    for tables of one cell line; the Sciplex table names its lines itself.

    Returns dataset, cell_line, perturbation, quantile, metric, value, n_batches.

    Cole et al. 2026, Eq. 12 and Section 4.7.1.
    """
    table = _read_csv(path).rename(columns={"value": "L2", "pert_id": "perturbation"})
    table = table.rename(columns={"n_batches_pert": "n_batches"}).assign(dataset=dataset)
    if cell_line is None:
        table["cell_line"] = table["cell_line"].str.removeprefix(f"{dataset}_")
    else:
        table["cell_line"] = cell_line
    metrics = [m for m in LFC_METRICS if m in table]
    columns = ["dataset", "cell_line", "perturbation", "quantile", "n_batches"]
    return table.melt(columns, metrics, "metric", "value")
