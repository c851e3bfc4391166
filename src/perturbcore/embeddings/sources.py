"""What a builder is made from: a simulation, a catalogue file, a file of one's own, a screen."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.digest import digest
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data import catalogue, identifiers
from perturbcore.data.folds import single_genes
from perturbcore.data.molecules import tables
from perturbcore.data.read import check_table, existing, member, read_r, read_table

SIMULATED = dict(edges="network", sets="annotation", texts="descriptions", sequences="sequences")
DRUG_TABLES = {
    "compounds": (tables.builtin_compounds, "built-in compounds [zhang2025]"),
    "tahoe_drug_metadata": (tables.tahoe_drugs, "Tahoe-100M drug table [zhang2025]"),
    "sciplex_samples": (tables.sciplex_drugs, "Sci-Plex 3 compounds [srivatsan2020]"),
}
SEQUENCES = "human_seq_2014.parquet"  # Swiss-Prot of January 2014; made by hand, in no repository


@dataclass(frozen=True)
class BuildContext:
    """Where builders find their sources: a `Dataset`, and the folder where relative paths start."""

    dataset: Any = None
    folder: Path | None = None

    def extra(self, name: str) -> Any:
        """Something that the data set brings along, or None."""
        return (getattr(self.dataset, "extras", None) or {}).get(name)


@dataclass(frozen=True)
class Source:
    """A source: a line on what it is, the digest of its content, and how to read it."""

    label: str
    digest: str
    read: Callable[[], Any]
    defaults: dict = field(default_factory=dict)


def find_source(spec: dict, kind: str, context: BuildContext) -> Source:
    """Find what a specification names, without reading more than its digest needs.

    `kind`: see `perturbcore.embeddings.registry.register`; ``genes: perturbed`` keeps only the
    genes that the data set perturbs, under today's symbol too.
    """
    source = _find(spec, kind, context)
    if not spec.get("genes"):
        return source
    adata = described(context.dataset)
    if adata is None:
        raise InputError(f"embedding {spec['name']!r}: genes: perturbed needs a data set")
    ids = set(adata.obs["perturbation"].astype(str))
    ids |= {gene for name in ids for gene in single_genes(name)}
    older = (
        identifiers.previous_symbols()
        if source.defaults.get("identifier", "symbol") == "symbol"
        else {}
    )
    wanted = ids | {older[i] for i in ids if i in older}

    def read() -> dict:
        return {k: v for k, v in source.read().items() if k in wanted}

    return replace(source, digest=digest(source.digest, sorted(wanted)), read=read)


def _find(spec: dict, kind: str, context: BuildContext) -> Source:
    where, name = f"embedding {spec['name']!r}", spec.get("source")
    if kind == "screen":
        return _screen(spec, context, where)
    if kind in ("drugs", "drugs_of"):
        return _drugs(spec, context, where)
    if "file" in spec:
        path = _local_path(spec["file"], context, where)
        return Source(path.name, catalogue.hash_of(path), lambda: READERS[kind](path))
    if name is None:
        raise ParameterError(f"{where}: give source: (simulated, or catalogued) or file: (a path)")
    if name == "simulated":
        return _simulated(kind, context, where)
    if name == "human_sequences":
        path = human_sequences()
        label = f"human proteins of {path.name} [uniprot2023]"
        return Source(label, catalogue.hash_of(path), lambda: read_sequences(path))
    entry, path = catalogue.entry(name), catalogue.fetch(name)
    label = f"{entry.description} [{', '.join(entry.citations)}]"
    read = OWN.get((kind, name), READERS[kind])
    return Source(label, entry.sha256, lambda: read(path))


def _local_path(text: str, context: BuildContext, where: str) -> Path:
    path = resolved(text, context.folder)
    if "$" in str(path):
        raise InputError(f"{where}: {text} names an environment variable that is not set")
    if not path.is_file():
        raise InputError(f"{where}: the file {path} does not exist; check the path")
    return path


def resolved(text: str, folder: Path | None) -> Path:
    """Expand ``~`` and variables; a relative path starts at `folder`, or the working directory."""
    path = Path(os.path.expandvars(str(text))).expanduser()
    return path if path.is_absolute() else (folder or Path.cwd()) / path


def human_sequences() -> Path:
    """Return the file of sequences: the prepared one, or the FASTA of UniProt."""
    mirror = os.environ.get("PERTURBCORE_MIRROR", "")
    roots = [catalogue.data_folder(), *([Path(mirror), Path(mirror).parent] if mirror else [])]
    there = (root / "derived" / SEQUENCES for root in roots)
    path = next((p for p in there if p.is_file()), None)
    return path or catalogue.fetch("human_proteome")


def _simulated(kind: str, context: BuildContext, where: str) -> Source:
    simulation = context.extra("simulation")
    if simulation is None:
        raise InputError(
            f"{where}: source simulated needs a simulated data set; this one has no simulation "
            "(name a catalogue entry or a file instead)"
        )
    if kind not in SIMULATED:
        raise ParameterError(f"{where}: simulations hold {', '.join(SIMULATED)}, not {kind}")
    value = getattr(getattr(simulation, "knowledge", simulation), SIMULATED[kind])
    content = value if isinstance(value, pd.DataFrame) else [list(value), list(value.values())]
    # what is known of genes goes by gene in a screen of drugs too
    known = _declared(described(context.dataset)).get("identifier", "drug")
    defaults = {} if known == "drug" else {"identifier": known}
    return Source(f"simulated {SIMULATED[kind]}", digest(content), lambda: value, defaults)


def _screen(spec: dict, context: BuildContext, where: str) -> Source:
    """Control cells; of a data set opened from disk they are read only where they are needed."""
    if spec.get("source") not in (None, "screen", "simulated") or "file" in spec:
        raise ParameterError(f"{where}: this builder reads control cells; leave source out")
    data = context.dataset
    if data is None or not data.holds("screen"):
        raise InputError(f"{where}: expression embeddings need control cells, and there are none")
    if data.key:
        key = digest("screen", data.key)
    else:
        control = data.screen.obs["is_control"].to_numpy(bool)
        lines = data.screen.obs["cell_line"].astype(str)[control]
        about = _declared(data.screen)
        key = digest(data.screen.X[control], data.screen.var_names, lines, about)
    return Source("simulated " * data.simulated + "control cells", key, lambda: data.screen)


def _drugs(spec: dict, context: BuildContext, where: str) -> Source:
    """Table of drugs: a file, the built-in compounds, the catalogue's, or the data set's."""
    name = spec.get("source")
    if "file" in spec:
        path = _local_path(spec["file"], context, where)
        drugs, label = tables.read_drugs(path), path.name
    elif name in (None, "dataset", "simulated"):
        drugs = context.extra("drugs")
        if drugs is None:
            raise InputError(
                f"{where}: drug embeddings are made from a table of drugs, but the data set brings "
                "none; give file: (name, smiles, targets, mechanism) or source: "
                + ", ".join(DRUG_TABLES)
            )
        drugs = tables.check_drugs(
            drugs, f"drugs of {getattr(context.dataset, 'name', 'the data set')}"
        )
        label = "drug table of the data set"
    else:
        read, label = DRUG_TABLES.get(
            name, (lambda: tables.read_drugs(catalogue.fetch(name)), str(name))
        )
        drugs = read()
    return Source(label, digest(drugs), lambda: drugs)


def described(data: Any) -> AnnData | None:
    """Return the responses of a data set, or its screen, or None."""
    parts = (getattr(data, part, None) for part in ("responses", "screen"))
    return next((part for part in parts if part is not None), None)


def _declared(adata: AnnData | None) -> dict:
    return {} if adata is None else adata.uns.get("perturbcore", {})


def read_edges(path: Path | str) -> pd.DataFrame:
    """Read an edge list: source and target (else the first two columns) and, if any, weight."""
    frame = read_table(path)
    ends = ["source", "target"] if {"source", "target"} <= set(frame) else list(frame.columns[:2])
    if len(ends) < 2:
        raise InputError(
            f"{path}: edges need two node columns (and may have weight); it has "
            f"{list(frame.columns)}"
        )
    edges = frame[[*ends, *(["weight"] if "weight" in frame else [])]]
    edges = edges.rename(columns=dict(zip(ends, ("source", "target"), strict=True)))
    return edges.astype({"source": str, "target": str})


def read_texts(path: Path | str) -> dict[str, str]:
    """Read a text per id from the first two columns of a table."""
    frame = read_table(path)
    if frame.shape[1] < 2:
        raise InputError(f"{path}: id and text columns are needed; it has {list(frame.columns)}")
    texts = frame.astype(str).set_index(frame.columns[0]).iloc[:, 0]
    if len(twice := texts.index[texts.index.duplicated()]):
        raise InputError(f"{path}: id {twice[0]!r} has several texts; join them into one")
    return texts.to_dict()


def read_gmt(path: Path | str) -> dict[str, list[str]]:
    """Read gene sets from a GMT file: name, description, then genes, separated by tabs."""
    sets: dict[str, list[str]] = {}
    for number, line in _lines(path):
        title, *cells = (cell.strip() for cell in line.split("\t"))
        genes = [gene for gene in cells[1:] if gene]
        if not genes:
            raise InputError(
                f"{path}:{number}: a set needs a name, a description and genes, separated by "
                f"tabs; this line has {len(cells) + 1} cells and 0 genes"
            )
        if not title:
            raise InputError(f"{path}:{number}: the set has no name")
        if title in sets:
            raise InputError(f"{path}:{number}: an earlier line has set {title!r}; rename one")
        sets[title] = genes
    if not sets:
        raise InputError(f"{path} holds no gene set")
    return sets


def read_fasta(path: Path | str) -> dict[str, list[str]]:
    """Read proteins, isoforms listed, by gene name (``GN=TP53``), else by the first word."""
    entries: list[tuple[str, int, list[str]]] = []
    for number, line in _lines(path):
        if line.startswith(">"):
            words = line[1:].split()
            if not words:
                raise InputError(f"{path}:{number}: the header has no id")
            named = [w[3:] for w in words if w.startswith("GN=")]
            entries.append(((*named, words[0])[0], number, []))
        elif not entries:
            raise InputError(f"{path}:{number}: residues before the first '>' header")
        else:
            entries[-1][2].append(line.strip())
    sequences: dict[str, list[str]] = {}
    for name, number, parts in entries:
        if not parts:
            raise InputError(f"{path}:{number}: {name!r} has no residues")
        sequences.setdefault(name, []).append("".join(parts))
    if not sequences:
        raise InputError(f"{path} holds no sequence")
    return sequences


def read_sequences(path: Path | str) -> dict[str, list[str]]:
    """Read protein sequences: FASTA, or Parquet with the ids as index and a column sequence."""
    if Path(path).suffix != ".parquet":
        return read_fasta(path)
    table = read_table(path)
    check_table(table, ["sequence"], path)
    return table["sequence"].groupby(level=0).agg(list).to_dict()


def ncbi_summaries(path: Path | str) -> dict[str, str]:
    """Read the summary that NCBI Gene gives, per symbol; of several, the first."""
    raw = read_r(path, "gene_info_df")
    table = pd.DataFrame({c: member(path, raw, c) for c in ("symbol", "summary")}).dropna()
    table = table.astype(str).apply(lambda c: c.str.strip())
    table = table[(table["symbol"] != "") & (table["summary"] != "")]
    return table.drop_duplicates("symbol").set_index("symbol")["summary"].to_dict()


def coessential_modules(path: Path | str) -> dict[str, list[str]]:
    """Read modules of co-essential genes, one per row (Wainberg et al. 2021)."""
    rows = [line.split("\t") for _, line in _lines(path)][1:]
    modules = {row[0]: [gene for gene in row[11:] if gene] for row in rows}
    if not all(modules.values()):
        raise InputError(f"{path}: a module without genes; is this another version of the file?")
    return modules


def regulons(path: Path | str, confidence: Sequence[str] = "ABCD") -> dict[str, list[str]]:
    """Read what each factor activates and represses, as two sets (Garcia-Alonso et al. 2019)."""
    table = read_r(path, "dorothea_hs")
    check_table(table, ["tf", "confidence", "target", "mor"], path)
    table = table[table["confidence"].isin(list(confidence))]
    way = np.where(table["mor"] > 0, "activated by ", "repressed by ") + table["tf"].astype(str)
    return table["target"].astype(str).groupby(way).agg(list).to_dict()


def _lines(path: Path | str) -> list[tuple[int, str]]:
    """Lines of a text file that are not blank, with their numbers."""
    try:
        lines = existing(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file ({error}); is it compressed?") from None
    return [(n, line) for n, line in enumerate(lines, start=1) if line.strip()]


READERS = dict(
    edges=read_edges,
    sets=read_gmt,
    texts=read_texts,
    sequences=read_sequences,
    table=Path,
    windows=identifiers.tss_windows,
)
# files of the catalogue that have a form of their own
OWN = {
    ("texts", "ncbi_summaries"): ncbi_summaries,
    ("texts", "gene_table"): lambda _: identifiers.descriptions(identifiers.gene_table()),
    ("sets", "coessential_modules"): coessential_modules,
    ("sets", "dorothea"): regulons,
}
