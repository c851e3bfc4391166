"""Six tasks on embeddings of cells, after Bendidi et al. 2024, as published and corrected.

Each function returns one value per unit (perturbation, gene of the relations, measured gene); their
mean is the score, and can be bootstrapped over them. With ``published=True`` it follows the code of
the authors instead and returns a single value. Nothing here is fitted on cells that it scores.
"""

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.neighbors import NearestNeighbors
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

from perturbcore.core.errors import check_choice
from perturbcore.embeddings.linalg import unit
from perturbcore.score.metrics.registry import register
from perturbcore.score.metrics.regression import spearman

NEIGHBOURS, PERPLEXITY = 248, 83  # of iLISI: a cell is no neighbour of itself
NEAREST, COMPONENTS, BATCH, SCORED = 251, 32, 2048, 512  # of the published kNN, probe and decoder
UNEXPRESSED, LEVEL, TAIL = 0.15, 0.05, 0.05
LEAST_NULL, LEAST_PAIRS = 20, 10  # fewer unexpressed perturbations, or known pairs, say nothing
ALL = "all"
RELATIONS = ("CORUM", "HuMAP", "Reactome", "SIGNOR", "StringDB", "network", "alike")


def one_value(value: float) -> pd.Series:
    """Wrap the single value of a published score; nothing where it is not defined."""
    return pd.Series({ALL: value} if np.isfinite(value) else {}, dtype=float)


def _reduced(X: np.ndarray, fitted_on: np.ndarray | None = None) -> np.ndarray:
    """Keep the principal components that hold 90 % of the variance, and at least 32."""
    if X.shape[1] <= COMPONENTS:
        return X
    pca = PCA(svd_solver="full").fit(X if fitted_on is None else fitted_on)
    if fitted_on is not None:  # of the published kNN: always 32
        return pca.transform(X)[:, :COMPONENTS]
    enough = int(np.searchsorted(pca.explained_variance_ratio_.cumsum(), 0.9)) + 1
    return pca.transform(X)[:, : max(COMPONENTS, enough)]


def lisi(X: np.ndarray, batch: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Count the batches around each cell: (n, d), labels (n,) -> values (n,) for each labelling.

    Inverse Simpson index of the 248 nearest cells under Gaussian-like weights of perplexity 83, or
    a third of fewer cells. Korsunsky et al. 2019, in the variant of Bendidi et al. 2024.
    """
    X = _reduced(np.asarray(X, dtype=np.float64))
    k = min(NEIGHBOURS, len(X) - 1)
    distance, near = NearestNeighbors(n_neighbors=k).fit(X).kneighbors()
    distance -= distance[:, :1]  # the entropy stays the same, and exp cannot underflow everywhere
    target = np.log(PERPLEXITY if k == NEIGHBOURS else k / 3)
    beta, low, high = np.ones(len(X)), np.zeros(len(X)), np.full(len(X), np.inf)
    for _ in range(50):
        weight = np.exp(-distance * beta[:, None])
        total = weight.sum(axis=1)
        mean = np.einsum("ij,ij->i", weight, distance) / total
        miss = np.log(total) + beta * mean - target
        if (np.abs(miss) < 1e-5).all():
            break
        low, high = np.where(miss > 0, beta, low), np.where(miss > 0, high, beta)
        # Newton's step, halving or doubling where it leads out of the bounds
        spread = np.einsum("ij,ij,ij->i", weight, distance, distance) / total - mean**2
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            step = beta + miss / (beta * spread)
        halved = np.where(np.isinf(high), 2 * beta, (low + high) / 2)
        beta = np.where((step > low) & (step < high), step, halved)
    weight /= total[:, None]
    found = []
    for labels in (batch, *others):
        names, code = np.unique(labels, return_inverse=True)
        cell = np.arange(len(X))[:, None] * len(names) + code[near]
        shares = np.bincount(cell.ravel(), weight.ravel(), len(X) * len(names))
        found.append(1 / np.square(shares.reshape(len(X), -1)).sum(axis=1))
    return found


def batch_mixing(
    X: np.ndarray, batch: np.ndarray, perturbation: np.ndarray, *, published: bool = False,
    seed: int = 0,
) -> pd.Series:  # fmt: skip
    """Normalised iLISI, a share of that of shuffled batches: per perturbation, or overall."""
    mixed = np.random.default_rng(seed).permutation(batch)
    own, shuffled = lisi(X, batch, mixed)
    if published:
        return one_value(own.mean() / shuffled.mean() if len(np.unique(batch)) > 1 else np.nan)
    return pd.Series(own / shuffled.mean()).groupby(perturbation).mean()


def _accuracies(score, classes, truth, name: str, published: bool) -> dict[str, pd.Series]:
    """Top-1 and top-5 accuracy: of each perturbation, or of all cells."""
    out = {}
    for k in (1, 5):
        best = np.argpartition(-score, min(k, len(classes)) - 1, axis=1)[:, :k]
        hit = pd.Series((classes[best] == truth[:, None]).any(axis=1), dtype=float)
        out[f"{name}_top{k}"] = one_value(hit.mean()) if published else hit.groupby(truth).mean()
    return out


def linear_probe(
    X: np.ndarray, y: np.ndarray, X_test: np.ndarray, y_test: np.ndarray, *,
    published: bool = False, seed: int = 0,
) -> dict[str, pd.Series]:  # fmt: skip
    """Accuracy of a linear classifier of perturbations on cells of new batches, top 1 and top 5.

    Published: one linear layer, 250 epochs of Adam on dimensions as they are.
    """
    classes, code = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        return {}
    if published:
        layer = MLPClassifier(hidden_layer_sizes=())
        score = _trained(layer, 250, X, code, 1e-3, BATCH, seed).predict_proba(X_test)
    else:
        scale = StandardScaler().fit(X)
        model = LogisticRegression(max_iter=200, tol=1e-3).fit(scale.transform(X), code)
        score = model.decision_function(scale.transform(X_test))
        score = np.column_stack([-score, score]) if score.ndim == 1 else score
    return _accuracies(score, classes, y_test, "linear", published)


def retrieval(
    X: np.ndarray, y: np.ndarray, X_test: np.ndarray, y_test: np.ndarray, *, published: bool = False
) -> dict[str, pd.Series]:
    """Accuracy of floor(sqrt(n)) neighbours in 32 components on cells of new batches.

    Published: 251, and the caller leaves the controls in, which are then most of the score.
    """
    classes, code = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        return {}
    k = min(NEAREST if published else int(np.sqrt(len(X))), len(X))
    near = NearestNeighbors(n_neighbors=k).fit(_reduced(X, X))
    distance, at = near.kneighbors(_reduced(X_test, X))
    votes = np.zeros((len(X_test), len(classes)))
    np.add.at(votes, (np.arange(len(X_test))[:, None], code[at]), 1 / (distance + 1e-5))
    return _accuracies(votes, classes, y_test, "knn", published)


def similarity_within(X: np.ndarray, labels: np.ndarray) -> pd.Series:
    """Mean cosine between two cells of each label that has at least two."""
    X, (names, code) = unit(X).astype(float), np.unique(labels, return_inverse=True)
    n = np.bincount(code)
    there = n > 1
    return pd.Series(_alike(X, code, n)[there], names[there])


def _alike(rows: np.ndarray, code: np.ndarray, n: np.ndarray) -> np.ndarray:
    total = sp.csr_matrix((np.ones(len(code)), (code, np.arange(len(code))))) @ rows
    own = np.bincount(code, np.square(rows).sum(axis=1))
    return (np.square(total).sum(axis=1) - own) / np.maximum(n * (n - 1), 1)


def consistency_p(
    X: np.ndarray, perturbation: np.ndarray, batch: np.ndarray, *, draws: int = 99, seed: int = 0
) -> pd.Series:
    """Test whether cells of a perturbation are alike, labels permuted within batches: p per one."""
    rng = np.random.default_rng(seed)
    X, (names, code) = unit(X).astype(float), np.unique(perturbation, return_inverse=True)
    n = np.bincount(code)
    found = _alike(X, code, n)
    batches = [np.flatnonzero(batch == b) for b in np.unique(batch)]
    above = np.ones(len(names))
    for _ in range(draws):
        mixed = code.copy()
        for rows in batches:
            mixed[rows] = rng.permutation(code[rows])
        above += _alike(X, mixed, n) >= found
    return pd.Series(above / (draws + 1), names)[n > 1]


def consistency(
    X: np.ndarray, perturbation: np.ndarray, batch: np.ndarray, *,
    expression: pd.Series | None = None, published: bool = False, seed: int = 0,
) -> pd.Series:  # fmt: skip
    """Which perturbations are alike over their cells (p <= 0.05): 1 or 0 each; by chance 5 %.

    Corrected: :func:`consistency_p`. Published: share of a null at least as high: the perturbations
    whose gene has a mean of `expression` (by gene) below 0.15; not defined for fewer than 20.
    """
    if not published or expression is None:
        return (consistency_p(X, perturbation, batch, seed=seed) <= LEVEL).astype(float)
    found = similarity_within(X, perturbation)
    null = found.index.isin(expression.index[expression < UNEXPRESSED])
    if null.sum() < LEAST_NULL:
        return one_value(np.nan)
    # the share of the null at least as high; the inequality that the paper prints is reversed
    p = (found[null].to_numpy() >= found[~null].to_numpy()[:, None]).mean(axis=1)
    return one_value((p <= LEVEL).mean())


def relation_recall(
    X: np.ndarray, perturbation: np.ndarray, pairs: pd.DataFrame, *, among=None,
    published: bool = False,
) -> pd.Series:  # fmt: skip
    """Share of the known pairs of each gene among the 5 % most and 5 % least alike; chance: 0.10.

    `among`: genes of which both ends must be. Published: over pairs, not genes. Celik et al. 2024.
    """
    names, code = np.unique(perturbation, return_inverse=True)
    mean = np.zeros((len(names), X.shape[1]))
    np.add.at(mean, code, X)
    mean /= np.bincount(code)[:, None]
    mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    cosine = mean @ mean.T
    null = np.sort(cosine[np.triu_indices(len(names), 1)])
    known = pairs_among(pairs, names if among is None else among)
    if len(known) < LEAST_PAIRS:
        return pd.Series(dtype=float)
    at = np.searchsorted(names, known.to_numpy(dtype=names.dtype))
    value = cosine[at[:, 0], at[:, 1]]
    left = np.searchsorted(null, value, "left") / len(null)
    right = np.searchsorted(null, value, "right") / len(null)
    hit = pd.Series(((right <= TAIL) | (left >= 1 - TAIL)).astype(float))
    if published:
        return one_value(hit.mean())
    both = pd.concat([hit, hit], ignore_index=True)
    return both.groupby(known.to_numpy().T.ravel()).mean()


def pairs_among(pairs: pd.DataFrame, names) -> pd.DataFrame:
    """Distinct unordered pairs of two different `names`."""
    ends = np.sort(pairs[["source", "target"]].to_numpy(dtype=str), axis=1)
    ends = pd.DataFrame(ends, columns=["source", "target"]).drop_duplicates()
    there = ends.isin(list(map(str, names))).all(axis=1) & (ends["source"] != ends["target"])
    return ends[there]


def decoded(
    X: np.ndarray, Y: np.ndarray, X_test: np.ndarray, *, decoder: str = "ridge", seed: int = 0
) -> np.ndarray:
    """Expression read back from an embedding, by ridge or the published network: (m, g)."""
    check_choice("decoder", decoder, ("ridge", "mlp"))
    if decoder == "mlp":
        widths = np.linspace(X.shape[1], Y.shape[1], 5).astype(int)[1:-1]
        net = MLPRegressor(hidden_layer_sizes=widths)
        return _trained(net, 30, X, Y, 1e-4, SCORED, seed).predict(X_test)
    scale = StandardScaler().fit(X)
    ridge = RidgeCV(np.logspace(-1, 5, 7)).fit(scale.transform(X), Y)
    return ridge.predict(scale.transform(X_test))


def _trained(net, epochs: int, X: np.ndarray, Y: np.ndarray, rate: float, cells: int, seed: int):
    """Train for so many epochs, whether or not it has converged by then, as published."""
    net.set_params(learning_rate_init=rate, alpha=1e-6, batch_size=min(cells, len(X)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return net.set_params(max_iter=epochs, n_iter_no_change=epochs, random_state=seed).fit(X, Y)


def gene_correlation(
    truth: np.ndarray, said: np.ndarray, genes, *, published: bool = False
) -> pd.Series:
    """Spearman correlation of each gene over cells; 0 where the prediction does not vary."""
    r = spearman(*(np.ascontiguousarray(v.T) for v in (truth, said)))
    return one_value(r.mean()) if published else pd.Series(r, genes)[np.ptp(truth, axis=0) > 0]


def structural_integrity(
    truth: np.ndarray, said: np.ndarray, batch: np.ndarray, perturbation: np.ndarray,
    control: np.ndarray, *, published: bool = False,
) -> pd.Series:  # fmt: skip
    """How near decoded effects are to those of the cells; predicting no effect gives exactly 0.5.

    Both are centred on their own controls of the batch; published: of whole batches, controls among
    them, not centred where there are none. Bendidi et al. 2024, Eq. 1 to 3.
    """
    T, P = truth.astype(np.float64), said.astype(np.float64)
    centred = np.zeros(len(T), bool)
    for b in np.unique(batch):
        here = batch == b
        if (here & control).any():
            T[here] -= T[here & control].mean(axis=0)
            P[here] -= P[here & control].mean(axis=0)
            centred |= here
    keys = pd.DataFrame({"batch": batch, "unit": ALL if published else perturbation})
    keep = np.ones(len(T), bool) if published else centred & ~control
    squares = {"far": np.square(P - T).sum(axis=1), "size": np.square(T).sum(axis=1)}
    grouped = keys.assign(**squares)[keep].groupby(["unit", "batch"])
    parts = np.sqrt(grouped[["far", "size"]].sum()).div(grouped.size(), axis=0)
    total = parts.groupby(level="unit").mean()
    return 1 - total["far"] / (2 * total["size"])


# what computes each of the metrics that metrics.yml describes under "cell_tasks"
_FUNCTIONS: dict[str, Callable] = {
    "ilisi_norm": batch_mixing,
    **dict.fromkeys(("linear_top5", "linear_top1"), linear_probe),
    "pert_consistency": consistency,
    **dict.fromkeys(("knn_top5", "knn_top1"), retrieval),
    **dict.fromkeys(RELATIONS, relation_recall),
    "spearman": gene_correlation,
    "structural_integrity": structural_integrity,
}
for _name, _function in _FUNCTIONS.items():
    register(_name)(_function)
