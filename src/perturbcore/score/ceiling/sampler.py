"""Bootstrap samples of perturbation effects in one cell line, by matrix products.

A mean over cells drawn with replacement is a weighted mean of the cells there are, the weight
being how often each was drawn. So all samples of a perturbation are one matrix product, weights
(samples x cells) times expression (cells x genes), and no drawn cell is ever copied.
"""

from functools import cached_property

import numpy as np
import scipy.sparse as sp

from perturbcore.core.errors import InputError, ParameterError, check_choice

PERTURBED, CONTROL = 0, 1
BLOCK_BYTES = 16 * 2**20
KEPT_BYTES = 2**30
CONTROLS = ("global", "matched")
BATCHES = ("all", "with_controls")


def child(stream, *key) -> np.random.SeedSequence:
    """Child of a seed sequence by position, as ``stream.spawn`` gives, in any order of work."""
    return np.random.SeedSequence(stream.entropy, spawn_key=(*stream.spawn_key, *key))


def control_stream(seed) -> np.random.SeedSequence:
    """Stream of a line's control cells: the first child of the root."""
    return child(np.random.SeedSequence(seed), 0)


def perturbation_stream(seed, position) -> np.random.SeedSequence:
    """Stream of the perturbation at `position` in the sorted list of all of its cell line."""
    return child(np.random.SeedSequence(seed), 1 + int(position))


def drawn_batches(n_batches, stream, n_outer) -> np.ndarray:
    """Batches drawn with replacement in each outer trial, int (n_outer, n_batches)."""
    if n_batches == 1:
        return np.tile(np.arange(n_batches), (n_outer, 1))
    trials = (np.random.default_rng(child(stream, trial)) for trial in range(n_outer))
    return np.stack([rng.integers(n_batches, size=n_batches) for rng in trials])


def drawn_cells(n_cells, stream, trial, position, kind, n_inner) -> np.ndarray:
    """Cells drawn with replacement for one drawn batch, int (n_inner, n_cells)."""
    rng = np.random.default_rng(child(stream, trial, position, kind))
    return rng.integers(n_cells, size=(n_inner, n_cells))


def cell_counts(n_cells, stream, trial, position, kind, n_inner) -> np.ndarray:
    """How often each cell is drawn in each inner trial, float64 (n_inner, n_cells)."""
    drawn = drawn_cells(n_cells, stream, trial, position, kind, n_inner)
    offset = np.arange(n_inner)[:, None] * n_cells
    counts = np.bincount((drawn + offset).ravel(), minlength=n_inner * n_cells)
    return counts.reshape(n_inner, n_cells).astype(np.float64)


def batch_weights(batch, n_cells, drawn, stream, kind, n_inner, draw_cells=True) -> np.ndarray:
    """Weights of a batch's cells in point estimate and samples, (1 + outer * inner, n_cells)."""
    n_outer, n_batches = drawn.shape
    counts = np.zeros((n_outer, n_inner, n_cells))
    for trial, position in np.argwhere(drawn == batch):
        counts[trial] += (
            cell_counts(n_cells, stream, trial, position, kind, n_inner) if draw_cells else 1.0
        )
    weights = np.ones((1 + n_outer * n_inner, n_cells))
    weights[1:] = counts.reshape(n_outer * n_inner, n_cells)
    return weights / (n_cells * n_batches)


def block_length(n_genes: int) -> int:
    """Cells that one block of about 16 MB holds."""
    return max(16, BLOCK_BYTES // (8 * n_genes))


def weighted_sums(read, n_genes: int, parts) -> np.ndarray:
    """Sum of weights (samples, n) times expression of groups of cells, read block by block."""
    limit = block_length(n_genes)
    total: np.ndarray | None = None
    rows: list = []
    weights: list = []
    room = np.empty((limit, n_genes))

    def add():
        at = np.concatenate(rows)
        order = np.argsort(at)  # cells are read in order
        product = multiply(np.hstack(weights)[:, order], read(at[order]), room)
        return product if total is None else total + product

    for part_rows, part_weights in parts:
        for start in range(0, len(part_rows), limit):
            piece = part_rows[start : start + limit]
            if rows and sum(len(r) for r in rows) + len(piece) > limit:
                total, rows, weights = add(), [], []
            rows.append(piece)
            weights.append(part_weights[:, start : start + limit])
    return add()


def multiply(weights, block, room=None) -> np.ndarray:
    """Dense weights times a sparse or dense block of cells; `room` for cells made dense."""
    if sp.issparse(block):
        block = block.toarray(out=None if room is None else room[: block.shape[0]])
    return weights @ block


class LineSampler:
    """Point estimates and bootstrap samples of the effects in one cell line."""

    def __init__(
        self, cells, line, *, control, batches, seed, n_outer=1, n_inner=1, draw_cells=True
    ):
        self.cells, self.line, self.control = cells, line, control
        self.n_outer, self.n_inner, self.seed = n_outer, n_inner, seed
        self.draw_cells = draw_cells
        self.controls, perturbed = cells.of_line(line)
        self.position = {name: i for i, name in enumerate(perturbed)}
        self.perturbed = {n: self._usable(n, groups, batches) for n, groups in perturbed.items()}

    def _usable(self, name, groups, batches):
        without = [b for b in groups if b not in self.controls]
        if not without:
            return groups
        if batches == "with_controls":
            return {b: rows for b, rows in groups.items() if b in self.controls}
        if self.control == "matched":
            raise InputError(
                f"batch {without[0]!r} of cell line {self.line!r} has cells of {name!r} but no "
                "control cells to match; choose batches='with_controls' or control='global'"
            )
        return groups

    def stream(self, name):
        """Seed sequence of a perturbation, by its place in the sorted list of the line."""
        return perturbation_stream(self.seed, self.position[name])

    @cached_property
    def shared(self):
        """Control means of the line if these are global; if matched, a reader of control cells."""
        if self.control == "global":
            stream = control_stream(self.seed)
            return self._sums(self.controls.values(), stream, CONTROL, self.cells.read)
        kept = np.sort(np.concatenate(list(self.controls.values())))
        parts, size, step = [], 0, block_length(self.cells.n_genes)
        for start in range(0, len(kept), step):
            part = self.cells.read(kept[start : start + step])
            size += part.data.nbytes + (part.indices.nbytes if sp.issparse(part) else 0)
            if size > KEPT_BYTES:
                return self.cells.read
            parts.append(part)
        block = sp.vstack(parts, format="csr") if sp.issparse(parts[0]) else np.vstack(parts)
        return lambda rows: block[np.searchsorted(kept, rows)]

    def effects(self, name, groups=None, stream=None) -> np.ndarray:
        """Point estimate (row 0) and samples of an effect, float64 (1 + outer * inner, genes)."""
        groups = self.perturbed[name] if groups is None else groups
        stream = self.stream(name) if stream is None else stream
        effects = self._sums(groups.values(), stream, PERTURBED, self.cells.read)
        if self.control == "global":
            effects -= self.shared
        else:
            matched = [self.controls[batch] for batch in groups]
            effects -= self._sums(matched, stream, CONTROL, self.shared)
        return effects

    def _sums(self, groups, stream, kind, read):
        drawn = drawn_batches(len(groups), stream, self.n_outer)
        how = (drawn, stream, kind, self.n_inner, self.draw_cells)
        parts = ((rows, batch_weights(batch, len(rows), *how)) for batch, rows in enumerate(groups))
        return weighted_sums(read, self.cells.n_genes, parts)


def check_choices(*, control="global", batches="all", n_outer, n_inner) -> None:
    """Refuse unknown choices and empty trials."""
    check_choice("control", control, CONTROLS)
    check_choice("batches", batches, BATCHES)
    for name, value in (("n_outer", n_outer), ("n_inner", n_inner)):
        if int(value) != value or value < 1:
            raise ParameterError(f"{name}={value!r}: give a whole number of at least 1")


def check_quantiles(quantiles) -> tuple:
    """Return the quantiles as a tuple of floats."""
    quantiles = tuple(float(q) for q in np.atleast_1d(quantiles))
    if not quantiles or not all(0 <= q <= 1 for q in quantiles):
        raise ParameterError(f"quantiles={list(quantiles)}: each must lie between 0 and 1")
    return quantiles
