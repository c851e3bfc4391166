"""Cells of a few perturbations on two axes of the latent space: controls, observed, generated."""

import numpy as np
import pandas as pd

from perturbcore.data.responses import cell_lines, rows_of
from perturbcore.models.decoders.distributions import training_latent
from perturbcore.report.decoders.run import SHIFTED, DecoderRun
from perturbcore.score.model import Fold

SHOWN, MOST = 3, 90  # perturbations, and cells of a sample


def picture_table(run: DecoderRun, n_components: int = 30) -> pd.DataFrame:
    """Lay out cells of the strongest perturbations of the first fold and line, of those kept."""
    line, number, cells = cell_lines(run.responses)[0], run.folds[0], run.cells
    fold = Fold.of(run.responses, number, (line,))
    latent = training_latent(cells, fold, n_components)
    shift = next(m for m in run.shifts if m.name == SHIFTED)
    # the last decoder has random vectors
    kept = {m.name: m.generated(run.responses, line, number) for m in [shift, *run.models[:-1]]}
    common = set.intersection(*(set(k.obs["perturbation"]) for k in kept.values()))
    here = rows_of(run.responses, line)
    size = pd.Series(np.linalg.norm(np.asarray(here.X, dtype=np.float64), axis=1))
    size.index = here.obs["perturbation"].astype(str)
    ranked = size[fold.test_ids].sort_values(ascending=False, kind="stable").index
    frames = []
    for name in [p for p in ranked if p in common][:SHOWN]:
        own = cells.of_perturbations(line, [name])
        control = cells.draw_controls(line, MOST // 3, number, set(cells.batch[own]))
        z0, z1 = latent.transform(cells.X[control]), latent.transform(cells.X[own])
        axes = _axes(z0, z1)
        parts = [("", "control", z0), ("observed", "observed", z1)]
        for column, made in kept.items():
            mine = made[made.obs["perturbation"] == name]
            parts.append((column, "generated", latent.transform(mine.X)))
        for column, sample, z in parts:
            spread = np.linspace(0, len(z) - 1, min(MOST, len(z))).astype(int)
            frame = pd.DataFrame((z[spread] - z0.mean(axis=0)) @ axes, columns=["x", "y"])
            frames.append(frame.assign(perturbation=name, column=column, sample=sample))
    return pd.concat(frames, ignore_index=True)


def _axes(z0, z1) -> np.ndarray:
    """Return two orthonormal columns: from control to observed, and the widest at right angles."""
    first = z1.mean(axis=0) - z0.mean(axis=0)
    first = first / max(np.linalg.norm(first), 1e-12)
    rest = z1 - z1.mean(axis=0)
    rest = rest - np.outer(rest @ first, first)
    second = np.linalg.svd(rest, full_matrices=False)[2][0]
    # the sign of a principal component is arbitrary: the largest coordinate is positive
    second = second * np.sign(second[np.argmax(np.abs(second))])
    return np.stack([first, second], axis=1)
