"""What a reader must know of the molecules: unreadable, salts, duplicates, stereo-isomers."""

import pandas as pd
from rdkit import Chem

from perturbcore.data.molecules.structures import canonical, parent_of, parse, stereo_count
from perturbcore.embeddings.sources import BuildContext, find_source
from perturbcore.report import pages
from perturbcore.report.drugs import drugs_of
from perturbcore.report.text import HEADINGS, tell

ENOUGH = 0.25
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
    whole = canonical(smiles)
    parts = whole.split(".")
    parent = parent_of(mol)
    return row | {
        "canonical": whole,
        "parent": Chem.MolToSmiles(parent),
        "flat": canonical(smiles, parent=True, stereo=False),
        "components": len(parts),
        "removed": ".".join(_without_parent(parts, parent)),
        "stereo_open": stereo_count(parent)[1],
    }


def _without_parent(parts: list[str], parent) -> list[str]:
    same = [canonical(part, parent=True) == Chem.MolToSmiles(parent) for part in parts]
    first = same.index(True) if True in same else len(parts)
    return parts[:first] + parts[first + 1 :]


def _others(table: pd.DataFrame, same: str, differs: str = "") -> list[str]:
    """Other drugs of equal `same` and unequal `differs`, of those that can be read."""
    groups = table[table["problem"] == ""].groupby(same).groups
    out = []
    for drug, row in table.iterrows():
        others = [] if row["problem"] else [o for o in groups[row[same]] if o != drug]
        kept = [o for o in others if not differs or table.at[o, differs] != row[differs]]
        out.append("; ".join(kept))
    return out


def _flags(report: pd.DataFrame) -> pd.DataFrame:
    """Which of `KINDS` each drug is."""
    report = report.assign(unreadable=report["problem"], salt=report["components"] > 1)
    return report[list(KINDS)].astype(bool)


def molecule_counts(report: pd.DataFrame) -> pd.DataFrame:
    """Count what `molecule_report` found: kind, drugs, share of all, examples, meaning."""
    flags = _flags(report)
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


def said(report: pd.DataFrame) -> str:
    """Say in a sentence or two what the molecules of a screen are."""
    flags = _flags(report)
    n = flags.sum()
    unreadable, twins = tell("molecules.readable"), tell("molecules.different")
    if n["unreadable"]:
        unreadable = tell("molecules.unreadable", n=n["unreadable"])
    same = report.loc[flags["same_molecule"], "same_molecule"]
    if len(same):
        pair = f"{same.index[0]} and {same.iloc[0].split('; ')[0]}"
        twins = tell("molecules.twins", n=n["same_molecule"], pair=pair)
    about = dict(n=len(report), unreadable=unreadable, twins=twins)
    return tell("molecules.said", counts=n, **about)


def twins_said(report: pd.DataFrame, responses) -> str:
    """Say in how far folds part drugs that are one molecule up to salt or stereo-chemistry."""
    obs = responses.obs
    folds = obs.groupby(obs["perturbation"].astype(str))["fold"]
    shared = int((folds.nunique() == 1).sum())
    lines = obs["cell_line"].nunique()
    where = "" if lines == 1 else f", the same in all {lines} cell lines"
    first = f"Each drug lies in one fold{where}"
    if shared < folds.ngroups:
        n = folds.ngroups
        first = f"{n - shared} of {n} drugs lie in different folds in different cell lines"
    fold, flat = folds.first(), report.loc[report["flat"] != "", "flat"]
    flat = flat[flat.index.isin(fold.index)]
    groups = [fold[list(drugs)] for drugs in flat.groupby(flat).groups.values() if len(drugs) > 1]
    if not groups:
        return tell("molecules.no_twins", first=first)
    apart = sum(len(g) for g in groups if g.nunique() > 1)
    return tell("molecules.apart", first=first, n=sum(len(g) for g in groups), apart=apart)


def known_targets_said(report: pd.DataFrame, table: pd.DataFrame, name: str) -> str:
    """Say how many drugs without targets have one in another table, matched by structure."""
    targeted = table[table["targets"] != ""]
    known = set(molecule_report(targeted)["flat"]) - {""}
    n = int(report["flat"].isin(known).sum())
    few = tell("molecules.few") if n < ENOUGH * len(report) else ""
    about = dict(drugs=len(report), share=n / len(report), name=name, few=few)
    return tell("molecules.targets", n=n, **about)


def show_molecules(chapter, data, targets_from: str = "") -> None:
    """Show the report of a data set's molecules: counts, drugs to look at, sentences.

    `targets_from`: a drug table of the catalogue with targets, where the data set names none.
    """
    drugs = drugs_of(data)
    if drugs is None:
        pages.say(tell("molecules.vectors_only", title=data.title))
        return
    report = molecule_report(drugs)
    pages.say(said(report))
    pages.say(twins_said(report, data.responses))
    counted, doubtful = molecule_counts(report), to_look_at(report)
    caption = "What rdkit made of the SMILES."
    pages.show_table(chapter, counted, "molecules", digits=2, caption=caption)
    look = dict(keep="molecules to look at", caption="Drugs to look at (the file has all).")
    pages.show_table(chapter, doubtful, "molecules-to-look-at", **look)
    if targets_from and not (drugs["targets"] != "").any():
        source = find_source({"name": "targets", "source": targets_from}, "drugs", BuildContext())
        pages.say(known_targets_said(report, source.read(), source.label.split(" [")[0]))
