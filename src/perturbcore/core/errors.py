"""The few kinds of error a user can meet; each message names the culprit and the way out."""


class InputError(ValueError):
    """A file, column or value is not what was declared."""


class ParameterError(InputError):
    """A parameter is unknown, has the wrong type or lies outside its range."""


class LeakError(InputError):
    """A test perturbation would be seen in training."""


class FailedError(RuntimeError):
    """A chapter or book failed; the message is all a user needs."""


class DownloadError(RuntimeError):
    """A file could not be fetched, or what came is not what was pinned."""


def check_choice(name: str, value, allowed):
    """Return a choice, or refuse one that is not among those allowed."""
    if value not in allowed:
        raise ParameterError(f"{name} '{value}' is not one of: {', '.join(map(str, allowed))}")
    return value


def check_name(name: str, what: str) -> str:
    """Return a name that pages, tables and paths can show, or refuse it with its character."""
    wrong = [c for c in name if c in "<>|`\\" or not c.isprintable()]
    wrong += [c for c in name[:1] if c in "=@"]  # which a spreadsheet would run
    if wrong or not name.strip():
        problem = f"it has {wrong[0]!r}" if wrong else "it is empty"
        raise ParameterError(f"{what} {name!r}: {problem}; rename it")
    return name


_WORDS = {"tuple": "list", "dict": "mapping", "model": "mapping", "string": "str"}


def wrong_value(error, where: str, known=()) -> ParameterError:
    """Say in one line what pydantic found wrong first; `known`: the keys that exist."""
    first = error.errors()[0]
    kind, value = first["type"], first["input"]
    place = ".".join(str(part) for part in first["loc"]) or "it"
    if kind == "extra_forbidden":
        return ParameterError(f"{where}: unknown key {place}; known are {', '.join(known)}")
    if kind == "missing":
        return ParameterError(f"{where}: the key '{place}' is missing")
    if kind == "value_error":
        said = [where, place if first["loc"] else "", str(first["ctx"]["error"])]
        return ParameterError(": ".join(filter(None, said)))
    if not kind.endswith(("_type", "_parsing")):
        return ParameterError(f"{where}: {place}={value!r}: {first['msg']}")
    wanted = kind.removesuffix("_type").removesuffix("_parsing")
    wanted = _WORDS.get(wanted, wanted)
    return ParameterError(
        f"{where}: {place} must be a {wanted}, not {type(value).__name__} ({value!r})"
    )
