"""Embeddings of cells: a vector per cell, fitted on some cells, applied to all; post-processing."""

import re

import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn.decomposition import PCA
from sklearn.random_projection import GaussianRandomProjection

from perturbcore.core.errors import InputError, ParameterError, check_choice
from perturbcore.data.responses import dense
from perturbcore.data.screens.declare import normalise

PROCESSING = ("raw", "centred", "scaled", "TVN")
SHUFFLED, IDEALIZED, TRANSFORMER = "shuffled", "idealized", "Cell transformer"
LOG_PCA, COUNT_PCA = "PCA of logs", "PCA of counts"
OF_LOG_PCA = (LOG_PCA, SHUFFLED, IDEALIZED)
LIKELIHOODS = ("ZINB", "NB", "Poisson")
KNOWN = (COUNT_PCA, LOG_PCA, "Random projection", "Transfer PCA", TRANSFORMER, SHUFFLED, IDEALIZED)
KNOWN += ("scVI or VAE ZINB or NB or Poisson (on logs)", "obsm KEY", "..., 25 % of cells")
LEAST_GENES, RIDGE = 20, 0.5


def cells_of(screen: AnnData, max_cells: int = 4000, seed: int = 0) -> AnnData:
    """Draw cells of a declared screen into memory, as dense log1p values of counts scaled to 1e4.

    ``layers["counts"]``: where the screen has counts; ``obs["place"]``: batch, with the cell line
    where there are several; ``obs["label"]``: perturbation, "" for controls.
    """
    rows = np.random.default_rng(seed).permutation(screen.n_obs)[:max_cells]
    part = screen[np.sort(rows)].to_memory()
    obs = part.obs.copy()
    lines, batch, label = (obs[c].astype(str) for c in ("cell_line", "batch", "perturbation"))
    obs["place"] = (lines + ", " + batch if lines.nunique() > 1 else batch).to_numpy(dtype=str)
    obs["label"] = label.mask(obs["is_control"].astype(bool), "").to_numpy(dtype=str)
    out = AnnData(dense(normalise(part).X), obs=obs, var=part.var.copy())
    out.obsm = part.obsm
    if str(screen.uns["perturbcore"]["scale"]) == "counts":
        out.layers["counts"] = dense(part.X).astype(np.float32)
    out.uns["perturbcore"] = dict(screen.uns["perturbcore"])
    return out


def cell_embedding(
    name: str,
    cells: AnnData,
    train: np.ndarray,
    *,
    dim: int = 50,
    seed: int = 0,
    other: AnnData | None = None,
    log_pca: np.ndarray | None = None,
) -> np.ndarray:
    """Embed all cells, having learnt from those of `train` only: (n_cells, d).

    `name`: "PCA of counts", "PCA of logs", "Random projection", "Transfer PCA" (components of
    `other`, another screen that shares genes), "Cell transformer" (pretrained on control cells),
    "scVI ZINB", "scVI NB", "scVI Poisson" (package scvi-tools) and "VAE ..." (the same model in
    small), each also "... on logs" as published, "obsm KEY" (vectors that came with the screen);
    "shuffled" (rows of the PCA of logs permuted, a floor) and "idealized" (the mean of each
    perturbation in the PCA of logs, which knows the label of every cell: a ceiling); "..., 25 % of
    cells" learns from so many of the training cells. `cells`: see `cells_of`; `train`: (n,) bool.
    An `InputError` says what these cells lack. `log_pca`: the PCA of logs, where it is made.
    """
    name, train = learnt_from(name, train, seed)
    if name.startswith("obsm "):
        return _brought(cells, name.removeprefix("obsm "))
    if name.startswith(("VAE ", "scVI ")):
        return _autoencoder(cells, train, name, dim, seed)
    if name in OF_LOG_PCA:
        X = _pca(cells.X, cells.X[train], dim, seed) if log_pca is None else log_pca
        if name == LOG_PCA:
            return X
        rng = np.random.default_rng(seed)
        if name == SHUFFLED:
            return X[rng.permutation(len(X))]
        label = cells.obs["label"].to_numpy()
        mean = pd.DataFrame(X).groupby(label).transform("mean").to_numpy()
        # a little noise, so that cells of a perturbation are no ties in the order of their batches
        return mean + 1e-3 * mean.std() * rng.standard_normal(mean.shape)
    if name == COUNT_PCA:
        counts = _counts(cells, COUNT_PCA)
        return _pca(counts, counts[train], dim, seed)
    if name == "Random projection":
        centred = cells.X - cells.X[train].mean(axis=0)
        return GaussianRandomProjection(dim, random_state=seed).fit_transform(centred)
    if name == "Transfer PCA":
        return _transfer(cells, other, dim, seed)
    if name == TRANSFORMER:
        return _transformer(cells, dim, seed)
    raise ParameterError(f"no embedding of cells '{name}'; there are: {', '.join(KNOWN)}")


def _counts(cells: AnnData, name: str) -> np.ndarray:
    if "counts" not in cells.layers:
        raise InputError(f"{name} needs counts, and this screen has log values only")
    return cells.layers["counts"]


def _pca(values: np.ndarray, fitted_on: np.ndarray, dim: int, seed: int) -> np.ndarray:
    size = min(dim, min(fitted_on.shape) - 1)
    return PCA(size, random_state=seed).fit(fitted_on).transform(values)


def _transfer(cells: AnnData, other: AnnData | None, dim: int, seed: int) -> np.ndarray:
    if other is None:
        raise InputError("Transfer PCA needs another data set to learn from (transfer_from)")
    shared = cells.var_names.intersection(other.var_names)
    if len(shared) < LEAST_GENES:
        raise InputError(f"Transfer PCA: only {len(shared)} genes are also in the other data set")
    return _pca(cells[:, shared].X, other[:, shared].X, dim, seed)


def _transformer(cells: AnnData, dim: int, seed: int) -> np.ndarray:
    """Mean of the latent states of a small cell transformer, pretrained on control cells."""
    import torch

    from perturbcore.embeddings.cell_models.cells import pretrain
    from perturbcore.embeddings.cell_models.tokens import control_cells

    log = AnnData(cells.X, obs=cells.obs, var=cells.var)
    log.uns["perturbcore"] = {**cells.uns["perturbcore"], "scale": "log1p"}
    controls = control_cells(log, seed=seed)
    width = max(4, dim - dim % 4)
    sizes = dict(dim=width, latents=16, epochs=5, batch_size=64, device="cpu")
    encoder = pretrain(controls, **sizes, seed=seed).encoder
    line = pd.Categorical(cells.obs["cell_line"].astype(str), controls.lines).codes
    with torch.no_grad():
        z = encoder.standardised(torch.tensor(cells.X), torch.tensor(line, dtype=torch.long))
        return encoder.state(z).mean(dim=1).numpy()


def _brought(cells: AnnData, key: str) -> np.ndarray:
    if key not in cells.obsm:
        raise InputError(f"obsm has no '{key}'; it has: {', '.join(cells.obsm) or 'nothing'}")
    X = np.asarray(cells.obsm[key], dtype=np.float64)
    if not np.isfinite(X).all():
        raise InputError(f"obsm['{key}'] holds NaN or infinity: drop these cells, or mend them")
    return X


def learnt_from(name: str, train: np.ndarray, seed: int) -> tuple[str, np.ndarray]:
    """Part "NAME, 25 % of cells" into the name and its training cells, fewer within more."""
    found = re.fullmatch(r"(.+), (\d+) % of cells", name)
    if found is None:
        return name, train
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(train))
    few = np.zeros(len(train), bool)
    few[rows[: max(1, round(len(rows) * int(found[2]) / 100))]] = True
    return found[1], few


def _autoencoder(cells: AnnData, train: np.ndarray, name: str, dim: int, seed: int) -> np.ndarray:
    from perturbcore.embeddings.vae import autoencode_counts, scvi_means

    model, _, likelihood = name.removesuffix(" on logs").partition(" ")
    check_choice("likelihood", likelihood, LIKELIHOODS)
    values = cells.X if name.endswith(" on logs") else _counts(cells, name)
    place = cells.obs["place"].to_numpy(dtype=str)
    fitted = scvi_means if model == "scVI" else autoencode_counts
    return fitted(values, place, train, likelihood, dim=dim, seed=seed)


def post_process(X: np.ndarray, place: np.ndarray, control: np.ndarray, how: str) -> np.ndarray:
    """Align batches by their control cells: (n, d) -> (n, d).

    `how`: "raw"; "centred" on the controls of the batch; "scaled", that divided by their standard
    deviations; "TVN": scaled by all controls along their principal components, then multiplied by
    (C + 0.5)^(-1/2), C the covariance of the controls of the batch. A batch without two controls
    goes by all. Bendidi et al. 2024; Celik et al. 2024.
    """
    check_choice("post-processing", how, PROCESSING)
    X = np.asarray(X, dtype=np.float64)
    if how == "raw":
        return X
    if how == "TVN":
        X = _standardised(X, X[control])
        turned = PCA(svd_solver="full").fit(X[control]).transform(X)
        X = _standardised(turned, turned[control])
    out = np.empty_like(X)
    for b in np.unique(place):
        here = place == b
        own = X[here & control] if (here & control).sum() > 1 else X[control]
        if how == "TVN":
            value, axes = np.linalg.eigh(np.atleast_2d(np.cov(own.T)) + RIDGE * np.eye(X.shape[1]))
            out[here] = X[here] @ (axes / np.sqrt(value)) @ axes.T
        else:
            out[here] = _standardised(X[here], own, scale=how == "scaled")
    return out


def _standardised(X: np.ndarray, controls: np.ndarray, *, scale: bool = True) -> np.ndarray:
    """Centre by controls, and scale by their standard deviations; one of zero divides by one."""
    spread = controls.std(axis=0) if scale else np.ones(X.shape[1])
    return (X - controls.mean(axis=0)) / np.where(spread > 1e-12, spread, 1)
