"""Labels recomputed from resampled cells, by matrix products."""

import numpy as np
import scipy.sparse as sp

from perturbcore.core.errors import InputError
from perturbcore.data.deg.plan import plan_tests
from perturbcore.data.deg.tests import call_genes, majority, mean_and_variance, t_statistics
from perturbcore.data.effects.moments import gene_columns
from perturbcore.score.ceiling.cells import Cells
from perturbcore.score.ceiling.draws import (
    CONTROL,
    PERTURBED,
    child,
    control_stream,
    drawn_batches,
    drawn_cells,
    perturbation_stream,
)
from perturbcore.score.ceiling.sampler import BLOCK_BYTES, multiply


class _Columns:
    """Some columns of a matrix that is read by rows: filter first, normalise after."""

    def __init__(self, X, columns):
        self.X, self.columns = X, columns
        self.shape = (X.shape[0], len(columns))

    def __getitem__(self, rows):
        return self.X[rows][:, self.columns]


class Source:
    """Cells of each group that is tested, and how they are tested."""

    def __init__(self, screen, genes, how, count_by):
        self.how = how
        plan = plan_tests(screen.obs, how["variant"], how["min_cells"], how["strict"], count_by)
        column, kept = gene_columns(screen, genes)
        self.cells = Cells.from_screen(screen)
        self.columns, self.n_genes = None, len(kept)
        if not np.array_equal(column, np.arange(screen.n_vars)):
            position = screen.var_names.get_indexer(kept)
            if how["size_factors"] == "kept":
                self.cells.X = _Columns(self.cells.X, position)
            else:
                self.columns = position
        used = plan.groups[plan.groups["used"]]
        order = np.argsort(plan.group_of_cell, kind="stable")
        start = np.searchsorted(plan.group_of_cell[order], np.arange(len(plan.groups) + 1))
        self.lines: dict = {}
        for group, place, line, name in zip(
            used.index, used["place"], used["cell_line"], used["perturbation"], strict=True
        ):
            control = used.at[group, "control"]
            names = self.lines.setdefault(line, {}).setdefault(None if control else name, {})
            names[place] = order[start[group] : start[group + 1]]

    def check(self, obs) -> None:
        """Refuse a perturbation that has no label, before long work."""
        for line, name in zip(
            obs["cell_line"].astype(str), obs["perturbation"].astype(str), strict=True
        ):
            if name not in self.lines.get(line, {}):
                raise InputError(
                    f"perturbation {name!r} of cell line {line!r} cannot be tested in this screen "
                    f"with min_cells={self.how['min_cells']}: compute the ceiling on the screen, "
                    "and with the options, that the labels come from"
                )

    def moments(self, rows, weights):
        """Weighted sums and sums of squares of some cells, (samples, genes) each."""
        step = max(16, BLOCK_BYTES // (8 * self.cells.n_genes))
        first, second = (np.zeros((len(weights), self.n_genes)) for _ in range(2))
        for start in range(0, len(rows), step):
            block = self.cells.read(rows[start : start + step])
            block = block if self.columns is None else block[:, self.columns]
            weight = np.ascontiguousarray(weights[:, start : start + step])
            first += multiply(weight, block)
            second += multiply(weight, block.power(2) if sp.issparse(block) else block**2)
        return first, second

    def sample(self, rows, weights):
        """Mean and variance of resampled cells, (samples, genes) each."""
        first, second = self.moments(rows, weights)
        return mean_and_variance(first, second, np.full(len(weights), len(rows)))


class LabelSampler:
    """Resampled labels of the perturbations of one cell line."""

    def __init__(self, source: Source, line: str, trials, seed):
        self.source, self.line, self.seed = source, line, seed
        self.n_outer, self.n_inner = trials
        groups = dict(source.lines[line])
        self.controls = groups.pop(None)
        self.places = {place: i for i, place in enumerate(sorted(self.controls))}
        self.perturbed = dict(sorted(groups.items()))
        self.position = {name: i for i, name in enumerate(self.perturbed)}
        drawn = [d for name in self.perturbed for d in self._drawn(name)]
        self._control: dict = {}
        for place, trial, copy in sorted({(p, t, c) for t, _, p, c in drawn}):
            rows = self.controls[place]
            stream = child(control_stream(seed), self.places[place])
            weights = _counts(len(rows), stream, trial, copy, CONTROL, self.n_inner)
            self._control[place, trial, copy] = source.sample(rows, weights)

    def _drawn(self, name):
        """List (outer trial, position, place.

        How often the place was drawn before in the trial).
        """
        places = sorted(self.perturbed[name])
        stream = perturbation_stream(self.seed, self.position[name])
        drawn = drawn_batches(len(places), stream, self.n_outer)
        found = []
        for trial, row in enumerate(drawn):
            for position, batch in enumerate(row):
                found.append((trial, position, places[batch], int((row[:position] == batch).sum())))
        return found

    def labels(self, name) -> np.ndarray:
        """Labels of a perturbation in every trial, int8 (n_outer * n_inner, genes)."""
        how, inner = self.source.how, self.n_inner
        stream = perturbation_stream(self.seed, self.position[name])
        shape = (self.n_outer * inner, self.source.n_genes)
        up, down, votes = (np.zeros(shape, dtype=np.int16) for _ in range(3))
        by_place: dict = {}
        for drawn in self._drawn(name):
            by_place.setdefault(drawn[2], []).append(drawn)
        for place, draws in by_place.items():
            rows = self.perturbed[name][place]
            weights = [_counts(len(rows), stream, t, p, PERTURBED, inner) for t, p, _, _ in draws]
            mean, var = self.source.sample(rows, np.concatenate(weights))
            for i, (trial, _, _, copy) in enumerate(draws):
                control_mean, control_var = self._control[place, trial, copy]
                here = slice(i * inner, (i + 1) * inner)
                there = slice(trial * inner, (trial + 1) * inner)
                n, m = np.full(inner, len(rows)), len(self.controls[place])
                t, df = t_statistics(
                    mean[here], var[here], n, control_mean, control_var, m, how["test"]
                )
                label = call_genes(t, df, how["alpha"])
                up[there] += label > 0
                down[there] += label < 0
                votes[there] += 1
        return majority(up, down, votes - up - down)


def _counts(n_cells, stream, trial, position, kind, n_inner):
    """How often each cell is drawn in each inner trial, float64 (n_inner, n_cells)."""
    drawn = drawn_cells(n_cells, stream, trial, position, kind, n_inner)
    offset = np.arange(n_inner)[:, None] * n_cells
    counts = np.bincount((drawn + offset).ravel(), minlength=n_inner * n_cells)
    return counts.reshape(n_inner, n_cells).astype(np.float64)
