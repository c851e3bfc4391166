"""How well generated cells match held-out ones as a distribution, beside the best and the least possible."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.responses import rows_of
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
    folds: Sequence[int] | None = None,
    n_components: int = 30,
    most: int = 300,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare generated with held-out cells of the test perturbations of every fold.

    The latent space is fitted on the training cells of the fold and is the same for all models. Cells of
    a model are weighted to the composition of batches of the observed ones, so that batches, which no
    model predicts, make no difference.

    Parameters
    ----------
    models : sequence of DecoderModel
        With a folder; their kept cells are read, or generated where they are not there.
    responses : AnnData
        With folds.
    cells : Cells
    folds : sequence of int, optional
        All by default.
    n_components : int
        Of the latent space; cut where a screen allows fewer.
    most : int
        Observed cells of a perturbation that are compared; of more, these are drawn.
    seed : int
        Of that draw and of the halves.

    Returns
    -------
    pandas.DataFrame
        Tidy, one row a metric, perturbation, fold, line and model: dataset, task, cell_line, fold,
        perturbation, embedding, modality, predictor, metric ("energy", "mmd" and "variance_ratio", see
        `perturbcore.models.decoders.distances`; "energy_genes" in gene space; the ratio is the median over genes
        seen in at least 5 % of observed cells), value, n_observed, n_generated, n_train, n_test. The rows
        of embedding "halves of the observed cells" split the observed cells at random, batch by batch,
        and compare the two halves: what a perfect model would reach.

    Raises
    ------
    ParameterError
        Two models have one name and predictor.
    InputError
        A model keeps no cells.
    """
    names = [(m.name, m.predictor) for m in models]
    if len(set(names)) < len(names):
        raise ParameterError(f"two models have one name and predictor among {names}: rename one")
    rows = []
    about = responses.uns["perturbcore"]
    for line in pd.unique(responses.obs["cell_line"].astype(str)):
        here = rows_of(responses, line)
        fold_of = here.obs["fold"].to_numpy().astype(int)
        for fold in sorted(set(fold_of) - {-1}) if folds is None else folds:
            test = fold_of == fold
            shared = {
                "dataset": about["dataset"],
                "task": about["task"],
                "cell_line": line,
                "fold": int(fold),
                "n_train": int((~test).sum()),
                "n_test": int(test.sum()),
            }
            latent = training_latent(
                cells, line, here.obs["perturbation"].astype(str)[~test], n_components
            )
            rows += [
                {**shared, **r}
                for r in _fold(models, responses, cells, line, fold, latent, most, seed)
            ]
    if not rows:
        raise InputError("no generated cells to compare: no model has kept any")
    return pd.DataFrame(rows)


def training_latent(cells: Cells, line: str, training, n_components: int) -> Latent:
    """Fit the latent space of a fold on the control cells and the cells of the `training` perturbations."""
    rows = np.concatenate([cells.controls(line), cells.of_perturbations(line, training)])
    X = cells.X[rows]
    varies = int((X.max(axis=0).toarray() > X.min(axis=0).toarray()).sum())
    return Latent(min(n_components, len(rows) - 1, varies), "global").fit(X)


def _fold(models, responses, cells, line, fold, latent, most, seed):
    kept = [m.generated(responses, line, fold) for m in models]
    common = (
        set(kept[0].perturbation).intersection(*(set(k.perturbation) for k in kept))
        if kept
        else set()
    )
    controls = cells.X[cells.controls(line)]
    for name in sorted(common):
        at = cells.of_perturbations(line, [name])
        at = np.sort(np.random.default_rng([seed, 19]).permutation(at)[:most])
        seen = _Observed(cells.X[at].toarray(), cells.batch[at], latent, controls)
        for model, made in zip(models, kept, strict=True):
            mine = made.perturbation == name
            weights = batch_weights(made.batch[mine], seen.batch)
            who = {
                "embedding": model.name,
                "modality": model.modality,
                "predictor": model.predictor,
            }
            for metric, value in seen.compare(made.X[mine], weights).items():
                yield {**who, "perturbation": name, "metric": metric, "value": value,
                       "n_observed": len(at), "n_generated": int(mine.sum())}  # fmt: skip
        who = {"embedding": HALVES, "modality": "Positive control", "predictor": "halves"}
        for metric, value in seen.halves(seed).items():
            yield {**who, "perturbation": name, "metric": metric, "value": value,
                   "n_observed": len(at), "n_generated": len(at) // 2}  # fmt: skip


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

    def compare(self, X, weights=None, rows=None) -> dict:
        rows = slice(None) if rows is None else rows
        z, mine, other = self.latent.transform(X), self.X[rows], self.z[rows]
        ratio = variance_ratio(X[:, self.detected], mine[:, self.detected], weights)
        return {
            "energy": energy_distance(z, other, weights),
            "mmd": mmd(z, other, self.bandwidth, weights),
            "energy_genes": energy_distance(X, mine, weights),
            "variance_ratio": float(np.nanmedian(ratio))
            if np.isfinite(ratio).any()
            else float("nan"),
        }

    def halves(self, seed: int) -> dict:
        rng = np.random.default_rng([seed, 13])
        found = []
        for _ in range(SPLITS):
            order = rng.permutation(len(self.X))
            # every second cell of each batch
            order = order[np.argsort(self.batch[order], kind="stable")]
            a, b = order[::2], order[1::2]
            found.append(self.compare(self.X[a], rows=b))
        return {m: float(np.mean([f[m] for f in found])) for m in found[0]}
