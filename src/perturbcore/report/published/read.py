"""Readers of the published score and experimental-error tables, into the book's scores schema."""

import re
from pathlib import Path

import pandas as pd

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.authors.names import LINES, parse_method

SCORE_COLUMNS = [
    "dataset",
    "task",
    "cell_line",
    "fold",
    "embedding",
    "display",
    "modality",
    "predictor",
    "method",
    "perturbation_set",
    "metric",
    "value",
    "source",
]
LFC_METRICS = ("L2", "MSE", "MAE", "Spearman", "Pearson")
DEG_METRICS = (
    "f1_score",
    "recall",
    "precision",
    "roc_auc",
    "average_precision",
    "f1_classwise",
    "f1_score_nans_are_zeros",
)
PRIMARY = {"lfc": "L2", "deg": "f1_score"}
N_FOLDS = 5
# The plain Essential label is an older, smaller perturbation set with other folds; its scores are
# not comparable with those of the full set and are kept apart wherever scores are used.
_OLDER = re.compile(r"essential.regression$")


def read_csv(path, required: tuple[str, ...]) -> pd.DataFrame:
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


def numbers(table: pd.DataFrame, column: str, path, *, needed: bool) -> pd.Series:
    """Turn a column into numbers; text that is none, or an empty cell if `needed`, is an error."""
    values = pd.to_numeric(table[column], errors="coerce")
    text = table[column]
    bad = values.isna() & text.notna() & (text.str.lower() != "nan")
    if needed:
        bad |= values.isna()
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise InputError(
            f"{path}: column {column!r}, data row {row + 1}: {text.iloc[row]!r} is not a number; "
            "the file is damaged or truncated; fetch it again"
        )
    return values


def _fold_and_line(table: pd.DataFrame, path, dataset: str) -> tuple[pd.Series, pd.Series]:
    parts = table["fold"].astype("string").str.extract(r"^(?:(?P<line>.+)\.)?(?P<fold>\d+)$")
    bad = parts["fold"].isna()
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise InputError(
            f"{path}: column 'fold', data row {row + 1}: {table['fold'].iloc[row]!r} is not "
            "'<cell line>.<fold>'; the file is damaged or truncated; fetch it again"
        )
    line = parts["line"]
    if "cell_line" in table.columns:
        stated = table["cell_line"].astype("string")
        differ = line.notna() & stated.notna() & (line != stated)
        if differ.any():
            row = int(differ.to_numpy().argmax())
            raise InputError(
                f"{path}: columns 'fold' and 'cell_line' disagree in data row {row + 1}: "
                f"{table['fold'].iloc[row]!r} against {stated.iloc[row]!r}"
            )
        line = line.fillna(stated)
    known = LINES.get(dataset)
    wrong = line.isna() | (~line.isin(known) if known else False)
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise InputError(
            f"{path}: column 'cell_line', data row {row + 1}: {line.iloc[row]!r} is not a cell "
            f"line of {dataset!r}" + (f" ({', '.join(known)})" if known else "")
        )
    return parts["fold"].astype(int), line.astype(str)


def _check_complete(scores: pd.DataFrame, path, dataset: str, metric: str) -> None:
    main = scores[scores["metric"] == metric]
    twice = main.duplicated(["method", "perturbation_set", "cell_line", "fold"])
    if twice.any():
        row = main[twice].iloc[0]
        raise InputError(
            f"{path}: column 'name': {row['method']!r} has two rows for {row['cell_line']}.{row['fold']}"
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


def read_scores(path, *, dataset: str, task: str) -> pd.DataFrame:
    """Read one published score table.

    Parameters
    ----------
    path : str or Path
        For instance `essential_lfc.csv`.
    dataset : {"essential", "norman", "sciplex", "tahoe"}
        Data set of the table.
    task : {"lfc", "deg"}
        Regression of log fold-changes, or classification of differential expression.

    Returns
    -------
    pandas.DataFrame
        One row a metric a (method, cell line, fold); columns `SCORE_COLUMNS`. `perturbation_set`
        is "older" for the plain Essential label and "full" otherwise; the two must not be mixed.
        Metrics that were not computed (empty cells) have no row.

    Raises
    ------
    InputError
        If the file is absent, damaged, truncated or renamed; the message names file and column.

    References
    ----------
    Cole et al. 2026, score tables of the released repository.
    """
    if task not in PRIMARY:
        raise ParameterError(f"task {task!r} is not one of {', '.join(PRIMARY)}")
    primary = PRIMARY[task]
    table = read_csv(path, ("name", "fold", primary))
    if table["name"].isna().any():
        row = int(table["name"].isna().to_numpy().argmax())
        raise InputError(f"{path}: column 'name', data row {row + 1} is empty; fetch it again")
    fold, line = _fold_and_line(table, path, dataset)
    label = table["dataset"] if "dataset" in table.columns else pd.Series("", index=table.index)
    older = label.fillna("").str.replace("-", "_").str.contains(_OLDER).to_numpy()
    # Experimental-error rows carry no label: a table holds one perturbation set only.
    unlabelled = label.isna().to_numpy()
    if older.any() and (~older & ~unlabelled).any():
        raise InputError(
            f"{path}: column 'dataset' mixes the older Essential perturbation set with the full "
            "one; split the table, their scores are not comparable"
        )
    sets = pd.Series("older" if older.any() else "full", index=table.index)
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
        perturbation_set=sets,
        source="published",
    )
    wanted = LFC_METRICS if task == "lfc" else DEG_METRICS
    metrics = [m for m in wanted if m in table.columns]
    for metric in metrics:
        wide[metric] = numbers(table, metric, path, needed=metric == primary)
    ids = [c for c in SCORE_COLUMNS if c not in ("metric", "value")]
    scores = wide.melt(ids, metrics, "metric", "value").dropna(subset="value")
    _check_complete(scores, path, dataset, primary)
    return scores[SCORE_COLUMNS].reset_index(drop=True)


def read_cross_context(path, *, dataset: str, metric: str) -> pd.DataFrame:
    """Read one summary table of the comparison with STATE on unseen cell lines.

    Parameters
    ----------
    path : str or Path
        For instance `essential_mae_summary.csv`.
    dataset : {"essential", "tahoe"}
        Data set.
    metric : {"discrimination_score_l1", "mae", "overlap_at_N"}
        Metric of the table.

    Returns
    -------
    pandas.DataFrame
        Columns `SCORE_COLUMNS`, task "cross_context"; a held-out line is a row, fold is 0.

    Raises
    ------
    InputError
        If the file is absent, damaged or renamed.

    References
    ----------
    Cole et al. 2026, Figures S12 and S13.
    """
    table = read_csv(path, ("cell_type", *CROSS_METHODS))
    wavegc = "STRING WaveGC" if dataset == "essential" else "ChatGPT"
    out = []
    for column, (predictor, display, modality) in CROSS_METHODS.items():
        continuous = column == "mlpcontinuous"
        out.append(
            pd.DataFrame(
                {
                    "dataset": dataset,
                    "task": "cross_context",
                    "cell_line": table["cell_type"],
                    "fold": 0,
                    "embedding": wavegc if continuous else "",
                    "display": display.format("WaveGC" if dataset == "essential" else "ChatGPT"),
                    "modality": modality,
                    "predictor": predictor,
                    "method": column,
                    "perturbation_set": "cross-context",
                    "metric": metric,
                    "value": numbers(table, column, path, needed=True),
                    "source": "published",
                }
            )
        )
    return pd.concat(out, ignore_index=True)[SCORE_COLUMNS]


CROSS_METHODS = {
    "contextmean": ("context_mean", "Train Mean", "Negative control"),
    "knn": ("cross_context_knn", "kNN", "Advanced"),
    "mlpcontinuous": ("mlp_embedding", "MLP ({})", "Advanced"),
    "mlponehot": ("mlp_onehot", "MLP (One-Hot)", "Advanced"),
    "st": ("state", "STATE", "Advanced"),
}
