"""Bootstrap samples of perturbation effects in one cell line, by matrix products."""

import threading

import numpy as np
import scipy.sparse as sp

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.score.ceiling.draws import (
    CONTROL,
    PERTURBED,
    batch_weights,
    control_stream,
    drawn_batches,
    perturbation_stream,
)

BLOCK_BYTES = 32 * 2**20
KEPT_BYTES = 2**30
# Below this share of non-zeros a sparse product beats a dense one on a densified block.
SPARSE_SHARE = 0.03
CONTROLS = ("global", "matched")
BATCHES = ("all", "with_controls")
LEVELS = ("batches", "cells")


def weighted_sums(cells, parts) -> np.ndarray:
    """Sum of weights (samples, n) times expression over groups of cells: float64 (samples, genes).

    Small groups are joined and large ones cut so that one block of cells holds about 32 MB.
    """
    limit = max(16, BLOCK_BYTES // (8 * cells.n_genes))
    total, rows, weights, held = None, [], [], 0
    for part_rows, part_weights in parts:
        for start in range(0, len(part_rows), limit):
            piece = part_rows[start : start + limit]
            if held + len(piece) > limit:
                total = _add(total, cells, rows, weights)
                rows, weights, held = [], [], 0
            rows.append(piece)
            weights.append(part_weights[:, start : start + limit])
            held += len(piece)
    return _add(total, cells, rows, weights)


def _add(total, cells, rows, weights):
    if not rows:
        return total
    block = cells.read(np.concatenate(rows))
    weight = weights[0] if len(weights) == 1 else np.hstack(weights)
    product = multiply(weight, block)
    if total is None:
        return product
    total += product
    return total


def multiply(weights, block) -> np.ndarray:
    """Dense weights times a sparse or dense block of cells."""
    if not sp.issparse(block):
        return weights @ block
    if block.nnz < SPARSE_SHARE * block.shape[0] * block.shape[1]:
        return np.ascontiguousarray((block.T @ np.ascontiguousarray(weights.T)).T)
    return weights @ block.toarray()


class _Kept:
    """Control cells of a line, normalised once if they fit in memory, else read anew."""

    def __init__(self, cells, controls):
        self.n_genes = cells.n_genes
        self._cells = cells
        self._rows = np.sort(np.concatenate([np.empty(0, dtype=int), *controls.values()]))
        self._block = None
        self._lock = threading.Lock()

    def read(self, rows):
        with self._lock:
            if self._block is None:
                self._block = self._fill()
        if self._block is False:
            return self._cells.read(rows)
        return self._block[np.searchsorted(self._rows, rows)]

    def _fill(self):
        parts, size = [], 0
        step = max(16, BLOCK_BYTES // (8 * self.n_genes))
        for start in range(0, len(self._rows), step):
            part = self._cells.read(self._rows[start : start + step])
            parts.append(part)
            size += part.data.nbytes + (part.indices.nbytes if sp.issparse(part) else 0)
            if size > KEPT_BYTES:
                return False
        return sp.vstack(parts, format="csr") if sp.issparse(parts[0]) else np.vstack(parts)


class LineSampler:
    """Point estimates and bootstrap samples of the effects in one cell line.

    `control`: mean of the line's control batches (Eq. 5 and 6), or the control cells of the
    same batch (Eq. 4). "none" takes the values as effects already; `batches`: every batch with
    perturbed cells, or only those that have control cells too; `resample`: the levels at which
    there is drawing.
    """

    def __init__(self, cells, line, *, control, batches, n_outer, n_inner, seed, resample=LEVELS):
        self.cells, self.line, self.control = cells, line, control
        self.n_outer, self.n_inner, self.seed = n_outer, n_inner, seed
        self.resample = resample
        index = cells.of_line(line, need_controls=control != "none")
        self.controls = index.controls
        self.position = {name: i for i, name in enumerate(index.perturbed)}
        self.perturbed = {
            name: self._usable(name, groups, batches) for name, groups in index.perturbed.items()
        }
        self._shared = None
        self._kept = _Kept(cells, self.controls)

    def _usable(self, name, groups, batches):
        without = [b for b in groups if b not in self.controls]
        if self.control == "none" or not without:
            return groups
        if batches == "with_controls":
            return {b: rows for b, rows in groups.items() if b in self.controls}
        if self.control == "matched":
            raise InputError(
                f"batch {without[0]!r} of cell line {self.line!r} has cells of {name!r} but no "
                "control cells to match; choose batches='with_controls' or control='global'"
            )
        return groups

    def check(self, names) -> None:
        """Refuse perturbations without any usable cell, before long work."""
        empty = [n for n in names if not self.perturbed[n]]
        if empty:
            raise InputError(
                f"{len(empty)} perturbation(s) of cell line {self.line!r} have no cells in a batch "
                f"with control cells, such as {', '.join(empty[:3])}; drop them or choose "
                "control='global' with batches='all'"
            )

    def stream(self, name):
        """Seed sequence of a perturbation, by its place in the sorted list of the line."""
        return perturbation_stream(self.seed, self.position[name])

    def shared_control(self) -> np.ndarray:
        """Control means, (1 + n_outer * n_inner, genes), shared by the line's perturbations."""
        if self._shared is None:
            stream = control_stream(self.seed)
            drawn = self._drawn(self.controls, stream)
            self._shared = weighted_sums(
                self.cells, self._parts(self.controls.values(), drawn, stream, CONTROL)
            )
        return self._shared

    def effects(self, name, groups=None, stream=None) -> np.ndarray:
        """Effect of a perturbation: point estimate in row 0, bootstrap samples below.

        `groups` (batch -> rows) where not all of its cells shall be used, `stream` where
        not its own. float64, (1 + n_outer * n_inner, genes).
        """
        groups = self.perturbed[name] if groups is None else groups
        stream = self.stream(name) if stream is None else stream
        drawn = self._drawn(groups, stream)
        effects = weighted_sums(self.cells, self._parts(groups.values(), drawn, stream, PERTURBED))
        if self.control == "global":
            effects -= self.shared_control()
        elif self.control == "matched":
            matched = (self.controls[batch] for batch in groups)
            effects -= weighted_sums(self._kept, self._parts(matched, drawn, stream, CONTROL))
        return effects

    def _drawn(self, groups, stream):
        return drawn_batches(len(groups), stream, self.n_outer, "batches" in self.resample)

    def _parts(self, groups, drawn, stream, kind):
        cells = "cells" in self.resample
        for batch, rows in enumerate(groups):
            yield rows, batch_weights(batch, len(rows), drawn, stream, kind, self.n_inner, cells)


def check_choices(*, control, batches, n_outer, n_inner, resample=LEVELS) -> None:
    """Refuse unknown choices and empty trials."""
    if control not in CONTROLS:
        raise ParameterError(f"control={control!r}: choose from {', '.join(CONTROLS)}")
    if batches not in BATCHES:
        raise ParameterError(f"batches={batches!r}: choose from {', '.join(BATCHES)}")
    if not resample or set(resample) - set(LEVELS):
        raise ParameterError(f"resample={resample!r}: choose one or both of {', '.join(LEVELS)}")
    for name, value in (("n_outer", n_outer), ("n_inner", n_inner)):
        if int(value) != value or value < 1:
            raise ParameterError(f"{name}={value!r}: give a whole number of at least 1")
