"""What pages say of the project itself, read from its code, profile, catalogue and run notes."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from perturbcore.book.build import run_notes
from perturbcore.core.errors import InputError
from perturbcore.core.profile import Profile, results_root
from perturbcore.data import catalogue
from perturbcore.data.authors.layout import REPOSITORY
from perturbcore.data.read import check_table
from perturbcore.data.sets.base import Dataset
from perturbcore.report.text import HEADINGS, listed, tell
from perturbcore.score.metrics.registry import metric, metrics_of
from perturbcore.score.task import task_of

BENCHMARK_COLUMNS = HEADINGS["benchmarks"]
METRIC_COLUMNS = "task name label better bounds formula reference function".split()
MEASURED = Path(__file__).with_name("measured.json")
_MEASURED = ("benchmark", "cells", "stored_gb", "cores", "commit", "started")
FILE_COLUMNS = HEADINGS["files"]
KINDS = ("lfc", "deg", "pairs", "functions", "context", "cells", "cell_tasks")


def metric_table() -> pd.DataFrame:
    """List the registered metrics: task, name, label, direction, bounds, formula, reference."""
    import perturbcore.score.metrics.cell_tasks
    import perturbcore.score.task  # noqa: F401  registers the metrics of its tasks

    found = [metric(name) for kind in KINDS for name in metrics_of(kind)]
    table = pd.DataFrame([vars(m) for m in found])
    table["better"] = ["higher" if m.higher_is_better else "lower" for m in found]
    bounds = [f"{low} to {high}" for low, high in table["bounds"]]
    table["bounds"] = [b.replace("inf", "∞").replace("-", "\u2212") for b in bounds]
    made = [getattr(f, "func", f) for f in table["function"]]  # one function for several metrics
    table["function"] = [f"{f.__module__}.{f.__name__}" for f in made]
    return table[METRIC_COLUMNS]


def metric_markdown(table: pd.DataFrame) -> str:
    """Write a table of metrics as Markdown, with set formulas and links to the functions."""
    lines = ["| metric | formula | better | after | function |", "|---|---|---|---|---|"]
    for m in table.itertuples():
        # a bar inside a formula would end the cell
        formula = m.formula.replace("|", r"\vert ")
        link = f"{{py:func}}`~{m.function}`"
        cells = (m.label, f"${formula}$", f"{m.better} ({m.bounds})", m.reference, link)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def file_table(names) -> pd.DataFrame:
    """List files of the catalogue: the fields of its entries, with terms, megabytes and place.

    The authors' data set as a whole is no entry, and has its own data cards.
    """
    rows = []
    for e in [catalogue.entry(n) for n in names if n != REPOSITORY]:
        commit = e.commit if e.packaged else e.commit[:10]
        row = {**vars(e), "citations": ", ".join(e.citations), "megabytes": e.bytes / 1e6}
        row["terms"] = _terms(e.restricted, e.licence_note)
        rows.append(row | {"where": f"{e.owner}/{e.repository} @ {commit}: {e.path}"})
    return pd.DataFrame(rows)


def source_table() -> pd.DataFrame:
    """Sum the catalogue up: one row per source and licence."""
    table = catalogue.entries().reset_index()
    keys = ["source", "owner", "repository", "commit", "licence", "licence_note", "restricted"]
    out = table.groupby(keys, as_index=False, sort=False).agg(
        files=("name", "size"), bytes=("bytes", "sum"), citations=("citations", "first")
    )
    out["megabytes"] = out["bytes"] / 1e6
    out["terms"] = [_terms(r.restricted, r.licence_note) for r in out.itertuples()]
    return out


def _terms(restricted: bool, note: str) -> str:
    return note or ("restricted use" if restricted else "")


def dataset_facts(data: Dataset) -> str:
    """Say in Markdown what a data set is and can carry: task, notes, citations."""
    found = data.responses
    size = "" if found is None else f" ({found.n_obs:,} responses x {found.n_vars:,} genes)"
    parts = [f"What is predicted: {task_of(data.task).title}{size}."]
    parts += ["What it can and cannot carry:", "\n".join(f"- {note}" for note in data.notes)]
    if data.citations:
        parts.append(f"Please cite {{cite:p}}`{','.join(data.citations)}`.")
    return "\n\n".join(parts)


def run_table(profile: Profile) -> pd.DataFrame:
    """Seconds, start, commit and parameters of each chapter that has run with a profile."""
    if not (notes := run_notes(profile)):
        raise InputError(f"no chapter has run with profile {profile.name} yet: make book")
    table = pd.DataFrame(notes)[["chapter", "title", "seconds"]]
    table["started"] = [n["started"][:16].replace("T", " ") for n in notes]
    table["commit"] = [(n["commit"][:10] or "unknown") + "+" * n["dirty"] for n in notes]
    table["parameters"] = [_listed(n["parameters"], but="profile") for n in notes]
    return table


def _listed(values, sign: str = "=", but: str = "") -> str:
    return ", ".join(f"{k}{sign}{v}" for k, v in values.items() if k != but)


def machine_table(about: dict) -> pd.DataFrame:
    """Lay `perturbcore.core.provenance.record` out as a table: what, value."""
    rows = {
        "perturbcore": about["perturbcore"],
        "commit": (about["commit"] or "unknown") + (" with changes" if about["dirty"] else ""),
        "Python": about["python"],
        "platform": about["platform"],
        "processor": about["cpu"],
        "cores": str(about["cores"]),
        "memory, GiB": str(about["memory_gib"]),
        "GPU": about["gpu"] or "none used",
        **about["packages"],
    }
    return pd.DataFrame({"what": list(rows), "value": list(rows.values())})


def profile_table(profile: Profile) -> pd.DataFrame:
    """List everything a profile sets: data sets, embeddings, parameters of chapters."""
    rows = [("data set", d.name, f"{d.loader}({_listed(d.options)})") for d in profile.datasets]
    rows += [("embedding", s["name"], _listed(s, ": ", "name")) for s in profile.embeddings]
    for chapter, values in profile.chapters.items():
        rows += [(chapter, k, str(v)) for k, v in values.items()]
    return pd.DataFrame(rows, columns=["of", "name", "value"])


def benchmark_rows() -> pd.DataFrame:
    """Read what ``make bench`` measured here, or else what was measured for the package."""
    here = sorted((results_root() / "benchmarks").glob("*.json"))
    anew, given = {path.stem for path in here}, json.loads(MEASURED.read_text(encoding="utf-8"))
    rows: list[dict] = [row for row in given if row["benchmark"] not in anew]
    for path in here:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path} is not a table of make bench ({error}): make bench") from None
        wanted = ("task", "ours_seconds")
        check_table(pd.DataFrame(found), wanted, path, way_out="make bench writes it again")
        rows += found
    return pd.DataFrame(rows).reindex(columns=[*BENCHMARK_COLUMNS, *_MEASURED])


def benchmark_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Take what is shown of measured rows; those of growing sizes have a figure of their own."""
    table = rows.loc[rows["cells"].isna(), list(BENCHMARK_COLUMNS)].reset_index(drop=True)
    table["agreement"] = [f"{v:.0e}" if isinstance(v, float) else v for v in table["agreement"]]
    return table


def measured_said(rows: pd.DataFrame) -> str:
    """Say when, where and from which commit rows were measured."""
    each = rows["started"].str[:10] + " with commit " + rows["commit"]
    each += " on " + rows["cores"].map("{:.0f}".format) + " cores"
    times = listed(dict.fromkeys(each.dropna()))
    return f"Measured on {times}. `make bench` measures here, and the next build shows it."


def growth(rows: pd.DataFrame) -> pd.DataFrame:
    """Seconds per million cells and peak memory by number of cells: flat is linear, and bounded."""
    sizes = rows[rows["cells"].notna()]
    costs = {
        "Seconds per million cells": sizes["ours_seconds"] / sizes["cells"] * 1e6,
        "Peak memory, MB": sizes["ours_peak_mb"],
    }
    millions = (sizes["cells"] / 1e6).to_frame("millions")
    parts = [millions.assign(panel=k, value=v, work="effects") for k, v in costs.items()]
    return pd.concat(parts, ignore_index=True)


def growth_said(rows: pd.DataFrame) -> str:
    """Say how many times seconds and memory grow with cells, and what a cell takes."""
    sizes = rows[rows["cells"].notna()].sort_values("cells")
    first, last = sizes.iloc[0], sizes.iloc[-1]
    grown = ["cells", "ours_seconds", "ours_peak_mb"]
    times = (last[grown] / first[grown]).astype(float)
    label = (last["ours_peak_mb"] - first["ours_peak_mb"]) / (last["cells"] - first["cells"]) * 1e3
    stored = last["stored_gb"] / last["cells"] * 1e6
    about = dict(first=first["cells"], last=last["cells"], label=label, all=label * 100)
    return tell("about.growth", times=times, stored=stored, **about)


def cluster_costs(rows: pd.DataFrame) -> pd.DataFrame:
    """Extrapolate the largest size measured to 100 million cells on 16 machines.

    Per bandwidth of the storage that all machines share (GB per second): minutes of reading and of
    computing, which overlap: the longer one is what it takes, start of the workers left out.
    """
    cells, machines, processes, bandwidth = 1e8, 16, 4, np.array([0.5, 2.0, 8.0])
    largest = rows.loc[rows["cells"].idxmax()]
    seconds = largest["ours_seconds"] / largest["cells"] * cells / (machines * processes)
    size = largest["stored_gb"] / largest["cells"] * cells
    table = pd.DataFrame({"bandwidth": bandwidth, "reading": size / bandwidth / 60})
    table["computing"] = seconds / 60
    table["whole"] = table[["reading", "computing"]].max(axis=1)
    return table.assign(cells=cells, stored_gb=size, machines=machines, processes=processes)
