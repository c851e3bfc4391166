"""Tables of drugs: name, SMILES, targets, mechanism."""

import csv
from functools import cache
from pathlib import Path

import pandas as pd

from perturbcore.core.errors import InputError, ParameterError

DRUG_COLUMNS = ("smiles", "targets", "mechanism")
SEPARATOR = ";"
BUILT_IN = Path(__file__).parent / "data" / "compounds.csv"
# A name or two that rdkit cannot read is a slip; a table of them is not chemistry.
CHEMICAL_SHARE = 0.5


@cache
def _compounds() -> pd.DataFrame:
    frame = pd.read_csv(BUILT_IN, dtype=str, keep_default_na=False).set_index("name")
    return check_drugs(frame, "built-in table of compounds")


def builtin_compounds() -> pd.DataFrame:
    """Return the built-in table of approved and tool compounds.

    Returns indexed by name; `smiles` (rdkit's canonical form), `targets` (gene symbols, the
    first the main one, separated by ``;``), `mechanism`, `source` (where the row's facts come
    from).

    Facts are those of the public-domain drug table of Tahoe-100M. Its SMILES mostly leave
    stereochemistry out, so that drugs that differ in it alone (doxorubicin, epirubicin) share
    one; salts stand as salts. `molecule_report` lists both.

    Zhang et al. 2025, Tahoe-100M.
    """
    return _compounds().copy()


def check_drugs(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """Check a table of drugs and put it into the form that every drug builder reads.

    `frame`: indexed by drug; column `smiles`, and where known `targets` and `mechanism`.
    Missing cells become empty text; further columns stay; `where`: name of the table, for
    messages.
    """
    if "smiles" not in frame:
        raise InputError(
            f"{where}: no column 'smiles'; it has {', '.join(map(str, frame.columns))}"
        )
    if frame.empty:
        raise InputError(f"{where}: the table has no rows")
    out = frame.copy()
    names = pd.Series(["" if pd.isna(n) else str(n).strip() for n in out.index])
    for row in range(len(names)):
        if not names[row]:
            raise InputError(
                f"{where}: row {row + 1} has no name (SMILES '{out['smiles'].iloc[row]}')"
            )
    twice = names[names.duplicated()]
    if len(twice):
        rows = ", ".join(str(i + 1) for i in names.index[names == twice.iloc[0]])
        raise InputError(
            f"{where}: drug '{twice.iloc[0]}' stands in rows {rows}; give each its own name, or "
            "keep one row"
        )
    out.index = pd.Index(names.to_list(), name="drug")
    for column in DRUG_COLUMNS:
        given = out[column] if column in out else pd.Series("", index=out.index)
        out[column] = ["" if pd.isna(v) else str(v).strip() for v in given]
    out["targets"] = [SEPARATOR.join(_split(t)) for t in out["targets"]]
    _refuse_what_is_not_chemistry(out, where)
    return out[[*DRUG_COLUMNS, *[c for c in out if c not in DRUG_COLUMNS]]]


def _split(text: str) -> list[str]:
    """Gene symbols in their order, each once; ``;`` and ``,`` both separate."""
    parts = [p.strip() for p in text.replace(",", SEPARATOR).split(SEPARATOR)]
    return list(dict.fromkeys(p for p in parts if p))


def _refuse_what_is_not_chemistry(drugs: pd.DataFrame, where: str) -> None:
    from perturbcore.data.molecules.structures import parse

    given = drugs.loc[drugs["smiles"] != "", "smiles"]
    if given.empty:
        raise InputError(f"{where}: column 'smiles' is empty in every row")
    problems = {drug: parse(smiles)[1] for drug, smiles in given.items()}
    wrong = [d for d, problem in problems.items() if problem]
    if len(wrong) > CHEMICAL_SHARE * len(given):
        row = drugs.index.get_loc(wrong[0]) + 1
        raise InputError(
            f"{where}: column 'smiles' does not hold SMILES: {len(wrong)} of {len(given)} cannot "
            "be read, "
            f"first row {row} ('{wrong[0]}': '{_short(given[wrong[0]])}', {problems[wrong[0]]})"
        )


def _short(text: str, n: int = 40) -> str:
    return text if len(text) <= n else f"{text[:n]}..."


def read_drugs(path, columns=None) -> pd.DataFrame:
    """Read a table of drugs (``.csv``, ``.tsv``, ``.txt`` or ``.parquet``).

    `path`: one row a drug, with a header; `columns`: names of the columns of name, SMILES, and
    where there are, targets and mechanism, in this order; ``name, smiles, targets, mechanism``
    by default, as far as the table has them.

    Returns see `check_drugs`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; check the path")
    if path.suffix == ".parquet":
        from perturbcore.data.tables import read_table

        frame, complete = read_table(path), True
    else:
        frame, complete = _read_rows(path)
    names = list(columns) if columns else [c for c in ("name", *DRUG_COLUMNS) if c in frame]
    if len(names) < 2 or len(names) > 4 or (not columns and names[:2] != ["name", "smiles"]):
        raise InputError(
            f"{path}: columns must name those of name, SMILES[, targets[, mechanism]], got "
            f"{names}; "
            f"the file has {list(map(str, frame.columns))}"
        )
    missing = [c for c in names if c not in frame]
    if missing:
        raise InputError(
            f"{path}: no column '{missing[0]}'; it has {list(map(str, frame.columns))}"
        )
    table = frame[names].set_axis(["name", *DRUG_COLUMNS][: len(names)], axis=1)
    if not complete:
        _refuse_cut_row(path, table)
    return check_drugs(table.set_index("name"), str(path))


def _read_rows(path: Path) -> tuple[pd.DataFrame, bool]:
    """Rows as text, and whether the last one ends in a line break."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text table ({error})") from None
    lines = text.splitlines()
    if not lines:
        raise InputError(f"{path} is empty")
    rows = list(csv.reader(lines, delimiter="\t" if "\t" in lines[0] else ","))
    head, body = rows[0], [(i, r) for i, r in enumerate(rows[1:], 1) if r]
    for number, row in body:
        if len(row) != len(head):
            what = "cut off" if len(row) < len(head) else "too long"
            raise InputError(
                f"{path}: row {number} ('{row[0]}') has {len(row)} cells, the header {len(head)}: "
                f"it is {what}; "
                "fetch or write the file again, and quote cells that hold the separator"
            )
    return pd.DataFrame([r for _, r in body], columns=head), text.endswith(("\n", "\r"))


def _refuse_cut_row(path: Path, table: pd.DataFrame) -> None:
    """Raise if the last line has no line break and its SMILES cannot be read.

    It was cut off, not mistyped.
    """
    from perturbcore.data.molecules.structures import parse

    last = table.iloc[-1] if len(table) else None
    if last is not None and table.columns[-1] == "smiles" and parse(last["smiles"])[1]:
        raise InputError(
            f"{path}: the file ends within row {len(table)} ('{last['name']}': "
            f"'{_short(last['smiles'])}', "
            f"{parse(last['smiles'])[1]}): it is cut off; fetch or write it again"
        )


def tahoe_drugs(path=None, by: str = "drug") -> pd.DataFrame:
    """Read the drug table of Tahoe-100M.

    `path`: the file; the catalogue's ``tahoe_drug_metadata`` if left out; `by`: what names a
    drug: the name, or the PubChem CID as the authors' embeddings have it. Of drugs that share a
    CID the first is kept under it.

    Returns see `check_drugs`; with `approved`. Drugs without a structure have an empty SMILES.
    """
    from perturbcore.data.tables import read_table

    if by not in ("drug", "pubchem_cid"):
        raise ParameterError(f"by must be drug or pubchem_cid, got {by!r}")
    path = Path(path) if path is not None else _fetched("tahoe_drug_metadata")
    frame = read_table(path)
    frame = _columns(
        frame, path, {"canonical_smiles": "smiles", "targets": "targets", "moa-fine": "mechanism",
                      "human-approved": "approved", "drug": "drug", "pubchem_cid": "pubchem_cid"},
    )  # fmt: skip
    if by == "pubchem_cid":
        frame = frame[frame["pubchem_cid"].notna()].drop_duplicates("pubchem_cid")
        frame["pubchem_cid"] = frame["pubchem_cid"].astype("int64").astype(str)
    frame["mechanism"] = frame["mechanism"].where(frame["mechanism"] != "unclear", "")
    return check_drugs(
        frame.set_index(by).drop(columns=["pubchem_cid", "drug"], errors="ignore"), str(path)
    )


def sciplex_drugs(samples=None, properties=None) -> pd.DataFrame:
    """Read the compounds of Sci-Plex 3.

    Its table names target classes (``HDAC``), not genes: `targets` stays empty, and the class
    and pathway are the `mechanism`.

    `samples, properties`: the files; the catalogue's ``sciplex_samples`` and ``sciplex_drugs``
    if left out.
    """
    samples = Path(samples) if samples is not None else _fetched("sciplex_samples")
    properties = Path(properties) if properties is not None else _fetched("sciplex_drugs")
    rows = _columns(pd.read_csv(samples, sep="\t", dtype=str), samples,
                    {"name": "drug", "SMILES": "smiles", "catalog_number": "catalog"})  # fmt: skip
    about = _columns(
        pd.read_csv(properties, sep="\t", dtype=str),
        properties,
        {"Catalog.Number": "catalog", "Target": "target", "Pathway": "pathway"},
    )
    drugs = rows.dropna(subset=["drug"]).drop_duplicates("drug")
    drugs = drugs.merge(about.drop_duplicates("catalog"), on="catalog", how="left")
    both = drugs[["target", "pathway"]].fillna("")
    drugs["mechanism"] = (both["target"] + ", " + both["pathway"]).str.strip(", ")
    return check_drugs(drugs.set_index("drug")[["smiles", "mechanism"]], str(samples))


def _fetched(name: str) -> Path:
    from perturbcore.data import catalogue

    return Path(catalogue.fetch(name, progress=False))


def _columns(frame: pd.DataFrame, path, names: dict) -> pd.DataFrame:
    missing = [c for c in names if c not in frame]
    if missing:
        raise InputError(f"{path}: no column '{missing[0]}'; is this another version of the file?")
    return frame[list(names)].rename(columns=names)


def targets_of(drugs: pd.DataFrame) -> dict[str, list[str]]:
    """Gene symbols that each drug acts on, the main one first.

    Drugs without any have an empty list.
    """
    return {drug: _split(str(text)) for drug, text in drugs["targets"].items()}
