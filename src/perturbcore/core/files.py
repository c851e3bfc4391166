"""Files of one's own: YAML beside a module, and results that are whole or not there."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from perturbcore.core.errors import ParameterError

# ten times faster than the reader in plain Python, where the C library is there
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_yaml(text: str) -> Any:
    """Read YAML from a text."""
    return yaml.load(text, _LOADER)


def read_yaml(path) -> Any:
    """Read a YAML file; one that is none is refused with its name and the place."""
    try:
        return parse_yaml(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ParameterError(f"{path} is not valid YAML: {error}") from None


@contextmanager
def replaced(path) -> Iterator[Path]:
    """Give a hidden file to write, which takes the place of `path` when it is whole.

    So a reader sees the old file or the new one, never a part, even after a loss of power.
    """
    path = Path(path)
    own = f"{os.getpid()}-{threading.get_ident()}"
    partial = path.with_name(f".{path.stem}.{own}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path, content: bytes) -> None:
    """Write a file so that a reader sees either the old or the new content."""
    with replaced(path) as partial:
        partial.write_bytes(content)
