"""Readers of the published score and experimental-error tables, into the book's scores schema."""

import re
from pathlib import Path

import pandas as pd

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.published.names import LINES, parse_method

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
N_FOLDS = 5
# The plain Essential label is an older, smaller perturbation set with other folds; its scores are
# not comparable with those of the full set and are kept apart wherever scores are used.
_OLDER = re.compile(r"essential.regression$")
CROSS_METHODS = {
    "contextmean": ("context_mean", "Train Mean", "Negative control"),
    "knn": ("cross_context_knn", "kNN", "Advanced"),
    "mlpcontinuous": ("mlp_embedding", "MLP ({})", "Advanced"),
    "mlponehot": ("mlp_onehot", "MLP (One-Hot)", "Advanced"),
    "st": ("state", "STATE", "Advanced"),
}


def _read_csv(path, required: tuple[str, ...]) -> pd.DataFrame:
    """Read a table as text and check that it has the columns it must have."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; `make data PROFILE=real` fetches published tables")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable csv table ({error}); fetch it again") from error
    for column in required:
        if column not in table.columns:
            have = ", ".join(map(str, table.columns))
            raise InputError(
                f"{path}: column {column!r} is missing (there are: {have}); the table was renamed "
                "or is another one; fetch the pinned version again"
            )
    if table.empty:
        raise InputError(f"{path}: the table has a header and no rows; fetch it again")
    return table


def _refuse(bad: pd.Series, path, column: str, values: pd.Series, problem: str) -> None:
    """Raise an error that names file, column, first bad row and its value."""
    if bad.any():
        row = int(bad.to_numpy(bool).argmax())
        raise InputError(
            f"{path}: column {column!r}, data row {row + 1}: {values.iloc[row]!r} {problem}"
        )


def _numbers(table: pd.DataFrame, column: str, path, *, needed: bool = True) -> pd.Series:
    """Turn a column into numbers; text that is none, or an empty cell if `needed`, is an error."""
    values = pd.to_numeric(table[column], errors="coerce")
    text = table[column]
    bad = values.isna() & (needed | (text.notna() & (text.str.lower() != "nan")))
    _refuse(bad, path, column, text, "is not a number; the file is damaged; fetch it again")
    return values


def _fold_and_line(table: pd.DataFrame, path, dataset: str) -> tuple[pd.Series, pd.Series]:
    parts = table["fold"].astype("string").str.extract(r"^(?:(?P<line>.+)\.)?(?P<fold>\d+)$")
    problem = "is not '<cell line>.<fold>'; the file is damaged or truncated; fetch it again"
    _refuse(parts["fold"].isna(), path, "fold", table["fold"], problem)
    line = parts["line"]
    if "cell_line" in table.columns:
        stated = table["cell_line"].astype("string")
        differ = line.notna() & stated.notna() & (line != stated)
        _refuse(differ, path, "fold", table["fold"], "and column 'cell_line' disagree")
        line = line.fillna(stated)
    known = LINES.get(dataset)
    wrong = line.isna() | (~line.isin(known) if known else False)
    problem = f"is not a cell line of {dataset!r}" + (f" ({', '.join(known)})" if known else "")
    _refuse(wrong, path, "cell_line", line, problem)
    return parts["fold"].astype(int), line.astype(str)


def _check_complete(scores: pd.DataFrame, path, dataset: str, metric: str) -> None:
    main = scores[scores["metric"] == metric]
    twice = main.duplicated(["method", "perturbation_set", "cell_line", "fold"])
    if twice.any():
        row = main[twice].iloc[0]
        raise InputError(
            f"{path}: column 'name': {row['method']!r} has two rows for "
            f"{row['cell_line']}.{row['fold']}"
        )
    lines = LINES.get(dataset) or tuple(sorted(main["cell_line"].unique()))
    for predictor in ("no_change", "experimental_error"):
        have = main[main["predictor"] == predictor]
        for line in lines:
            folds = sorted(have.loc[have["cell_line"] == line, "fold"])
            if folds != list(range(N_FOLDS)):
                raise InputError(
                    f"{path}: column 'fold': {predictor} of {line} has folds {folds} instead of "
                    f"0 to {N_FOLDS - 1}; the table looks truncated; fetch it again"
                )


def _perturbation_set(table: pd.DataFrame, path) -> str:
    """Which perturbation set a table holds; one table never mixes the two."""
    if "dataset" not in table.columns:
        return "full"
    label = table["dataset"].dropna()  # experimental-error rows carry no label
    older = label.str.replace("-", "_").str.contains(_OLDER)
    if older.any() and not older.all():
        raise InputError(
            f"{path}: column 'dataset' mixes the older Essential perturbation set with the full "
            "one; split the table, their scores are not comparable"
        )
    return "older" if older.any() else "full"


def read_scores(path, *, dataset: str, task: str) -> pd.DataFrame:
    """Read one published score table.

    `path`: for instance `essential_lfc.csv`.

    Returns one row per metric per (method, cell line, fold); columns `SCORE_COLUMNS`.
    `perturbation_set` is "older" for the plain Essential label and "full" otherwise; the two
    must not be mixed. Metrics that were not computed (empty cells) have no row.

    Cole et al. 2026, score tables of the released repository.
    """
    if task not in PRIMARY:
        raise ParameterError(f"task {task!r} is not one of {', '.join(PRIMARY)}")
    primary = PRIMARY[task]
    table = _read_csv(path, ("name", "fold", primary))
    _refuse(table["name"].isna(), path, "name", table["name"], "is empty; fetch it again")
    fold, line = _fold_and_line(table, path, dataset)
    methods = [
        parse_method(name, dataset=dataset, task=task, cell_line=cell_line)
        for name, cell_line in zip(table["name"], line, strict=True)
    ]
    wide = pd.DataFrame(methods, index=table.index).assign(
        dataset=dataset,
        task=task,
        cell_line=line,
        fold=fold,
        method=table["name"],
        perturbation_set=_perturbation_set(table, path),
        source="published",
    )
    wanted = LFC_METRICS if task == "lfc" else DEG_METRICS
    metrics = [m for m in wanted if m in table.columns]
    for metric in metrics:
        wide[metric] = _numbers(table, metric, path, needed=metric == primary)
    ids = [c for c in SCORE_COLUMNS if c not in ("metric", "value")]
    scores = wide.melt(ids, metrics, "metric", "value").dropna(subset="value")
    _check_complete(scores, path, dataset, primary)
    return scores[SCORE_COLUMNS].reset_index(drop=True)


def read_cross_context(path, *, dataset: str, metric: str) -> pd.DataFrame:
    """Read one summary table of the comparison with STATE on unseen cell lines.

    Returns columns `SCORE_COLUMNS`, task "cross_context": one row per method per held-out line,
    fold 0. Raises InputError if the file is absent, damaged or renamed.

    Cole et al. 2026, Figures S12 and S13.
    """
    table = _read_csv(path, ("cell_type", *CROSS_METHODS))
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
            "value": _numbers(table, column, path),
            "source": "published",
        }
        out.append(pd.DataFrame(columns))
    return pd.concat(out, ignore_index=True)[SCORE_COLUMNS]


def read_ceiling(path, *, dataset: str, cell_line: str | None = None) -> pd.DataFrame:
    """Read one published table of per-perturbation experimental error.

    `path`: for instance `exp_err_essential_k562_outer_10_inner_10_seed_5050.csv`; `cell_line`:
    for tables of one cell line; the Sciplex table names its lines itself.

    Returns dataset, cell_line, perturbation, quantile, metric, value, n_batches; `n_cells` is
    not published and is missing.

    Cole et al. 2026, Eq. 12 and Section 4.7.1.
    """
    table = _read_csv(path, ("quantile", "pert_id", "n_batches_pert"))
    if "L2" not in table.columns and "value" not in table.columns:
        raise InputError(f"{path}: column 'L2' (or 'value') is missing; fetch the table again")
    if cell_line is None and "cell_line" not in table.columns:
        raise InputError(f"{path}: column 'cell_line' is missing, and none was given")
    _refuse(table["pert_id"].isna(), path, "pert_id", table["pert_id"], "is empty; fetch it again")
    table = table.rename(columns={"value": "L2"})
    metrics = [m for m in LFC_METRICS if m in table.columns]
    columns = {
        "dataset": dataset,
        "cell_line": cell_line or table.get("cell_line", "").str.removeprefix(f"{dataset}_"),
        "perturbation": table["pert_id"],
        "quantile": _numbers(table, "quantile", path),
        "n_batches": _numbers(table, "n_batches_pert", path).astype(int),
    }
    out = pd.DataFrame(columns).assign(**{m: _numbers(table, m, path) for m in metrics})
    counts = out.groupby(["cell_line", "perturbation"])["quantile"].nunique()
    if counts.nunique() != 1:
        raise InputError(
            f"{path}: column 'quantile': perturbation {counts.idxmin()[1]!r} has {counts.min()} "
            f"quantiles, others have {counts.max()}; the table looks truncated; fetch it again"
        )
    return out.melt(list(columns), metrics, "metric", "value")
