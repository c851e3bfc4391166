"""What pages say of the project itself, read from its code, profile, catalogue and run notes."""

import importlib
import inspect
import json
import re
from pathlib import Path

import pandas as pd

from perturbcore.book.build import run_notes
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.core.profile import Profile, results_root
from perturbcore.data import catalogue
from perturbcore.data.authors.layout import REPOSITORY
from perturbcore.data.sets.base import Dataset
from perturbcore.score.metrics.registry import metric, metrics_of
from perturbcore.score.task import task_of

BENCHMARK_COLUMNS = {
    "task": "Task",
    "baseline": "Instead",
    "ours_seconds": "Seconds",
    "baseline_seconds": "Instead, seconds",
    "ratio": "Ratio",
    "ours_peak_mb": "Peak MB",
    "baseline_peak_mb": "Instead, peak MB",
    "agreement": "Agreement",
}
FILE_COLUMNS = {
    "name": "File",
    "licence": "Licence",
    "terms": "Terms",
    "megabytes": "MB",
    "sha256": "sha256",
    "where": "Repository @ commit: path",
}


def metric_table() -> pd.DataFrame:
    """List the registered metrics: task, name, label, direction, bounds, formula, reference."""
    import perturbcore.score.task  # noqa: F401  registers the metrics of its tasks

    found = [metric(name) for task in ("lfc", "deg", "pairs") for name in metrics_of(task)]
    rows = [
        {
            "task": m.task,
            "name": m.name,
            "label": m.label,
            "better": "higher" if m.higher_is_better else "lower",
            "bounds": f"{m.bounds[0]} to {m.bounds[1]}".replace("inf", "∞").replace("-", "\u2212"),
            "formula": m.formula,
            "reference": m.reference,
            "function": f"{m.function.__module__}.{m.function.__name__}",
        }
        for m in found
    ]
    return pd.DataFrame(rows)


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


def defaults(functions: list[str]) -> pd.DataFrame:
    """Read the parameters that have a default from the signatures of functions and classes.

    `functions`: dotted names, such as ``"perturbcore.data.effects.ba_ate"``; with ``"...:a,
    b"`` only the parameters a and b.

    Returns function, parameter, default, meaning (its text in the docstring).
    """
    rows = []
    for text in functions:
        name, _, only = text.partition(":")
        module, _, attribute = name.rpartition(".")
        owner, _, kind = module.rpartition(".")
        # a method is found in its class
        place = importlib.import_module(owner if kind[0].isupper() else module)
        found = getattr(getattr(place, kind) if kind[0].isupper() else place, attribute, None)
        if found is None:
            raise ParameterError(f"{module} has no '{attribute}'")
        parameters = inspect.signature(found).parameters
        wanted = [p.strip() for p in only.split(",")] if only else None
        for p in wanted or [p for p, v in parameters.items() if v.default is not v.empty]:
            if p not in parameters:
                raise ParameterError(
                    f"{name} has no parameter '{p}'; it has: {', '.join(parameters)}"
                )
            default = parameters[p].default
            rows.append(
                {
                    "function": name.removeprefix("perturbcore."),
                    "parameter": p,
                    "default": _short(default),
                    "meaning": _meaning(found, p),
                }
            )
    return pd.DataFrame(rows)


def _short(value) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    return str(value)


def _meaning(function, parameter: str) -> str:
    """Text of a parameter in a NumPy docstring, on one line; empty where it has none."""
    section = re.search(
        r"\n(?:Parameters|Attributes)\n-+\n(.*?)(?=\n\n?\w[\w ]*\n-+\n|\Z)",
        inspect.getdoc(function) or "",
        re.S,
    )
    if section is None:
        return ""
    entries = re.split(r"\n(?=\S)", section.group(1))
    for entry in entries:
        head, _, body = entry.partition("\n")
        if parameter in [n.strip() for n in head.split(":")[0].split(",")]:
            kind = head.partition(":")[2].strip()
            said = " ".join(body.split())
            return _plain(said if said else kind if kind.startswith("{") else "")
    return ""


def _plain(text: str) -> str:
    text = re.sub(r":\w+:`(?:~|perturbcore\.)*([^`]+)`", r"\1", text)
    return re.sub(r":math:|`", "", text)


def file_table(names) -> pd.DataFrame:
    """List files of the catalogue with licence, size, sha256 and where they come from.

    `names`: catalogue entries; the authors' data set as a whole is not one, and has its own
    data cards.

    Returns the fields of `perturbcore.data.catalogue.Entry`, with `terms`, `megabytes` and
    `where` for the page.
    """
    found = [catalogue.entry(n) for n in names if n != REPOSITORY]
    rows = [
        {
            **vars(e),
            "citations": ", ".join(e.citations),
            "terms": _terms(e.restricted, e.licence_note),
            "megabytes": e.bytes / 1e6,
            "where": f"{e.owner}/{e.repository} @ "
            + f"{e.commit if e.packaged else e.commit[:10]}: {e.path}",
        }
        for e in found
    ]
    return pd.DataFrame(rows)


def source_table() -> pd.DataFrame:
    """Sum the catalogue up: one row a source and licence."""
    table = catalogue.entries().reset_index()
    keys = ["source", "owner", "repository", "commit", "licence", "licence_note", "restricted"]
    out = table.groupby(keys, as_index=False, sort=False).agg(
        files=("name", "size"), bytes=("bytes", "sum"), citations=("citations", "first")
    )
    out["megabytes"] = out["bytes"] / 1e6
    out["terms"] = [
        _terms(r, n) for r, n in zip(out["restricted"], out["licence_note"], strict=True)
    ]
    return out


def _terms(restricted: bool, note: str) -> str:
    return note or ("restricted use" if restricted else "")


def dataset_facts(data: Dataset) -> str:
    """Say in Markdown what a data set is and can carry: task, notes, citations."""
    lines = [f"- {note}" for note in data.notes]
    first = f"What is predicted: {task_of(data.task).title}"
    if data.responses is not None:
        first += f" ({data.responses.n_obs:,} responses x {data.responses.n_vars:,} genes)"
    first += "."
    cited = f"\n\nPlease cite {{cite:p}}`{','.join(data.citations)}`." if data.citations else ""
    return first + "\n\nWhat it can and cannot carry:\n\n" + "\n".join(lines) + cited


def simulation_table(data: Dataset) -> pd.DataFrame:
    """List the parameters a simulated data set was made with: parameter, value, meaning."""
    if "simulation" not in data.extras:
        raise InputError(
            f"data set '{data.name}' was not simulated here: it has no parameters to list"
        )
    used = data.extras["simulation"].parameters
    maker = "chemistry.simulate_drug_screen" if "doses" in used else "screen.simulate_screen"
    table = defaults([f"perturbcore.data.simulate.{maker}"]).set_index("parameter").loc[list(used)]
    values = [_short(v) for v in used.values()]
    return pd.DataFrame(
        {"parameter": list(used), "value": values, "meaning": table["meaning"].tolist()}
    )


def run_table(profile: Profile) -> pd.DataFrame:
    """Seconds, start, commit and parameters of each chapter that has run with a profile."""
    rows = [
        {
            "chapter": n["chapter"],
            "title": n["title"],
            "seconds": float(n["seconds"]),
            "started": n["started"][:16].replace("T", " "),
            "commit": (n["commit"][:10] or "unknown") + ("+" if n["dirty"] else ""),
            "parameters": ", ".join(
                f"{k}={v}" for k, v in n["parameters"].items() if k != "profile"
            ),
        }
        for n in run_notes(profile)
    ]
    if not rows:
        raise InputError(f"no chapter has run with profile {profile.name} yet: make book")
    return pd.DataFrame(rows)


def machine_table(about: dict) -> pd.DataFrame:
    """Lay the machine and versions of `perturbcore.core.provenance.record` out as what.

    And value.
    """
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
    rows = [
        ("data set", d.name, f"{d.loader}({', '.join(f'{k}={v}' for k, v in d.options.items())})")
        for d in profile.datasets
    ]
    for spec in profile.embeddings:
        rest = ", ".join(f"{k}: {v}" for k, v in spec.items() if k != "name")
        rows.append(("embedding", spec["name"], rest))
    for chapter, values in profile.chapters.items():
        rows += [(chapter, k, str(v)) for k, v in values.items()]
    return pd.DataFrame(rows, columns=["of", "name", "value"])


def benchmark_table(profile: Profile) -> pd.DataFrame:
    """Read what ``make bench`` measured; empty where it has not run here.

    Looked for in ``results/benchmarks`` and ``results/<profile>/benchmarks``.
    """
    folders = [results_root() / "benchmarks", profile.results / "benchmarks"]
    frames = [_benchmarks(path) for folder in folders for path in sorted(folder.glob("*.json"))]
    if not frames:
        return pd.DataFrame(columns=list(BENCHMARK_COLUMNS))
    table = pd.concat(frames, ignore_index=True).reindex(columns=list(BENCHMARK_COLUMNS))
    table["agreement"] = [f"{v:.0e}" if isinstance(v, float) else v for v in table["agreement"]]
    return table


def _benchmarks(path: Path) -> pd.DataFrame:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        table = pd.DataFrame(rows)
        found = set(table.columns)
    except ValueError as error:
        raise InputError(f"{path} is not a table of make bench ({error}): make bench") from None
    missing = {"task", "ours_seconds"} - found
    if missing:
        raise InputError(f"{path} has no column '{sorted(missing)[0]}': make bench writes it again")
    return table
