"""Cells of a few perturbations on two axes of the latent space: controls, observed, generated."""

import numpy as np
import pandas as pd

from perturbcore.data.responses import rows_of
from perturbcore.models.decoders.distributions import training_latent
from perturbcore.report.decoders.contest import SHIFTED, Contest


def picture_table(
    contest: Contest, *, n: int = 3, most: int = 90, n_components: int = 30
) -> pd.DataFrame:
    """Lay out cells of the perturbations with the strongest effect among those whose cells are kept.

    The first axis is the direction from the mean control to the mean observed cell in the latent space,
    the second the leading principal component of the observed cells at right angles to it.

    Parameters
    ----------
    contest : Contest
    n : int
        Perturbations: the strongest of the first fold of the first cell line.
    most : int
        Cells of a sample.
    n_components : int
        Of the latent space.

    Returns
    -------
    pandas.DataFrame
        perturbation, column ("" for controls), sample ("control", "observed", "generated"), x, y.
    """
    line, fold, cells = contest.lines()[0], contest.folds[0], contest.cells
    here = rows_of(contest.responses, line)
    held = here.obs["fold"].to_numpy().astype(int) == fold
    latent = training_latent(cells, line, here.obs["perturbation"].astype(str)[~held], n_components)
    shift = next(m for m in contest.shifts if m.name == SHIFTED)
    sources = [m for m in [shift, *contest.models] if m.name != "random"]
    kept = {m.name: m.generated(contest.responses, line, fold) for m in sources}
    common = set.intersection(*(set(k.perturbation) for k in kept.values()))
    test = here[held]
    size = np.linalg.norm(np.asarray(test.X, dtype=np.float64), axis=1)
    ranked = test.obs["perturbation"].astype(str).to_numpy()[np.argsort(-size)]
    frames = []
    for name in [p for p in ranked if p in common][:n]:
        own = cells.of_perturbations(line, [name])
        control = cells.draw_controls(
            line, max(1, most // 3), contest.folds[0], set(cells.batch[own])
        )
        z0, z1 = latent.transform(cells.X[control]), latent.transform(cells.X[own])
        axes = _axes(z0, z1)
        parts = [("", "control", z0), ("observed", "observed", z1)]
        parts += [
            (m, "generated", latent.transform(k.X[k.perturbation == name])) for m, k in kept.items()
        ]
        for column, sample, z in parts:
            xy = (z[_spread(len(z), most)] - z0.mean(axis=0)) @ axes
            frames.append(pd.DataFrame({"perturbation": name, "column": column, "sample": sample,
                                        "x": xy[:, 0], "y": xy[:, 1]}))  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def _axes(z0, z1) -> np.ndarray:
    """Two orthonormal columns: from control to observed, and the widest direction of what is left."""
    first = z1.mean(axis=0) - z0.mean(axis=0)
    first = first / max(np.linalg.norm(first), 1e-12)
    rest = z1 - z1.mean(axis=0)
    rest = rest - np.outer(rest @ first, first)
    second = np.linalg.svd(rest, full_matrices=False)[2][0]
    # the sign of a principal component is arbitrary: the largest coordinate is positive
    second = second * np.sign(second[np.argmax(np.abs(second))])
    return np.stack([first, second], axis=1)


def _spread(n: int, most: int) -> np.ndarray:
    return np.arange(n) if n <= most else np.linspace(0, n - 1, most).astype(int)
