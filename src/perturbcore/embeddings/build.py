"""From the embedding entries of a profile to embeddings, each built once and then cached."""

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import DownloadError, InputError, ParameterError, wrong_value
from perturbcore.data.identifiers import previous_symbols
from perturbcore.data.responses import cell_lines
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.coverage import add_aliases, convert_ids
from perturbcore.embeddings.load import load_embedding, save_embedding
from perturbcore.embeddings.registry import Builder, builders
from perturbcore.embeddings.sources import BuildContext, Source, described, find_source

CELL_LINE = "{cell_line}"
MODELS = "models"  # folder in the cache for what builders train: a fine-tuning starts from there


class Spec(BaseModel):
    """What an entry of a profile may say; all other keys go to its builder.

    `source` is ``simulated`` or a name of the catalogue; in `file`, a path, ``{cell_line}`` stands
    for each cell line. A `file` without a builder is a table of vectors. `of` is the embedding that
    ``shuffled`` or ``target_genes`` starts from; `genes` embeds only those that the data set has;
    an `optional` one is done without where it cannot be had. See also `Embedding`, `convert_ids`.
    """

    model_config = ConfigDict(extra="allow", strict=True)

    name: Annotated[str, Field(min_length=1)]
    modality: str | None = None
    builder: str | None = None
    source: str | None = None
    file: str | None = None
    of: str | None = None
    identifier: str | None = None
    cell_line: str | None = None
    convert_to: str | None = None
    duplicates: Literal["error", "mean"] | None = None
    aliases: Literal["previous_symbols"] | None = None
    genes: Literal["perturbed"] | None = None
    optional: bool = False


def check_spec(spec: dict, names: Iterable[str] = ()) -> tuple[Builder, dict]:
    """Check a specification (see `Spec`), and return its builder and the builder's options."""
    where = f"embedding {spec.get('name', spec)!r}"
    try:
        said = Spec(**spec)
    except ValidationError as error:
        raise wrong_value(error, where, Spec.model_fields) from None
    title, known = said.builder or ("file" if said.file else None), builders()
    if title is None:
        raise ParameterError(f"{where}: give builder: or file:")
    if said.file and said.source:
        raise ParameterError(f"{where}: give either source or file, not both")
    if said.duplicates and not said.convert_to:
        raise ParameterError(f"{where}: duplicates is of use with convert_to alone")
    if title not in known:
        raise ParameterError(
            f"{where}: builder {title!r} is unknown; there are {', '.join(known)} "
            "(or give file: for a table of your own)"
        )
    builder, options = known[title], said.model_extra
    builder.check(options, where)
    if said.genes and builder.kind not in ("texts", "sequences", "windows"):
        raise ParameterError(f"{where}: builder {title!r} has no use for genes:")
    if builder.needs_of and not said.of:
        raise ParameterError(f"{where}: builder {title!r} needs of: the name of an embedding")
    if said.of and not builder.needs_of:
        raise ParameterError(f"{where}: builder {title!r} has no use for of:")
    if said.of and said.of not in names:
        raise ParameterError(
            f"{where}: there is no embedding {said.of!r} to be made from; there are "
            f"{', '.join(map(str, names)) or 'none'}"
        )
    return builder, options


def in_order(specs: Sequence[dict]) -> list[dict]:
    """Put specifications behind those that they are made from."""
    by_name = {s["name"]: s for s in specs}
    needs = {name: [s["of"]] if s.get("of") in by_name else [] for name, s in by_name.items()}
    try:
        return [by_name[name] for name in TopologicalSorter(needs).static_order()]
    except CycleError as error:
        raise ParameterError(
            f"embedding {error.args[1][0]!r} is made from itself; correct of:"
        ) from None


def serving(
    specs: Sequence[dict],
    dataset: str,
    identifier: str,
    only: Sequence[str] = (),
    chapter: str = "",
) -> tuple[list[dict], list[str]]:
    """Choose the specifications that serve a data set, and those that these are made from."""
    specs = [dict(s) for s in specs]
    specs = [s for s in specs if chapter in (s.pop("chapters", None) or [chapter])]
    allowed = {s["name"]: s.pop("datasets", None) or [dataset] for s in specs}
    by_name, known = {s["name"]: s for s in specs}, builders()
    entity: dict[str, str] = {}
    for spec in in_order(specs):
        builder = known.get(spec.get("builder"), known["file"])
        own = entity.get(spec.get("of")) if builder.kind == "embedding" else None
        own = "drug" if spec.get("identifier") == "drug" else own
        entity[spec["name"]] = own or builder.entity
    wanted = "drug" if identifier == "drug" else "gene"
    names = [
        name
        for name in by_name
        if (not only or name in only) and dataset in allowed[name] and entity[name] == wanted
    ]
    needed = set()
    for name in names:
        while name in by_name and name not in needed:
            needed.add(name)
            name = by_name[name].get("of")
    return [s for s in specs if s["name"] in needed], names


def build_all(
    specs: Iterable[dict],
    context: BuildContext | None = None,
    *,
    cache: Path | str | None = None,
    left_out: dict[str, str] | None = None,
) -> list[Embedding]:
    """Build all embeddings of a profile (see `Spec`), in its order; of each cell line, its own.

    `cache`: a folder, by specification, content of the source, and code; `left_out` takes the names
    of optional embeddings that cannot be had, and why.
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
        optional, made[spec["name"]] = spec.pop("optional", False), []
        try:
            plan = Plan(spec, context, made)
        except (DownloadError, InputError) as error:
            if not optional or left_out is None:
                raise
            left_out[spec["name"]] = str(error)
            continue
        made[spec["name"]] = plan.cached(Path(cache)) if cache is not None else plan.run()
    return [e for name in names for e in made[name]]


class Plan:
    """One specification with its builder, options and sources (by cell line), ready to run."""

    def __init__(self, spec: dict, context: BuildContext, made: dict):
        self.spec, where = spec, f"embedding {spec['name']!r}"
        self.builder, self.options = check_spec(spec, tuple(made))
        self.content, prepare = "", self.builder.prepare
        if prepare is not None:
            self.options, self.content = prepare(self.options, context.folder, where)
        self.parents = made.get(spec.get("of"), [])
        file, lines = str(spec.get("file", "")), [spec.get("cell_line")]
        if CELL_LINE in file and lines == [None]:
            adata = described(context.dataset)
            if adata is None:
                raise InputError(f"{where}: {CELL_LINE} in file needs a data set with cell lines")
            lines = sorted(cell_lines(adata))
        self.sources: dict[str | None, Source] = {}
        for line in lines if self.builder.kind != "embedding" else ():
            own = spec | ({"file": file.replace(CELL_LINE, str(line))} if file else {})
            self.sources[line] = find_source(own, self.builder.kind, context)

    @property
    def key(self) -> str:
        """Content key: specification without paths, sources, code."""
        spec = {k: v for k, v in self.spec.items() if k != "file"}
        if self.content:  # what an option points to counts, not where it lies
            spec = {k: v for k, v in spec.items() if k not in self.options}
            spec["content"] = self.content
        sources = {str(line): source.digest for line, source in self.sources.items()}
        made_by = [self.builder.function, "perturbcore.embeddings.sources"]
        if "convert_to" in spec or "aliases" in spec:
            made_by.append(convert_ids)
        if "aliases" in spec:
            sources["aliases"] = digest(previous_symbols())
        parents = [[e.name, e.digest] for e in self.parents]
        return digest(spec, sources, parents, code_digest(*made_by))

    def run(self, models: Path | None = None) -> list[Embedding]:
        """Build; what a builder trains is kept in the folder `models`, where there is one."""
        said = {k: self.spec[k] for k in ("name", "modality", "identifier") if k in self.spec}
        made = []
        for parent in self.parents if not self.sources else ():
            made += self.builder.make(parent, given=said, **self.options)
        for line, source in self.sources.items():
            given = {"source": source.label, "cell_line": line, "models": models}
            given |= source.defaults | said
            for parent in [(p,) for p in self.parents] or [()]:
                made += self.builder.make(*parent, source.read(), given=given, **self.options)
        if "convert_to" in self.spec:
            how = self.spec.get("duplicates", "error")
            made = [convert_ids(e, self.spec["convert_to"], duplicates=how) for e in made]
        if "aliases" in self.spec:
            made = [add_aliases(e, previous_symbols()) for e in made]
        return made

    def cached(self, folder: Path) -> list[Embedding]:
        """Take the embeddings from the cache, or build and keep them."""
        slug = re.sub(r"[^A-Za-z0-9]+", "-", self.spec["name"]).strip("-").lower()
        kept = folder / f"{slug}-{self.key}"
        if files := sorted(kept.glob("*.npz")):
            try:
                return [load_embedding(f) for f in files]
            except InputError:
                shutil.rmtree(kept, ignore_errors=True)  # damaged: build it again
        made = self.run(models=folder / MODELS)
        partial = folder / f".{kept.name}-{uuid.uuid4().hex}"
        partial.mkdir(parents=True)
        for number, embedding in enumerate(made):
            save_embedding(embedding, partial / f"{number:03d}.npz")
        (partial / "spec.json").write_text(json.dumps(self.spec, indent=1, default=str))
        try:
            os.rename(partial, kept)
        except OSError:  # another process was faster; its copy has the same content
            shutil.rmtree(partial, ignore_errors=True)
        return made
