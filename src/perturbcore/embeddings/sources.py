"""What a builder is made from: a simulation, a catalogue file, a file of one's own, a screen."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from perturbcore.core.digest import digest
from perturbcore.core.errors import InputError, ParameterError

SIMULATED = {
    "edges": "network",
    "sets": "annotation",
    "texts": "descriptions",
    "sequences": "sequences",
}


@dataclass(frozen=True)
class BuildContext:
    """Where builders find their sources.

    Parameters
    ----------
    dataset
        `perturbcore.data.sets.base.Dataset`: its screen for expression embeddings, its perturbations for
        random ones, its simulation for ``source: simulated``.
    ids
        Perturbations for random embeddings, if not those of the data set.
    fetch
        Catalogue name to path; `perturbcore.data.catalogue.fetch` if left out.
    id_map
        Columns symbol, ensembl, entrez, for ``convert_to``; the catalogue's gene table if left out.
    aliases
        Today's symbol by an older one, for ``aliases``; `perturbcore.data.identifiers.previous_symbols`
        if left out.
    folder
        Where relative paths of ``file`` start; the working directory if left out.
    """

    dataset: Any = None
    ids: Sequence[str] | None = None
    fetch: Callable[[str], Path] | None = None
    id_map: pd.DataFrame | None = None
    aliases: pd.Series | None = None
    folder: Path | None = None

    def previous_symbols(self) -> pd.Series:
        """Return today's symbol, indexed by an older one."""
        if self.aliases is not None:
            return self.aliases
        from perturbcore.data.identifiers import previous_symbols

        return previous_symbols()


@dataclass(frozen=True)
class Source:
    """A source that can be read, one line on what it is, and the digest of its content."""

    label: str
    digest: str
    read: Callable[[], Any]
    defaults: dict


def find_source(spec: dict, kind: str, context: BuildContext) -> Source:
    """Find what a specification names, without reading more than its digest needs.

    Parameters
    ----------
    spec
        With ``source`` (``simulated``, ``screen``, ``compounds``, or a catalogue name) or ``file``.
    kind
        What the builder wants: edges, sets, texts, sequences, screen, ids, drugs, or table.
    context
        Where to look.

    Raises
    ------
    InputError, ParameterError
        The message names the embedding and what is missing.
    """
    where = f"embedding {spec['name']!r}"
    if kind == "screen":
        return _screen(spec, context, where)
    if kind == "ids":
        return _ids(spec, context, where)
    if kind == "drugs":
        return _drugs(spec, context, where)
    if "file" in spec:
        path = local_path(spec["file"], context, where)
        return _file(path, path.name, file_sha256(path), kind, spec)
    name = spec.get("source")
    if name is None:
        raise ParameterError(
            f"{where}: give source: (simulated, or a name of the catalogue) or file: (a path)"
        )
    if name == "simulated":
        return _simulated(kind, context, where)
    label, sha = str(name), None
    fetch = context.fetch
    if fetch is None:
        from perturbcore.data import catalogue

        found = catalogue.entry(name)
        fetch = partial(catalogue.fetch, progress=False)
        label, sha = f"{found.description} [{', '.join(found.citations)}]", found.sha256
    path = Path(fetch(name))
    return _file(path, label, sha or file_sha256(path), kind, spec, table_of=name)


def local_path(text, context: BuildContext, where: str) -> Path:
    """Resolve a path of a specification: ``~`` and variables expanded, existing, not a folder."""
    path = Path(os.path.expandvars(str(text))).expanduser()
    path = path if path.is_absolute() else (context.folder or Path.cwd()) / path
    if "$" in str(path):
        raise InputError(f"{where}: {text} names an environment variable that is not set")
    if not path.is_file():
        raise InputError(f"{where}: the file {path} does not exist; check the path")
    return path


def file_sha256(path: Path) -> str:
    """Sha256 of a file."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _file(path: Path, label: str, sha: str, kind: str, spec: dict, table_of=None) -> Source:
    from perturbcore.data.tables import read_edges
    from perturbcore.embeddings.annotation import read_gmt
    from perturbcore.embeddings.sequence import read_fasta

    columns = spec.get("columns")
    readers = {
        "edges": lambda: read_edges(path, columns),
        "sets": lambda: read_gmt(path),
        "texts": lambda: _texts(path, columns, gene_table=table_of == "gene_table"),
        "sequences": lambda: read_fasta(path),
        "table": lambda: path,
    }
    return Source(label, sha, readers[kind], {})


def _texts(path: Path, columns, gene_table: bool) -> dict[str, str]:
    from perturbcore.data.tables import read_table

    if gene_table:
        from perturbcore.data.identifiers import descriptions
        from perturbcore.data.identifiers import gene_table as table_of_genes

        return descriptions(table_of_genes())
    frame = read_table(path)
    columns = list(columns) if columns else list(frame.columns[:2])
    missing = [c for c in columns if c not in frame]
    if missing or len(columns) != 2:
        raise InputError(
            f"{path}: columns must name an id and a text column, got {columns}; the file has "
            f"{list(frame.columns)}"
        )
    frame = frame[columns].astype(str)
    twice = frame[columns[0]][frame[columns[0]].duplicated()]
    if len(twice):
        raise InputError(f"{path}: id {twice.iloc[0]!r} has several texts; join them into one")
    return dict(zip(frame[columns[0]], frame[columns[1]], strict=True))


def _simulated(kind: str, context: BuildContext, where: str) -> Source:
    extras = getattr(context.dataset, "extras", None) or {}
    simulation = extras.get("simulation", extras.get("simulated"))
    if simulation is None:
        raise InputError(
            f"{where}: source simulated needs a simulated data set; this one has no simulation "
            "(name a catalogue entry or a file instead)"
        )
    if kind not in SIMULATED:
        raise ParameterError(
            f"{where}: a simulation holds {', '.join(SIMULATED)}, but the builder wants {kind}"
        )
    value = getattr(simulation, SIMULATED[kind])
    content = value if isinstance(value, pd.DataFrame) else [list(value), list(value.values())]
    known = _identifier(context.dataset)
    return Source(
        f"simulated {SIMULATED[kind]}",
        digest(content),
        lambda: value,
        # what is known of genes goes by gene in a screen of drugs too
        {"identifier": known} if known and known != "drug" else {},
    )


def _identifier(data) -> str | None:
    for part in ("responses", "screen"):
        adata = getattr(data, part, None)
        if adata is not None:
            return adata.uns.get("perturbcore", {}).get("identifier")
    return None


def _screen(spec: dict, context: BuildContext, where: str) -> Source:
    if spec.get("source") not in (None, "screen", "simulated") or "file" in spec:
        raise ParameterError(
            f"{where}: this builder reads the control cells of the data set; leave source out"
        )
    data = context.dataset
    if getattr(data, "key", ""):  # opened from disk: cells are read only where they are needed
        there = data.holds("screen")
    else:
        there = getattr(data, "screen", None) is not None
    if not there:
        raise InputError(
            f"{where}: expression embeddings are made from control cells, but the data set has no "
            "screen of cells"
        )
    if getattr(data, "key", ""):
        kind = "simulated control cells" if data.simulated else "control cells"
        return Source(kind, digest("screen", data.key), lambda: data.screen, {})
    screen = data.screen
    declared = screen.uns.get("perturbcore", {})
    control = screen.obs["is_control"].to_numpy(bool)
    if screen.isbacked:
        stat = os.stat(screen.filename)
        content = [str(screen.filename), stat.st_size, stat.st_mtime_ns]
        part = digest(content)
    else:
        part = digest(screen.X[control])
    key = digest(part, screen.var_names, screen.obs["cell_line"].astype(str)[control], declared)
    kind = "simulated control cells" if declared.get("simulated") else "control cells"
    return Source(kind, key, lambda: screen, {})


def _drugs(spec: dict, context: BuildContext, where: str) -> Source:
    """Table of drugs: a file, the built-in compounds, the catalogue's, or by default the data set's."""
    from perturbcore.data import molecules

    name, columns = spec.get("source"), spec.get("columns")
    fetch = context.fetch or _fetch
    if "file" in spec:
        path = local_path(spec["file"], context, where)
        drugs, label = molecules.read_drugs(path, columns), path.name
    elif name in (None, "dataset", "simulated"):
        drugs = (getattr(context.dataset, "extras", None) or {}).get("drugs")
        if drugs is None:
            raise InputError(
                f"{where}: drug embeddings are made from a table of drugs, but the data set brings none; "
                "give file: (name, smiles, targets, mechanism) or source: compounds, tahoe_drug_metadata, "
                "sciplex_samples"
            )
        drugs = molecules.check_drugs(
            drugs, f"drugs of {getattr(context.dataset, 'name', 'the data set')}"
        )
        label = "drug table of the data set"
    elif name == "compounds":
        drugs, label = molecules.builtin_compounds(), "built-in compounds [zhang2025]"
    elif name == "tahoe_drug_metadata":
        drugs, label = molecules.tahoe_drugs(fetch(name)), "Tahoe-100M drug table [zhang2025]"
    elif name in ("sciplex_samples", "sciplex_drugs"):
        drugs = molecules.sciplex_drugs(fetch("sciplex_samples"), fetch("sciplex_drugs"))
        label = "Sci-Plex 3 compounds [srivatsan2020]"
    else:
        drugs, label = molecules.read_drugs(fetch(name), columns), str(name)
    return Source(label, digest(drugs), lambda: drugs, {})


def _fetch(name: str) -> Path:
    from perturbcore.data import catalogue

    return Path(catalogue.fetch(name, progress=False))


def _ids(spec: dict, context: BuildContext, where: str) -> Source:
    ids, identifier = context.ids, None
    for part in ("responses", "screen"):
        adata = getattr(context.dataset, part, None)
        if adata is not None and identifier is None:
            identifier = adata.uns.get("perturbcore", {}).get("identifier")
        if adata is not None and ids is None:
            obs = adata.obs
            obs = obs[~obs["is_control"].to_numpy(bool)] if "is_control" in obs else obs
            ids = obs["perturbation"].astype(str).unique()
    if ids is None:
        raise InputError(f"{where}: random embeddings need a data set, or ids in the context")
    ids = sorted(set(ids))
    return Source(
        "perturbations",
        digest(ids),
        lambda: ids,
        {"identifier": identifier} if identifier else {},
    )
