"""What an embedding is, and how its rows are put in the order of other ids."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from perturbcore.core.digest import digest
from perturbcore.core.errors import InputError, check_choice, check_name

IDENTIFIERS = ("symbol", "ensembl", "entrez", "drug")
_VERSION = re.compile(r"^(ENS[A-Z]*\d{11})\.\d+$", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Embedding:
    """One vector per gene or drug.

    `name, modality`: as shown in figures, such as ``"STRING"``; family that decides the colour;
    `ids, X`: n unique strings; finite float32 matrix, n x d; `identifier`: what the ids are, one of
    ``symbol``, ``ensembl``, ``entrez``, ``drug``; `cell_line`: cell line whose cells the embedding
    was made from; ``None`` serves all lines; `source`: one line, from what it was made, and what
    was left out. Refused (`InputError`) if the ids repeat or are empty, the shapes disagree, or a
    value is not finite.
    """

    name: str
    modality: str
    ids: pd.Index
    X: np.ndarray
    identifier: str = "symbol"
    cell_line: str | None = None
    source: str = ""

    def __post_init__(self) -> None:
        """Check every promise of the contract."""
        where = f"embedding {self.name!r}"
        for field in ("name", "modality"):
            if not getattr(self, field) or not isinstance(getattr(self, field), str):
                raise InputError(f"{where} needs a {field} (a non-empty string)")
            check_name(getattr(self, field), f"{where}: {field}")
        check_choice(f"{where}: identifier", self.identifier, IDENTIFIERS)
        ids = check_ids(self.ids, where)
        X = _check_matrix(self.X, ids, where)
        X.setflags(write=False)
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "X", X)

    @property
    def dim(self) -> int:
        """Number of dimensions d."""
        return self.X.shape[1]

    @cached_property
    def digest(self) -> str:
        """Digest of ids, values, identifier and cell line; name and colour do not enter."""
        return digest(self.ids, self.X, self.identifier, self.cell_line)

    def __len__(self) -> int:
        """Return the number of ids."""
        return len(self.ids)

    def __repr__(self) -> str:
        """Say name, size and identifier instead of printing the matrix."""
        line = f" of {self.cell_line}" if self.cell_line else ""
        return f"Embedding({self.name!r}{line}, {len(self)} {self.identifier} ids x {self.dim})"


def check_ids(ids: Iterable, where: str) -> pd.Index:
    """Return the ids as an index of unique, non-empty strings, or name the first that is not."""
    values = list(ids)
    if not values:
        raise InputError(f"{where} has no ids: it is empty")
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise InputError(
                f"{where}: id {value!r} in row {row} is {type(value).__name__}, not a string; "
                "convert ids to strings (entrez ids too) before handing them over"
            )
        if not value.strip():
            raise InputError(f"{where}: row {row} has an empty id; name or remove the row")
    index = pd.Index([str(v) for v in values], dtype=object, name="id")
    repeated = index[index.duplicated()].unique()
    if len(repeated):
        raise InputError(
            f"{where}: {len(repeated)} ids occur more than once, such as {some(repeated)}; "
            "keep one row per id (average them if they are isoforms or probes of one gene)"
        )
    return index


def _check_matrix(X, ids: pd.Index, where: str) -> np.ndarray:
    X = np.asarray(X)
    if X.dtype.kind not in "fiub":
        raise InputError(f"{where}: values have type {X.dtype}, not numbers; convert them")
    if X.ndim != 2 or X.shape[1] == 0 or X.shape[0] != len(ids):
        raise InputError(f"{where}: values of shape {X.shape}, not {len(ids)} ids x dimensions")
    with np.errstate(over="ignore"):
        X = np.array(X, dtype=np.float32, order="C")
    bad = np.argwhere(~np.isfinite(X))
    if len(bad):
        row, column = bad[0]
        raise InputError(
            f"{where}: {len(np.unique(bad[:, 0]))} rows hold gaps or infinite values, first "
            f"{ids[row]!r} (row {row}, dimension {column}); remove those ids (they are then "
            "treated as missing) or fill them; a gap in the last row alone means a file cut off"
        )
    return X


def align(embedding: Embedding, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of an embedding in the order of m `ids`, NaN where it has none; and which it has."""
    rows = embedding.ids.get_indexer(pd.Index(list(ids), dtype=object))
    present = rows >= 0
    X = np.full((len(rows), embedding.dim), np.nan, dtype=np.float32)
    X[present] = embedding.X[rows[present]]
    return X, present


def strip_version(identifier: str) -> str:
    """Drop the version from an Ensembl id (``ENSG00000141510.18``); other ids are untouched."""
    return _VERSION.sub(r"\1", identifier)


def some(ids: Sequence, n: int = 5) -> str:
    """List the first few ids for a message."""
    shown = ", ".join(str(i) for i in list(ids)[:n])
    return f"{shown}, ..." if len(ids) > n else shown
