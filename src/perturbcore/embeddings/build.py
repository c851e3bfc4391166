"""From the embedding entries of a profile to embeddings, each built once and then cached."""

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.identifiers import previous_symbols
from perturbcore.data.responses import cell_lines
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.convert import add_aliases, convert_ids
from perturbcore.embeddings.load import load_embedding, save_embedding
from perturbcore.embeddings.sources import BuildContext, Source, described, find_source
from perturbcore.embeddings.specs import check_spec, in_order

CELL_LINE = "{cell_line}"
MODELS = "models"  # folder in the cache for what builders train: a fine-tuning starts from there


def build(spec: dict, context: BuildContext | None = None) -> Embedding:
    """Build the one embedding that a specification describes; see `build_all`."""
    return build_all([spec], context)[0]


def build_all(
    specs: Iterable[dict],
    context: BuildContext | None = None,
    *,
    cache: Path | str | None = None,
) -> list[Embedding]:
    """Build all embeddings of a profile, in its order.

    `specs`: each has a ``name``; then either ``builder`` (see
    `perturbcore.embeddings.registry.builders`) with ``source`` (``simulated``, or a name of the
    catalogue) or ``file``, or ``file`` alone for a table of vectors (``builder: file`` with
    ``source`` for one of the catalogue). Further: ``modality``, ``identifier``, ``cell_line``,
    ``columns`` (of an edge list or a table of texts), ``convert_to`` and ``duplicates`` (see
    `convert_ids`), ``aliases: previous_symbols`` (see `add_aliases`), ``of`` (the embedding,
    perhaps a later one, that ``builder: shuffled`` shuffles); all other keys, or those under
    ``options``, are options of the builder. ``{cell_line}`` in ``file`` stands for each cell
    line of the data set; `context`: where sources are found; `cache`: folder of built
    embeddings. The key is the specification, the content of its source and the builder's code,
    so a changed source or option builds anew; a killed build leaves nothing behind that would
    be taken for whole.

    Returns where every cell line has its own, all of them.
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
    for spec in in_order(specs):
        plan = _Plan(spec, context, made)
        made[spec["name"]] = plan.cached(Path(cache)) if cache is not None else plan.run()[0]
    return [e for name in names for e in made[name]]


class _Plan:
    """One specification with its builder, options and sources (by cell line), ready to run."""

    def __init__(self, spec: dict, context: BuildContext, made: dict):
        self.spec, self.context = spec, context
        self.where = f"embedding {spec['name']!r}"
        self.builder, self.options = check_spec(spec, tuple(made))
        self.content = ""
        if self.builder.prepare is not None:
            self.options, self.content = self.builder.prepare(
                self.options, context.folder, self.where
            )
        self.parents = made.get(spec.get("of"), [])
        self.sources = self._sources()

    def _sources(self) -> dict[str | None, Source]:
        spec, kind = self.spec, self.builder.kind
        line, file = spec.get("cell_line"), str(spec.get("file", ""))
        if kind == "embedding":
            return {}
        if CELL_LINE not in file:
            return {line: find_source(spec, kind, self.context)}
        return {
            one: find_source(spec | {"file": file.replace(CELL_LINE, one)}, kind, self.context)
            for one in ([line] if line else self._lines())
        }

    def _lines(self) -> list[str]:
        adata = described(self.context.dataset)
        if adata is None:
            raise InputError(f"{self.where}: {CELL_LINE} in file needs a data set with cell lines")
        return sorted(cell_lines(adata))

    @property
    def key(self) -> str:
        """Content key: specification without paths, sources, code."""
        spec = {k: v for k, v in self.spec.items() if k != "file"}
        if self.content:  # what an option points to counts, not where it lies
            spec = {k: v for k, v in spec.items() if k not in self.options and k != "options"}
            spec["content"] = self.content
        sources = {str(line): source.digest for line, source in self.sources.items()}
        if "aliases" in spec:
            sources["aliases"] = digest(previous_symbols())
        made_by = [self.builder.function, "perturbcore.embeddings.sources"]
        if "convert_to" in spec or "aliases" in spec:
            made_by.append("perturbcore.embeddings.convert")
        parents = [[e.name, e.digest] for e in self.parents]
        return digest(spec, sources, parents, code_digest(*made_by))

    def run(self, models: Path | None = None) -> tuple[list[Embedding], list[pd.DataFrame]]:
        """Build; also return one id report per embedding, where ids were converted.

        What a builder trains is kept in the folder `models`, where there is one.
        """
        said = {k: self.spec[k] for k in ("name", "modality", "identifier") if k in self.spec}
        made, reports = [], []
        for parent in self.parents if not self.sources else ():
            made += self.builder.make(parent, given=said, **self.options)
        for line, source in self.sources.items():
            given = {"source": source.label, "cell_line": line, "models": models}
            given |= source.defaults | said
            for parent in [(p,) for p in self.parents] or [()]:
                made += self.builder.make(*parent, source.read(), given=given, **self.options)
        if "convert_to" in self.spec:
            how = self.spec.get("duplicates", "error")
            pairs = [convert_ids(e, self.spec["convert_to"], duplicates=how) for e in made]
            made, reports = [e for e, _ in pairs], [r for _, r in pairs]
        if "aliases" in self.spec:
            made = [add_aliases(e, previous_symbols()) for e in made]
        return made, reports

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
