"""What an encoder of cells reads: control cells as numbers, gene by gene."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.digest import digest
from perturbcore.core.errors import InputError, ParameterError, check_choice
from perturbcore.data.screens.declare import normalise

# a gene that hardly varies must not turn rounding into large scores
LEAST_SD = 0.1


@dataclass(frozen=True, eq=False)
class ControlCells:
    """Unperturbed cells of one or more lines, and the average cell of each line.

    `values`: log1p of counts scaled to 1e4, batches aligned; `line`: position in `lines`.
    """

    values: np.ndarray
    line: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    lines: tuple[str, ...]
    genes: pd.Index
    identifier: str = "symbol"
    source: str = ""

    @cached_property
    def digest(self) -> str:
        """Content of the cells."""
        return digest(self.values, self.line, self.genes, list(self.lines), self.identifier)

    def of(self, line: str) -> np.ndarray:
        """Cells of one line, (n, n_genes)."""
        return self.values[self.line == self.position(line)]

    def take(self, genes: Sequence[str]) -> "ControlCells":
        """Restrict to these genes, in this order; one that is not measured is refused by name."""
        if list(genes) == list(self.genes):
            return self
        at = self.genes.get_indexer(pd.Index(genes))
        missing = [gene for gene, i in zip(genes, at, strict=True) if i < 0]
        if missing:
            raise InputError(
                f"{len(missing)} genes are not measured in the control cells, first "
                f"{missing[0]!r}: take an encoder made for them"
            )
        taken = {k: np.ascontiguousarray(getattr(self, k)[:, at]) for k in ("values", "mean", "sd")}
        return replace(self, genes=self.genes[at], **taken)

    def position(self, line: str) -> int:
        """Position of a line in `lines`."""
        return self.lines.index(check_choice("cell line", line, self.lines))


def control_cells(screen: AnnData, *, max_cells: int = 2000, seed: int = 0) -> ControlCells:
    """Read the control cells of a screen, in memory or backed; no perturbed cell is looked at.

    Each batch is shifted to the mean of its line; at most `max_cells` of a line are drawn.
    """
    if max_cells < 2:
        raise ParameterError(f"max_cells={max_cells} must be at least 2")
    drawn = list(drawn_controls(screen, None, max_cells, seed))
    wanted = tuple(name for name, _, _ in drawn)
    batch = screen.obs["batch"].astype(str).to_numpy()
    values, mean, sd = [], [], []
    for _, rows, _ in drawn:
        X = normalise(screen[rows]).X.toarray()
        average = X.mean(axis=0, dtype=np.float64).astype(np.float32)
        for name in np.unique(batch[rows]):
            own = batch[rows] == name
            X[own] += average - X[own].mean(axis=0, dtype=np.float64).astype(np.float32)
        values.append(X)
        mean.append(average)
        sd.append(np.maximum(X.std(axis=0), LEAST_SD))
    names = pd.Index(np.asarray(screen.var_names, dtype=object))
    sizes, n_all = [len(v) for v in values], sum(n for _, _, n in drawn)
    line = np.repeat(np.arange(len(wanted)), sizes)
    average, spread = (np.stack(part).astype(np.float32) for part in (mean, sd))
    identifier = str(screen.uns.get("perturbcore", {}).get("identifier", "symbol"))
    source = f"{sum(sizes)} of {n_all} control cells of {', '.join(wanted)}, {len(names)} genes"
    values = np.concatenate(values)
    return ControlCells(values, line, average, spread, wanted, names, identifier, source)


def drawn_controls(
    screen: AnnData, cell_lines: Sequence[str] | None, max_cells: int, seed: int
) -> Iterator[tuple[str, np.ndarray, int]]:
    """For each line: its name, the rows of at most `max_cells` control cells, how many it has."""
    lines = screen.obs["cell_line"].astype(str).to_numpy()
    there = sorted(set(lines))
    for line in there if cell_lines is None else cell_lines:
        check_choice("cell line", line, there)
        rows = np.flatnonzero(screen.obs["is_control"].to_numpy(bool) & (lines == line))
        n_all = len(rows)
        if n_all < 2:
            raise InputError(
                f"cell line {line!r} has {n_all} control cells; at least 2 are needed to learn how "
                "genes vary: leave the line out"
            )
        if n_all > max_cells:
            rows = np.sort(np.random.default_rng(seed).choice(rows, max_cells, replace=False))
        yield line, rows, n_all
