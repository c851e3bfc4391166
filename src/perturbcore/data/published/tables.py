"""The published score and error tables, read into the book's scores schema."""

import re
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from perturbcore.core.errors import InputError
from perturbcore.core.files import read_yaml
from perturbcore.data import catalogue

# small tables of what papers print; the head of each names its source
FOLDER = Path(__file__).with_name("files")
KNOWN = read_yaml(Path(__file__).with_name("tables.yml"))
LINES = {dataset: tuple(lines) for dataset, lines in KNOWN["lines"].items()}
NEGATIVE, POSITIVE = "Negative control", "Positive control"
NEUTRAL = "Not classified"  # of embeddings that no table has


@cache
def _read(name: str) -> tuple[str, pd.DataFrame]:
    file = FOLDER / f"{name}.csv"
    if not file.is_file():
        known = sorted(f.stem for f in FOLDER.iterdir())
        raise InputError(f"no facts named {name!r}; there are {', '.join(known)}")
    lines = file.read_text("utf-8").splitlines()
    head = [line for line in lines if line.startswith("#")]
    source = " ".join(line.lstrip("# ").rstrip() for line in head)
    body = StringIO("\n".join(lines[len(head) :]))
    return source, pd.read_csv(body, keep_default_na=False, na_values=[""])


def facts(name: str) -> pd.DataFrame:
    """Read one table of ``published/files``, as printed by its paper."""
    return _read(name)[1].copy()


class Method(NamedTuple):
    """What one published row name stands for."""

    predictor: str
    embedding: str
    display: str
    modality: str


@cache
def _special_rows() -> dict[str, Method]:
    """Rows that are not "<estimator>_baseline_<embedding>"."""
    rows = facts("cole2026_rows").fillna("")
    return {name: Method(*rest) for name, *rest in rows.itertuples(index=False)}


@cache
def _displays(dataset: str) -> dict[str, tuple[str, str]]:
    """Embedding name -> display name and modality, from the figures of one data set."""
    table = facts("cole2026_methods")
    out: dict[str, tuple[str, str]] = {}
    for row in table[table["section"].str.startswith(dataset + "_")].itertuples():
        name = re.sub(r"^HEAD_TYPE_baseline_", "", row.method)
        out.setdefault(name, (row.display, row.modality))
    return out


def without_line(name: str, cell_line: str | None) -> str:
    """Replace the cell line in an embedding's published name by CELL_LINE."""
    return name.replace(f"_essential_{cell_line}_", "_essential_CELL_LINE_") if cell_line else name


@cache
def parse_method(name: str, *, dataset: str, task: str, cell_line: str | None = None) -> Method:
    """Read a published row name; `dataset` decides which figure's display names count."""
    if name in _special_rows():
        return _special_rows()[name]
    if name.lower().startswith("experimental"):
        return Method("experimental_error", "", "Experimental Error", POSITIVE)
    if name.startswith("Fusion_"):
        return Method("fusion_simple", "all sources", "Simple Fusion", "Fusion")
    match = re.match(r"^(knn|lasso)_baseline_(.*)$", name)
    predictor = match.group(1) if match else ("logistic" if task == "deg" else "other")
    embedding = without_line(match.group(2) if match else name, cell_line)
    if embedding == "random":
        return Method(predictor, "random", "Random Embeddings", NEGATIVE)
    if embedding == "pca":
        return Method(predictor, "idealized", "Idealized Baseline", POSITIVE)
    if embedding in _displays(dataset):
        display, modality = _displays(dataset)[embedding]
        return Method(predictor, embedding, display, modality)
    families = KNOWN["families"].items()
    modality = next((m for p, m in families if re.search(p, embedding)), NEUTRAL)
    # the display name of two embeddings set side by side; others keep their name
    pair = re.match(r"^(.+\))_x_(.+\))_(pca_)?concatenated_\(D=\d+\)$", embedding)
    display = embedding
    if pair:
        parts = [_displays(dataset).get(part, (part, ""))[0] for part in pair.groups()[:2]]
        display = " + ".join(parts) + (" (PCA blocks)" if pair.group(3) else " (concatenated)")
    return Method(predictor, embedding, display, modality)


def methods_of(section: str, *, head: str = "knn") -> pd.DataFrame:
    """Methods of one family of figures in their order: order, method, display, modality."""
    table = facts("cole2026_methods")
    out = table[table["section"] == section].drop(columns="section").reset_index(drop=True)
    out["method"] = out["method"].str.replace("HEAD_TYPE", head, regex=False)
    return out.sort_values("order", ignore_index=True)


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
HOW_TO_GET = KNOWN["how_to_get"]


@dataclass(frozen=True)
class Published:
    """The published scores of Cole et al. 2026; at level "medians" without folds and ceilings."""

    scores: pd.DataFrame
    ceilings: pd.DataFrame | None
    level: str

    @property
    def note(self) -> str:
        """One sentence that says what the numbers are, and how to get the rest."""
        return KNOWN["notes"][self.level].format(how=HOW_TO_GET)


def medians() -> Published:
    """Return the published medians over folds kept in the package; needs no file and no network."""
    source, table = _read("cole2026_medians")
    table = table.assign(fold=-1, embedding=table["embedding"].fillna(""), source=source)
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
