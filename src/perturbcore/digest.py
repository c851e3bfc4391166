"""Content digests: the identity of arrays, tables and code, used as cache keys."""

import hashlib
import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp


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
def code_digest(*rooms: str) -> str:
    """Hash the source text of modules or packages of perturbcore.

    Parameters
    ----------
    *rooms
        Names relative to the package, such as ``"predictors"`` or ``"splits"``.
    """
    root = Path(__file__).parent
    h = hashlib.sha256()
    for room in rooms:
        path = root / room
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
        for file in files:
            h.update(file.read_bytes())
    return h.hexdigest()[:16]
