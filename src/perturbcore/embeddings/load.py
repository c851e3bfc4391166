"""Embeddings from and to files: Parquet, CSV, TSV, NumPy archives and AnnData."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.tables import read_table, read_text
from perturbcore.embeddings.base import Embedding, check_ids, looks_like, strip_version

SUFFIXES = (".parquet", ".csv", ".tsv", ".npz", ".h5ad")
_META = ("name", "modality", "identifier", "cell_line", "source")


def load_embedding(
    path,
    *,
    name: str | None = None,
    modality: str | None = None,
    identifier: str | None = None,
    cell_line: str | None = None,
    source: str | None = None,
    id_column: str | None = None,
    obsm: str | None = None,
    header: bool | None = None,
    strip_versions: bool = False,
) -> Embedding:
    """Read an embedding: one row per gene or drug, its id and d numbers.

    Parameters
    ----------
    path
        ``.parquet`` (ids in the index or the first text column), ``.csv`` or ``.tsv`` (ids in the
        first column), ``.npz`` (arrays ``ids`` and ``X``), ``.h5ad`` (``obs_names`` and ``X``).
    name, modality, identifier, cell_line, source
        As in `Embedding`. What is not given is taken from the file if `save_embedding` wrote it,
        else: the file name, ``"Prior knowledge"``, ``"symbol"``, no cell line, the file name.
    id_column
        Column (``obs`` column of an ``.h5ad``) that holds the ids, if not the default.
    obsm
        Key of ``.obsm`` to take instead of ``X`` of an ``.h5ad``.
    header
        Whether a ``.csv`` has a header line; by default a first line whose cells behind the id
        are all decimal numbers is taken as data.
    strip_versions
        Drop versions from Ensembl ids (``ENSG00000141510.18``).

    Raises
    ------
    InputError
        The file is missing, truncated, empty, of an unknown kind or pickled; a column is not
        numeric; a value is NaN or infinite; an id repeats; or the ids look like another
        identifier than the declared one. The message names the column or row.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; load_embeddings reads all embeddings of a folder")
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path")
    readers = {
        ".parquet": lambda: _from_parquet(path, id_column),
        ".csv": lambda: _from_text(path, id_column, header, ","),
        ".tsv": lambda: _from_text(path, id_column, header, "\t"),
        ".npz": lambda: _from_npz(path),
        ".h5ad": lambda: _from_h5ad(path, id_column, obsm),
    }
    if path.suffix not in readers:
        pickled = path.suffix in (".pkl", ".pickle", ".pt", ".pth", ".npy", ".joblib")
        why = " (pickles can run code and are never opened)" if pickled else ""
        raise InputError(
            f"{path}: unknown kind of file {path.suffix!r}{why}; known are {', '.join(SUFFIXES)}; "
            "save_embedding writes any of them"
        )
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); fetch or write it again")
    ids, X, meta = readers[path.suffix]()
    given = dict(zip(_META, (name, modality, identifier, cell_line, source), strict=True))
    default = {
        "name": path.stem,
        "modality": "Prior knowledge",
        "identifier": "symbol",
        "cell_line": None,
        "source": path.name,
    }
    used = {k: given[k] if given[k] is not None else meta.get(k, default[k]) for k in _META}
    if strip_versions:
        ids = [strip_version(i) for i in ids]
    ids = check_ids(ids, str(path))
    _check_identifier(path, ids, used["identifier"])
    try:
        return Embedding(used["name"], used["modality"], ids, X, *[used[k] for k in _META[2:]])
    except InputError as error:
        raise type(error)(f"{path}: {error}") from None


def load_embeddings(folder, **options) -> list[Embedding]:
    """Read every embedding of a folder, by file name; options as in `load_embedding`."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; load_embedding reads a single file")
    files = sorted(f for f in folder.iterdir() if f.suffix in SUFFIXES)
    if not files:
        raise InputError(f"{folder} holds no file of a known kind ({', '.join(SUFFIXES)})")
    if options.get("name") is not None and len(files) > 1:
        raise ParameterError("name cannot be given for a folder: its files would share it")
    loaded = [load_embedding(f, **options) for f in files]
    names = pd.Series([(e.name, e.cell_line or "") for e in loaded], index=[f.name for f in files])
    twice = names[names.duplicated(keep=False)]
    if len(twice):
        raise InputError(
            f"{folder}: {', '.join(twice.index)} hold embeddings of the same name "
            f"{twice.iloc[0][0]!r}; rename one"
        )
    return loaded


def save_embedding(embedding: Embedding, path) -> Path:
    """Write an embedding to ``.parquet``, ``.csv``, ``.tsv``, ``.npz`` or ``.h5ad``.

    All but the text formats keep name, modality, identifier, cell line and source.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ParameterError(f"{path}: cannot write {path.suffix!r}; known: {', '.join(SUFFIXES)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = {k: getattr(embedding, k) for k in _META}
    if path.suffix == ".npz":
        text = np.array(json.dumps(meta))
        np.savez(path, ids=embedding.ids.to_numpy().astype(str), X=embedding.X, meta=text)
        return path
    columns = [f"d{k}" for k in range(embedding.dim)]
    frame = pd.DataFrame(embedding.X, index=embedding.ids, columns=columns)
    if path.suffix == ".parquet":
        frame.attrs["perturbcore"] = meta
        frame.to_parquet(path)
    elif path.suffix == ".h5ad":
        import anndata as ad

        adata = ad.AnnData(
            embedding.X.copy(),
            obs=pd.DataFrame(index=pd.Index(embedding.ids, name=None)),
            var=pd.DataFrame(index=columns),
        )
        adata.uns["perturbcore"] = {k: v for k, v in meta.items() if v is not None}
        adata.write_h5ad(path)
    else:
        # Nine digits bring every float32 back to the same bits.
        frame.to_csv(path, sep="," if path.suffix == ".csv" else "\t", float_format="%.9g")
    return path


def _from_parquet(path: Path, id_column):
    frame = read_table(path)
    meta = frame.attrs.get("perturbcore", {})
    if id_column is not None:
        if id_column not in frame:
            raise InputError(f"{path} has no column {id_column!r}; it has {_names(frame.columns)}")
        ids, frame = frame[id_column], frame.drop(columns=id_column)
    elif isinstance(frame.index, pd.RangeIndex):
        texts = [c for c in frame if not pd.api.types.is_numeric_dtype(frame[c])]
        if not texts:
            raise InputError(
                f"{path} has neither an index of ids nor a text column; columns are "
                f"{_names(frame.columns)}; put the ids into the index or give id_column"
            )
        ids, frame = frame[texts[0]], frame.drop(columns=texts[0])
    else:
        ids = frame.index
    return _as_strings(ids), _numbers(path, frame, _as_strings(ids)), meta


def _from_text(path: Path, id_column, header, separator: str):
    frame = read_text(path, separator, header)
    column = id_column if id_column is not None else frame.columns[0]
    if column not in frame:
        raise InputError(f"{path} has no column {column!r}; it has {_names(frame.columns)}")
    if frame.shape[1] < 2:
        raise InputError(
            f"{path} has a single column {frame.columns[0]!r}; columns must be separated by "
            f"{'commas' if separator == ',' else 'tabs'}"
        )
    ids = frame[column].tolist()
    return ids, _numbers(path, frame.drop(columns=column), ids), {}


def _from_npz(path: Path):
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = {"ids", "X"} - set(archive.files)
            if missing:
                raise InputError(
                    f"{path} lacks the array {' and '.join(sorted(missing))}; it has "
                    f"{_names(archive.files)}; write it with np.savez(path, ids=..., X=...)"
                )
            ids, X = archive["ids"], archive["X"]
            meta = json.loads(str(archive["meta"])) if "meta" in archive.files else {}
    except InputError:
        raise
    except ValueError as error:
        if "pickle" in str(error).lower():
            raise InputError(
                f"{path} holds pickled objects, which can run code and are never opened; write "
                "ids as a text array (ids.astype(str)) and X as floats"
            ) from None
        raise InputError(f"{path} is damaged or truncated ({error}); fetch it again") from None
    except (OSError, EOFError, zipfile.BadZipFile, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged or truncated ({error}); fetch it again") from None
    if ids.ndim != 1:
        raise InputError(f"{path}: ids has shape {ids.shape}; one id a row of X is expected")
    return _as_strings(pd.Series(ids)), X, meta


def _from_h5ad(path: Path, id_column, obsm):
    import anndata as ad
    import scipy.sparse as sp

    try:
        adata = ad.read_h5ad(path)
    except Exception as error:  # h5py and anndata raise many kinds for a broken file
        raise InputError(f"{path} cannot be read ({error}); fetch it again") from None
    if id_column is not None and id_column not in adata.obs:
        raise InputError(
            f"{path} has no obs column {id_column!r}; it has {_names(adata.obs.columns)}"
        )
    ids = adata.obs_names if id_column is None else adata.obs[id_column]
    if obsm is not None and obsm not in adata.obsm:
        raise InputError(f"{path} has no obsm key {obsm!r}; it has {_names(adata.obsm)}")
    X = adata.X if obsm is None else adata.obsm[obsm]
    if X is None:
        raise InputError(f"{path} has no X; give obsm=, one of {_names(adata.obsm)}")
    X = X.to_numpy() if isinstance(X, pd.DataFrame) else X
    meta = {k: v for k, v in dict(adata.uns.get("perturbcore", {})).items() if k in _META}
    return _as_strings(ids), X.toarray() if sp.issparse(X) else np.asarray(X), meta


def _as_strings(ids) -> list:
    values = pd.Series(list(ids), dtype=object)
    whole = values.map(lambda v: isinstance(v, int | np.integer) and not isinstance(v, bool))
    values[whole] = values[whole].astype(str)
    return [str(v) if isinstance(v, str) else v for v in values]


def _numbers(path: Path, frame: pd.DataFrame, ids: list) -> np.ndarray:
    if frame.shape[0] == 0 or frame.shape[1] == 0:
        raise InputError(f"{path} is empty: {frame.shape[0]} ids x {frame.shape[1]} dimensions")
    out = np.empty(frame.shape, dtype=np.float64)
    for k, column in enumerate(frame.columns):
        values = frame.iloc[:, k]
        if pd.api.types.is_numeric_dtype(values):
            out[:, k] = values.to_numpy(dtype=np.float64, na_value=np.nan)
            continue
        text = values.astype(object).where(values.notna(), "").astype(str).str.strip()
        blank = text.str.lower().isin(["", "na", "nan", "null", "none", "n/a"])
        numbers = pd.to_numeric(text.where(~blank), errors="coerce")
        wrong = numbers.isna() & ~blank
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise InputError(
                f"{path}: column {str(column)!r} is not numeric (row {ids[row]!r} holds "
                f"{text.iloc[row]!r}); remove the column, or name the id column with id_column"
            )
        out[:, k] = numbers
    bad = ~np.isfinite(out).all(axis=1)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        column = frame.columns[int(np.flatnonzero(~np.isfinite(out[row]))[0])]
        raise InputError(
            f"{path}: {int(bad.sum())} rows hold missing, NaN or infinite values, first "
            f"{ids[row]!r} in column {str(column)!r}; remove those rows (the ids then count as "
            "missing) or fill them; a gap in the last row alone means that the file is cut off"
        )
    return out


def _check_identifier(path: Path, ids: pd.Index, declared: str) -> None:
    seen = looks_like(ids)
    other = seen is not None and seen != declared and declared != "drug"
    if other or (declared in ("ensembl", "entrez") and seen != declared):
        kind = seen or "symbol"
        raise InputError(
            f"{path}: ids such as {ids[0]!r} look like {kind} ids, but {declared} is declared; "
            f"declare identifier={kind!r} and, if the screen uses {declared} ids, convert with "
            "convert_ids"
        )


def _names(values, n: int = 12) -> str:
    values = [str(v) for v in values]
    return ", ".join(values[:n]) + (f", ... ({len(values)} in all)" if len(values) > n else "")
