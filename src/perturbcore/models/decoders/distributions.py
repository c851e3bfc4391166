"""How well generated cells match held-out ones as a distribution, and the least possible."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.data.responses import cell_lines, rows_of
from perturbcore.models.decoders.cells import Cells
from perturbcore.models.decoders.distances import (
    batch_weights,
    energy_distance,
    median_distance,
    mmd,
    variance_ratio,
)
from perturbcore.models.decoders.evaluation import DecoderModel
from perturbcore.models.decoders.latent import Latent

METRICS = {
    "energy": "Energy distance (latent)",
    "mmd": "MMD² (latent)",
    "energy_genes": "Energy distance (genes)",
    "variance_ratio": "Variance ratio (genes)",
}
HALVES = "halves of the observed cells"
SPLITS = 5
# rarer genes have no variance to compare
LEAST_DETECTED = 0.05


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

    The latent space is fitted on the training cells of the fold and is the same for all models.
    Cells of a model are weighted to the composition of batches of the observed ones, so that
    batches, which no model predicts, make no difference.

    `models`: with a folder; their kept cells are read, or generated where they are not there;
    `most`: observed cells of a perturbation that are compared; of more, these are drawn by
    `seed`.

    Returns tidy, one row per metric, perturbation, fold, line and model: cell_line, fold,
    perturbation, embedding, predictor, metric (those of `METRICS`; the ratio is the median over
    genes seen in at least 5 % of observed cells), value, n_train, n_test. The rows of embedding
    "halves of the observed cells" split the observed cells at random, batch by batch, and
    compare the two halves: what a perfect model would reach.
    """
    rows = []
    for line in cell_lines(responses):
        here = rows_of(responses, line)
        fold_of = here.obs["fold"].to_numpy().astype(int)
        names = here.obs["perturbation"].astype(str)
        for fold in folds:
            test = fold_of == fold
            shared = {"cell_line": line, "fold": int(fold)}
            shared |= {"n_train": int((~test).sum()), "n_test": int(test.sum())}
            latent = training_latent(cells, line, names[~test], n_components)
            found = _compared(models, responses, cells, line, fold, latent, most, seed)
            rows += [shared | r for r in found]
    return pd.DataFrame(rows)


def training_latent(cells: Cells, line: str, training, n_components: int) -> Latent:
    """Fit the latent space of a fold on controls and cells of the `training` perturbations."""
    rows = np.concatenate([cells.controls(line), cells.of_perturbations(line, training)])
    X = cells.X[rows]
    varies = int((X.max(axis=0).toarray() > X.min(axis=0).toarray()).sum())
    return Latent(min(n_components, len(rows) - 1, varies), "global").fit(X)


def _compared(models, responses, cells, line, fold, latent, most, seed) -> Iterator[dict]:
    kept = [m.generated(responses, line, fold) for m in models]
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
