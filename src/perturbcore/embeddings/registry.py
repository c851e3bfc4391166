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

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.load import load_embedding

FAMILIES = (
    "cell_transformer",
    "controls",
    "drugs",
    "expression",
    "graph_network",
    "network",
    "node2vec",
    "smiles_transformers",
    "wavelets",
    "words",
)
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
    def given(self) -> tuple[str, ...]:
        """Which of `GIVEN` the function takes."""
        return tuple(p for p in inspect.signature(self.function).parameters if p in GIVEN)

    @cached_property
    def options(self) -> type[BaseModel]:
        """Options of the function with their types and defaults."""
        parameters = inspect.signature(self.function).parameters.values()
        fields = {
            p.name: (p.annotation, p.default)
            for p in parameters
            if p.default is not p.empty and p.name not in GIVEN
        }
        return create_model(self.name, __config__=ConfigDict(extra="forbid", strict=True), **fields)

    def check(self, options: dict, where: str) -> None:
        """Refuse options that the function does not have, and values of another type or range."""
        try:
            self.options(**options)
        except ValidationError as error:
            raise ParameterError(f"{where}: {self._fault(error.errors()[0])}") from None

    def _fault(self, fault: dict) -> str:
        option = fault["loc"][0]
        if fault["type"] == "extra_forbidden":
            known = ", ".join(sorted(self.options.model_fields)) or "none"
            return f"builder {self.name!r} has no option {option!r}; it has {known}"
        wanted = fault["msg"].replace("Input should", "must")
        default = self.options.model_fields[option].default
        return (
            f"option {option!r} of builder {self.name!r} {wanted}, got {fault['input']!r} "
            f"(default: {default!r})"
        )

    def make(self, *sources, given: dict | None = None, **options) -> list[Embedding]:
        """Call the function on its sources and name what it returns; errors name the embedding.

        `given` holds those of `GIVEN` that are to be said of the embedding.
        """
        given = {k: v for k, v in (given or {}).items() if v is not None}
        name = given.get("name", self.name)
        where = f"embedding {name!r}"
        self.check(options, where)
        try:
            passed = {k: v for k, v in given.items() if k in self.given}
            made = self.function(*sources, **options, **passed)
            if isinstance(made, tuple):
                made = self._embedding(*made, name, given, sources)
            made = made if isinstance(made, list) else [made]
        except InputError as error:
            text = str(error)
            text = text if text.startswith(where) else f"{where}: {text}"
            raise type(error)(text) from None
        wanted = given.get("identifier")
        for e in made:
            if wanted not in (None, e.identifier):
                raise ParameterError(
                    f"{where}: its ids are {e.identifier} ids, not {wanted}; leave identifier out, "
                    f"or use convert_to: {wanted}"
                )
        changes = {k: given[k] for k in ("name", "modality", "cell_line") if k in given}
        return [replace(e, **changes) for e in made]

    def _embedding(self, ids, X, about: str, name: str, given: dict, sources) -> Embedding:
        identifier = "drug" if self.entity == "drug" else given.get("identifier", "symbol")
        line = sources[0].cell_line if self.needs_of else None
        about = f"{given['source']}; {about}" if given.get("source") else about
        return Embedding(name, self.modality, pd.Index(ids), X, identifier, line, about)


def register(
    name: str,
    *,
    kind: str,
    modality: str = KNOWLEDGE,
    entity: str = "gene",
    prepare: Callable | None = None,
) -> Callable:
    """Make a function known to profiles; it can then be called with ``name=`` and the like, too.

    `name`: what a profile calls it (``builder: network``); `kind`: what the function is given
    first: edges, sets, texts, sequences, screen, ids, drugs (a table of drugs), embedding
    (another embedding), or drugs_of (another embedding, then a table of drugs). It returns ids,
    vectors and a line on what was done, or whole embeddings. An argument `models` is a folder
    for what it trains; `modality`: family of its embeddings unless a profile says otherwise;
    `entity`: what its vectors stand for; `prepare`: maps options and the folder of relative
    paths to options with paths resolved, and to the digest of what the options point to; it
    fails before anything long begins.
    """

    def wrap(function: Callable) -> Callable:
        builder = _BUILDERS[name] = Builder(name, kind, function, modality, entity, prepare)
        parameters = inspect.signature(function).parameters.values()
        n = sum(p.default is p.empty for p in parameters)
        order = [p.name for p in parameters][n:]

        @wraps(function)
        def build(*arguments, **options) -> Embedding | list[Embedding]:
            options = dict(zip(order, arguments[n:], strict=False)) | options
            given = {k: options.pop(k) for k in GIVEN if k in options}
            made = builder.make(*arguments[:n], given=given, **options)
            return made if kind == "screen" else made[0]

        return build

    return wrap


_BUILDERS = {"file": Builder("file", "table", load_embedding, modality="")}


def builders() -> dict[str, Builder]:
    """All registered builders by name; each family is imported when first asked for."""
    for family in FAMILIES:
        importlib.import_module(f"perturbcore.embeddings.{family}")
    return dict(sorted(_BUILDERS.items()))


def get_builder(name: str, where: str = "embedding") -> Builder:
    """Look a builder up by name; an unknown one is refused with the list of those there are."""
    known = builders()
    if name not in known:
        raise ParameterError(
            f"{where}: builder {name!r} is unknown; there are {', '.join(known)} "
            "(or give file: for a table of your own)"
        )
    return known[name]
