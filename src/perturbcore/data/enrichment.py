"""Over-representation of gene sets in many lists of genes at once, by the hypergeometric test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numba
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.core.errors import InputError
from perturbcore.data.responses import make_responses


@dataclass(frozen=True)
class Enrichment:
    """Lists (n) by gene sets (T): sparse matrices that share their entries, one per overlap.

    `terms`: names of the sets; `size`: genes of each set in the background (T,); `overlap`, `p`,
    `p_adj`: genes shared, hypergeometric p-value, and that adjusted within the list. Sets without a
    shared gene are not tested and have no entry: their p-value is 1.
    """

    terms: pd.Index
    size: np.ndarray
    overlap: sp.csr_matrix
    p: sp.csr_matrix
    p_adj: sp.csr_matrix

    def labels(self, alpha: float = 0.05) -> np.ndarray:
        """Which sets are significant in which list, (n, T) bool."""
        out = np.zeros(self.p.shape, dtype=bool)
        rows = np.repeat(np.arange(out.shape[0]), np.diff(self.p.indptr))
        out[rows, self.p.indices] = self.p_adj.data <= alpha
        return out


@numba.njit(nogil=True, cache=True)
def _tails(indptr, indices, overlap, drawn, size, total, log_factorial, p):
    """P(X >= overlap) of every entry; X shared genes among `drawn` of `total`, `size` in the set.

    The largest term of a tail comes from a table of log factorials, its neighbours by their ratios,
    outwards until they no longer count; the smaller tail is summed.
    """
    for i in range(len(indptr) - 1):
        n = drawn[i]
        for e in range(indptr[i], indptr[i + 1]):
            K, x = size[indices[e]], overlap[e]
            low, high = max(0, n + K - total), min(n, K)
            upper = x * (total + 2) > (n + 1) * (K + 1)  # beyond the mode
            start = x if upper else x - 1
            if start < low:
                p[e] = 1.0
                continue
            rest = total - K - n
            first = np.exp(
                log_factorial[K] - log_factorial[start] - log_factorial[K - start]
                + log_factorial[total - K] - log_factorial[n - start] - log_factorial[rest + start]
                - log_factorial[total] + log_factorial[n] + log_factorial[total - n]
            )  # fmt: skip
            term, tail, j = first, first, start
            while term > 1e-17 * tail and (j < high if upper else j > low):
                if upper:
                    term *= (K - j) * (n - j) / ((j + 1.0) * (rest + j + 1.0))
                    j += 1
                else:
                    term *= j * (rest + j * 1.0) / ((K - j + 1.0) * (n - j + 1.0))
                    j -= 1
                tail += term
            p[e] = min(tail, 1.0) if upper else max(1.0 - tail, 0.0)


@numba.njit(nogil=True, cache=True)
def _adjust(indptr, p, out):
    """Benjamini and Hochberg (1995) within each row."""
    for i in range(len(indptr) - 1):
        a, m = indptr[i], indptr[i + 1] - indptr[i]
        order, least = np.argsort(p[a : a + m]), 1.0
        for k in range(m - 1, -1, -1):
            least = min(least, p[a + order[k]] * m / (k + 1))
            out[a + order[k]] = least


def over_represented(
    hits: np.ndarray, genes: Sequence[str], sets: Mapping[str, Sequence[str]]
) -> Enrichment:
    """Test every list of genes for every gene set, as GSEApy's ``enrich`` does for one list.

    ``P(X >= x)`` of the hypergeometric distribution; lists and sets are cut to the background;
    only sets that share a gene with a list are tested in it, and the Benjamini-Hochberg adjustment
    is over those.

    `hits` (n, g): which genes each list has; `genes` (g): the background, names as in the sets;
    `sets`: name -> genes. Sets without a gene of the background are left out. Refused
    (`InputError`) if that leaves none.

    Fang et al. 2023 (GSEApy).
    """
    hits = np.asarray(hits, dtype=bool)
    if hits.ndim != 2 or hits.shape[1] != len(genes):
        raise InputError(f"hits have shape {hits.shape}; the background has {len(genes)} genes")
    at, names, rows, columns = pd.Index(genes), [], [], []
    for name, members in sets.items():
        found = at.get_indexer(pd.unique(np.asarray(list(members), dtype=object)))
        found = found[found >= 0]
        if len(found):
            rows.append(found)
            columns.append(np.full(len(found), len(names)))
            names.append(name)
    if not names:
        raise InputError(
            f"none of the {len(sets)} gene sets has a gene of the background, such as "
            f"'{genes[0]}': their ids differ; convert the sets"
        )
    member = sp.csr_matrix(
        (np.ones(sum(map(len, rows)), np.int64), (np.concatenate(rows), np.concatenate(columns))),
        shape=(len(genes), len(names)),
    )
    overlap = (sp.csr_matrix(hits.astype(np.int64)) @ member).tocsr()
    overlap.sort_indices()
    size = np.asarray(member.sum(axis=0)).ravel()
    log_factorial = np.zeros(len(genes) + 1)
    steps = np.log(np.arange(1, len(genes) + 1, dtype=np.longdouble))
    log_factorial[1:] = np.cumsum(steps)  # in long double, so that differences keep 12 digits
    p, p_adj = (np.empty(overlap.nnz) for _ in range(2))
    _tails(overlap.indptr, overlap.indices, overlap.data, hits.sum(axis=1), size, len(genes),
           log_factorial, p)  # fmt: skip
    _adjust(overlap.indptr, p, p_adj)
    tested = [
        sp.csr_matrix((v, overlap.indices, overlap.indptr), overlap.shape) for v in (p, p_adj)
    ]
    return Enrichment(pd.Index(names), size, overlap, *tested)


def function_labels(
    responses: AnnData,
    sets: Mapping[str, Sequence[str]],
    *,
    keep_target: bool = True,
    least_shared: int = 1,
    least_perturbations: int = 20,
    alpha: float = 0.05,
) -> AnnData:
    """Label each perturbation with the gene sets that its differentially expressed genes enrich.

    `responses`: complete labels (task "deg"); up and down together; `sets`: see `over_represented`,
    the background are the measured genes; `keep_target`: whether the perturbed gene itself may be
    in its list, as published; `least_shared`: genes that a list must share with a set (published:
    1); `least_perturbations`: sets of fewer perturbations are dropped; `alpha`: false discovery
    rate.

    Returns task "functions", with the folds of `responses`: X (n, T) 0 or 1; layers ``shared``
    (genes shared); obs `n_deg`, `own` (whether the perturbed gene is in its list).

    Hasanaj et al. 2025, Appendix B; over-representation in place of GSEA, since a list that is
    already cut has no ranks.
    """
    if "observed" in responses.layers or "deg" not in responses.layers:
        raise InputError(
            "functions need complete labels (task 'deg'): where most labels are unknown, a list of "
            "the known ones is no list of what responds"
        )
    hits = np.asarray(responses.layers["deg"]) != 0
    genes, names = responses.var_names, responses.obs["perturbation"].astype(str).to_numpy()
    own = (names[:, None] == genes.to_numpy()[None, :]) & hits
    found = over_represented(hits if keep_target else hits & ~own, genes, sets)
    shared = found.overlap.toarray()
    label = found.labels(alpha) & (shared >= least_shared)
    kept = label.sum(axis=0) >= least_perturbations
    if not kept.any():
        raise InputError(
            f"least_perturbations={least_perturbations}: no gene set is enriched in so many; the "
            f"most frequent one in {label.sum(axis=0).max()}"
        )
    columns = [c for c in ("perturbation", "cell_line", "fold") if c in responses.obs]
    about = responses.uns["perturbcore"]
    out = make_responses(
        label[:, kept], responses.obs[columns], found.terms[kept], dataset=about["dataset"],
        task="functions", identifier=about["identifier"], simulated=about["simulated"],
    )  # fmt: skip
    out.layers["shared"] = shared[:, kept].astype(np.int32)
    out.obs["n_deg"], out.obs["own"] = hits.sum(axis=1), own.any(axis=1)
    return out
