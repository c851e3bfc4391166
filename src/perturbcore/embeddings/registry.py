"""The builders that a profile can name: functions with options that are checked by their types.

A builder is one function in one file, and the file's name in `FAMILIES`::

    @register("counts", kind="texts")
    def count_embedding(texts: dict[str, str], *, dim: Dim = 128):
        '''Embed genes by ...'''
        return ids, X, "what was done, for the line on the source"

What the function needs comes first, without a default; options have a type and a default, which
pydantic checks strictly (``Annotated[int, Field(ge=1)]``, ``Literal["heat", "band"]``).
"""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, wraps
from typing import Annotated

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from perturbcore.core.errors import InputError, ParameterError, wrong_value
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.load import load_embedding

FAMILIES = "controls drugs expression language_model network words".split()
KNOWLEDGE = "Prior knowledge"
# What a specification says of every embedding, and where builders keep what they train: no options.
GIVEN = ("name", "modality", "identifier", "source", "cell_line", "models")

Dim = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Builder:
    """A function that makes embeddings, and what a profile must know about it; see `register`."""

    name: str
    kind: str
    function: Callable
    modality: str = KNOWLEDGE
    entity: str = "gene"
    prepare: Callable | None = None

    @property
    def needs_of(self) -> bool:
        """Whether it is made from another embedding."""
        return self.kind in ("embedding", "drugs_of")

    @cached_property
    def options(self) -> type[BaseModel]:
        """Options of the function with their types and defaults."""
        fields = {
            p.name: (p.annotation, p.default)
            for p in inspect.signature(self.function).parameters.values()
            if p.default is not p.empty and p.name not in GIVEN
        }
        return create_model(self.name, __config__=ConfigDict(extra="forbid", strict=True), **fields)

    def check(self, options: dict, where: str) -> None:
        """Refuse options that the function does not have, and values of another type or range."""
        try:
            self.options(**options)
        except ValidationError as error:
            where = f"{where}, builder {self.name!r}"
            raise wrong_value(error, where, self.options.model_fields) from None

    def make(self, *sources, given: dict | None = None, **options) -> list[Embedding]:
        """Call the function on its sources and name what it returns; errors name the embedding."""
        given = {k: v for k, v in (given or {}).items() if v is not None}
        name, wanted = given.get("name", self.name), given.get("identifier")
        where = f"embedding {name!r}"
        self.check(options, where)
        taken = inspect.signature(self.function).parameters
        try:
            made = self.function(*sources, **options, **{k: given[k] for k in given if k in taken})
            if isinstance(made, tuple):
                ids, X, about = made
                identifier = "drug" if self.entity == "drug" else wanted or "symbol"
                line = sources[0].cell_line if self.needs_of else None
                about = f"{given['source']}; {about}" if given.get("source") else about
                made = Embedding(name, self.modality, pd.Index(ids), X, identifier, line, about)
        except InputError as error:
            text = str(error)
            text = text if text.startswith(where) else f"{where}: {text}"
            raise type(error)(text) from None
        made = made if isinstance(made, list) else [made]
        for e in made:
            if wanted not in (None, e.identifier):
                raise ParameterError(
                    f"{where}: its ids are {e.identifier} ids, not {wanted}; leave identifier out, "
                    f"or use convert_to: {wanted}"
                )
        changes = {k: given[k] for k in ("name", "modality", "cell_line") if k in given}
        return [replace(e, **changes) for e in made]


def register(
    name: str, *, kind: str, modality: str = KNOWLEDGE, entity: str = "gene",
    prepare: Callable | None = None,
) -> Callable:  # fmt: skip
    """Make a function known to profiles; it can then be called with ``name=`` and the like, too.

    `kind`: what it is given first: edges, sets, texts, sequences, windows (of a genome), screen,
    drugs (a table), embedding, or drugs_of (an embedding, then drugs). It returns ids, vectors and
    a line on what was done, or whole embeddings. `entity`: what vectors stand for, "gene" or
    "drug"; `prepare`: maps options and the folder of relative paths to options with paths resolved
    and the digest of what these point to, before anything long begins.
    """

    def wrap(function: Callable) -> Callable:
        builder = _BUILDERS[name] = Builder(name, kind, function, modality, entity, prepare)

        @wraps(function)
        def build(*sources, **options) -> Embedding | list[Embedding]:
            given = {k: options.pop(k) for k in GIVEN if k in options}
            made = builder.make(*sources, given=given, **options)
            return made if kind == "screen" else made[0]

        return build

    return wrap


_BUILDERS = {"file": Builder("file", "table", load_embedding, modality="")}


def builders() -> dict[str, Builder]:
    """All registered builders by name; each family is imported when first asked for."""
    for family in FAMILIES:
        importlib.import_module(f"perturbcore.embeddings.{family}")
    return dict(sorted(_BUILDERS.items()))
