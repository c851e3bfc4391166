"""Tables of drugs: name, SMILES, targets, mechanism."""

import csv
from functools import cache
from pathlib import Path

import pandas as pd

from perturbcore.core.errors import InputError
from perturbcore.data import catalogue
from perturbcore.data.read import check_table, existing, read_table

DRUG_COLUMNS = ("smiles", "targets", "mechanism")
SEPARATOR = ";"
BUILT_IN = Path(__file__).parent / "data" / "compounds.csv"
# A name or two that rdkit cannot read is a slip; a table of them is not chemistry.
CHEMICAL_SHARE = 0.5


@cache
def _compounds() -> pd.DataFrame:
    return check_drugs(read_table(BUILT_IN).set_index("name"), str(BUILT_IN))


def builtin_compounds() -> pd.DataFrame:
    """Return the built-in table of compounds: `smiles`, `targets`, `mechanism`, `source`."""
    return _compounds().copy()


def check_drugs(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """Check a table of drugs, indexed by name, and put it into the form that builders read."""
    check_table(frame, ["smiles"], where)
    if frame.empty:
        raise InputError(f"{where}: the table has no rows")
    out = frame.copy()
    names = _text(out.index)
    if "" in names:
        row = names.index("")
        raise InputError(f"{where}: row {row + 1} has no name (SMILES '{out['smiles'].iloc[row]}')")
    out.index = pd.Index(names, name="drug")
    if out.index.has_duplicates:
        twice = out.index[out.index.duplicated()][0]
        rows = ", ".join(str(i + 1) for i, name in enumerate(names) if name == twice)
        raise InputError(f"{where}: drug '{twice}' is in rows {rows}; name each, or keep one row")
    for column in DRUG_COLUMNS:
        out[column] = _text(out[column]) if column in out else ""
    out["targets"] = [SEPARATOR.join(_split(t)) for t in out["targets"]]
    _refuse_what_is_not_chemistry(out["smiles"], where)
    return out[[*DRUG_COLUMNS, *[c for c in out if c not in DRUG_COLUMNS]]]


def _text(values) -> list[str]:
    return ["" if pd.isna(v) else str(v).strip() for v in values]


def _split(text: str) -> list[str]:
    """Gene symbols in their order, each once; ``;`` and ``,`` both separate."""
    parts = [p.strip() for p in text.replace(",", SEPARATOR).split(SEPARATOR)]
    return list(dict.fromkeys(p for p in parts if p))


def _problem(smiles: str) -> str:
    # rdkit takes long to import, and tables are read where no molecule is
    from perturbcore.data.molecules.structures import parse

    return parse(smiles)[1]


def _refuse_what_is_not_chemistry(smiles: pd.Series, where: str) -> None:
    given = smiles[smiles != ""]
    if given.empty:
        raise InputError(f"{where}: column 'smiles' is empty in every row")
    problems = given.map(_problem)
    wrong = problems[problems != ""]
    if len(wrong) > CHEMICAL_SHARE * len(given):
        drug = wrong.index[0]
        raise InputError(
            f"{where}: column 'smiles' does not hold SMILES: {len(wrong)} of {len(given)} cannot "
            f"be read, first row {smiles.index.get_loc(drug) + 1} ('{drug}': "
            f"'{given[drug]:.40}', {wrong.iloc[0]})"
        )


def read_drugs(path) -> pd.DataFrame:
    """Read a table of drugs with columns name, smiles, and where known targets and mechanism."""
    path = Path(path)
    frame = read_table(path) if path.suffix == ".parquet" else _read_rows(path)
    check_table(frame, ("name", "smiles"), path)
    if frame.attrs.get("cut") and frame.columns[-1] == "smiles" and len(frame):
        name, smiles = frame[["name", "smiles"]].iloc[-1]
        if problem := _problem(smiles):
            raise InputError(
                f"{path}: the file ends within row {len(frame)} ('{name}': '{smiles:.40}', "
                f"{problem}): it is cut off; fetch or write it again"
            )
    columns = [c for c in ("name", *DRUG_COLUMNS) if c in frame]
    return check_drugs(frame[columns].set_index("name"), str(path))


def _read_rows(path: Path) -> pd.DataFrame:
    """Rows as text; attribute "cut" says that the last one has no line break at its end."""
    try:
        text = existing(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text table ({error})") from None
    lines = text.splitlines()
    if not lines:
        raise InputError(f"{path} is empty")
    rows = csv.reader(lines, delimiter="\t" if "\t" in lines[0] else ",")
    head, *body = [row for row in rows if row]
    for number, row in enumerate(body, 1):
        if len(row) != len(head):
            raise InputError(
                f"{path}: row {number} ('{row[0]}') has {len(row)} cells, the header {len(head)}: "
                f"it is {'cut off' if len(row) < len(head) else 'too long'}; fetch or write the "
                "file again, and quote cells that hold the separator"
            )
    frame = pd.DataFrame(body, columns=head)
    frame.attrs["cut"] = not text.endswith(("\n", "\r"))
    return frame


def tahoe_drugs() -> pd.DataFrame:
    """Read the catalogue's drug table of Tahoe-100M (`check_drugs`)."""
    path = catalogue.fetch("tahoe_drug_metadata")
    renamed = {"drug": "drug", "canonical_smiles": "smiles", "targets": "targets"}
    renamed |= {"moa-fine": "mechanism"}
    frame = _columns(read_table(path), path, renamed)
    frame["mechanism"] = frame["mechanism"].where(frame["mechanism"] != "unclear", "")
    return check_drugs(frame.set_index("drug"), str(path))


def sciplex_drugs() -> pd.DataFrame:
    """Read the catalogue's compounds of Sci-Plex 3; target class and pathway are the mechanism."""
    samples, about = (catalogue.fetch(f"sciplex_{n}") for n in ("samples", "drugs"))
    renamed = {"name": "drug", "SMILES": "smiles", "catalog_number": "catalog"}
    rows = _columns(pd.read_csv(samples, sep="\t", dtype=str), samples, renamed)
    renamed = {"Catalog.Number": "catalog", "Target": "target", "Pathway": "pathway"}
    classes = _columns(pd.read_csv(about, sep="\t", dtype=str), about, renamed)
    drugs = rows.dropna(subset=["drug"]).drop_duplicates("drug")
    drugs = drugs.merge(classes.drop_duplicates("catalog"), on="catalog", how="left")
    both = drugs[["target", "pathway"]].fillna("")
    drugs["mechanism"] = (both["target"] + ", " + both["pathway"]).str.strip(", ")
    return check_drugs(drugs.set_index("drug")[["smiles", "mechanism"]], str(samples))


def _columns(frame: pd.DataFrame, path, names: dict) -> pd.DataFrame:
    check_table(frame, list(names), path, way_out="is this another version of the file?")
    return frame[list(names)].rename(columns=names)


def targets_of(drugs: pd.DataFrame) -> dict[str, list[str]]:
    """Gene symbols that each drug acts on, the main one first (an empty list without any)."""
    return {drug: _split(str(text)) for drug, text in drugs["targets"].fillna("").items()}
