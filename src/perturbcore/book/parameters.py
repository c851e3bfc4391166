"""The parameters of a chapter: read from its source, checked before anything runs."""

import ast
from dataclasses import dataclass
from types import GenericAlias

import yaml

from perturbcore.core.errors import ParameterError

_KINDS = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict}


@dataclass(frozen=True)
class Parameter:
    """One declared parameter: ``name: type = default``.

    Attributes
    ----------
    name
        As in the parameters cell.
    kind
        ``int``, ``float``, ``str``, ``bool``, ``list`` or ``dict``.
    item
        Kind of the items of a list, or empty.
    optional
        Whether ``None`` is allowed.
    default
        The value in the source.
    help
        The comment at the end of the line, or empty.
    """

    name: str
    kind: str
    item: str = ""
    optional: bool = False
    default: object = None
    help: str = ""

    @property
    def type(self) -> str:
        """The type as it is written in a chapter."""
        text = f"{self.kind}[{self.item}]" if self.item else self.kind
        return f"{text} | None" if self.optional else text

    def check(self, value, where: str):
        """Return the value if it fits the type; an int becomes a float where one is declared."""
        if value is None and self.optional:
            return None
        fitted = _fit(value, self.kind)
        if fitted is _NO:
            raise ParameterError(
                f"{where}: {self.name} must be {self.type}, not {type(value).__name__} ({value!r})"
            )
        if self.item:
            fitted = [_fit(v, self.item) for v in fitted]
            for given, v in zip(value, fitted, strict=True):
                if v is _NO:
                    raise ParameterError(
                        f"{where}: {self.name} must be {self.type}, but holds "
                        f"{given!r} ({type(given).__name__})"
                    )
        return fitted

    def parse(self, text: str, where: str):
        """Turn text from a command line into a value of the declared type."""
        if self.optional and text.strip().lower() in ("none", "null"):
            return None
        if self.kind == "str":
            return text
        try:
            if self.kind in ("int", "float"):
                value = {"int": int, "float": float}[self.kind](text)
            elif self.kind == "list" and not text.lstrip().startswith("["):
                value = yaml.safe_load(f"[{text}]")
            else:
                value = yaml.safe_load(text)
        except (ValueError, yaml.YAMLError):
            raise ParameterError(
                f"{where}: {self.name} must be {self.type}, not {text!r}"
            ) from None
        return self.check(value, where)


_NO = object()


def _fit(value, kind: str):
    if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, bool) and kind != "bool":
        return _NO
    return value if isinstance(value, _KINDS[kind]) else _NO


def declared(source: str, where: str) -> dict[str, Parameter]:
    """Read the parameters cell of a chapter.

    Parameters
    ----------
    source
        The code of the cell: lines ``name: type = default  # what it does``.
    where
        Name of the chapter, for messages.

    Returns
    -------
    dict
        Name to :class:`Parameter`, in order.

    Raises
    ------
    ParameterError
        A line is not such a declaration, a type is not one of int, float, str, bool, list, dict,
        ``list[...]`` and ``... | None``, or a default does not fit its type.
    """
    lines = source.splitlines()
    found = {}
    for node in ast.parse(source).body:
        if not (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and node.value is not None
        ):
            raise ParameterError(
                f"{where}: a parameters cell holds only lines "
                f"'name: type = default', not {ast.unparse(node)!r}"
            )
        name = node.target.id
        kind, item, optional = _type(ast.unparse(node.annotation), name, where)
        try:
            default = ast.literal_eval(node.value)
        except ValueError:
            raise ParameterError(f"{where}: the default of {name} must be a plain value") from None
        rest = lines[node.end_lineno - 1][node.end_col_offset :]
        note = rest.split("#", 1)[1].strip() if "#" in rest else ""
        parameter = Parameter(name, kind, item, optional, default, note)
        parameter.check(default, f"{where}, default")
        found[name] = parameter
    return found


def declared_types(annotations: dict, where: str) -> dict[str, Parameter]:
    """Read parameters from the annotations of a running notebook; defaults are not known there."""
    found = {}
    for name, annotation in annotations.items():
        plain = isinstance(annotation, type) and not isinstance(annotation, GenericAlias)
        text = annotation.__name__ if plain else str(annotation)
        found[name] = Parameter(name, *_type(text, name, where))
    return found


def _type(text: str, name: str, where: str) -> tuple[str, str, bool]:
    options = [part.strip() for part in text.split("|")]
    optional = "None" in options
    options = [part for part in options if part != "None"]
    kind, _, item = options[0].partition("[")
    item = item.rstrip("]")
    if len(options) == 1 and kind in _KINDS and (not item or (kind == "list" and item in _KINDS)):
        return kind, item, optional
    raise ParameterError(
        f"{where}: {name}: a parameter's type is one of {', '.join(_KINDS)}, "
        f"list[...] of them, or one of these | None, not {text!r}"
    )


def resolve(parameters: dict[str, Parameter], given: dict, where: str) -> dict:
    """Check given values against the declared parameters.

    Parameters
    ----------
    parameters
        From :func:`declared`.
    given
        Name to value.
    where
        Where the values come from, for messages.

    Returns
    -------
    dict
        Name to value for the given names only.

    Raises
    ------
    ParameterError
        A name is unknown or a value has the wrong type; the message lists what exists.
    """
    unknown = [name for name in given if name not in parameters]
    if unknown:
        known = "; ".join(f"{p.name}: {p.type}" for p in parameters.values())
        raise ParameterError(
            f"{where}: unknown parameter {', '.join(map(str, unknown))}; this chapter has {known}"
        )
    return {name: parameters[name].check(value, where) for name, value in given.items()}
