"""Files of one's own: YAML beside a module, and results that are whole or not there."""

import fcntl
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from perturbcore.core.errors import InputError, ParameterError

# ten times faster than the reader in plain Python, where the C library is there
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
STALE_SECONDS = 3600  # a process of that number may be at work on another machine


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
    """Give a hidden file to write, which takes the place of `path` when it is whole."""
    path = Path(path)
    own = f"{os.getpid()}-{threading.get_ident()}"
    partial = path.with_name(f".{path.stem}.{own}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path)
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@cache
def sweep(path: Path) -> None:
    """Remove, once, what killed processes left beside a file: hidden, and an hour old."""
    for old in path.parent.glob(f".*{path.suffix}"):
        own = re.fullmatch(r"\.(.+)\.(\d+)(-\d+)?", old.name.removesuffix(path.suffix))
        if own and own[1] == path.stem and not Path(f"/proc/{own[2]}").exists():
            with suppress(OSError):  # another process may be sweeping as well
                if time.time() - old.stat().st_mtime > STALE_SECONDS:
                    old.unlink()


def write_atomically(path, content: bytes) -> None:
    """Write a file so that a reader sees either the old or the new content."""
    with replaced(path) as partial:
        partial.write_bytes(content)


def check_output(
    path: Path, suffixes: Sequence[str], given: Sequence[Any], *, force: bool = False
) -> None:
    """Refuse, before any work, an output of another kind, an input as output, or a file there."""
    if path.suffix not in suffixes:
        raise ParameterError(f"--out {path}: this is written as {' or '.join(suffixes)}")
    each = [p for value in given for p in (value if isinstance(value, list) else [value])]
    if path.resolve() in [p.resolve() for p in each if isinstance(p, Path)]:
        raise ParameterError(f"--out {path} is a file that is read: name another")
    if path.is_dir() or (path.exists() and not force):
        raise ParameterError(f"--out {path} is there already: name another, or give --force")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ParameterError(f"--out {path}: its folder cannot be made ({error})") from None


def save_table(table: Any, path: Path) -> None:
    """Write a data frame (``.parquet``, ``.csv``) or an AnnData, whole or not at all."""
    with replaced(path) as partial:
        if path.suffix == ".h5ad":
            table.write_h5ad(partial)
        elif path.suffix == ".parquet":
            table.to_parquet(partial, index=False)
        else:
            table.to_csv(partial, index=False)


def kept_table(path: Path, make: Callable[[], Any]) -> Any:
    """Read a data frame, made where it is absent, by one process at a time."""
    import pandas as pd  # half a second, which a command without tables does not pay

    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not path.exists():
                save_table(make(), path)
    return pd.read_parquet(path)


def open_sqlite(path, schema: str, other: str) -> sqlite3.Connection:
    """Open a SQLite file (":memory:" keeps nothing); `other` is said of a file of another kind.

    A kill loses no finished work, and no write waits for the disk.
    """
    db = sqlite3.connect(path, timeout=120, check_same_thread=False)
    try:
        db.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; {schema}")
    except sqlite3.DatabaseError as error:
        db.close()
        raise InputError(other.format(path=path, error=error)) from error
    return db
