"""Embedding entries of a profile: what they may say, and which of them serve a data set."""

from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from perturbcore.core.errors import ParameterError
from perturbcore.embeddings.registry import Builder, builders, get_builder

WITH_COLUMNS = ("edges", "texts", "drugs", "drugs_of")


class Spec(BaseModel):
    """What an entry may say beside the options of its builder; see `build_all`."""

    model_config = ConfigDict(extra="allow", strict=True)

    name: Annotated[str, Field(min_length=1)]
    modality: str | None = None
    builder: str | None = None
    source: str | None = None
    file: str | None = None
    of: str | None = None
    identifier: str | None = None
    cell_line: str | None = None
    columns: list[str] | None = None
    convert_to: str | None = None
    duplicates: Literal["error", "mean"] | None = None
    aliases: Literal["previous_symbols"] | None = None
    options: dict = {}


def check_spec(spec: dict, names: Iterable[str] = ()) -> tuple[Builder, dict]:
    """Check a specification (see `build_all`), and return its builder and the builder's options.

    `names` are the embeddings that ``of`` may name; a fault is refused by the embedding's name.
    """
    if not isinstance(spec.get("name"), str) or not spec["name"]:
        raise ParameterError(f"an embedding specification needs a name: {spec}")
    where = f"embedding {spec['name']!r}"
    try:
        said = Spec(**spec)
    except ValidationError as error:
        fault = error.errors()[0]
        wanted = fault["msg"].replace("Input should", "must")
        raise ParameterError(
            f"{where}: {fault['loc'][0]} {wanted}, got {fault['input']!r}"
        ) from None
    options = said.model_extra | said.options
    title = said.builder or ("file" if said.file else None)
    if title is None:
        raise ParameterError(f"{where}: give builder: or file:")
    if said.file and said.source:
        raise ParameterError(f"{where}: give either source or file, not both")
    if said.duplicates and not said.convert_to:
        raise ParameterError(f"{where}: duplicates is of use with convert_to alone")
    builder = get_builder(title, where)
    builder.check(options, where)
    if said.columns and builder.kind not in WITH_COLUMNS:
        raise ParameterError(f"{where}: builder {title!r} has no use for columns:")
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


def entities(specs: Sequence[dict]) -> dict[str, str]:
    """Say what the vectors of each specification stand for: "gene", "drug", or "any"."""
    found: dict[str, str] = {}
    for spec in in_order(specs):
        builder = builders().get(spec.get("builder"))
        entity = builder.entity if builder is not None else "gene"
        if builder is not None and builder.kind == "embedding":
            entity = found.get(spec.get("of"), entity)
        found[spec["name"]] = "drug" if spec.get("identifier") == "drug" else entity
    return found


def serving(
    specs: Sequence[dict], dataset: str, identifier: str, only: Sequence[str] = ()
) -> tuple[list[dict], list[str]]:
    """Choose the specifications that serve a data set; also return the names of those that do.

    A specification serves a data set of drugs (`identifier` "drug") if its vectors stand for drugs,
    one of genes if they stand for genes; ``datasets: [...]`` restricts it to those named, `only` to
    these names. Those returned are what to build: without ``datasets``, and with what others are
    made from.
    """
    specs = [dict(s) for s in specs]
    allowed = {s["name"]: s.pop("datasets", None) or [dataset] for s in specs}
    by_name = {s["name"]: s for s in specs}
    wanted = ("drug" if identifier == "drug" else "gene", "any")
    entity = entities(specs)
    names = [
        name
        for name in by_name
        if (not only or name in only) and dataset in allowed[name] and entity[name] in wanted
    ]
    needed = set()
    for name in names:
        while name in by_name and name not in needed:
            needed.add(name)
            name = by_name[name].get("of")
    return [s for s in specs if s["name"] in needed], names
