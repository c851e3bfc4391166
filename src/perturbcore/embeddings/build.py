"""From the embedding entries of a profile to embeddings, each built once and then cached."""

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from tqdm.auto import tqdm

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.convert import add_aliases, convert_ids
from perturbcore.embeddings.load import load_embedding, save_embedding
from perturbcore.embeddings.registry import COMMON
from perturbcore.embeddings.sources import BuildContext, Source, find_source
from perturbcore.embeddings.specs import check_spec, depth

CELL_LINE = "{cell_line}"
MODELS = "models"  # folder in the cache for what builders train: a fine-tuning starts from there


def build(
    spec: dict, context: BuildContext | None = None, *, made: dict | None = None
) -> Embedding | list[Embedding]:
    """Build the embedding that a specification describes.

    Parameters
    ----------
    spec
        ``name``; then either ``builder`` (see `perturbcore.embeddings.registry.builders`) with
        ``source`` (``simulated``, or a name of the catalogue) or ``file``, or ``file`` alone for a
        table of vectors (``builder: file`` with ``source`` for one of the catalogue). Further:
        ``modality``, ``identifier``, ``cell_line``, ``columns`` (of an edge list or a table of
        texts), ``convert_to`` and ``duplicates`` (see `convert_ids`),
        ``aliases: previous_symbols`` (see `add_aliases`), ``of`` (the embedding that
        ``builder: shuffled`` shuffles); all other keys, or those under ``options``, are options of
        the builder. ``{cell_line}`` in ``file`` stands for each cell line of the data set.
    context
        Where sources are found.
    made
        Embeddings by name, for ``of``.

    Returns
    -------
    Embedding or list of Embedding
        A list where every cell line has its own.

    Raises
    ------
    ParameterError
        Unknown builder, option or source; the message lists what exists.
    InputError
        The source cannot be read, or does not hold what is needed.
    """
    plan = _Plan(spec, context or BuildContext(), made or {})
    result, _ = plan.run()
    return result if plan.several(result) else result[0]


def build_all(
    specs: Iterable[dict],
    context: BuildContext | None = None,
    *,
    cache=None,
    progress: bool = False,
) -> list[Embedding]:
    """Build all embeddings of a profile, in its order.

    Parameters
    ----------
    specs
        See `build`; ``of`` may name an embedding that comes later.
    context
        Where sources are found.
    cache
        Folder of built embeddings. The key is the specification, the content of its source and the
        code of this room, so a changed source or option builds anew; a killed build leaves nothing
        behind that would be taken for whole.
    progress
        Show a progress bar.

    Returns
    -------
    list of Embedding
    """
    context = context or BuildContext()
    specs = [dict(s) for s in specs]
    names = [str(s.get("name")) for s in specs]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ParameterError(f"embedding {twice[0]!r} is specified twice; give each its own name")
    # Everything that can be wrong with a specification is said before the first long computation.
    for spec in specs:
        check_spec(spec, names)
    made: dict[str, list[Embedding]] = {}
    order = sorted(specs, key=lambda s: depth(s, dict(zip(names, specs, strict=True))))
    for spec in (bar := tqdm(order, desc="embeddings", disable=not progress)):
        bar.set_postfix_str(spec["name"])
        plan = _Plan(spec, context, made)
        made[spec["name"]] = plan.cached(Path(cache)) if cache is not None else plan.run()[0]
    return [e for name in names for e in made[name]]


class _Plan:
    """One specification with its builder, options and source, ready to run."""

    def __init__(self, spec: dict, context: BuildContext, made: dict):
        self.spec, self.context = dict(spec), context
        made = {k: [v] if isinstance(v, Embedding) else list(v) for k, v in made.items()}
        self.builder, self.options = check_spec(self.spec, tuple(made))
        self.content = ""
        if self.builder is not None and self.builder.prepare is not None:
            where = f"embedding {self.spec['name']!r}"
            self.options, self.content = self.builder.prepare(
                self.options, self.context.folder, where
            )
        self.parents = made.get(self.spec.get("of"), [])
        self.sources = self._sources()

    def several(self, result: list) -> bool:
        """Whether this specification makes one embedding a cell line."""
        kind = self.builder.kind if self.builder else "table"
        return len(result) > 1 or len(self.sources) > 1 or kind == "screen"

    def _sources(self) -> dict[str | None, Source]:
        """Find the sources by cell line (None: one for all lines)."""
        line = self.spec.get("cell_line")
        if self.builder is not None and self.builder.kind == "embedding":
            return {}
        kind = self.builder.kind if self.builder else "table"
        if kind == "drugs_of":
            kind = "drugs"
        if CELL_LINE not in str(self.spec.get("file", "")):
            return {line: find_source(self.spec, kind, self.context)}
        lines = [line] if line else self._lines()
        return {
            one: find_source(
                self.spec | {"file": self.spec["file"].replace(CELL_LINE, one)}, kind, self.context
            )
            for one in lines
        }

    def _lines(self) -> list[str]:
        for part in ("responses", "screen"):
            adata = getattr(self.context.dataset, part, None)
            if adata is not None:
                return sorted(adata.obs["cell_line"].astype(str).unique())
        raise InputError(
            f"embedding {self.spec['name']!r}: {CELL_LINE} in file needs a data set with cell lines"
        )

    @property
    def key(self) -> str:
        """Content key: specification without paths, sources, code."""
        spec = {k: v for k, v in self.spec.items() if k != "file"}
        if self.content:  # what an option points to counts, not where it lies
            spec = {k: v for k, v in spec.items() if k not in self.options and k != "options"}
            spec["content"] = self.content
        sources = {str(line): source.digest for line, source in self.sources.items()}
        made_by = ["perturbcore.embeddings.sources"]
        made_by.append(
            self.builder.function if self.builder is not None else "perturbcore.embeddings.load"
        )
        if "convert_to" in spec:
            sources["id_map"] = (
                digest(self.context.id_map) if self.context.id_map is not None else ""
            )
        if "aliases" in spec:
            sources["aliases"] = digest(self.context.previous_symbols())
        if "convert_to" in spec or "aliases" in spec:
            made_by.append("perturbcore.embeddings.convert")
        parents = [[e.name, e.digest] for e in self.parents]
        return digest(spec, sources, parents, code_digest(*made_by))

    def run(self, models: Path | None = None) -> tuple[list[Embedding], list]:
        """Build; the second value holds one id report an embedding, where ids were converted.

        What a builder trains is kept in the folder `models`, where there is one.
        """
        made = []
        if self.builder is not None and self.builder.kind == "embedding":
            for parent in self.parents:
                arguments = {"name": self.spec["name"], **self.options}
                made.append(self._declared(self.builder.function(parent, **arguments), None))
        for line, source in self.sources.items():
            made += self._from_source(line, source, models)
        reports = []
        if "convert_to" in self.spec:
            how = self.spec.get("duplicates", "error")
            to, table = self.spec["convert_to"], self.context.id_map
            pairs = [convert_ids(e, table, to, duplicates=how) for e in made]
            made, reports = [e for e, _ in pairs], [r for _, r in pairs]
        if "aliases" in self.spec:
            made = [add_aliases(e, self.context.previous_symbols())[0] for e in made]
        return made, reports

    def _from_source(
        self, line: str | None, source: Source, models: Path | None
    ) -> list[Embedding]:
        given = {k: self.spec[k] for k in ("modality", "identifier") if k in self.spec}
        common = {"name": self.spec["name"], "source": source.label, "cell_line": line}
        common |= source.defaults | given
        if self.builder is None:
            return [load_embedding(source.read(), **common, **self.options)]
        if self.builder.kind == "drugs_of":
            arguments = self._arguments(common) | self.options
            made = [self.builder.function(e, source.read(), **arguments) for e in self.parents]
            return [self._declared(e, line) for e in made]
        arguments = self._arguments(common | {"models": models})
        result = self.builder.function(source.read(), **arguments, **self.options)
        result = result if isinstance(result, list) else [result]
        return [self._declared(e, line) for e in result]

    def _arguments(self, common: dict) -> dict:
        return {k: v for k, v in common.items() if k in COMMON and k in self.builder.accepts}

    def _declared(self, embedding: Embedding, line: str | None) -> Embedding:
        """Apply what the specification declares and the builder does not take."""
        declared = self.spec.get("identifier", embedding.identifier)
        if declared != embedding.identifier:
            raise ParameterError(
                f"embedding {embedding.name!r}: its ids are {embedding.identifier} ids, not "
                f"{declared}; leave identifier out, or use convert_to: {declared}"
            )
        return replace(
            embedding,
            modality=self.spec.get("modality", embedding.modality),
            cell_line=line or embedding.cell_line,
        )

    def cached(self, folder: Path) -> list[Embedding]:
        """Take the embeddings from the cache, or build and keep them."""
        slug = re.sub(r"[^A-Za-z0-9]+", "-", self.spec["name"]).strip("-").lower()
        kept = folder / f"{slug}-{self.key}"
        if files := sorted(kept.glob("*.npz")):
            try:
                return [load_embedding(f) for f in files]
            except InputError:
                shutil.rmtree(kept, ignore_errors=True)  # damaged: build it again
        made, reports = self.run(models=folder / MODELS)
        partial = folder / f".{kept.name}-{uuid.uuid4().hex}"
        partial.mkdir(parents=True)
        for number, embedding in enumerate(made):
            save_embedding(embedding, partial / f"{number:03d}.npz")
        for number, report in enumerate(reports):
            report.to_csv(partial / f"{number:03d}-ids.csv")
        (partial / "spec.json").write_text(json.dumps(self.spec, indent=1, default=str))
        try:
            os.rename(partial, kept)
        except OSError:  # another process was faster; its copy has the same content
            shutil.rmtree(partial, ignore_errors=True)
        return made
