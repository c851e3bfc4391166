"""Read foreign files loudly: a wrong one is named with its column and value, never half read."""

import bz2
import csv
import gzip
import lzma
import struct
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem, sparse_dataset

from perturbcore.core.errors import InputError

RENAME = "rename it, or fetch the file again"
# R data files: ways of compression, types of objects, a flag, and the whole number that is missing
_COMPRESSED = {b"BZh": bz2, b"\x1f\x8b": gzip, b"\xfd7zXZ\x00": lzma}
_STRINGS, _LIST, _NIL, _REFERENCE = 16, 19, 254, 255
_NUMBERS = {13: ">i4", 14: ">f8"}
_HAS_ATTRIBUTES, _MISSING = 0x200, -(2**31)


def filled() -> Any:
    """Make the schema of a column without missing or empty values."""
    import pandera.pandas as pa  # half a second, which a command without tables does not pay

    return pa.Column(None, pa.Check(lambda values: values != "", error="empty"))


def check_table(
    table: pd.DataFrame,
    columns: Iterable[str] | Mapping[str, Any],
    where,
    *,
    unique: Sequence[str] = (),
    way_out: str = RENAME,
) -> None:
    """Refuse a table that lacks a column, has a wrong value in one, or a row twice.

    `where`: what to call the table; `way_out`: what to do about a missing column.
    """
    import pandera.pandas as pa

    if not isinstance(columns, Mapping):
        columns = {name: pa.Column(nullable=True) for name in columns}
    schema = pa.DataFrameSchema(dict(columns), unique=list(unique) or None)
    try:
        schema.validate(table.reset_index(drop=True), lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
        absent = cases.loc[cases["check"] == "column_in_dataframe", "failure_case"]
        if len(absent):
            there = ", ".join(map(str, table.columns))
            raise InputError(
                f"{where}: no column '{absent.iloc[0]}' (it has: {there}); {way_out}"
            ) from None
        first = cases.loc[cases["index"].astype(int).idxmin()]
        at, column, check = int(first["index"]), first["column"], first["check"]
        numbered = isinstance(table.index, pd.RangeIndex)
        row = f"row {at + 1}" if numbered else f"row '{table.index[at]}'"
        if check == "multiple_fields_uniqueness":
            values = ", ".join(f"{c} '{table[c].iloc[at]}'" for c in unique)
            problem = f"two rows have {values}; average or drop one"
        elif check in ("not_nullable", "empty"):
            problem = f"column '{column}' is empty in {row}; is the table cut off? fill or drop it"
        else:
            problem = f"column '{column}' has '{first['failure_case']}' in {row}: {check}"
        raise InputError(f"{where}: {problem}") from None


GAPS = ("", "na", "nan", "null", "none", "n/a", "<na>")  # words for no value


def read_csv(path, columns) -> pd.DataFrame:
    """Read the named columns of a comma-separated file as strings; refuse an empty value."""
    path = existing(path)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable table ({error}); fetch it again") from error
    check_table(table, {column: filled() for column in columns}, path)
    if table.empty:
        raise InputError(f"{path}: it has no rows; fetch it again")
    return table[list(columns)]


def read_text(path, separator: str) -> pd.DataFrame:
    """Read a delimited text file, its first column as text; decimal numbers make no header."""
    path = Path(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            first = next(csv.reader(handle, delimiter=separator), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a text table ({error})") from None
    header = None if _is_data(first[1:]) else 0
    how = dict(header=header, converters={0: str}, keep_default_na=False)
    try:
        return pd.read_csv(path, sep=separator, index_col=False, encoding="utf-8-sig", **how)
    except pd.errors.EmptyDataError:
        raise InputError(f"{path} is empty: it has no columns") from None
    except (pd.errors.ParserError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a table ({error}); is it cut off?") from None


def _is_data(cells: list[str]) -> bool:
    try:
        values = [float(c) for c in cells]
    except ValueError:
        return False
    return bool(values) and any("." in c for c in cells)


def read_table(path) -> pd.DataFrame:
    """Read ``.parquet``, ``.csv``, ``.tsv`` or ``.txt`` (comma, else tab) as a data frame."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path")
    if path.suffix == ".parquet":
        try:
            return pd.read_parquet(path)
        except Exception as error:  # pyarrow raises many kinds for a broken file
            raise InputError(f"{path} cannot be read ({error}); fetch it again") from None
    with open(path, encoding="utf-8-sig", errors="replace") as handle:
        line = handle.readline()
    return read_text(path, "\t" if "\t" in line else ",")


def read_r(path, name: str) -> Any:
    """Return one object of an R data file, or say that the file is cut or has no such object.

    Lists and data frames of texts and numbers are read here, ten times faster than by rdata, which
    reads all others; a list is a dictionary of arrays.
    """
    path = existing(path)
    try:
        raw = path.read_bytes()
        pack = next((m for mark, m in _COMPRESSED.items() if raw.startswith(mark)), None)
        raw = pack.decompress(raw) if pack else raw
        try:
            objects = _PlainR(raw).pairs()
        except _NotPlain:
            import rdata

            with warnings.catch_warnings():
                # classes that R packages define come as plain records, which is what is wanted
                warnings.simplefilter("ignore", UserWarning)
                objects = rdata.conversion.convert(rdata.parser.parse_data(raw))
    except Exception as error:  # each way of compression has its own for a cut file, and so rdata
        raise InputError(f"{path}: not a whole R data file ({error}); fetch it again") from error
    if name not in objects:
        raise InputError(f"{path}: no object '{name}' (it has: {', '.join(objects)})")
    return objects[name]


class _NotPlain(Exception):
    """An R object of another kind than lists, data frames, texts and numbers."""


class _PlainR:
    """Reader of the binary form of R objects, version 2 or 3 (R Internals, 1.8)."""

    def __init__(self, raw: bytes):
        if not raw.startswith((b"RDX2\nX\n", b"RDX3\nX\n")):
            raise _NotPlain
        self.raw, self.at = raw, len(b"RDX3\nX\n")
        self.references: list[str] = []
        # one Python string per distinct value: the same gene comes in every list
        self.known: dict[bytes, str] = {}
        version, _, _ = (self.integer() for _ in range(3))
        if version == 3:
            self.text()

    def pairs(self) -> dict:
        """Named objects: those of a file, or the attributes of an object."""
        out = {}
        while self.integer() & 0xFF != _NIL:
            flags = self.integer()  # of the symbol that names it
            if flags & 0xFF == _REFERENCE:
                name = self.references[(flags >> 8 or self.integer()) - 1]
            else:
                self.integer()  # the type of a string
                name = self.text()
                self.references.append(name)
            out[name] = self.value()
        return out

    def value(self):
        flags = self.integer()
        kind = flags & 0xFF
        if kind not in (_LIST, _STRINGS, *_NUMBERS):
            raise _NotPlain
        n = self.integer()
        if kind == _LIST:
            out = [self.value() for _ in range(n)]
        else:
            out = self.strings(n) if kind == _STRINGS else self.numbers(n, _NUMBERS[kind])
        about = self.pairs() if flags & _HAS_ATTRIBUTES else {}
        if "levels" in about or "dim" in about:
            raise _NotPlain
        if kind != _LIST or "names" not in about:
            return out
        parts = dict(zip(about["names"], out, strict=True))
        return pd.DataFrame(parts) if "data.frame" in about.get("class", ()) else parts

    def strings(self, n: int) -> np.ndarray:
        raw, at, known, head = self.raw, self.at, self.known, struct.Struct(">ii")
        values = np.empty(n, dtype=object)
        for i in range(n):
            length, start = head.unpack_from(raw, at)[1], at + head.size
            at = start + max(length, 0)
            if length >= 0:  # else it is missing
                value = raw[start:at]
                if value not in known:
                    known[value] = value.decode()
                values[i] = known[value]
        self.at = at
        return values

    def numbers(self, n: int, dtype: str):
        values = np.frombuffer(self.raw, dtype, n, self.at)
        self.at += values.nbytes
        values = values.astype(dtype[1:])
        missing = values == _MISSING if dtype == ">i4" else np.zeros(0, bool)
        return pd.arrays.IntegerArray(values, missing) if missing.any() else values

    def integer(self) -> int:
        (out,) = struct.unpack_from(">i", self.raw, self.at)
        self.at += 4
        return out

    def text(self) -> str:
        length = self.integer()
        self.at += length
        return self.raw[self.at - length : self.at].decode()


def read_h5ad(path, obs=(), *, backed: bool = False, names: bool = True) -> anndata.AnnData:
    """Read an h5ad file whose `obs` has the named columns, or say what is wrong with it.

    `backed`: X stays on disk; without `names` of cells, then, which must differ, they are numbers.
    """
    path = existing(path)
    try:
        adata = None if names or not backed else _unnamed(path)
        adata = adata or anndata.read_h5ad(path, backed="r" if backed else None)
    except Exception as error:  # h5py and anndata raise many kinds on a truncated file
        raise InputError(f"{path}: not a readable .h5ad file ({error}); fetch it again") from error
    check_table(adata.obs, list(obs), f"{path}: obs")
    return adata


def _unnamed(path) -> anndata.AnnData | None:
    """Open what `X`, `obs`, `var` and `uns` hold but names of cells; None if two may be equal."""
    file = h5py.File(path, "r")
    table, step = file["obs"], 100_000
    if "column-order" not in table.attrs:  # of older versions
        return None
    names = table[table.attrs["_index"]]
    starts = range(0, max(1, len(names)), step)
    hashes = [np.fromiter(map(hash, names[i : i + step]), np.int64) for i in starts]
    if not np.diff(np.sort(np.concatenate(hashes))).all():
        return None
    obs = pd.DataFrame({c: read_elem(table[c]) for c in table.attrs["column-order"]})
    obs.index = pd.Index(np.full(len(names), "", dtype=object))  # AnnData asks for texts
    with anndata.settings.override(check_uniqueness=False):
        parts = {name: read_elem(file[name]) for name in ("var", "uns") if name in file}
        adata = anndata.AnnData(filename=file, obs=obs, **parts)
    adata.obs_names = pd.RangeIndex(len(names))
    return adata


def read_zarr(path, *, backed: bool = False) -> anndata.AnnData:
    """Read a zarr folder that anndata wrote; `backed`: its matrix stays on disk."""
    import zarr

    try:
        if not backed:
            return anndata.read_zarr(path)
        root = zarr.open(str(path), mode="r")
        X = sparse_dataset(root["X"]) if isinstance(root["X"], zarr.Group) else root["X"]
        parts = {name: read_elem(root[name]) for name in ("obs", "var", "uns") if name in root}
        return anndata.AnnData(X, **parts)
    except Exception as error:  # zarr and anndata raise many kinds on a broken folder
        raise InputError(f"{path}: not a readable .zarr folder ({error}); copy it again") from error


def member(path, record: Any, *names: str) -> Any:
    """Return a part of an R record (list, data frame or S4 object), by name, step by step."""
    for name in names:
        try:
            record = record[name] if hasattr(record, "__getitem__") else getattr(record, name)
        except (KeyError, AttributeError, TypeError) as error:
            raise InputError(
                f"{path}: no part '{name}' where it was expected ({'$'.join(names)}); "
                "is this another version of the file?"
            ) from error
    return record


def existing(path) -> Path:
    """Return the path of a file that is there."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return path


def refuse(wrong, column: str, values: pd.Series, path, problem: str) -> None:
    """Name file, column, value and row of the first value that is `wrong`, and the problem."""
    if np.any(wrong):
        row = int(np.argmax(np.asarray(wrong)))
        value = values.iloc[row]
        what = "is empty" if pd.isna(value) or value == "" else f"has '{value}'"
        raise InputError(f"{path}: column '{column}' {what} in row {row + 1}{problem}")


def numbers(values: pd.Series, column: str, path, *, whole: str = "") -> pd.Series:
    """Read a column as numbers; `whole` says what they must be where only 0, 1, ... are right."""
    out = pd.to_numeric(values.astype(str), errors="coerce")
    wrong = out.isna() | ((out != out.round()) | (out < 0) if whole else False)
    refuse(wrong, column, values, path, f": {whole}" if whole else ", not a number")
    return out
