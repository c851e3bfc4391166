"""What an encoder of cells reads: control cells as numbers, gene by gene."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.digest import digest
from perturbcore.core.errors import InputError, ParameterError

# a gene that hardly varies must not turn rounding into large scores
LEAST_SD = 0.1


@dataclass(frozen=True, eq=False)
class ControlCells:
    """Unperturbed cells of one or more lines, and the average cell of each line.

    Attributes
    ----------
    values : (n_cells, n_genes) float32
        Natural-log expression, log1p of counts scaled to 1e4 a cell; where ``batch_centred``, each
        batch is shifted to the mean of its line.
    line : (n_cells,) int64
        Position of the cell's line in `lines`.
    mean, sd : (n_lines, n_genes) float32
        Average profile of each line, and the standard deviation of each gene in it (at least 0.1).
    lines : tuple of str
    genes : pandas.Index
    identifier : str
        What the gene ids are.
    source : str
        One line: which cells these are.
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
        """Cells of one line, (n, n_genes).

        Raises
        ------
        ParameterError
            There are no cells of that line.
        """
        return self.values[self.line == self.position(line)]

    def take(self, genes) -> "ControlCells":
        """Restrict to these genes, in this order.

        Raises
        ------
        InputError
            One of them is not among the genes of these cells.
        """
        if list(genes) == list(self.genes):
            return self
        at = self.genes.get_indexer(pd.Index(genes))
        if (at < 0).any():
            gene = list(genes)[int((at < 0).argmax())]
            raise InputError(
                f"{int((at < 0).sum())} genes are not measured in the control cells, first {gene!r}: "
                "take an encoder made for them, or read the cells with keep=[...]"
            )
        values, mean, sd = (
            np.ascontiguousarray(a[:, at]) for a in (self.values, self.mean, self.sd)
        )
        return replace(self, values=values, mean=mean, sd=sd, genes=self.genes[at])

    def position(self, line: str) -> int:
        """Position of a line in `lines`."""
        if line not in self.lines:
            raise ParameterError(
                f"there are no control cells of cell line {line!r}, only of {', '.join(self.lines)}: "
                "read them too, with control_cells(screen, cell_lines=...)"
            )
        return self.lines.index(line)


def control_cells(
    screen: AnnData,
    *,
    cell_lines: Sequence[str] | None = None,
    max_cells: int = 2000,
    max_genes: int | None = None,
    keep: Sequence[str] = (),
    batch_centred: bool = True,
    seed: int = 0,
) -> ControlCells:
    """Read the control cells of a screen; no perturbed cell is looked at.

    Parameters
    ----------
    screen : AnnData
        A declared screen, in memory or backed.
    cell_lines : sequence of str, optional
        All of the screen by default.
    max_cells : int
        At most so many cells of a line, drawn at random.
    max_genes : int, optional
        The genes that most control cells express, at most so many; all by default. Attention costs
        time in proportion to them (full attention: to their square).
    keep : sequence of str
        Genes, such as the perturbations' targets, that are kept before all others.
    batch_centred : bool
        Shift each batch of a line to the mean of the line, so that genes that differ between
        batches are not taken for genes that vary together.
    seed : int
        Draw of the cells.

    Returns
    -------
    ControlCells
        Genes in the order of the screen.

    Raises
    ------
    InputError
        A line has fewer than 2 control cells.
    ParameterError
        A number is out of range, or the screen has no such line.
    """
    from perturbcore.embeddings.expression import log_normalised

    if max_cells < 2 or (max_genes is not None and max_genes < 2):
        raise ParameterError(f"max_cells={max_cells} and max_genes={max_genes} must be at least 2")
    lines = screen.obs["cell_line"].astype(str).to_numpy()
    control = screen.obs["is_control"].to_numpy(bool)
    wanted = sorted(set(lines)) if cell_lines is None else list(cell_lines)
    unknown = [name for name in wanted if name not in set(lines)]
    if unknown:
        raise ParameterError(
            f"the screen has no cell line {unknown[0]!r}; it has {', '.join(sorted(set(lines)))}"
        )
    blocks, of_line, n_all = [], [], 0
    for i, name in enumerate(wanted):
        rows = np.flatnonzero(control & (lines == name))
        if len(rows) < 2:
            raise InputError(
                f"cell line {name!r} has {len(rows)} control cells; at least 2 are needed to learn how "
                "genes vary: leave the line out with cell_lines="
            )
        n_all += len(rows)
        if len(rows) > max_cells:
            rows = np.sort(np.random.default_rng(seed).choice(rows, max_cells, replace=False))
        blocks.append((rows, log_normalised(screen, rows)))
        of_line.append(np.full(len(rows), i, dtype=np.int64))
    columns = _columns(screen.var_names, [b for _, b in blocks], max_genes, keep)
    batch = screen.obs["batch"].astype(str).to_numpy()
    values, mean, sd = [], [], []
    for rows, block in blocks:
        X = block[:, columns].toarray().astype(np.float32)
        average = X.mean(axis=0, dtype=np.float64).astype(np.float32)
        if batch_centred:
            _centre(X, batch[rows], average)
        values.append(X)
        mean.append(average)
        sd.append(np.maximum(X.std(axis=0), LEAST_SD))
    names = pd.Index(np.asarray(screen.var_names, dtype=object)[columns])
    about = screen.uns.get("perturbcore", {})
    n = sum(len(v) for v in values)
    return ControlCells(
        np.concatenate(values),
        np.concatenate(of_line),
        np.stack(mean).astype(np.float32),
        np.stack(sd).astype(np.float32),
        tuple(wanted),
        names,
        str(about.get("identifier", "symbol")),
        f"{n} of {n_all} control cells of {', '.join(wanted)}, {len(names)} genes",
    )


def _columns(names, blocks, max_genes: int | None, keep: Sequence[str]) -> np.ndarray:
    if max_genes is None or max_genes >= len(names):
        return np.arange(len(names))
    share = np.mean([b.getnnz(axis=0) / b.shape[0] for b in blocks], axis=0)
    share[pd.Index(names).isin(list(keep))] += 2.0
    return np.sort(np.argsort(-share, kind="stable")[:max_genes])


def _centre(X: np.ndarray, batch: np.ndarray, average: np.ndarray) -> None:
    for name in np.unique(batch):
        rows = batch == name
        X[rows] += average - X[rows].mean(axis=0, dtype=np.float64).astype(np.float32)
