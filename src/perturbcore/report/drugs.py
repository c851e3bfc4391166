"""Small molecules: what a screen and its SMILES carry, and which embedding finds it."""

import numpy as np
import pandas as pd
from rdkit import Chem

from perturbcore.data.effects import pseudobulk, well_effects
from perturbcore.data.molecules.structures import canonical, parent_of, parse, stereo_count
from perturbcore.report import pages
from perturbcore.report.comparison import Comparison
from perturbcore.report.noise import by_line, line_summary
from perturbcore.report.text import HEADINGS, tell

NOISE = HEADINGS["drug noise"]
AGAIN = ["cell_line", "drugs", "same", "other", "reproducible"]
BY_CHANCE = 0.05
FEWEST = 4


def plate_effects(data) -> pd.DataFrame | None:
    """Effect of each drug on each plate: its mean minus that of the plate's vehicle."""
    wells = data.replicates
    if wells is None and data.screen is not None:
        by = ["cell_line", "batch", "perturbation"]
        wells = pseudobulk(data.screen, by=by)
    return None if wells is None else well_effects(wells)


def reproducibility(profiles: pd.DataFrame) -> pd.DataFrame:
    """Ask of each drug whether one half of its plates finds it again among all drugs on the other.

    The mean drug of each plate is taken away first. Per cell line: drugs (on two plates or more),
    same and other (mean correlation between halves, of a drug with itself and with others),
    reproducible (share whose own correlation is above the 95 % quantile of the others).
    """
    rows = []
    for line, part in profiles.groupby(level="cell_line", sort=False):
        centred = part - part.groupby(level="batch").transform("mean")
        drugs = centred.groupby(level="perturbation")
        place, plates = drugs.cumcount(), drugs[centred.columns[0]].transform("size")
        halves = [
            centred[half & (plates > 1)].groupby(level="perturbation").mean()
            for half in (place < plates / 2, place >= plates / 2)
        ]
        n = len(halves[0])
        if n < FEWEST:
            continue
        with np.errstate(invalid="ignore"):
            r = np.nan_to_num(np.corrcoef(*halves)[:n, n:])
        own, other = np.diag(r), r[~np.eye(n, dtype=bool)]
        again = own > np.quantile(other, 1 - BY_CHANCE)
        rows.append((line, n, own.mean(), other.mean(), again.mean()))
    return pd.DataFrame(rows, columns=AGAIN)


def noise_table(data, ceiling: pd.DataFrame | None) -> pd.DataFrame:
    """Size of effects beside their own error, and `reproducibility`, one row per cell line."""
    profiles = plate_effects(data)
    again = pd.DataFrame(columns=AGAIN) if profiles is None else reproducibility(profiles)
    if ceiling is None:
        return again.reindex(columns=list(NOISE))
    names = {"perturbations": "drugs", "effect_median": "effect", "error_median": "error"}
    found = line_summary(by_line(ceiling, data.responses))
    found = found.rename(columns=names | {"share_above_error": "beyond"})
    return found.merge(again.drop(columns="drugs"), on="cell_line", how="left")[list(NOISE)]


def _mean(table: pd.DataFrame, column: str) -> float:
    known = table[table[column].notna()]
    return float(np.average(known[column], weights=known["drugs"])) if len(known) else float("nan")


def noise_said(table: pd.DataFrame) -> str:
    """Say how many drugs stand out, by replicates and by their own error."""
    again, beyond = (_mean(table, c) for c in ("reproducible", "beyond"))
    parts = []
    if np.isfinite(again):
        most = "Most drugs are near" if again < 0.5 else "Most drugs stand out from"
        same, other = (_mean(table, c) for c in ("same", "other"))
        about = dict(again=again, others=1 - BY_CHANCE, chance=BY_CHANCE, same=same, other=other)
        parts.append(tell("drugs.found_again", most=most, **about))
    if np.isfinite(beyond):
        medians = table[["effect", "error"]].median()
        parts.append(tell("drugs.beyond", beyond=beyond, **medians))
    return " ".join(parts) or tell("drugs.no_replicates")


def one_line(c: Comparison, table: pd.DataFrame, data) -> str:
    """Condense the answer of the chapter to one sentence; `table` is of `noise_table`."""
    drugs = data.responses.obs["perturbation"].nunique()
    said = f"On {drugs} drugs ({data.title}): {c.one_line()}"
    again, beyond = (_mean(table, column) for column in ("reproducible", "beyond"))
    if np.isfinite(again):
        return f"{said} {tell('drugs.again', again=again)}"
    return f"{said} {tell('drugs.larger', beyond=beyond)}" if np.isfinite(beyond) else said


KINDS = HEADINGS["kinds of molecules"]


def molecule_report(drugs: pd.DataFrame) -> pd.DataFrame:
    """Check every SMILES of a table of drugs, and compare the drugs with each other.

    Each drug keeps its row: `smiles` (as given), `canonical`, `parent` (largest organic fragment,
    uncharged), `flat` (parent without stereo), `components`, `removed` (beside the parent),
    `stereo_open` (count), `problem` (why it cannot be read), and the other drugs that are
    `same_molecule`, `same_parent` or `stereo_isomer`, joined by semicolons.
    """
    rows = [_row(str(drug), str(smiles)) for drug, smiles in drugs["smiles"].items()]
    table = pd.DataFrame(rows).set_index("drug")
    table["same_molecule"] = _others(table, "canonical")
    table["same_parent"] = _others(table, "parent", differs="canonical")
    table["stereo_isomer"] = _others(table, "flat", differs="parent")
    return table


def _row(drug: str, smiles: str) -> dict:
    mol, problem = parse(smiles)
    row = {"drug": drug, "smiles": smiles, "problem": problem}
    row |= dict.fromkeys(("canonical", "parent", "flat", "removed"), "")
    row |= dict.fromkeys(("components", "stereo_open"), 0)
    if mol is None:
        return row
    whole, parent = canonical(smiles), parent_of(mol)
    parts, kept = whole.split("."), Chem.MolToSmiles(parent)
    own = [i for i, part in enumerate(parts) if canonical(part, parent=True) == kept][:1]
    return row | {
        "canonical": whole,
        "parent": kept,
        "flat": canonical(smiles, parent=True, stereo=False),
        "components": len(parts),
        "removed": ".".join(part for i, part in enumerate(parts) if i not in own),
        "stereo_open": stereo_count(parent)[1],
    }


def _others(table: pd.DataFrame, same: str, differs: str = "") -> list[str]:
    """Other drugs of equal `same` and unequal `differs`, of those that can be read."""
    groups = table[table["problem"] == ""].groupby(same).groups
    out = []
    for drug, row in table.iterrows():
        others = [] if row["problem"] else [o for o in groups[row[same]] if o != drug]
        kept = [o for o in others if not differs or table.at[o, differs] != row[differs]]
        out.append("; ".join(kept))
    return out


def molecule_counts(report: pd.DataFrame) -> pd.DataFrame:
    """Count what `molecule_report` found: kind, drugs, share of all, examples, meaning."""
    report = report.assign(unreadable=report["problem"], salt=report["components"] > 1)
    flags = report[list(KINDS)].astype(bool)
    rows = [
        (kind.replace("_", " "), int(is_so.sum()), is_so.mean(), ", ".join(report.index[is_so][:3]))
        for kind, is_so in flags.items()
    ]
    table = pd.DataFrame(rows, columns=["kind", "drugs", "share", "examples"])
    return table.assign(meaning=list(KINDS.values()))


def to_look_at(report: pd.DataFrame) -> pd.DataFrame:
    """Drugs that share a molecule with another, or cannot be read; one may merge or drop them."""
    columns = ["problem", "same_molecule", "same_parent", "stereo_isomer"]
    doubtful = report[report[columns].ne("").any(axis=1)].reset_index()
    return doubtful[[*HEADINGS["molecules to look at"], "canonical"]]


def show_molecules(chapter, data) -> None:
    """Show the report of a data set's molecules: counts, and drugs to look at."""
    drugs = (data.extras or {}).get("drugs")
    if drugs is None:
        pages.say(tell("molecules.vectors_only", title=data.title))
        return
    report = molecule_report(drugs)
    counted, doubtful = molecule_counts(report), to_look_at(report)
    caption = f"What rdkit made of the SMILES of {len(report)} drugs. Nothing was merged."
    pages.show_table(chapter, counted, "molecules", digits=2, caption=caption)
    caption = "Drugs to look at (the file has all)."
    keep = "molecules to look at"
    pages.show_table(chapter, doubtful, "molecules-to-look-at", keep=keep, caption=caption)
