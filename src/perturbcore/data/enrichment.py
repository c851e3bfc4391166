"""Over-representation of gene sets in many lists of genes at once, by the hypergeometric test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, lgamma

import numba
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from scipy.stats import false_discovery_control

from perturbcore.core.errors import InputError
from perturbcore.data.responses import TAKEN, make_responses


@dataclass(frozen=True)
class Enrichment:
    """Lists (n) by gene sets (T): sparse matrices that share their entries, one per overlap."""

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


@numba.vectorize(cache=True)
def _at_least(shared, size, drawn, total):
    """P(X >= shared); the smaller tail is summed from its largest term outwards."""
    upper = shared * (total + 2) > (drawn + 1) * (size + 1)
    rest, j = total - size - drawn, shared if upper else shared - 1
    if j < max(0, -rest):
        return 1.0
    term = tail = exp(
        lgamma(size + 1) - lgamma(j + 1) - lgamma(size - j + 1)
        + lgamma(total - size + 1) - lgamma(drawn - j + 1) - lgamma(rest + j + 1)
        - lgamma(total + 1) + lgamma(drawn + 1) + lgamma(total - drawn + 1)
    )  # fmt: skip
    while term > 1e-17 * tail:
        if upper:
            term *= (size - j) * (drawn - j) / ((j + 1.0) * (rest + j + 1.0))
        else:
            term *= j * (rest + j) / ((size - j + 1.0) * (drawn - j + 1.0))
        j += 1 if upper else -1
        tail += term
    return min(tail, 1.0) if upper else max(1.0 - tail, 0.0)


def over_represented(
    hits: np.ndarray, genes: Sequence[str], sets: Mapping[str, Sequence[str]]
) -> Enrichment:
    """Test every list of genes (n, g) for every gene set, as GSEApy's ``enrich`` does for one."""
    hits = np.asarray(hits, dtype=bool)
    if hits.ndim != 2 or hits.shape[1] != len(genes):
        raise InputError(f"hits have shape {hits.shape}; the background has {len(genes)} genes")
    at, found = pd.Index(genes), {}
    for name, members in sets.items():
        rows = at.get_indexer(pd.unique(np.asarray(list(members), dtype=object)))
        if (rows >= 0).any():
            found[name] = rows[rows >= 0]
    if not found:
        raise InputError(
            f"none of the {len(sets)} gene sets has a gene of the background, such as "
            f"'{genes[0]}': their ids differ; convert the sets"
        )
    columns = np.repeat(np.arange(len(found)), [len(rows) for rows in found.values()])
    where = (np.concatenate([*found.values()]), columns)
    shape = (len(genes), len(found))
    member = sp.csr_matrix((np.ones(len(columns), np.int64), where), shape=shape)
    overlap = (sp.csr_matrix(hits.astype(np.int64)) @ member).tocsr()
    overlap.sort_indices()
    size = np.asarray(member.sum(axis=0)).ravel()
    rows, columns = overlap.nonzero()
    p = _at_least(overlap.data, size[columns], hits.sum(axis=1)[rows], len(genes))
    p_adj = p.copy()
    for start, stop in pairwise(overlap.indptr):
        if stop > start:
            p_adj[start:stop] = false_discovery_control(p[start:stop])
    tested = [
        sp.csr_matrix((v, overlap.indices, overlap.indptr), overlap.shape) for v in (p, p_adj)
    ]
    return Enrichment(pd.Index(list(found)), size, overlap, *tested)


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

    `keep_target`: whether the perturbed gene may be in its list; `least_shared`: genes that a list
    must share with a set; `least_perturbations`: sets of fewer are dropped (Hasanaj et al. 2025).
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
    about = {k: responses.uns["perturbcore"][k] for k in TAKEN} | {"task": "functions"}
    out = make_responses(label[:, kept], responses.obs[columns], found.terms[kept], **about)
    out.layers["shared"] = shared[:, kept].astype(np.int32)
    out.obs["n_deg"], out.obs["own"] = hits.sum(axis=1), own.any(axis=1)
    return out
