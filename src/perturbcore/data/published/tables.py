"""The published score and error tables, read into the book's scores schema."""

from dataclasses import dataclass

import pandas as pd

from perturbcore.data import catalogue
from perturbcore.data.published.names import KNOWN, facts, parse_method, source_of

SCORE_COLUMNS, METRICS = KNOWN["columns"], KNOWN["metrics"]
PRIMARY = {"lfc": "L2", "deg": "f1_score"}
# The plain Essential label is an older, smaller perturbation set with other folds; its scores are
# not comparable with those of the full set and are kept apart wherever scores are used.
OLDER = r"essential.regression$"
_CROSS = KNOWN["cross_context"]
# table -> data set and task
SCORE_TABLES = {f"cole2026/scores/{n}": tuple(n.split("_")[-2:]) for n in KNOWN["scores"]}
# Read where they are at hand: Figures S5 and S6 are drawn from them.
TAHOE_LFC = {"cole2026/scores/tahoe_lfc": ("tahoe", "lfc")}
# table -> data set and metric
CROSS_TABLES = {
    f"cole2026/cross_context/{dataset}_{metric}_summary": (dataset, metric)
    for dataset in _CROSS["datasets"]
    for metric in _CROSS["metrics"]
}
# table -> data set and cell line
CEILING_TABLES = {f"cole2026/exp_error/{n}_seed_5050": v for n, v in KNOWN["ceilings"].items()}
TABLES = (*SCORE_TABLES, *CROSS_TABLES, *CEILING_TABLES)
HOW_TO_GET = (
    "`make data PROFILE=real` downloads the authors' tables (about 16 MB, non-commercial licence, "
    "shown before the download); then rebuild the book"
)


@dataclass(frozen=True)
class Published:
    """The published scores of Cole et al. 2026; at level "medians" without folds and ceilings."""

    scores: pd.DataFrame
    ceilings: pd.DataFrame | None
    level: str

    @property
    def note(self) -> str:
        """One sentence that says what the numbers are, and how to get the rest."""
        if self.level == "folds":
            return (
                "Drawn from the authors' published score tables, one value per fold "
                "(genbio-ai/foundation-models-perturbation at commit e5b4caf)."
            )
        return (
            "Drawn from the published medians over folds that this project keeps, three decimals "
            f"(the full tables are not on this machine: {HOW_TO_GET})."
        )


def medians() -> Published:
    """Return the published medians over folds kept in the package; needs no file and no network."""
    table = facts("cole2026_medians")
    table = table.assign(
        fold=-1, embedding=table["embedding"].fillna(""), source=source_of("cole2026_medians")
    )
    return Published(table[SCORE_COLUMNS], None, "medians")


def load_published(*, download: bool = False) -> Published:
    """Load the published scores of Cole et al. 2026, as complete as they are to be had.

    `download`: whether tables that are not at hand may be downloaded (their licence is shown
    first). Without, nothing is asked of the network. Returns level "folds" if every table is at
    hand, else level "medians".

    Examples
    --------
    >>> pc.load_published().level in ("folds", "medians")
    True
    """
    state = catalogue.verify((*TABLES, *TAHOE_LFC))
    if not download and any(state[name] != "ok" for name in TABLES):
        return medians()
    tables = SCORE_TABLES | {n: about for n, about in TAHOE_LFC.items() if state[n] == "ok"}
    names = (*tables, *CROSS_TABLES, *CEILING_TABLES)
    path = catalogue.fetch_many(names, progress=download)
    scores = [
        *(read_scores(path[n], dataset=d, task=task) for n, (d, task) in tables.items()),
        *(read_cross_context(path[n], dataset=d, metric=m) for n, (d, m) in CROSS_TABLES.items()),
    ]
    ceilings = [
        read_ceiling(path[n], dataset=d, cell_line=line) for n, (d, line) in CEILING_TABLES.items()
    ]
    return Published(
        pd.concat(scores, ignore_index=True), pd.concat(ceilings, ignore_index=True), "folds"
    )


def _read_csv(path) -> pd.DataFrame:
    missing = dict(keep_default_na=False, na_values=["", "nan"])
    return pd.read_csv(path, float_precision="round_trip", **missing)


def read_scores(path, *, dataset: str, task: str) -> pd.DataFrame:
    """Read one published score table; `perturbation_set` "older": the plain Essential label."""
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
    metrics = [m for m in METRICS[task] if m in table.columns]
    wide[metrics] = table[metrics].astype(float)
    ids = [c for c in SCORE_COLUMNS if c not in ("metric", "value")]
    scores = wide.melt(ids, metrics, "metric", "value").dropna(subset="value")
    return scores[SCORE_COLUMNS].reset_index(drop=True)


def read_cross_context(path, *, dataset: str, metric: str) -> pd.DataFrame:
    """Read one summary table of the comparison with STATE on unseen cell lines."""
    table = _read_csv(path)
    source = "WaveGC" if dataset == "essential" else "ChatGPT"
    out = []
    for column, (predictor, display, modality) in _CROSS["methods"].items():
        continuous = column == "mlpcontinuous"
        rows = table[["cell_type", column]].set_axis(["cell_line", "value"], axis=1)
        rows = rows.assign(
            embedding=source.replace("WaveGC", "STRING WaveGC") if continuous else "",
            display=display.format(source), modality=modality, predictor=predictor, method=column,
        )  # fmt: skip
        out.append(rows)
    about = dict(dataset=dataset, task="cross_context", fold=0, metric=metric, source="published")
    scores = pd.concat(out, ignore_index=True).assign(perturbation_set="cross-context", **about)
    return scores[SCORE_COLUMNS]


def read_ceiling(path, *, dataset: str, cell_line: str | None = None) -> pd.DataFrame:
    """Read one published table of per-perturbation experimental error."""
    table = _read_csv(path).rename(columns={"value": "L2", "pert_id": "perturbation"})
    table = table.rename(columns={"n_batches_pert": "n_batches"}).assign(dataset=dataset)
    if cell_line is None:
        table["cell_line"] = table["cell_line"].str.removeprefix(f"{dataset}_")
    else:
        table["cell_line"] = cell_line
    metrics = [m for m in METRICS["lfc"] if m in table]
    columns = ["dataset", "cell_line", "perturbation", "quantile", "n_batches"]
    return table.melt(columns, metrics, "metric", "value")
