"""One cell line and fold, laid out for a fusion of several embeddings."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn.model_selection import KFold

from perturbcore.core.digest import digest
from perturbcore.core.errors import InputError
from perturbcore.models.simple.labels import Labels, pair_labels
from perturbcore.models.simple.space import principal_axes, standardise
from perturbcore.score.run import PAIR_TARGETS

# a source that fewer training perturbations have teaches nothing that cross-validation could show
MIN_ROWS = 10


@dataclass(eq=False)
class Source:
    """Reduced coordinates of one embedding; rows without a vector are zero.

    Attributes
    ----------
    name : str
    train, test : (n, q), (m, q) float64 arrays
        Standardised, then principal components; both learned from the training rows that have the
        embedding.
    has_train, has_test : (n,), (m,) bool arrays
        Which rows have the embedding.
    gene : (g, q) float64 array
        The same map applied to the embedding's vectors of the readout genes; zero where it has none.
    key : str
        Digest of what the coordinates depend on.
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    has_train: np.ndarray
    has_test: np.ndarray
    gene: np.ndarray | None = None
    key: str = ""


@dataclass(eq=False)
class LineFold:
    """Training and test perturbations of one cell line with what is known of them.

    Attributes
    ----------
    task : str
        "lfc", "deg", "deg_pairs" or "dir_pairs".
    line : str
    ids, test_ids : pandas.Index
        Perturbations; the training ones sorted, so that nothing depends on the order of a file.
    columns : (g,) int array
        Genes of the responses that are predicted: of pairs those with a known training label.
    Y : (n, g) array or None
        Training responses (float64), or labels -1, 0, 1 (int8).
    known : Labels or None
        Known 0/1 labels of the training pairs.
    sources : list of Source
        Sorted by name.
    splits : list of (array, array)
        Inner training and validation rows.
    """

    task: str
    line: str
    ids: pd.Index
    test_ids: pd.Index
    columns: np.ndarray
    Y: np.ndarray | None
    known: Labels | None
    sources: list[Source]
    splits: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    @property
    def pairs(self) -> bool:
        """Whether labels are partial."""
        return self.task in PAIR_TARGETS

    @property
    def coverage(self) -> float:
        """Share of the perturbations that have at least one source."""
        known = [np.concatenate([s.has_train, s.has_test]) for s in self.sources]
        return float(np.any(known, axis=0).mean())

    @cached_property
    def inner(self) -> list[tuple[Labels, Labels]]:
        """Known labels of the training and of the validation rows of each inner fold (pairs only)."""
        return [(self.known.take(a), self.known.take(b)) for a, b in self.splits]

    def widened(self, values: np.ndarray, n_genes: int) -> np.ndarray:
        """Give genes without any known training label the overall rate (pairs only)."""
        if len(self.columns) == n_genes:
            return values
        out = np.full((len(values), n_genes), self.known.label.mean(), dtype=values.dtype)
        out[:, self.columns] = values
        return out


# several competitors ask for the same fold
_REDUCED: dict[str, Source] = {}
KEPT = 300


def lay_out_fold(
    train: AnnData,
    test: AnnData,
    embeddings,
    *,
    n_components=100,
    inner_folds=5,
    inner_seed=42,
    genes=False,
) -> LineFold:
    """Lay one cell line's fold out; the responses of `test` are not read.

    Parameters
    ----------
    train, test : AnnData
        Responses of one cell line.
    embeddings : sequence of Embedding
        Those of other cell lines, and those that fewer than 10 training perturbations have, are
        left out.
    n_components, inner_folds, inner_seed : int
        As `perturbcore.models.simple.space.Protocol`. Reduction sees no label and is fitted once a fold, on
        all training perturbations.
    genes : bool
        Whether coordinates of the readout genes are wanted.

    Raises
    ------
    InputError
        More than one cell line, too few training perturbations, or no embedding is left.
    """
    task = train.uns["perturbcore"]["task"]
    lines = sorted({*train.obs["cell_line"].astype(str), *test.obs["cell_line"].astype(str)})
    if len(lines) != 1:
        raise InputError(
            f"one cell line at a time is fused here, not {', '.join(lines)}: set joint=False"
        )
    names = pd.Index(train.obs["perturbation"].astype(str))
    order = np.argsort(names)
    ids, test_ids = names[order], pd.Index(test.obs["perturbation"].astype(str))
    if len(ids) < max(inner_folds, MIN_ROWS):
        raise InputError(
            f"{len(ids)} training perturbations in cell line '{lines[0]}' are too few to tune on"
        )
    columns, Y, known = _targets(train[order], task)
    readout = train.var_names[columns] if genes else None
    sources = []
    for e in sorted(embeddings, key=lambda e: e.name):
        if e.cell_line in (None, lines[0]) and e.ids.isin(ids).sum() >= MIN_ROWS:
            sources.append(_reduce(e, ids, test_ids, n_components, readout))
    if not sources:
        raise InputError(
            f"no embedding has vectors for {MIN_ROWS} training perturbations of cell line '{lines[0]}': "
            f"the perturbations look like '{ids[0]}'; convert the embeddings' ids"
        )
    splits = list(
        KFold(inner_folds, shuffle=True, random_state=inner_seed).split(np.arange(len(ids)))
    )
    return LineFold(task, lines[0], ids, test_ids, columns, Y, known, sources, splits)


def _targets(rows: AnnData, task: str):
    everything = np.arange(rows.n_vars)
    if task == "lfc":
        return everything, np.asarray(rows.X, dtype=np.float64), None
    if task == "deg":
        return everything, np.ascontiguousarray(rows.layers["deg"], dtype=np.int8), None
    label, observed = pair_labels(rows)
    columns = np.flatnonzero(observed.any(axis=0))
    if not len(columns):
        raise InputError("no training label is known: layers['observed'] is empty")
    return columns, None, Labels.from_dense(label[:, columns], observed[:, columns])


def _reduce(embedding, ids, test_ids, n_components, genes) -> Source:
    wanted = [] if genes is None else list(genes)
    key = digest(embedding.name, embedding.digest, ids, test_ids, n_components)
    full_key = digest(key, wanted)
    if full_key in _REDUCED:
        return _REDUCED[full_key]
    at = [embedding.ids.get_indexer(i) for i in (ids, test_ids, wanted)]
    known = [embedding.X[a[a >= 0]].astype(np.float64) for a in at]
    scaled = standardise(*known)
    axes = principal_axes(scaled[0], n_components)
    parts = []
    for a, rows in zip(at, scaled, strict=True):
        full = np.zeros((len(a), axes.shape[1]))
        full[a >= 0] = rows @ axes
        parts.append(full)
    train, test, gene = parts
    source = Source(
        embedding.name, train, test, at[0] >= 0, at[1] >= 0, gene if wanted else None, key
    )
    while len(_REDUCED) >= KEPT:
        _REDUCED.pop(next(iter(_REDUCED)))
    _REDUCED[full_key] = source
    return source
