"""What a chemical screen can carry: effects beyond noise and replicates; information in embeddings."""

import numpy as np
import pandas as pd
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr

from perturbcore.report.noise import by_line

NOISE = {
    "cell_line": "Cell line",
    "drugs": "Drugs",
    "effect": "Median effect",
    "error": "Median error",
    "beyond": "Share beyond their error",
    "same": "Same drug, other plates",
    "other": "Other drugs",
    "reproducible": "Share reproducible",
}
BY_CHANCE = 0.05
FEWEST = 4


def drugs_of(data) -> pd.DataFrame | None:
    """Table of drugs that a data set brings, or None."""
    return (data.extras or {}).get("drugs")


def truth_of(data):
    """Return the true effects of a simulated screen, or None."""
    return getattr((data.extras or {}).get("simulation"), "true_effects", None)


def beyond_noise(data, ceiling: pd.DataFrame | None) -> pd.DataFrame:
    """Compare the size of each drug's effect with its own experimental error.

    Parameters
    ----------
    data : Dataset
    ceiling : pandas.DataFrame or None
        Experimental error a perturbation.

    Returns
    -------
    pandas.DataFrame
        One row a cell line: `drugs`, `effect` and `error` (medians of L2; error: quantile 0.9 under
        resampling), `beyond` (share of drugs whose effect is larger than its error). Empty without
        ceiling.
    """
    columns = ["cell_line", "drugs", "effect", "error", "beyond"]
    if ceiling is None:
        return pd.DataFrame(columns=columns)
    table = by_line(ceiling, data.responses)
    groups = table.groupby("cell_line", observed=True)
    return pd.DataFrame(
        {
            "drugs": groups.size(),
            "effect": groups["effect"].median(),
            "error": groups["value"].median(),
            "beyond": groups["above"].mean(),
        }
    ).reset_index()[columns]


def plate_effects(data) -> pd.DataFrame | None:
    """Effect of each drug on each plate: its mean minus that of the plate's vehicle.

    Returns
    -------
    pandas.DataFrame or None
        Indexed by cell_line, batch, perturbation; columns genes. None where the data set has neither
        replicate wells nor cells.
    """
    from perturbcore.data.effects.moments import pseudobulk

    keys = ["cell_line", "batch", "perturbation"]
    if data.replicates is not None:
        obs, X = data.replicates.obs, pd.DataFrame(np.asarray(data.replicates.X, float))
        wells = [obs[k].astype(str).to_numpy() for k in (*keys[:2],)]
        control = obs["is_control"].to_numpy(bool)
        names = np.where(control, "", obs["perturbation"].astype(str))
        means = X.groupby([*wells, names]).mean()
    elif data.screen is not None:
        bulk = pseudobulk(data.screen, by=keys, progress=False)
        obs = bulk.obs
        names = np.where(obs["is_control"].to_numpy(bool), "", obs["perturbation"].astype(str))
        index = [
            obs["cell_line"].astype(str).to_numpy(),
            obs["batch"].astype(str).to_numpy(),
            names,
        ]
        means = pd.DataFrame(np.asarray(bulk.X, float), index=index).groupby(level=[0, 1, 2]).mean()
    else:
        return None
    means.index.names = keys
    vehicle = means.xs("", level="perturbation")
    plates = pd.MultiIndex.from_arrays([means.index.get_level_values(k) for k in keys[:2]])
    known = plates.isin(vehicle.index) & (means.index.get_level_values("perturbation") != "")
    return means[known] - vehicle.loc[plates[known]].to_numpy()


def reproducibility(profiles: pd.DataFrame) -> pd.DataFrame:
    """Ask of each drug whether one half of its plates finds it again among all drugs on the other half.

    The mean drug of each plate is taken away first, so that what all drugs share, and the noise of the
    plate's vehicle, find nobody again.

    Parameters
    ----------
    profiles : pandas.DataFrame
        Of `plate_effects`.

    Returns
    -------
    pandas.DataFrame
        One row a cell line: `drugs` (on two plates or more), `same` and `other` (mean correlation over
        genes between halves, of a drug with itself and with other drugs), `reproducible` (share of drugs
        whose own correlation is above the 95 % quantile of the others; 5 % by chance).
    """
    rows = []
    for line, part in profiles.groupby(level="cell_line", sort=False):
        centred = part - part.groupby(level="batch").transform("mean")
        place = centred.groupby(level="perturbation").cumcount()
        plates = centred.groupby(level="perturbation")[centred.columns[0]].transform("size")
        first = (place < plates / 2).to_numpy()
        several = (plates > 1).to_numpy()
        halves = [
            centred[several & h].groupby(level="perturbation").mean() for h in (first, ~first)
        ]
        if len(halves[0]) < FEWEST:
            continue
        a, b = (_rows(h.to_numpy()) for h in halves)
        r = a @ b.T
        own, other = np.diag(r), r[~np.eye(len(r), dtype=bool)]
        rows.append(
            {
                "cell_line": line,
                "drugs": len(r),
                "same": float(own.mean()),
                "other": float(other.mean()),
                "reproducible": float((own > np.quantile(other, 1 - BY_CHANCE)).mean()),
            }
        )
    return pd.DataFrame(rows, columns=["cell_line", "drugs", "same", "other", "reproducible"])


def _rows(X: np.ndarray) -> np.ndarray:
    X = X - X.mean(axis=1, keepdims=True)
    return X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), np.finfo(float).tiny)


def noise_table(data, ceiling: pd.DataFrame | None) -> pd.DataFrame:
    """Join `beyond_noise` and `reproducibility`, one row a cell line; missing where data are."""
    beyond = beyond_noise(data, ceiling)
    profiles = plate_effects(data)
    again = reproducibility(profiles) if profiles is not None else None
    if again is None or again.empty:
        return beyond.assign(same=np.nan, other=np.nan, reproducible=np.nan)
    if beyond.empty:
        return again.assign(effect=np.nan, error=np.nan, beyond=np.nan)[list(NOISE)]
    return beyond.merge(again.drop(columns="drugs"), on="cell_line", how="left")[list(NOISE)]


def true_error(data) -> float:
    """Mean L2 between measured and true effects: what a perfect prediction would score."""
    measured, truth = data.responses, truth_of(data)
    X = np.asarray(truth[measured.obs_names, measured.var_names].X, float)
    return float(np.linalg.norm(np.asarray(measured.X, float) - X, axis=1).mean())


def information(embeddings, data) -> pd.DataFrame:
    """How well the distances of an embedding follow the true effects of a simulated screen.

    Parameters
    ----------
    embeddings : list of Embedding
    data : Dataset
        With a simulation.

    Returns
    -------
    pandas.DataFrame
        embedding, modality, n (drugs that are not inert and have a vector), follows: Spearman's rank
        correlation, over pairs of drugs, of Euclidean distance in the standardised embedding with one
        minus the correlation of the true effects (mean over cell lines, the mean drug taken away).
        Empty without a truth.
    """
    truth = truth_of(data)
    if truth is None:
        return pd.DataFrame(columns=["embedding", "modality", "n", "follows"])
    active = (
        ~truth.obs["inert"].to_numpy(bool) if "inert" in truth.obs else np.ones(truth.n_obs, bool)
    )
    X = pd.DataFrame(np.asarray(truth.X, float)[active])
    effect = X.groupby(truth.obs["perturbation"].astype(str).to_numpy()[active]).mean()
    effect -= effect.mean()
    rows = []
    for e in embeddings:
        known = effect.index.intersection(e.ids)
        if len(known) < FEWEST:
            continue
        V = e.X[e.ids.get_indexer(known)].astype(float)
        sd = V.std(axis=0)
        V = (V - V.mean(axis=0))[:, sd > 0] / sd[sd > 0]
        if not V.shape[1]:
            continue
        rho = spearmanr(pdist(V), pdist(effect.loc[known].to_numpy(), "correlation")).statistic
        rows.append(
            {"embedding": e.name, "modality": e.modality, "n": len(known), "follows": float(rho)}
        )
    return pd.DataFrame(rows).sort_values("follows", ascending=False, ignore_index=True)
