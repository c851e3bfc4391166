"""Texts and protein sequences of human genes, and the genes of them that a data set needs."""

import os
from dataclasses import replace
from pathlib import Path

import pandas as pd

from perturbcore.core.digest import digest
from perturbcore.core.errors import InputError
from perturbcore.data import catalogue
from perturbcore.data.catalogue import hash_of
from perturbcore.data.identifiers import previous_symbols
from perturbcore.data.read import member, read_r
from perturbcore.embeddings.sources import (
    BuildContext,
    Source,
    described,
    find_source,
    read_sequences,
)

SEQUENCES = "human_seq_2014.parquet"  # Swiss-Prot of January 2014; made by hand, in no repository


def ncbi_summaries(path: Path | str) -> dict[str, str]:
    """Read the summary that NCBI Gene gives, per symbol; of several, the first."""
    raw = read_r(path, "gene_info_df")
    table = pd.DataFrame({c: member(path, raw, c) for c in ("symbol", "summary")}).dropna()
    table = table.astype(str).apply(lambda c: c.str.strip())
    table = table[(table["symbol"] != "") & (table["summary"] != "")]
    return table.drop_duplicates("symbol").set_index("symbol")["summary"].to_dict()


def human_sequences() -> tuple:
    """Label, digest and reader of what is at hand: a file of one's own, the prepared one, or FASTA.

    ``PERTURBCORE_SEQUENCES`` names a file; else the prepared one is looked for in the folder
    ``derived`` of the data folder and of the mirror, or beside the mirror; else the reference
    proteome of the catalogue is fetched.
    """
    own, mirror = (os.environ.get(f"PERTURBCORE_{v}", "") for v in ("SEQUENCES", "MIRROR"))
    roots = [catalogue.data_folder(), *([Path(mirror), Path(mirror).parent] if mirror else [])]
    there = [Path(own)] if own else [r / "derived" / SEQUENCES for r in roots]
    path = next((p for p in there if p.is_file()), None)
    if own and path is None:
        raise InputError(f"PERTURBCORE_SEQUENCES={own} is not a file; correct or unset it")
    path = path or catalogue.fetch("human_proteome")
    label = f"human proteins of {path.name} [uniprot2023]"
    return label, hash_of(path), lambda: read_sequences(path)


def summaries() -> tuple:
    """Label, digest and reader of the summaries of NCBI Gene."""
    item = catalogue.entry("ncbi_summaries")
    path = catalogue.fetch(item.name)
    label = f"{item.description} [{', '.join(item.citations)}]"
    return label, item.sha256, lambda: ncbi_summaries(path)


NAMED = {"ncbi_summaries": summaries, "human_sequences": human_sequences}


def source_of(spec: dict, kind: str, context: BuildContext) -> Source:
    """Find what a specification names: these sources, or see `find_source`.

    With ``genes: perturbed`` (or measured) only the genes are kept that the data set perturbs (or
    also measures), under today's symbol too where it has an older one.
    """
    named, genes = NAMED.get(spec.get("source")), spec.get("genes")
    source = Source(*named()) if named else find_source(spec, kind, context)
    if not genes:
        return source
    adata = described(context.dataset)
    if adata is None:
        raise InputError(f"embedding {spec['name']!r}: genes: {genes} needs a data set")
    ids = set(adata.obs["perturbation"].astype(str))
    ids |= set(adata.var_names) if genes == "measured" else set()
    older = previous_symbols() if source.defaults.get("identifier", "symbol") == "symbol" else {}
    wanted = ids | {older[i] for i in ids if i in older}

    def read() -> dict:
        return {k: v for k, v in source.read().items() if k in wanted}

    return replace(source, digest=digest(source.digest, sorted(wanted)), read=read)
