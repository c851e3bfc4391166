"""What a reader must know of the molecules: unreadable, salts, duplicates, stereo-isomers."""

import pandas as pd
from rdkit import Chem

from perturbcore.data.molecules.structures import canonical, parent_of, parse, stereo_count
from perturbcore.embeddings.sources import BuildContext, find_source
from perturbcore.report import pages
from perturbcore.report.drugs import drugs_of
from perturbcore.report.text import percent

LOOK = {
    "drug": "Drug",
    "problem": "Unreadable because",
    "removed": "Beside the parent",
    "same_molecule": "Same molecule as",
    "same_parent": "Same but for salt",
    "stereo_isomer": "Same but for stereo",
}
ENOUGH = 0.25
KINDS = {
    "unreadable": "SMILES missing or unreadable: no structure embedding has the drug",
    "salt": "several components (salt, solvate, hydrate)",
    "same_molecule": "the same SMILES as another drug once both are canonical",
    "same_parent": "another salt or charge of the same molecule",
    "stereo_isomer": "differs from another drug in stereo-chemistry alone",
    "stereo_open": "stereo-centres or double bonds that the SMILES leaves open",
}


def molecule_report(drugs: pd.DataFrame) -> pd.DataFrame:
    """Check every SMILES of a table of drugs, and compare the drugs with each other.

    Nothing is merged or dropped here: each drug keeps its row, and what it shares with others
    is written beside it.

    `drugs`: indexed by drug, with column `smiles`.

    Returns indexed by drug: `smiles` (as given), `canonical` (rdkit's form), `parent` (largest
    organic fragment, uncharged), `flat` (parent without stereo), `components`, `removed` (what
    the parent leaves out), `stereo_known`, `stereo_open` (counts), `problem` (why it cannot be
    read), and the other drugs that are `same_molecule`, `same_parent` (but another form),
    `stereo_isomer` (equal without stereo), each joined by semicolons.
    """
    rows = [_row(str(drug), str(smiles)) for drug, smiles in drugs["smiles"].items()]
    table = pd.DataFrame(rows).set_index("drug")
    table["same_molecule"] = _others(table, "canonical", ())
    table["same_parent"] = _others(table, "parent", ("canonical",))
    table["stereo_isomer"] = _others(table, "flat", ("parent",))
    return table


def _row(drug: str, smiles: str) -> dict:
    mol, problem = parse(smiles)
    row = {"drug": drug, "smiles": smiles, "problem": problem}
    row |= dict.fromkeys(("canonical", "parent", "flat", "removed"), "")
    row |= dict.fromkeys(("components", "stereo_known", "stereo_open"), 0)
    if mol is None:
        return row
    whole = canonical(smiles)
    parts = whole.split(".")
    parent = parent_of(mol)
    known, left_open = stereo_count(parent)
    return row | {
        "canonical": whole,
        "parent": Chem.MolToSmiles(parent),
        "flat": canonical(smiles, parent=True, stereo=False),
        "components": len(parts),
        "removed": ".".join(_without_parent(parts, parent)) if len(parts) > 1 else "",
        "stereo_known": known,
        "stereo_open": left_open,
    }


def _without_parent(parts: list[str], parent) -> list[str]:
    wanted = Chem.MolToSmiles(parent)
    left = list(parts)
    for part in parts:
        if canonical(part, parent=True) == wanted:
            left.remove(part)
            break
    return left


def _others(table: pd.DataFrame, same: str, differs: tuple[str, ...]) -> list[str]:
    """Other drugs of equal `same` and unequal `differs`."""
    readable = table[table["problem"] == ""]
    groups = readable.groupby(same).groups
    out = []
    for drug, row in table.iterrows():
        others = [] if row["problem"] else [o for o in groups[row[same]] if o != drug]
        out.append("; ".join(o for o in others if all(table.at[o, d] != row[d] for d in differs)))
    return out


def _flags(report: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "unreadable": report["problem"] != "",
            "salt": report["components"] > 1,
            "same_molecule": report["same_molecule"] != "",
            "same_parent": report["same_parent"] != "",
            "stereo_isomer": report["stereo_isomer"] != "",
            "stereo_open": report["stereo_open"] > 0,
        }
    )


def molecule_counts(report: pd.DataFrame, examples: int = 3) -> pd.DataFrame:
    """Count what `molecule_report` found.

    Returns one row a kind: `kind`, `drugs` (how many), `share` of all, `examples`, `meaning`.
    """
    flags = _flags(report)
    return pd.DataFrame(
        [
            {
                "kind": kind.replace("_", " "),
                "drugs": int(flags[kind].sum()),
                "share": float(flags[kind].mean()),
                "examples": ", ".join(report.index[flags[kind]][:examples]),
                "meaning": meaning,
            }
            for kind, meaning in KINDS.items()
        ]
    )


def to_look_at(report: pd.DataFrame) -> pd.DataFrame:
    """Drugs that share a molecule with another, or cannot be read.

    A reader may want to merge or drop them.
    """
    flags = _flags(report)[["unreadable", "same_molecule", "same_parent", "stereo_isomer"]]
    columns = ["problem", "removed", "same_molecule", "same_parent", "stereo_isomer", "canonical"]
    return report.loc[flags.any(axis=1), columns].reset_index()


def said(report: pd.DataFrame) -> str:
    """Say in a sentence or two what the molecules of a screen are."""
    flags = _flags(report)
    n = flags.sum()
    unreadable = (
        f"{n['unreadable']} have no readable SMILES and get the Train Mean from every structure "
        "embedding"
        if n["unreadable"]
        else "every SMILES can be read"
    )
    pair = report.loc[flags["same_molecule"], "same_molecule"]
    twins = (
        f"{n['same_molecule']} share their molecule with another drug (such as {pair.index[0]} and "
        f"{pair.iloc[0].split('; ')[0]}), so that no structure embedding can tell them apart"
        if len(pair)
        else "no two drugs are the same molecule"
    )
    return (
        f"Of {len(report)} drugs, {unreadable}; {n['salt']} are salts, solvates or mixtures; "
        f"{twins}; "
        f"{n['same_parent']} are another salt of a drug that is there as well; "
        f"{n['stereo_isomer']} differ from "
        f"another in stereo-chemistry alone; {n['stereo_open']} leave a stereo-centre open. "
        "Nothing was merged: "
        "each stays a perturbation of its own, and folds do not keep such drugs together."
    )


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
        return f"{first}; no two drugs are one molecule up to salt and stereo-chemistry."
    n = sum(len(g) for g in groups)
    apart = sum(len(g) for g in groups if g.nunique() > 1)
    return (
        f"{first}; but {n} drugs are one molecule with another up to salt and stereo-chemistry, "
        f"and {apart} of "
        "these have such a twin in another fold, which flatters every embedding a little."
    )


def known_targets_said(report: pd.DataFrame, table: pd.DataFrame, name: str) -> str:
    """Say how many drugs without targets have one in another table, matched by structure."""
    targeted = table[table["targets"] != ""]
    known = set(molecule_report(targeted)["flat"]) - {""}
    n = int(report["flat"].isin(known).sum())
    few = n < ENOUGH * len(report)
    return (
        f"The data set names no targets. {n} of its {len(report)} drugs "
        f"({percent(n / len(report))}) have one in "
        f"{name}, matched by structure without salt and stereo-chemistry"
        + (": too few to ask here what targets are worth." if few else ".")
    )


def show_molecules(chapter, data, targets_from: str = "") -> None:
    """Show the report of a data set's molecules: counts, drugs to look at, sentences.

    `targets_from` names a drug table of the catalogue to look targets up in, where the data set
    names none.
    """
    drugs = drugs_of(data)
    if drugs is None:
        pages.say(
            f"{data.title} brings vectors of its drugs, but no SMILES in this project's layout: "
            "there "
            "is no molecule to check here."
        )
        return
    report = molecule_report(drugs)
    pages.say(said(report))
    pages.say(twins_said(report, data.responses))
    counted, doubtful = molecule_counts(report), to_look_at(report)
    caption = "What rdkit made of the SMILES."
    pages.show_table(chapter, counted, "molecules", digits=2, caption=caption)
    caption = "Drugs to look at (the file has all)."
    pages.show_table(chapter, doubtful, "molecules-to-look-at", keep=LOOK, caption=caption)
    if targets_from and not (drugs["targets"] != "").any():
        source = find_source({"name": "targets", "source": targets_from}, "drugs", BuildContext())
        pages.say(known_targets_said(report, source.read(), source.label.split(" [")[0]))
