"""Bases of a genome around the start of transcription of its genes."""

import gzip
from collections.abc import Iterator
from pathlib import Path

from perturbcore.core.errors import InputError
from perturbcore.core.tables import check_table
from perturbcore.data.identifiers import CHROMOSOMES, gene_table
from perturbcore.data.read import existing, numbers, read_table

PAIRED = str.maketrans("ACGT", "TGCA")


def starts_beside(fasta: Path | str) -> Path:
    """Name the file of transcription start sites that may lie beside a genome."""
    return Path(fasta).with_name(Path(fasta).name.split(".")[0] + ".tss.tsv")


def tss_windows(fasta: Path | str, width: int = 4096) -> dict[str, str]:
    """Cut `width` bases around the start of transcription of each gene, read along its strand."""
    beside = starts_beside(fasta)
    if beside.is_file():
        table = read_table(beside)
        check_table(table, ["gene", "chromosome", "tss", "strand"], beside)
    else:
        table = gene_table()
        table = table[table["chromosome"].isin(CHROMOSOMES) & (table["symbol"] != "")]
        tss = table["start"].where(table["strand"] == "1", table["end"])
        table = table.assign(gene=table["symbol"], tss=tss).drop_duplicates("gene")
    tss = numbers(table["tss"], "tss", beside, whole="a position").astype(int)
    genes = table.assign(tss=tss).astype({"chromosome": str, "gene": str, "strand": str})
    by_chromosome, out = genes.groupby(genes["chromosome"].str.removeprefix("chr")), {}
    for name, bases in _chromosomes(fasta):
        if (name := name.removeprefix("chr")) in by_chromosome.groups:
            for row in by_chromosome.get_group(name).itertuples():
                first = max(row.tss - 1 - width // 2, 0)
                part = bases[first : row.tss - 1 + width // 2].upper()
                out[row.gene] = part if row.strand == "1" else part.translate(PAIRED)[::-1]
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
