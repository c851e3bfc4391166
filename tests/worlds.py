"""A small world that several tests share."""

import numpy as np
import pandas as pd

from perturbcore.data.folds import add_folds
from perturbcore.data.responses import make_responses
from perturbcore.embeddings.base import Embedding


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
    obs = pd.DataFrame({"perturbation": [*names] * len(lines), "cell_line": np.repeat(lines, n)})
    genes = [f"g{i}" for i in range(g)]
    responses = make_responses(deg(X) if deg else X, obs, genes, dataset="toy", task=task)
    rows = rng.permutation(n)[: n - gaps]
    good = latent[rows] @ rng.normal(size=(4, d)) + 0.1 * rng.normal(size=(len(rows), d))
    noise = rng.random((n, d), dtype=np.float32)
    good = Embedding("good", "Prior knowledge", names[rows], good.astype(np.float32))
    return add_folds(responses), [good, Embedding("noise", "Negative control", names, noise)]
