"""Content digests: the identity of arrays, tables and code, used as cache keys."""

import ast
import atexit
import hashlib
import inspect
import json
import textwrap
from contextlib import suppress
from functools import cache
from pathlib import Path

from perturbcore.core.files import write_atomically

_PACKAGE = "perturbcore"
_ROOT = Path(__file__).parents[1]
_KEPT = Path(__file__).parent / "__pycache__" / "code.json"


def digest(*parts) -> str:
    """Hash arrays, tables, weights of networks and what JSON can write, to 16 hex characters."""
    h = hashlib.sha256()
    for part in parts:
        _feed(h, part)
    return h.hexdigest()[:16]


def seed_of(*parts) -> int:
    """Make a seed below 2^28 from plain values, apart from digests, which may change."""
    text = "".join(json.dumps(part, default=str) for part in parts)
    return int(hashlib.sha256(text.encode()).hexdigest()[:7], 16)


def _feed(h, part) -> None:
    if part is None or isinstance(part, str | int | float | list | tuple | dict):
        _add(h, "plain", json.dumps(part, sort_keys=True, default=str).encode())
        return
    # what Make asks before each book needs none of these
    import numpy as np
    import pandas as pd
    import scipy.sparse as sp

    if sp.issparse(part):
        part = part.tocsr()
        _add(h, f"sparse {part.shape}")
        for array in (part.data, part.indices, part.indptr):
            _feed(h, np.asarray(array))
    elif isinstance(part, pd.DataFrame):
        _add(h, f"table {part.shape}")
        _feed(h, [str(c) for c in part.columns])
        for column in part.columns:
            _feed(h, part[column])
        _feed(h, part.index)
    elif isinstance(part, pd.Series | pd.Index):
        _feed(h, np.asarray(part))
    elif isinstance(part, np.ndarray):
        text = part.dtype == object or part.dtype.kind in "US"
        if text:
            content = json.dumps([str(v) for v in part.ravel()]).encode()
        else:
            content = np.ascontiguousarray(part).tobytes()
        _add(h, f"array {part.shape} {part.dtype.kind}", content)
    elif hasattr(part, "state_dict"):
        for name, weight in sorted(part.state_dict().items()):
            _feed(h, name)
            _feed(h, weight.numpy(force=True))
    else:
        _add(h, "plain", json.dumps(part, sort_keys=True, default=str).encode())


def _add(h, kind: str, content: bytes = b"") -> None:
    """Add a part with its kind and length, so that 2, 12 and 21, 2 are not the same."""
    h.update(f"{kind} {len(content)}:".encode())
    h.update(content)


@cache
def code_digest(*roots) -> str:
    """Hash the code that a result depends on, without comments and docstrings.

    `*roots`: functions, classes, or names of modules; what they import is followed.
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
def _imported(module: str) -> list[str]:
    return _homes(_facts(module)["imports"])


def imports_in(tree: ast.AST) -> list[str]:
    """Return the modules of perturbcore that some code imports by itself."""
    return _homes(_import_names(tree))


def _import_names(tree: ast.AST) -> list[tuple[str, str]]:
    out = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            home = node.module or ""
            if home.split(".")[0] == _PACKAGE:
                out += [(home, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            out += [(a.name, "") for a in node.names if a.name.startswith(f"{_PACKAGE}.")]
    return out


def _homes(names) -> list[str]:
    found = [_home(module, name) if name else module for module, name in names]
    # the front door loads what it offers by name: it is no dependency by itself
    return [name for name in found if name != _PACKAGE]


def _home(module: str, name: str) -> str:
    """Return the module that defines a name; what a package re-exports is followed to its file."""
    if _path(module).name != "__init__.py":
        return module
    if _path(f"{module}.{name}").exists():
        return f"{module}.{name}"
    passed_on = {own: home for home, own in _facts(module)["imports"]}
    return _home(passed_on[name], name) if name in passed_on else module


def _path(module: str) -> Path:
    path = _ROOT.joinpath(*module.split(".")[1:])
    # a folder that is left with nothing but bytecode is no package
    package = path / "__init__.py"
    return package if package.is_file() else path.with_suffix(".py")


@cache
def _normal(module: str) -> str:
    """Digest of a module without comments and docstrings, and of the data files it names."""
    facts = _facts(module)
    files = [_path(module).parent / name for name in facts["beside"]]
    return facts["text"] + "".join(digest(f.read_bytes().hex()) for f in files if f.is_file())


def _facts(module: str) -> dict:
    """Return what a module imports and names, and the digest of its code; kept by the bytecode."""
    source = _path(module).read_bytes()
    key = hashlib.sha256(source).hexdigest()
    known = _known()
    if key not in known:
        tree = ast.parse(source)
        texts = {str(n.value) for n in ast.walk(tree) if isinstance(n, ast.Constant)}
        known[key] = {
            "imports": _import_names(tree),
            "beside": sorted(t for t in texts if t.endswith((".yml", ".toml", ".csv", ".json"))),
            "text": digest(ast.dump(_without_docstrings(tree))),
        }
        atexit.unregister(_keep)
        atexit.register(_keep)
    return known[key]


@cache
def _known() -> dict:
    try:
        return json.loads(_KEPT.read_text())
    except (OSError, ValueError):
        return {}


def _keep() -> None:
    with suppress(OSError):
        write_atomically(_KEPT, json.dumps(_known()).encode())


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
