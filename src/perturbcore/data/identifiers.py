"""One table of gene ids, conversion that reports what it could not do, and gene descriptions."""

import os
import uuid
from pathlib import Path

import pandas as pd

from perturbcore.core.errors import InputError, ParameterError

KINDS = ("symbol", "ensembl", "entrez")
COLUMNS = ("ensembl", "entrez", "symbol", "chromosome", "biotype", "description")
CHROMOSOMES = (*map(str, range(1, 23)), "X", "Y", "MT")


def gene_table(path=None) -> pd.DataFrame:
    """Return the Ensembl GRCh38 gene table.

    Parameters
    ----------
    path : path, optional
        An R data file like annotables' ``grch38.rda``; the catalogue's otherwise.

    Returns
    -------
    pandas.DataFrame
        One row an (Ensembl id, Entrez id); columns `ensembl`, `entrez`, `symbol`, `chromosome`,
        `biotype`, `description`, all str, "" where there is none.

    Raises
    ------
    InputError
        The file is damaged or lacks a column.
    """
    from perturbcore.data.catalogue import data_folder, entry, fetch

    if path is not None:
        return _read_gene_table(path)
    # reading the R file takes ten seconds, so the table is kept beside the downloads
    kept = data_folder() / ".derived" / f"gene_table-{entry('gene_table').sha256[:16]}.parquet"
    source = fetch("gene_table", progress=False)
    try:
        table = pd.read_parquet(kept)
        if list(table.columns) == list(COLUMNS):
            return table
    except (OSError, ValueError):
        pass
    table = _read_gene_table(source)
    _keep(table, kept)
    return table


def _read_gene_table(path) -> pd.DataFrame:
    from perturbcore.data.read import member, read_r

    raw = read_r(path, "grch38")
    names = {"ensgene": "ensembl", "chr": "chromosome"}
    columns = {}
    for column in ("ensgene", "entrez", "symbol", "chr", "biotype", "description"):
        columns[names.get(column, column)] = member(path, raw, column)
    table = pd.DataFrame(columns).astype("string").fillna("").astype(str)
    return table[list(COLUMNS)].reset_index(drop=True)


def _keep(table: pd.DataFrame, kept: Path) -> None:
    partial = kept.with_name(f".{kept.name}-{uuid.uuid4().hex}")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(partial)
        os.replace(partial, kept)
    except OSError:  # a read-only data folder only costs the time
        partial.unlink(missing_ok=True)


def previous_symbols(table: pd.DataFrame | None = None, path=None) -> pd.Series:
    """Map symbols of an older annotation to today's, through the Ensembl id they share.

    Parameters
    ----------
    table : pandas.DataFrame, optional
        See `gene_table`.
    path : path, optional
        A csv file with columns `ensembl_id`, `gene_name`; the catalogue's ``gene_info_table``
        otherwise.

    Returns
    -------
    pandas.Series
        Today's symbol, indexed by an older one that no gene bears today. Older symbols that lead to
        several of today's are left out.
    """
    from perturbcore.data.catalogue import fetch
    from perturbcore.data.read import read_csv

    table = gene_table() if table is None else table
    source = path or fetch("gene_info_table", progress=False)
    old = read_csv(source, ("ensembl_id", "gene_name"))
    today = table.loc[table["symbol"] != "", ["ensembl", "symbol"]].drop_duplicates()
    both = old.merge(today, left_on="ensembl_id", right_on="ensembl")
    both = both[~both["gene_name"].isin(set(today["symbol"]))]
    both = both.drop_duplicates(["gene_name", "symbol"])
    both = both[~both["gene_name"].duplicated(keep=False)]
    return both.set_index("gene_name")["symbol"].rename("symbol").sort_index()


def convert(ids, from_: str, to: str, table: pd.DataFrame | None = None):
    """Convert gene ids and report every one that is not one to one.

    Genes on alternative haplotypes and patches are used only where the id has none on a chromosome.
    Of several candidates a single protein-coding one wins ("resolved"); otherwise the id is
    "ambiguous" and gets no value, rather than a wrong one.

    Parameters
    ----------
    ids : sequence of str
        Ids to convert; repeats are allowed. Version suffixes of Ensembl ids are ignored.
    from_, to : str
        "symbol", "ensembl" or "entrez".
    table : pandas.DataFrame, optional
        See `gene_table`.

    Returns
    -------
    converted : pandas.Series
        One value an id, in the order given, missing (NA) where there is no single answer.
    report : pandas.DataFrame
        Indexed by the distinct ids; columns `status` ("ok", "resolved", "ambiguous", "missing"),
        `value`, `candidates` (joined by a comma), `shared` (several ids lead to this value).

    Raises
    ------
    ParameterError
        `from_` or `to` is no kind of id.
    InputError
        An id is missing (NaN).
    """
    for kind in (from_, to):
        if kind not in KINDS:
            raise ParameterError(f"'{kind}' is no kind of gene id; they are: {', '.join(KINDS)}")
    ids = pd.Index(ids)
    if ids.hasnans:
        raise InputError("a gene id is missing (NaN): name or drop it before conversion")
    ids = ids.astype(str)
    table = gene_table() if table is None else table
    key = ids.str.replace(r"\.\d+$", "", regex=True) if from_ == "ensembl" else ids
    wanted = pd.DataFrame({"id": ids, "key": key}).drop_duplicates("id")
    rows = table.loc[(table[from_] != "") & (table[to] != "") & table[from_].isin(key)]
    rows = rows.assign(main=rows["chromosome"].isin(CHROMOSOMES))
    rows = rows[rows["main"] | ~rows.groupby(from_)["main"].transform("any")]
    distinct = rows.drop_duplicates([from_, to])
    candidates = distinct.groupby(from_)[to].agg(list)
    coding = rows[rows["biotype"] == "protein_coding"].drop_duplicates([from_, to])
    coding = coding.groupby(from_)[to].agg(list)
    records = [_decide(candidates.get(k, []), coding.get(k, [])) for k in wanted["key"]]
    report = pd.DataFrame(
        records, columns=["status", "value", "candidates"], index=pd.Index(wanted["id"], name="id")
    )
    report["value"] = report["value"].astype("string")
    report["shared"] = report["value"].notna() & report["value"].duplicated(keep=False)
    converted = pd.Series(report["value"].reindex(ids).array, index=ids, name=to)
    return converted, report


def _decide(candidates: list[str], coding: list[str]):
    listed = ", ".join(sorted(candidates))
    if not candidates:
        return "missing", pd.NA, listed
    if len(candidates) == 1:
        return "ok", candidates[0], listed
    if len(coding) == 1:
        return "resolved", coding[0], listed
    return "ambiguous", pd.NA, listed


def descriptions(table: pd.DataFrame | None = None) -> dict[str, str]:
    """Return a short text a symbol, for text embeddings.

    The symbol itself is not part of the text, nor is the "[Source:...]" that Ensembl appends. Where
    a symbol has several genes, the one on a chromosome and coding for a protein comes first.

    Parameters
    ----------
    table : pandas.DataFrame, optional
        See `gene_table`.
    """
    table = gene_table() if table is None else table
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


def current_symbols(symbols, table: pd.DataFrame | None = None, previous=None):
    """Bring symbols up to date, so that old data and new knowledge meet under one name.

    Parameters
    ----------
    symbols : sequence of str
        Gene symbols, old or new; repeats are allowed.
    table : pandas.DataFrame, optional
        See `gene_table`.
    previous : pandas.Series, optional
        See `previous_symbols`.

    Returns
    -------
    current : pandas.Series
        Today's symbol, indexed by the one given; unknown ones stay as they are.
    report : pandas.DataFrame
        Indexed by the distinct symbols; columns `status` ("current", "renamed", "unknown"), `value`
        and `shared` (another of the symbols given leads to this value too).
    """
    table = gene_table() if table is None else table
    previous = previous_symbols(table) if previous is None else previous
    symbols = pd.Index(symbols).astype(str)
    report = pd.DataFrame(index=pd.Index(symbols.unique(), name="symbol"))
    known = report.index.isin(set(table["symbol"]))
    report["value"] = report.index.where(known, report.index.map(lambda s: previous.get(s, s)))
    renamed = report["value"] != report.index
    report["status"] = "unknown"
    report.loc[known, "status"] = "current"
    report.loc[renamed, "status"] = "renamed"
    report["shared"] = report["value"].duplicated(keep=False)
    report = report[["status", "value", "shared"]]
    current = pd.Series(report["value"].reindex(symbols).array, index=symbols, name="symbol")
    return current, report
