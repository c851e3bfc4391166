"""One table of gene ids: conversion that reports what it could not do, descriptions, bases."""

import gzip
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pandas as pd

from perturbcore.core.errors import InputError, check_choice
from perturbcore.data import catalogue
from perturbcore.data.folds import is_control
from perturbcore.data.read import existing, member, read_csv, read_r

KINDS = ("symbol", "ensembl", "entrez")
GENE_FILES = ("gene_table", "gene_info_table")
COLUMNS = ("ensembl", "entrez", "symbol", "chromosome", "biotype", "description")
PLACE = ("start", "end", "strand")  # first and last base, and 1 or -1
CHROMOSOMES = (*map(str, range(1, 23)), "X", "Y", "MT")
PAIRED = str.maketrans("ACGT", "TGCA")
_LOOKS = {"ensembl": r"(?i)\s*ENS[A-Z]*G\d{11}(\.\d+)?\s*", "entrez": r"\s*\d+\s*"}
_MOUSE = r"[A-Z][a-z0-9-]*[a-z][a-z0-9-]*|ENSMUSG\d{11}"


def looks_like(ids: pd.Index) -> str:
    """Say what most of the ids look like: "ensembl", "entrez", or else "symbol"."""
    return next((k for k, look in _LOOKS.items() if ids.str.fullmatch(look).mean() > 0.5), "symbol")


def of_mouse(ids: pd.Index) -> bool:
    """Whether most of the ids are written as those of mouse genes, such as Trp53."""
    return bool(ids.str.fullmatch(_MOUSE).mean() > 0.5)


def check_names(names: Iterable[str], identifier: str, where: str, *, strict: bool = True) -> None:
    """Refuse names that are controls or not what is declared; `strict`: also nearly equal ones."""
    names = pd.Index(pd.unique(pd.Series(list(names), dtype=str)))
    alike = names.str.strip().str.casefold()
    if strict and alike.has_duplicates:
        twice = list(names[alike == alike[alike.duplicated()][0]])
        raise InputError(f"{where}: {twice} differ by case or blanks only: write them alike")
    for name in names:
        parts = [part.strip() for part in name.split("+")] if strict else [name]
        if controls := [p for p in parts if is_control(p)]:
            rest = "+".join(p for p in parts if p not in controls)
            way_out = f"rename it '{rest}'" if rest else "drop it, or declare it the control"
            raise InputError(f"{where}: '{name}' names control cells ('{controls[0]}'): {way_out}")
    seen = looks_like(names)
    if identifier in ("symbol", "ensembl", "entrez") and seen != identifier:
        raise InputError(
            f"{where}: perturbations such as '{names[0]}' look like {seen} ids, but {identifier} "
            f"is declared: declare the identifier {seen}"
        )
    if identifier == "ensembl" and (versions := names[names.str.contains(r"\.\d+$")]).size:
        raise InputError(
            f"{where}: '{versions[0]}' has a version; cut it off ('{versions[0].split('.')[0]}'), "
            "since other tables have other versions"
        )


def gene_table() -> pd.DataFrame:
    """Return the Ensembl GRCh38 gene table of the catalogue, a row per (Ensembl id, Entrez id)."""
    source, theirs = catalogue.fetch("gene_table"), {"ensembl": "ensgene", "chromosome": "chr"}
    raw = read_r(source, "grch38")
    table = pd.DataFrame({c: member(source, raw, theirs.get(c, c)) for c in (*COLUMNS, *PLACE)})
    return table.astype("string").fillna("").astype(str).reset_index(drop=True)


def previous_symbols(table: pd.DataFrame | None = None) -> pd.Series:
    """Map symbols of an older annotation to today's, through the Ensembl id they share."""
    if table is None:
        return _previous(catalogue.fetch("gene_info_table"), catalogue.fetch("gene_table"))
    old = read_csv(catalogue.fetch("gene_info_table"), ("ensembl_id", "gene_name"))
    today = table.loc[table["symbol"] != "", ["ensembl", "symbol"]].drop_duplicates()
    both = old.merge(today, left_on="ensembl_id", right_on="ensembl")
    both = both[~both["gene_name"].isin(set(today["symbol"]))]
    both = both.drop_duplicates(["gene_name", "symbol"])
    both = both[~both["gene_name"].duplicated(keep=False)]
    return both.set_index("gene_name")["symbol"].rename("symbol").sort_index()


@cache
def _previous(*files) -> pd.Series:
    return previous_symbols(gene_table())


def gene_aliases() -> dict[str, str]:
    """Map Ensembl ids and symbols of an older annotation to today's symbol, where there is one."""
    table = gene_table()
    found = convert(table["ensembl"].unique(), "ensembl", "symbol", table)["value"].dropna()
    return found.to_dict() | previous_symbols(table).to_dict()


def convert(
    ids: Iterable[str], from_: str, to: str, table: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Convert gene ids and report, by id, every one that is not one to one.

    Of several candidates a single protein-coding one wins ("resolved"); otherwise the id is
    "ambiguous" and has no value. `shared`: several ids lead to this value.
    """
    for kind in (from_, to):
        check_choice("kind of gene id", kind, KINDS)
    ids = pd.Index(list(ids), dtype=object)
    if ids.hasnans:
        raise InputError("a gene id is missing (NaN): name or drop it before conversion")
    ids = ids.astype(str)
    table = gene_table() if table is None else table
    key = ids.str.replace(r"\.\d+$", "", regex=True) if from_ == "ensembl" else ids
    wanted = pd.DataFrame({"id": ids, "key": key}).drop_duplicates("id")
    rows = table.loc[(table[from_] != "") & (table[to] != "") & table[from_].isin(key)]
    rows = rows.assign(main=rows["chromosome"].isin(CHROMOSOMES))
    rows = rows[rows["main"] | ~rows.groupby(from_)["main"].transform("any")]
    candidates, coding = (
        part.drop_duplicates([from_, to]).groupby(from_)[to].agg(list)
        for part in (rows, rows[rows["biotype"] == "protein_coding"])
    )
    records, kinds = [], {0: "missing", 1: "ok"}
    for key in wanted["key"]:
        found, best = candidates.get(key, []), coding.get(key, [])
        one = next((part for part in (found, best) if len(part) == 1), [])
        status = kinds.get(len(found), "resolved" if one else "ambiguous")
        records.append((status, *(one or [pd.NA]), ", ".join(sorted(found))))
    columns, index = ["status", "value", "candidates"], pd.Index(wanted["id"], name="id")
    report = pd.DataFrame(records, columns=columns, index=index).astype({"value": "string"})
    report["shared"] = report["value"].notna() & report["value"].duplicated(keep=False)
    return report


def descriptions(table: pd.DataFrame) -> dict[str, str]:
    """Return a short text per symbol, without the symbol and Ensembl's "[Source:...]"."""
    text = table["description"].str.replace(r"\s*\[Source:[^\]]*\]\s*$", "", regex=True).str.strip()
    rows = table.assign(
        text=text,
        patch=~table["chromosome"].isin(CHROMOSOMES),
        noncoding=table["biotype"] != "protein_coding",
    )
    rows = rows[(rows["symbol"] != "") & (rows["text"] != "")]
    rows = rows.sort_values(["patch", "noncoding", "ensembl"], kind="stable")
    rows = rows.drop_duplicates("symbol").sort_values("symbol")
    return dict(zip(rows["symbol"], rows["text"], strict=True))


def tss_windows(fasta: Path | str, width: int = 4096) -> dict[str, str]:
    """Cut `width` bases around the start of transcription of each gene, read along its strand."""
    genes = gene_table()
    genes = genes[genes["chromosome"].isin(CHROMOSOMES) & (genes["symbol"] != "")]
    tss = genes["start"].where(genes["strand"] == "1", genes["end"]).astype(int)
    by_chromosome = genes.assign(tss=tss).drop_duplicates("symbol").groupby("chromosome")
    out = {}
    for name, bases in _chromosomes(fasta):
        if (name := name.removeprefix("chr")) in by_chromosome.groups:
            for row in by_chromosome.get_group(name).itertuples():
                first = max(row.tss - 1 - width // 2, 0)
                part = bases[first : row.tss - 1 + width // 2].upper()
                out[row.symbol] = part if row.strand == "1" else part.translate(PAIRED)[::-1]
    out = {gene: part for gene, part in out.items() if part.strip("N")}
    if not out:
        raise InputError(f"{fasta} has none of the chromosomes of the genes: are names alike?")
    return out


def _chromosomes(path: Path | str) -> Iterator[tuple[str, str]]:
    """Name and bases of one entry of a FASTA file after the other."""
    name, parts = "", []
    opened = gzip.open if str(path).endswith(".gz") else open
    with opened(existing(path), "rt", encoding="ascii", errors="replace") as handle:
        for line in handle:
            if line.startswith(">"):
                if name:
                    yield name, "".join(parts)
                name, parts = (line[1:].split() or [""])[0], []
            else:
                parts.append(line.strip())
    if name:
        yield name, "".join(parts)
