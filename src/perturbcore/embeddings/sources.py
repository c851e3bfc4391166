"""What a builder is made from: a simulation, a catalogue file, a file of one's own, a screen."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from anndata import AnnData

from perturbcore.core.digest import digest
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data import catalogue
from perturbcore.data.identifiers import descriptions, gene_table
from perturbcore.data.molecules.tables import (
    builtin_compounds,
    check_drugs,
    read_drugs,
    sciplex_drugs,
    tahoe_drugs,
)
from perturbcore.embeddings.readers import read_edges, read_fasta, read_gmt, read_texts

SIMULATED = {
    "edges": "network",
    "sets": "annotation",
    "texts": "descriptions",
    "sequences": "sequences",
}


@dataclass(frozen=True)
class BuildContext:
    """Where builders find their sources.

    `dataset`: `perturbcore.data.sets.base.Dataset`: its screen for expression embeddings, its
    perturbations for random ones, its simulation for ``source: simulated``; `folder`: where
    relative paths of ``file`` start; the working directory if left out.
    """

    dataset: Any = None
    folder: Path | None = None

    def extra(self, name: str) -> Any:
        """Something that the data set brings along, or None."""
        return (getattr(self.dataset, "extras", None) or {}).get(name)


@dataclass(frozen=True)
class Source:
    """A source that can be read, one line on what it is, and the digest of its content."""

    label: str
    digest: str
    read: Callable[[], Any]
    defaults: dict = field(default_factory=dict)


def find_source(spec: dict, kind: str, context: BuildContext) -> Source:
    """Find what a specification names, without reading more than its digest needs.

    ``source`` is ``simulated``, ``screen``, ``compounds`` or a name of the catalogue, else there is
    a ``file``; `kind` is what the builder wants (see `perturbcore.embeddings.registry.register`, or
    ``table``). What is missing is said with the embedding's name.
    """
    where = f"embedding {spec['name']!r}"
    special = {"screen": _screen, "ids": _ids, "drugs": _drugs, "drugs_of": _drugs}
    if kind in special:
        return special[kind](spec, context, where)
    name, columns = spec.get("source"), spec.get("columns")
    if "file" in spec:
        path = local_path(spec["file"], context, where)
        label, sha = path.name, file_sha256(path)
    elif name is None:
        raise ParameterError(
            f"{where}: give source: (simulated, or a name of the catalogue) or file: (a path)"
        )
    elif name == "simulated":
        return _simulated(kind, context, where)
    else:
        entry = catalogue.entry(name)
        path = _fetched(name)
        label, sha = f"{entry.description} [{', '.join(entry.citations)}]", entry.sha256
    readers = {
        "edges": lambda: read_edges(path, columns),
        "sets": lambda: read_gmt(path),
        "texts": lambda: read_texts(path, columns),
        "sequences": lambda: read_fasta(path),
        "table": lambda: path,
    }
    if kind == "texts" and name == "gene_table":
        return Source(label, sha, lambda: descriptions(gene_table()))
    return Source(label, sha, readers[kind])


def local_path(text: str, context: BuildContext, where: str) -> Path:
    """Resolve a path of a specification: ``~`` and variables expanded, existing, not a folder."""
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


def file_sha256(path: Path) -> str:
    """Sha256 of a file."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _simulated(kind: str, context: BuildContext, where: str) -> Source:
    simulation = context.extra("simulation")
    if simulation is None:
        raise InputError(
            f"{where}: source simulated needs a simulated data set; this one has no simulation "
            "(name a catalogue entry or a file instead)"
        )
    if kind not in SIMULATED:
        raise ParameterError(
            f"{where}: a simulation holds {', '.join(SIMULATED)}, but the builder wants {kind}"
        )
    value = getattr(getattr(simulation, "knowledge", simulation), SIMULATED[kind])
    content = value if isinstance(value, pd.DataFrame) else [list(value), list(value.values())]
    # what is known of genes goes by gene in a screen of drugs too
    known = _identifier(context.dataset) or "drug"
    defaults = {} if known == "drug" else {"identifier": known}
    return Source(f"simulated {SIMULATED[kind]}", digest(content), lambda: value, defaults)


def _screen(spec: dict, context: BuildContext, where: str) -> Source:
    if spec.get("source") not in (None, "screen", "simulated") or "file" in spec:
        raise ParameterError(
            f"{where}: this builder reads the control cells of the data set; leave source out"
        )
    data = context.dataset
    stored = getattr(data, "key", "")  # opened from disk: cells are read only where they are needed
    if not (data.holds("screen") if stored else getattr(data, "screen", None) is not None):
        raise InputError(
            f"{where}: expression embeddings are made from control cells, but the data set has no "
            "screen of cells"
        )
    if stored:
        kind, key = data.simulated, digest("screen", stored)
    else:
        screen, about = data.screen, _declared(data.screen)
        control = screen.obs["is_control"].to_numpy(bool)
        lines = screen.obs["cell_line"].astype(str)[control]
        kind, key = (
            about.get("simulated"),
            digest(screen.X[control], screen.var_names, lines, about),
        )
    return Source("simulated " * bool(kind) + "control cells", key, lambda: data.screen)


def _drugs(spec: dict, context: BuildContext, where: str) -> Source:
    """Table of drugs: a file, the built-in compounds, the catalogue's, or the data set's."""
    name, columns, label = spec.get("source"), spec.get("columns"), ""
    if "file" in spec:
        path = local_path(spec["file"], context, where)
        drugs, label = read_drugs(path, columns), path.name
    elif name in (None, "dataset", "simulated"):
        drugs = context.extra("drugs")
        if drugs is None:
            raise InputError(
                f"{where}: drug embeddings are made from a table of drugs, but the data set brings "
                "none; give file: (name, smiles, targets, mechanism) or source: compounds, "
                "tahoe_drug_metadata, sciplex_samples"
            )
        drugs = check_drugs(drugs, f"drugs of {getattr(context.dataset, 'name', 'the data set')}")
        label = "drug table of the data set"
    elif name == "compounds":
        drugs, label = builtin_compounds(), "built-in compounds [zhang2025]"
    elif name == "tahoe_drug_metadata":
        drugs, label = tahoe_drugs(_fetched(name)), "Tahoe-100M drug table [zhang2025]"
    elif name in ("sciplex_samples", "sciplex_drugs"):
        drugs = sciplex_drugs(*(_fetched(f"sciplex_{n}") for n in ("samples", "drugs")))
        label = "Sci-Plex 3 compounds [srivatsan2020]"
    else:
        drugs, label = read_drugs(_fetched(name), columns), str(name)
    return Source(label, digest(drugs), lambda: drugs)


def _ids(spec: dict, context: BuildContext, where: str) -> Source:
    adata = described(context.dataset)
    if adata is None:
        raise InputError(f"{where}: random embeddings need a data set")
    obs = adata.obs
    obs = obs[~obs["is_control"].to_numpy(bool)] if "is_control" in obs else obs
    ids = sorted(obs["perturbation"].astype(str).unique())
    known = _identifier(context.dataset)
    return Source("", digest(ids), lambda: ids, {"identifier": known} if known else {})


def described(data: Any) -> AnnData | None:
    """Return the responses of a data set, or its screen, or None."""
    for part in ("responses", "screen"):
        adata = getattr(data, part, None)
        if adata is not None:
            return adata
    return None


def _declared(adata: AnnData | None) -> dict:
    return {} if adata is None else adata.uns.get("perturbcore", {})


def _identifier(data: Any) -> str | None:
    return _declared(described(data)).get("identifier")


def _fetched(name: str) -> Path:
    return Path(catalogue.fetch(name, progress=False))
