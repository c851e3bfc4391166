"""How well generated cells match held-out ones as a distribution, and the least possible.

Distances take weights and are corrected for bias: 0 on average for samples of one distribution.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn.metrics.pairwise import euclidean_distances

from perturbcore.data.responses import cell_lines
from perturbcore.models.decoders.cells import Cells, Latent
from perturbcore.models.decoders.evaluation import DecoderModel
from perturbcore.score.metrics.registry import register
from perturbcore.score.model import Fold

METRICS = ["energy", "mmd", "energy_genes", "variance_ratio"]
HALVES = "halves of the observed cells"
SPLITS = 5
# rarer genes have no variance to compare
LEAST_DETECTED = 0.05


@register("energy")
def energy_distance(x, y, weights=None) -> float:
    """Energy distance :math:`2 E|X - Y| - E|X - X'| - E|Y - Y'|`.

    `weights` (n,) are those of the cells `x`. NaN where a sample has fewer than two cells. Szekely
    and Rizzo 2013; used for single cells by Peidli et al. 2024, Nature Methods 21.
    """
    return -_discrepancy(x, y, weights, lambda d: d)


def mmd(x, y, bandwidth: float, weights=None) -> float:
    r"""Squared maximum mean discrepancy, kernel :math:`\exp(-|x-y|^2 / 2\sigma^2)`.

    Gretton et al. 2012, Eq. 3; `bandwidth` is :math:`\sigma`, the rest as in `energy_distance`.
    """
    return _discrepancy(x, y, weights, lambda d: np.exp(-0.5 * (d / bandwidth) ** 2))


def median_distance(x) -> float:
    """Median distance between cells, the usual bandwidth; 1 where all cells are equal."""
    x = np.asarray(x, dtype=np.float64)
    d = euclidean_distances(x - x.mean(axis=0))
    middle = float(np.median(d[np.triu_indices(len(x), 1)])) if len(x) > 1 else 0.0
    return middle if middle > 0 else 1.0


def variance_ratio(x, y, weights=None) -> np.ndarray:
    """Variance of genes in `x` over that in `y`, (g,); NaN where it cannot be said."""
    x, y, wx, wy = _samples(x, y, weights)
    out = np.full(x.shape[1], np.nan)
    if min(len(x), len(y)) < 2:
        return out
    top, bottom = _variance(x, wx), _variance(y, wy)
    # a constant column must not become a variance by rounding
    varies = np.ptp(y, axis=0) > 0
    return np.divide(top, bottom, out=out, where=varies & (bottom > 0))


def batch_weights(batch, target) -> np.ndarray:
    """Weights (n,) that give cells the composition of batches `target`, equal if none is shared."""
    batch, target = np.asarray(batch).astype(str), np.asarray(target).astype(str)
    names, code, count = np.unique(batch, return_inverse=True, return_counts=True)
    wanted = np.array([(target == name).mean() for name in names])
    weight = (wanted / count)[code]
    total = weight.sum()
    return weight / total if total > 0 else np.full(len(batch), 1 / len(batch))


def _samples(x, y, weights):
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
    # the distance of two points does not depend on the origin; its rounding error does
    centre = y.mean(axis=0) if len(y) else 0.0
    return x - centre, y - centre, w / max(w.sum(), 1e-300), np.full(len(y), 1 / max(len(y), 1))


def _discrepancy(x, y, weights, function) -> float:
    """Mean of a function of the distance within x, plus that within y, less twice that between."""
    x, y, wx, wy = _samples(x, y, weights)
    if min(len(x), len(y)) < 2:
        return float("nan")
    between = float(wx @ function(euclidean_distances(x, y)) @ wy)
    return _within(x, wx, function) + _within(y, wy, function) - 2 * between


def _within(x, w, function) -> float:
    """Weighted mean over pairs of different cells."""
    d = euclidean_distances(x)
    total, alone = float(w @ function(d) @ w), float((w**2).sum())
    itself = float(function(np.zeros(1))[0])
    return (total - alone * itself) / (1 - alone) if alone < 1 else float("nan")


def _variance(x, w) -> np.ndarray:
    alone = float((w**2).sum())
    spread = w @ (x - w @ x) ** 2
    return spread / (1 - alone) if alone < 1 else np.full(x.shape[1], np.nan)


def distribution_table(
    models: Sequence[DecoderModel],
    responses: AnnData,
    cells: Cells,
    *,
    folds: Sequence[int],
    n_components: int = 30,
    most: int = 300,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare generated with held-out cells of the test perturbations of every fold.

    The latent space is fitted on training cells and is the same for all models, whose cells are
    weighted to the batches of the observed ones, at most `most` per perturbation.

    Returns one row per metric, perturbation, fold, line and model: cell_line, fold, perturbation,
    embedding, predictor, metric (of `METRICS`), value, n_train, n_test. Rows of embedding "halves
    of the observed cells" compare two halves, drawn batch by batch: what a perfect model would
    reach.
    """
    rows = []
    for line in cell_lines(responses):
        for number in folds:
            fold = Fold.of(responses, number, (line,))
            kept = [m.generated(responses, line, number) for m in models]
            shared = {"cell_line": line, "fold": int(number)}
            shared |= {"n_train": fold.train.n_obs, "n_test": fold.test.n_obs}
            latent = training_latent(cells, fold, n_components)
            rows += [shared | r for r in _compared(models, kept, cells, line, latent, most, seed)]
    return pd.DataFrame(rows)


def training_latent(cells: Cells, fold: Fold, n_components: int) -> Latent:
    """Fit the latent space of a fold on controls and cells of the training perturbations."""
    (line,) = fold.cell_lines
    rows = np.concatenate([cells.controls(line), cells.of_perturbations(line, fold.train_ids)])
    X = cells.X[rows]
    varies = int((X.max(axis=0).toarray() > X.min(axis=0).toarray()).sum())
    return Latent(min(n_components, len(rows) - 1, varies), "global").fit(X)


def _compared(models, kept, cells, line, latent, most, seed) -> Iterator[dict]:
    controls = cells.X[cells.controls(line)]
    for name in sorted(set.intersection(*(set(k.obs["perturbation"]) for k in kept))):
        at = cells.of_perturbations(line, [name])
        at = np.sort(np.random.default_rng([seed, 19]).permutation(at)[:most])
        seen = _Observed(cells.X[at].toarray(), cells.batch[at], latent, controls)
        found = {(HALVES, "halves"): seen.halves(seed)}
        for model, made in zip(models, kept, strict=True):
            mine = made[made.obs["perturbation"] == name]
            weights = batch_weights(mine.obs["batch"], seen.batch)
            found[model.name, model.predictor] = seen.compare(np.asarray(mine.X), weights)
        for (embedding, predictor), values in found.items():
            who = {"embedding": embedding, "predictor": predictor, "perturbation": name}
            yield from ({**who, "metric": m, "value": v} for m, v in values.items())


class _Observed:
    """The held-out cells of a perturbation, in genes and in the latent space."""

    def __init__(self, X, batch, latent: Latent, controls):
        self.X, self.batch, self.latent = X, batch, latent
        self.z = latent.transform(X)
        self.detected = (X > 0).mean(axis=0) >= LEAST_DETECTED
        # of observed and control cells: no model may choose its own bandwidth
        n = min(controls.shape[0], len(X))
        some = np.linspace(0, controls.shape[0] - 1, n).astype(int)
        self.bandwidth = median_distance(np.concatenate([self.z, latent.transform(controls[some])]))

    def compare(self, X, weights=None, rows=slice(None)) -> dict[str, float]:
        z, mine, other = self.latent.transform(X), self.X[rows], self.z[rows]
        ratio = variance_ratio(X[:, self.detected], mine[:, self.detected], weights)
        known = ratio[np.isfinite(ratio)]
        return {
            "energy": energy_distance(z, other, weights),
            "mmd": mmd(z, other, self.bandwidth, weights),
            "energy_genes": energy_distance(X, mine, weights),
            "variance_ratio": float(np.median(known)) if len(known) else float("nan"),
        }

    def halves(self, seed: int) -> dict[str, float]:
        rng = np.random.default_rng([seed, 13])
        found = []
        for _ in range(SPLITS):
            order = rng.permutation(len(self.X))
            # every second cell of each batch
            order = order[np.argsort(self.batch[order], kind="stable")]
            found.append(self.compare(self.X[order[::2]], rows=order[1::2]))
        return pd.DataFrame(found).mean(skipna=False).to_dict()
