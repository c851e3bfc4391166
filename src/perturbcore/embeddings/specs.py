"""Embedding entries of a profile: what they may say, and which of them serve a data set."""

from collections.abc import Iterable, Sequence
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
    """Check a specification before anything is built.

    Parameters
    ----------
    spec
        See `perturbcore.embeddings.build`.
    names
        Embeddings that ``of`` may name.

    Returns
    -------
    Builder
        ``file`` for a table of vectors.
    dict
        The builder's options.

    Raises
    ------
    ParameterError
        The message names the embedding and what it may say.
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


def depth(spec: dict, by_name: dict, seen: tuple = ()) -> int:
    """How many embeddings a specification stands on, one upon the other."""
    if "of" not in spec:
        return 0
    if spec["name"] in seen:
        raise ParameterError(f"embedding {spec['name']!r} is made from itself; correct of:")
    return 1 + depth(by_name[spec["of"]], by_name, (*seen, spec["name"]))


def entity_of(spec: dict, by_name: dict) -> str:
    """Say what the vectors of a specification stand for: "gene", "drug", or "any" (random ones)."""
    if spec.get("identifier") == "drug":
        return "drug"
    builder = builders().get(spec.get("builder"))
    if builder is not None and builder.kind == "embedding" and spec.get("of") in by_name:
        depth(spec, by_name)
        return entity_of(by_name[spec["of"]], by_name)
    return builder.entity if builder is not None else "gene"


def serving(
    specs: Sequence[dict], dataset: str, identifier: str, only: Sequence[str] = ()
) -> tuple[list[dict], list[str]]:
    """Choose the specifications that serve a data set.

    A specification serves a data set of drugs if its vectors stand for drugs, one of genes if they
    stand for genes; ``datasets: [...]`` restricts it to those named.

    Parameters
    ----------
    specs
        All of a profile.
    dataset, identifier
        Name of the data set, and what its perturbations are ("drug", or a kind of gene id).
    only
        No others than these, if given.

    Returns
    -------
    list of dict
        What to build: those that serve, without ``datasets``, and those they are made from.
    list of str
        Names of those that serve.
    """
    specs = [dict(s) for s in specs]
    allowed = {s["name"]: s.pop("datasets", None) or [dataset] for s in specs}
    by_name = {s["name"]: s for s in specs}
    wanted = ("drug" if identifier == "drug" else "gene", "any")
    names = [
        name
        for name, spec in by_name.items()
        if (not only or name in only)
        and dataset in allowed[name]
        and entity_of(spec, by_name) in wanted
    ]
    needed = set()
    for name in names:
        while name in by_name and name not in needed:
            needed.add(name)
            name = by_name[name].get("of")
    return [s for s in specs if s["name"] in needed], names
