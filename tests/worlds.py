"""A small world that several tests share."""

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.data.folds import add_folds
from perturbcore.data.responses import make_responses
from perturbcore.data.screens.declare import declare_screen
from perturbcore.embeddings.base import Embedding


def responses_of(X, names, lines=("A",), n_folds=5, seed=0, genes=None, **about):
    """Responses of the same perturbations in each of the lines, in folds; `about`: task, labels."""
    obs = pd.DataFrame({"perturbation": [*names] * len(lines)})
    obs["cell_line"] = np.repeat(lines, len(names))
    genes = [f"g{j}" for j in range(X.shape[1])] if genes is None else genes
    return add_folds(make_responses(X, obs, genes, **{"dataset": "toy"} | about), n_folds, seed)


def cells_of(X, perturbation, control="ctrl", scale="counts", genes=None, unmatched="keep", **obs):
    """A declared screen of these cells, c0, c1, ...; `obs`: their batch and cell_line."""
    obs = pd.DataFrame({"batch": "b1", "cell_line": "A"} | obs | {"perturbation": perturbation})
    obs.index = [f"c{i}" for i in range(len(obs))]
    genes = [f"g{j}" for j in range(X.shape[1])] if genes is None else genes
    cells = AnnData(sp.csr_matrix(X, dtype=np.float32), obs=obs, var=pd.DataFrame(index=genes))
    how = dict(control=control, scale=scale, unmatched=unmatched, simulated=True)
    return declare_screen(cells, dataset="toy", **how)


def logged(counts):
    """Log-normalised values of counts, written out."""
    X = (counts.toarray() if sp.issparse(counts) else np.asarray(counts)).astype(np.float64)
    return np.log1p(1e4 * X / X.sum(axis=1, keepdims=True))


def communities(n=240, k=6, inside=0.2, outside=0.005, seed=0):
    """Random network with planted communities; returns edges and the community of each node."""
    rng = np.random.default_rng(seed)
    community = np.arange(n) % k
    p = np.where(community[:, None] == community, inside, outside)
    i, j = np.nonzero(np.triu(rng.random((n, n)) < p, 1))
    names = np.array([f"N{v:04d}" for v in range(n)])
    edges = {"source": names[i], "target": names[j], "weight": rng.uniform(0.5, 1, len(i))}
    return pd.DataFrame(edges), pd.Series(community, names)


def world(n=60, g=30, d=12, lines=("A", "B"), seed=0, gaps=7, deg=None):
    """Responses that follow a latent vector, its embedding with gaps, and a useless one.

    `deg`: makes labels of log fold-changes, which are then the responses.
    """
    rng = np.random.default_rng(seed)
    names = pd.Index([f"P{i:03d}" for i in range(n)])
    latent, X = rng.normal(size=(n, 4)), []
    for _ in lines:
        W = rng.normal(size=(4, g))
        X.append(np.tanh(latent) @ W + 0.4 * rng.normal(size=(n, g)) + 0.5)
    X, task = np.vstack(X), "deg" if deg else "lfc"
    responses = responses_of(deg(X) if deg else X, names, lines, task=task)
    rows = rng.permutation(n)[: n - gaps]
    good = latent[rows] @ rng.normal(size=(4, d)) + 0.1 * rng.normal(size=(len(rows), d))
    noise = rng.random((n, d), dtype=np.float32)
    good = Embedding("good", "Prior knowledge", names[rows], good.astype(np.float32))
    return responses, [good, Embedding("noise", "Negative control", names, noise)]
