"""Labels of differential expression: complete ones of three classes, and partial ones of two."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from perturbcore.score.metrics.deg import one_hot

GENE_WEIGHT = 5.0


def class_counts(label: np.ndarray) -> np.ndarray:
    """Labels -1, 0 and 1 of each gene, (3, g), one of each added as Cole et al. 2026 do."""
    return np.stack([(label == c).sum(axis=0) for c in (-1, 0, 1)]) + 1


def class_shares(label: np.ndarray) -> np.ndarray:
    """Share of the classes -1, 0 and 1 in each gene, (3, g) float32: the Train Mean of labels."""
    counts = class_counts(label)
    return (counts / counts.sum(axis=0)).astype(np.float32)


def most_frequent(label: np.ndarray) -> np.ndarray:
    """Probability 1 for the most frequent class of each gene (the first on ties), (3, g)."""
    return one_hot(class_counts(label).argmax(axis=0)[None] - 1)[:, 0]


@dataclass(eq=False)
class Labels:
    """Known 0/1 labels of some perturbations, in CSR layout: `indptr`, `genes`, `label`."""

    indptr: np.ndarray
    genes: np.ndarray
    label: np.ndarray
    n_genes: int

    @classmethod
    def from_dense(cls, label: np.ndarray, observed: np.ndarray) -> "Labels":
        """Make from (n, g) 0/1 labels and a (n, g) bool mask of the known ones."""
        rows, genes = np.nonzero(np.asarray(observed, dtype=bool))
        indptr = np.r_[0, np.cumsum(np.bincount(rows, minlength=len(label)))]
        return cls(indptr, genes, label[rows, genes].astype(np.float64), label.shape[1])

    @classmethod
    def every_pair(cls, n_rows: int, n_genes: int) -> "Labels":
        """Ask for every gene of `n_rows` perturbations; the labels are zeros."""
        genes = np.tile(np.arange(n_genes), n_rows)
        return cls(np.arange(n_rows + 1) * n_genes, genes, np.zeros(len(genes)), n_genes)

    def __len__(self) -> int:
        """Count the perturbations."""
        return len(self.indptr) - 1

    def used(self) -> tuple[np.ndarray, "Labels"]:
        """Return the genes that have a known label, and the same labels with only those genes."""
        genes, code = np.unique(self.genes, return_inverse=True)
        return genes, Labels(self.indptr, code, self.label, len(genes))

    @property
    def rows(self) -> np.ndarray:
        """Row number of each entry."""
        return np.repeat(np.arange(len(self)), np.diff(self.indptr))

    def by_gene(self) -> sp.csc_matrix:
        """Return the labels sorted by gene, zeros among them, (n, g)."""
        return sp.csr_matrix(
            (self.label, self.genes, self.indptr), (len(self), self.n_genes)
        ).tocsc()

    def __getitem__(self, rows: np.ndarray) -> "Labels":
        """Return the labels of some rows, in that order."""
        n = np.diff(self.indptr)[rows]
        indptr = np.r_[0, np.cumsum(n)]
        flat = np.repeat(self.indptr[rows] - indptr[:-1], n) + np.arange(indptr[-1])
        return Labels(indptr, self.genes[flat], self.label[flat], self.n_genes)

    def rates(self, gene_weight: float = GENE_WEIGHT) -> np.ndarray:
        """Share of positives per gene, pulled to the overall one by `gene_weight` labels, (g,)."""
        overall = self.label.mean() if len(self.label) else 0.5
        positive = np.bincount(self.genes, weights=self.label, minlength=self.n_genes)
        known = np.bincount(self.genes, minlength=self.n_genes)
        return (positive + gene_weight * overall) / (known + gene_weight)


def best_threshold(label: np.ndarray, score: np.ndarray) -> float:
    """Threshold of largest `perturbcore.score.metrics.pairs.macro_f1` among 99 quantiles."""
    cuts = np.unique(np.quantile(score, np.linspace(0.01, 0.99, 99)))
    order = np.argsort(score)
    below = np.searchsorted(score[order], cuts, side="left")  # entries called negative
    positives_below = np.r_[0.0, np.cumsum(label[order])][below]
    n, positive = len(label), label.sum()
    hit, called = positive - positives_below, n - below
    rejected, negative = below - positives_below, n - positive
    f1 = 2 * hit / np.maximum(positive + called, 1)
    f1 += 2 * rejected / np.maximum(negative + below, 1)
    return float(cuts[np.argmax(f1)])
