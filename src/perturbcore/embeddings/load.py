"""Embeddings from and to files: Parquet, CSV, TSV, NumPy archives, AnnData and safetensors."""

import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.core.errors import InputError
from perturbcore.data.identifiers import KINDS, looks_like
from perturbcore.data.read import GAPS, check_table, read_h5ad, read_table, read_text
from perturbcore.embeddings.base import Embedding, check_ids, some, strip_version

SUFFIXES = (".parquet", ".csv", ".tsv", ".npz", ".h5ad", ".safetensors")
PICKLED = (".pkl", ".pickle", ".pt", ".pth", ".npy", ".joblib")
PICKLES = (
    " (pickles can run code and are never opened; where you trust it, load it and write "
    "pandas.DataFrame(vectors, index=ids).to_parquet(path) yourself)"
)
LARGEST = 1e15  # its square is a number still, in single precision
_META = ("name", "modality", "identifier", "cell_line", "source")


def load_embedding(
    path: Path | str, *, name: str | None = None, modality: str | None = None,
    identifier: str | None = None, cell_line: str | None = None, source: str | None = None,
    id_column: str | None = None, obsm: str | None = None, varm: str | None = None,
    uns: str | None = None, strip_versions: bool = False,
) -> Embedding:  # fmt: skip
    """Read an embedding: one row per gene or drug, its id and d numbers.

    `path`: ``.parquet`` (ids in the index or the first text column), ``.csv`` or ``.tsv`` (ids
    first), ``.npz`` (``ids``, ``X``), ``.h5ad`` (``obs_names``, ``X``), ``.safetensors`` (one
    vector per id, or a matrix and ``ids`` as JSON in the metadata); `name, modality, identifier,
    cell_line, source`: as in `Embedding`, by default what `save_embedding` wrote; `id_column,
    obsm`: column of the ids; key of ``.obsm`` instead of ``X``; `varm, uns`: key of ``.varm``, or
    of ``.uns`` (a table, id to vector, or a matrix as long as an axis); `strip_versions`: of
    Ensembl ids. Refused (`InputError`) is a file that is damaged or pickled, a value that is no
    finite number, an id that repeats, or looks like another identifier than the declared one.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import pandas as pd
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "mine.csv"
    >>> pd.DataFrame({"x": [0.1, 0.3], "y": [0.2, 0.1]}, index=["TP53", "MYC"]).to_csv(file)
    >>> pc.load_embedding(file).dim
    2
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist, or is a folder; check the path")
    if path.suffix not in SUFFIXES:
        why = PICKLES if path.suffix in PICKLED else ""
        raise InputError(f"{path}: unknown kind {path.suffix!r}{why}; known: {', '.join(SUFFIXES)}")
    said = {"name": path.stem, "modality": "Your own", "source": path.name}
    if path.suffix == ".npz":
        ids, X, meta = _from_npz(path)
        said |= {k: meta[k] for k in _META if k in meta}
    elif path.suffix == ".h5ad":
        ids, X = _from_h5ad(path, id_column, obsm, varm, uns)
    elif path.suffix == ".safetensors":
        ids, X = _from_safetensors(path)
    else:
        ids, X = _from_table(path, id_column)
    given = dict(zip(_META, (name, modality, identifier, cell_line, source), strict=True))
    said |= {k: v for k, v in given.items() if v is not None}
    ids = check_ids([strip_version(i) for i in ids] if strip_versions else ids, str(path))
    seen, declared = looks_like(ids), said.get("identifier", "symbol")
    if seen != declared and declared in KINDS:
        raise InputError(
            f"{path}: ids such as {ids[0]!r} look like {seen} ids, but {declared} is declared; "
            f"declare the identifier {seen} and, if the screen uses {declared} ids, convert them"
        )
    large = np.asarray(X)
    large = large[np.abs(large) > LARGEST] if large.dtype.kind in "fiub" else []
    if len(large) and np.isfinite(large).all():
        raise InputError(
            f"{path}: it holds {large[0]:g}; values above {LARGEST:g} are no "
            "coordinates, since their distances cannot be computed"
        )
    try:
        made = Embedding(ids=ids, X=X, **said)
    except InputError as error:
        raise type(error)(f"{path}: {error}") from None
    if len(ids) > 1 and (made.X == made.X[0]).all():
        raise InputError(f"{path}: all {len(ids)} ids have one vector; was another file meant?")
    return made


def save_embedding(embedding: Embedding, path: Path | str) -> Path:
    """Write an embedding to ``.npz``: ids, vectors, name, modality, identifier, line and source."""
    path = Path(path).with_suffix(".npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = json.dumps({k: getattr(embedding, k) for k in _META})
    ids = embedding.ids.to_numpy().astype(str)
    np.savez(path, ids=ids, X=embedding.X, meta=np.array(meta))
    return path


def _from_table(path: Path, id_column: str | None):
    parquet = path.suffix == ".parquet"
    frame = read_table(path) if parquet else read_text(path, "," if path.suffix == ".csv" else "\t")
    if parquet and id_column is None:
        if not isinstance(frame.index, pd.RangeIndex):
            ids = _as_strings(frame.index)
            return ids, _numbers(path, frame, ids)
        texts = [c for c in frame if not pd.api.types.is_numeric_dtype(frame[c])]
        if not texts:
            raise InputError(
                f"{path} has neither an index of ids nor a text column; columns are "
                f"{some(frame.columns, 12)}; put the ids into the index or give id_column"
            )
        id_column = texts[0]
    id_column = frame.columns[0] if id_column is None else id_column
    check_table(frame, [id_column], path)
    if not parquet and frame.shape[1] < 2:
        raise InputError(
            f"{path} has a single column {frame.columns[0]!r}; columns must be separated by "
            f"{'commas' if path.suffix == '.csv' else 'tabs'}"
        )
    heads = [str(c) for c in frame.columns if c != id_column]
    counted = heads in ([str(i + n) for i in range(len(heads))] for n in (0, 1))
    if not parquet and isinstance(id_column, str) and not counted:
        if all(re.fullmatch(r"[-+]?\d+(\.\d+)?", head) for head in heads):
            raise InputError(
                f"{path}: the first line holds numbers ({some(heads)}): name the columns there, "
                "or the first id is lost"
            )
    ids = _as_strings(frame[id_column])
    return ids, _numbers(path, frame.drop(columns=id_column), ids)


def _from_npz(path: Path):
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = archive.files
            ids, X = (archive[k] if k in names else None for k in ("ids", "X"))
            meta = json.loads(str(archive["meta"])) if "meta" in names else {}
    except (OSError, EOFError, zipfile.BadZipFile, TypeError, AttributeError, ValueError) as error:
        if "pickle" in str(error).lower():
            raise InputError(
                f"{path} holds pickled objects, which can run code and are never opened; write "
                "ids as a text array (ids.astype(str)) and X as floats"
            ) from None
        raise InputError(f"{path} is damaged or truncated ({error}); fetch it again") from None
    if ids is None or X is None:
        raise InputError(
            f"{path} lacks the array {'ids' if ids is None else 'X'}; it has {some(names, 12)}; "
            "write it with np.savez(path, ids=..., X=...)"
        )
    if ids.ndim != 1:
        raise InputError(f"{path}: ids has shape {ids.shape}; one id per row of X is expected")
    return _as_strings(ids), X, meta


def _from_h5ad(path: Path, id_column, obsm, varm, uns):
    adata = read_h5ad(path)
    keys = {"obs column": (id_column, adata.obs), "obsm key": (obsm, adata.obsm)}
    keys |= {"varm key": (varm, adata.varm), "uns key": (uns, adata.uns)}
    for what, (key, there) in keys.items():
        if key is not None and key not in there:
            raise InputError(f"{path} has no {what} {key!r}; it has {some(list(there), 12)}")
    if sum(key is not None for key in (obsm, varm, uns)) > 1:
        raise InputError(f"{path}: give one of obsm, varm and uns")
    ids = adata.obs_names if id_column is None else adata.obs[id_column]
    if uns is not None:
        return _from_uns(path, uns, adata, ids)
    if varm is not None:
        ids, X = adata.var_names, adata.varm[varm]
    else:
        X = adata.X if obsm is None else adata.obsm[obsm]
    if X is None:
        raise InputError(f"{path} has no X; give obsm=, one of {some(adata.obsm, 12)}")
    return _as_strings(ids), X.toarray() if sp.issparse(X) else np.asarray(X)


def _from_uns(path: Path, key: str, adata: AnnData, ids):
    """Vectors in ``uns``: a table, id to vector, or a matrix whose length says its axis."""
    held = adata.uns[key]
    if isinstance(held, dict):
        sizes = {np.shape(v) for v in held.values()}
        if len(sizes) != 1 or len(next(iter(sizes))) != 1:
            raise InputError(f"{path}: uns[{key!r}] maps ids to vectors of shapes {sizes}")
        return list(held), np.stack(list(held.values()))
    if isinstance(held, pd.DataFrame):
        return _as_strings(held.index), _numbers(path, held, _as_strings(held.index))
    X = held.toarray() if sp.issparse(held) else np.asarray(held)
    axis = [i for i in (ids, adata.var_names) if X.ndim == 2 and len(i) == len(X)]
    if not axis:
        raise InputError(
            f"{path}: uns[{key!r}] has shape {X.shape}, and no ids for its rows; the file has "
            f"{adata.n_obs} obs and {adata.n_vars} var"
        )
    return _as_strings(axis[0]), X


def _from_safetensors(path: Path):
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            tensors, meta = {k: file.get_tensor(k) for k in file.keys()}, file.metadata() or {}
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged or truncated ({error}); fetch it again") from None
    if tensors and all(v.ndim == 1 for v in tensors.values()):
        if len({v.shape for v in tensors.values()}) == 1:
            return list(tensors), np.stack(list(tensors.values()))
    elif len(tensors) == 1 and "ids" in meta:
        return _as_strings(json.loads(meta["ids"])), next(iter(tensors.values()))
    raise InputError(
        f"{path} holds {some(sorted(tensors), 12)}: one vector per id, all of a length, or one "
        'matrix with metadata {"ids": json.dumps(ids)} is expected'
    )


def _as_strings(ids) -> list:
    """Whole numbers and text as strings; anything else stays, to be refused by name."""
    whole = int | np.integer | str
    return [str(v) if isinstance(v, whole) and not isinstance(v, bool) else v for v in ids]


def _numbers(path: Path, frame: pd.DataFrame, ids: list) -> np.ndarray:
    """Values of a table; gaps stay, to be refused by the id of their row."""
    numbers = frame.reset_index(drop=True).apply(pd.to_numeric, errors="coerce")
    out = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    texts = frame.to_numpy(dtype=object)
    for row, k in np.argwhere(~np.isfinite(out)):
        text = str(texts[row, k]).strip()
        if text.lower() not in (*GAPS, "inf", "-inf"):
            raise InputError(
                f"{path}: column {str(frame.columns[k])!r} is not numeric (row {ids[row]!r} "
                f"holds {text!r}); remove the column, or name the id column with id_column"
            )
    return out
