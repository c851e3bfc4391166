"""The values of a screen: read in blocks wherever they lie, checked against the declared scale."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, pairwise
from types import SimpleNamespace

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from numba import njit

from perturbcore.core.errors import InputError

# 4 million stored values are about 50 MB with their indices: enough for speed, no burden
BLOCK_VALUES = 4_000_000
# log1p of counts scaled to 1e4 cannot exceed this, nor can a cell's values undo to more than 1e4
_LOG_MAX = np.log1p(1e4) * 1.0001
_TOTAL_MAX = 1e4 * 1.01


class Matrix:
    """Values of the cells of a screen, wherever they lie: in memory, on disk, in a view of it."""

    def __init__(self, adata: AnnData):
        # a view of a backed file would be read whole by .X: its cells are read through the view
        view = adata.is_view and adata.isbacked
        whole = adata._adata_ref if view else adata
        self.rows = np.arange(whole.n_obs)[adata._oidx] if view else None
        self.columns = np.arange(whole.n_vars)[adata._vidx] if view else None
        self.shape = adata.shape
        self.values = whole.X
        if self.values is None:
            raise InputError("the screen has no X: put counts (or log1p values) of its cells there")
        if getattr(self.values, "format", "") == "csc":
            self.values = sp.csr_matrix(self.values if sp.issparse(self.values) else self.values[:])

    def cuts(self) -> list[int]:
        """Where blocks of about four million stored values start, and the number of cells."""
        n_cells, n_genes = self.shape
        if not self._rowwise():
            return [*range(0, n_cells, max(1, BLOCK_VALUES // max(1, n_genes))), n_cells]
        indptr = np.asarray(self._stored("indptr")[:])
        cuts = [0]
        while cuts[-1] < n_cells:
            end = int(np.searchsorted(indptr, indptr[cuts[-1]] + BLOCK_VALUES, side="right")) - 1
            cuts.append(min(n_cells, max(end, cuts[-1] + 1)))
        return cuts

    def read(self, start: int, stop: int, room: dict | None = None) -> sp.csr_matrix:
        """Read some cells, which are not to be changed, as CSR without duplicates.

        `room`: arrays that are filled, where that is possible, instead of new ones: the cells last
        until it is used again.
        """
        if self.rows is not None:
            part = self._read_of_view(self.rows[start:stop])
        elif self._rowwise():
            stored, pointers = self._stretch(start, stop)
            parts = (*(self._take(name, stored, room) for name in ("data", "indices")), pointers)
            part = sp.csr_matrix(parts, shape=(stop - start, self.shape[1]), copy=False)
        else:
            part = self.values[start:stop]
        # of a lazy array: here, also where a worker does this
        part = part.compute(scheduler="synchronous") if hasattr(part, "compute") else part
        block = sp.csr_matrix(part)
        if not block.has_canonical_format:
            block = block.copy()
            block.sum_duplicates()
        return block

    def read_values(self, start: int, stop: int, room: dict | None = None):
        """Read only `data`, in any order of genes, and `indptr` of some cells."""
        if not self._rowwise():
            return self.read(start, stop, room)
        stored, pointers = self._stretch(start, stop)
        return SimpleNamespace(data=self._take("data", stored, room), indptr=pointers)

    def _rowwise(self) -> bool:
        return self.rows is None and getattr(self.values, "format", "") == "csr"

    def _stored(self, name: str):
        """One of the arrays of a CSR matrix, in memory or on disk."""
        return getattr(self.values, name) if sp.issparse(self.values) else self.values.group[name]

    def _stretch(self, start: int, stop: int) -> tuple[slice, np.ndarray]:
        pointers = self._stored("indptr")[start : stop + 1]
        return slice(pointers[0], pointers[-1]), pointers - pointers[0]

    def _take(self, name: str, stored: slice, room: dict | None) -> np.ndarray:
        """Read a part of a stored array; of an HDF5 file into `room`: new memory costs more."""
        values = self._stored(name)
        if room is None or not hasattr(values, "read_direct"):
            return values[stored]
        size = int(stored.stop - stored.start)
        if len(room.get(name, ())) < size:
            room[name] = np.empty(max(size, BLOCK_VALUES), dtype=values.dtype)
        values.read_direct(room[name], stored, slice(size))
        return room[name][:size]

    def ahead(self, wanted: Iterable[tuple], read=None) -> Iterator[tuple]:
        """Read blocks, the next one while something is done with the last; yield start and stop.

        A block lasts until the next one is asked for.
        """
        read = read or self.read
        rooms = cycle(({}, {}))
        with ThreadPoolExecutor(1) as reader:
            coming = None
            for cells, after in pairwise([*wanted, None]):
                block = coming.result() if coming else read(*cells, next(rooms))
                coming = reader.submit(read, *after, next(rooms)) if after else None
                yield *cells, block

    def _read_of_view(self, rows):
        low, high = rows.min(), rows.max() + 1
        if high - low <= 4 * len(rows):
            part = self.values[low:high][rows - low]
        else:
            order = np.argsort(rows)  # files are read in order
            part = self.values[rows[order]][np.argsort(order)]
        return part[:, self.columns]


def blocks(adata: AnnData) -> Iterator[tuple[int, int, sp.csr_matrix]]:
    """Iterate over start, stop and rows, about four million stored values at a time.

    Rows are not to be changed, and last until the next ones are asked for.
    """
    matrix = Matrix(adata)
    yield from matrix.ahead(pairwise(matrix.cuts()))


# reassoc: sums of whole numbers are exact in any order, and many values are added at once
@njit(cache=True, nogil=True, fastmath={"reassoc"})
def _totals(data, indptr, logged, most, total):
    """Fill the totals of cells; return whether values are in bounds, and whole."""
    sound, whole = True, True
    for i in range(len(total)):
        own = 0.0
        for k in range(np.uint64(indptr[i]), np.uint64(indptr[i + 1])):
            value = float(data[k])
            sound &= 0 <= value <= most
            whole &= value == np.floor(value)
            own += np.expm1(value) if logged else value
        total[i] = own
    return sound, whole


def check_values(adata: AnnData) -> None:
    """Check, block by block, that the values of a declared screen are what its scale says."""
    scale = str(adata.uns["perturbcore"]["scale"])
    logged = scale == "log1p"
    most = _LOG_MAX if logged else np.finfo(np.float64).max
    total = np.zeros(adata.n_obs)
    matrix, whole = Matrix(adata), True
    # counts of one gene that are stored twice add up; logs of them do not
    read = matrix.read if logged else matrix.read_values
    for start, stop, block in matrix.ahead(pairwise(matrix.cuts()), read):
        how = (logged, most, total[start:stop])
        sound, integral = _totals(block.data, block.indptr, *how)
        if not sound or not (integral or logged):
            block = matrix.read(start, stop)
            sound, integral = _totals(block.data, block.indptr, *how)
            if not sound or not (integral or logged):
                raise InputError(_fault(adata, start, block, scale))
        whole = whole and integral
    empty = total <= 0
    if empty.any():
        raise InputError(
            f"{empty.sum()} cells have a total of zero, first {adata.obs_names[empty.argmax()]!r}: "
            "drop them, they cannot be normalised"
        )
    if scale == "log1p" and whole:
        raise InputError(
            "scale='log1p', but every value is a whole number: these look like counts, declare "
            "scale='counts'"
        )
    if scale == "log1p" and total.max() > _TOTAL_MAX:
        i = int(total.argmax())
        raise InputError(
            f"scale='log1p': undoing the log gives cell {adata.obs_names[i]!r} a total of "
            f"{total[i]:.0f}, more than 1e4; declare raw counts, or log1p of counts scaled to 1e4"
        )


def _fault(adata: AnnData, start: int, block: sp.csr_matrix, scale: str) -> str:
    """Say which value of a block cannot be of a scale, and what to do."""
    data = block.data
    faults = {
        "is not finite: remove or repair it": ~np.isfinite(data),
        "is negative: expression cannot be; scaled or centred values are of no use here, give "
        "raw counts or log1p values": data < 0,
    }
    if scale == "counts":
        faults[
            "is not a whole number, though scale='counts': the values look logged (declare "
            "scale='log1p') or normalised; give raw counts, or log1p of counts scaled to 1e4"
        ] = data != np.floor(data)
    else:
        faults[
            "is larger than log1p(1e4) = 9.21, though scale='log1p': declare scale='counts' if "
            "these are counts, else give log1p of counts scaled to 1e4 per cell"
        ] = data > _LOG_MAX
    why, bad = next((why, bad) for why, bad in faults.items() if bad.any())
    k = int(bad.argmax())
    cell = start + int(np.searchsorted(block.indptr, k, side="right")) - 1
    at = f"{adata.obs_names[cell]!r}, {adata.var_names[int(block.indices[k])]!r}"
    return f"X[{at}] = {data[k]:g} {why}"
