"""What papers print; from row names of score tables to predictor, embedding, name, modality."""

import re
from functools import cache
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from perturbcore.core.errors import InputError
from perturbcore.core.files import read_yaml

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


def source_of(name: str) -> str:
    """Say in one line where the facts of a table come from."""
    return _read(name)[0]


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
