"""The families of builders that a profile can name."""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass

from perturbcore.core.errors import ParameterError

# Arguments that a specification gives outside of the options.
COMMON = ("name", "modality", "identifier", "source", "cell_line", "models")
FAMILIES = (
    "annotation",
    "cell_transformer",
    "controls",
    "descriptors",
    "drug_text",
    "expression",
    "fingerprints",
    "graph_network",
    "network",
    "node2vec",
    "sequence",
    "smiles_transformers",
    "targets",
    "text",
    "wavelets",
)


@dataclass(frozen=True)
class Builder:
    """A function that makes embeddings, what it reads and what it describes.

    Attributes
    ----------
    name, kind, function
        See `register`; kind "embedding" and "drugs_of" are made from another embedding (``of:``).
    entity : {"gene", "drug", "any"}
        What its vectors stand for.
    prepare
        Maps options and the folder of relative paths to options with paths resolved, and to the
        digest of what the options point to; it fails before anything long begins.
    """

    name: str
    kind: str
    function: Callable
    entity: str = "gene"
    prepare: Callable | None = None

    @property
    def needs_of(self) -> bool:
        """Whether it is made from another embedding."""
        return self.kind in ("embedding", "drugs_of")

    @property
    def accepts(self) -> dict:
        """Arguments behind what it is made from, with their defaults."""
        parameters = list(inspect.signature(self.function).parameters.values())
        return {p.name: p.default for p in parameters[1 + (self.kind == "drugs_of") :]}

    @property
    def options(self) -> dict:
        """Arguments that a specification may give as options, with their defaults."""
        return {k: v for k, v in self.accepts.items() if k not in COMMON}

    def check_options(self, options: dict, where: str) -> None:
        """Refuse options that the function does not have, and values of another type."""
        known = self.options
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise ParameterError(
                f"{where}: builder {self.name!r} has no option {', '.join(map(repr, unknown))}; "
                f"it has {', '.join(sorted(known)) or 'none'}"
            )
        for option, value in options.items():
            wanted = type(known[option])
            fits = isinstance(value, (int, float) if wanted is float else wanted)
            if isinstance(value, bool) and wanted is not bool:
                fits = False
            if known[option] is not None and not fits:
                raise ParameterError(
                    f"{where}: option {option!r} of builder {self.name!r} must be "
                    f"{wanted.__name__}, such as {known[option]!r}, not {value!r}"
                )


_BUILDERS: dict[str, Builder] = {}


def register(
    name: str, *, kind: str, entity: str = "gene", prepare: Callable | None = None
) -> Callable:
    """Make a function known to profiles under `name`.

    `kind` says what it is given first: edges, sets, texts, sequences, screen, ids, drugs (a table of
    drugs), embedding (another embedding), or drugs_of (another embedding, then a table of drugs).
    `entity` and `prepare`: see `Builder`. A function with an argument `models` is given a folder
    to keep what it trains.
    """

    def wrap(function: Callable) -> Callable:
        _BUILDERS[name] = Builder(name, kind, function, entity, prepare)
        return function

    return wrap


def builders() -> dict[str, Builder]:
    """All registered builders by name; each family is imported when first asked for."""
    for family in FAMILIES:
        importlib.import_module(f"perturbcore.embeddings.{family}")
    return dict(sorted(_BUILDERS.items()))


def get_builder(name: str, where: str = "embedding") -> Builder:
    """Look a builder up by name.

    Raises
    ------
    ParameterError
        If there is none of that name; the message lists those there are.
    """
    known = builders()
    if name not in known:
        raise ParameterError(
            f"{where}: builder {name!r} is unknown; there are {', '.join(known)} "
            "(or give file: for a table of your own)"
        )
    return known[name]
