"""Content digests: the identity of arrays, tables and code, used as cache keys."""

import ast
import hashlib
import inspect
import json
import textwrap
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

_PACKAGE = "perturbcore"
_ROOT = Path(__file__).parents[1]


def digest(*parts) -> str:
    """Hash the content of arrays, frames, sparse matrices and plain values.

    Parameters
    ----------
    *parts
        Arrays, pandas objects, scipy sparse matrices, or anything JSON can write.

    Returns
    -------
    str
        16 hexadecimal characters; equal content gives an equal digest on every machine.
    """
    h = hashlib.sha256()
    for part in parts:
        _feed(h, part)
    return h.hexdigest()[:16]


def _feed(h, part) -> None:
    if sp.issparse(part):
        part = part.tocsr()
        for array in (part.data, part.indices, part.indptr):
            _feed(h, np.asarray(array))
    elif isinstance(part, pd.DataFrame):
        _feed(h, [str(c) for c in part.columns])
        for column in part.columns:
            _feed(h, part[column])
        _feed(h, part.index)
    elif isinstance(part, pd.Series | pd.Index):
        _feed(h, np.asarray(part))
    elif isinstance(part, np.ndarray):
        if part.dtype == object or part.dtype.kind in "US":
            h.update(json.dumps([str(v) for v in part.ravel()]).encode())
        else:
            h.update(np.ascontiguousarray(part).tobytes())
        h.update(f"{part.shape}{part.dtype.kind}".encode())
    else:
        h.update(json.dumps(part, sort_keys=True, default=str).encode())


@cache
def code_digest(*roots) -> str:
    """Hash the code that a result depends on, found by following imports.

    Comments, docstrings and layout do not count: rewording one recomputes nothing.

    Parameters
    ----------
    *roots
        Functions, classes, or names of modules such as ``"perturbcore.data.folds"``. Every module of
        perturbcore that theirs import is followed, imports inside functions too.

    Returns
    -------
    str
        16 hexadecimal characters.
    """
    names = [root if isinstance(root, str) else root.__module__ for root in roots]
    own = sorted({name for name in names if name.startswith(f"{_PACKAGE}.")})
    parts = [(name, _normal(name)) for name in sorted(imports_of(*own))]
    # a class of the user's own, in a file of its own, counts by its source as well
    others = sorted(
        {r for r in roots if not isinstance(r, str) and r.__module__ not in own}, key=repr
    )
    parts += [(repr(r), ast.dump(_without_docstrings(ast.parse(_source(r))))) for r in others]
    return digest(parts)


def imports_of(*modules: str) -> set[str]:
    """Return the modules of perturbcore that these import, directly or not, themselves included."""
    found: set[str] = set()
    left = list(modules)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += _imported(name)
    return found


@cache
def _imported(module: str) -> tuple[str, ...]:
    return tuple(imports_in(_tree(module)))


def imports_in(tree: ast.AST) -> list[str]:
    """Return the modules of perturbcore that some code imports by itself, without following them."""
    out = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == _PACKAGE:
            out += [_home(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            out += [a.name for a in node.names if a.name.startswith(f"{_PACKAGE}.")]
    # the front door loads what it offers by name: it is no dependency by itself
    return [name for name in out if name != _PACKAGE]


def _home(module: str, name: str) -> str:
    """Module that defines a name: a name that a package re-exports is followed to its own file."""
    if _path(module).name != "__init__.py":
        return module
    if module_exists(f"{module}.{name}"):
        return f"{module}.{name}"
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ImportFrom) and name in [a.asname or a.name for a in node.names]:
            return _home(
                node.module, next(a.name for a in node.names if (a.asname or a.name) == name)
            )
    return module


def module_exists(module: str) -> bool:
    """Whether perturbcore has such a module."""
    return _path(module).exists()


def _path(module: str) -> Path:
    path = _ROOT.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_path(module).read_text(encoding="utf-8"))


@cache
def _normal(module: str) -> str:
    tree = ast.parse(_path(module).read_text(encoding="utf-8"))
    text = digest(ast.dump(_without_docstrings(tree)))
    # a data file that the module names, and that lies beside it, is part of it
    beside = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and _is_name(n.value)}
    files = [_path(module).parent / name for name in sorted(beside)]
    return text + "".join(digest(f.read_bytes().hex()) for f in files if f.is_file())


def _is_name(value) -> bool:
    return isinstance(value, str) and value.endswith((".yml", ".csv", ".json"))


def _without_docstrings(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:]
    return tree


def _source(thing) -> str:
    try:
        return textwrap.dedent(inspect.getsource(thing))
    except (OSError, TypeError):
        return repr(thing)
