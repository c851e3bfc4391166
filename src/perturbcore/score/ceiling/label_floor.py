"""Ceilings of labels that count no noise twice: a repeated experiment, and the noise floor."""

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.special import ndtr, ndtri

from perturbcore.data.deg import call_genes, majority, mean_and_variance, t_statistics
from perturbcore.score.ceiling.deg import Source, recorded
from perturbcore.score.ceiling.sampler import child, perturbation_stream
from perturbcore.score.metrics.deg import deg_metrics, one_hot
from perturbcore.score.task import task_of

METRICS = task_of("deg").metrics
DRAWS = 2**22  # keeps these streams apart from those of halves and trials
GRID, STEPS = 61, 60  # effects that the prior may hold, and steps towards it
ENOUGH = 200  # perturbations of a line that tell the noise of its genes
FARTHEST = 40.0  # a larger statistic tells no more


def label_noise_floor(
    screen: AnnData,
    responses: AnnData,
    *,
    n_draws: int = 5,
    n_splits: int = 4,
    seed: int = 5050,
    truth: AnnData | None = None,
) -> pd.DataFrame:
    """Estimate what the true effects, and a repeated experiment, would score against the labels.

    The statistic of a test is its true effect in standard errors, plus noise, whose size is seen
    between disjoint halves of the batches. The **noise floor** predicts each label by its
    probability given true effects drawn from their distribution; the **repeated experiment** adds
    new noise and calls labels again, and may have the better F1 where labels are rare. On simulated
    screens both are within 5 % of what the planted effects score. `n_draws`: draws of true effects,
    averaged; `n_splits`: random halves; `truth`: true effects, for one more estimate, "true".

    Returns dataset, task, cell_line, fold, estimate, metric, value, n_test.
    """
    how, task = recorded(responses), task_of(responses)
    source = Source(screen, responses.var_names, how)
    source.check(responses.obs)
    batch = screen.obs["batch"].astype(str).to_numpy()
    rows = []
    used = responses.obs[responses.obs["fold"].astype(int) >= 0]
    for line, part in used.groupby("cell_line", observed=True, sort=True):
        tests = LineTests(source, str(line), batch, n_splits, seed)
        for fold, here in part.groupby("fold", observed=True):
            label = np.asarray(responses[here.index].layers["deg"])
            names = here["perturbation"].astype(str)
            known = None if truth is None else truth[here.index, responses.var_names].X
            for name, value in _scores(tests, names, label, known, n_draws).items():
                rows.append((str(line), int(fold), *name, value, len(here)))
    columns = ["cell_line", "fold", "estimate", "metric", "value", "n_test"]
    about = dict(dataset=responses.uns["perturbcore"]["dataset"], task=task.name)
    return pd.DataFrame(rows, columns=columns).assign(**about)


def _scores(tests: "LineTests", names, label, known, n_draws: int) -> dict[tuple, float]:
    """Mean score of each estimate and metric over draws, of the perturbations of one fold."""
    made = [
        tests.predictions(name, n_draws, None if known is None else known[i])
        for i, name in enumerate(names)
    ]
    out: dict[tuple, list] = {}
    for estimate in made[0]:
        for draw in range(len(made[0][estimate])):
            values = np.stack([m[estimate][draw] for m in made], axis=1)
            for metric, value in deg_metrics(label, values, METRICS).items():
                out.setdefault((estimate, metric), []).append(value)
    return {name: float(np.mean(values)) for name, values in out.items()}


class LineTests:
    """The tests of one cell line: statistics, the noise in them, and what may lie behind them."""

    def __init__(self, source: Source, line: str, batch: np.ndarray, n_splits: int, seed: int):
        self.source, self.batch, self.seed, self.n_splits = source, batch, seed, n_splits
        self.places = dict(source.lines[line])
        self.controls = self._sums(None)
        names = sorted(name for name in self.places if name is not None)
        self.position = {name: i for i, name in enumerate(names)}
        some = names[:: -(-len(names) // ENOUGH)]
        squares = [z for name in some if (z := self._noise(name)) is not None]
        # the noise of a gene, from many perturbations: shifts of batches are its own
        self.noise = np.sqrt(np.mean(squares, axis=0)) if squares else np.ones(source.n_genes)
        self.noise = np.maximum(self.noise, 1.0)

    def _sums(self, name: str | None) -> dict:
        """(place, batch) -> number of cells, sums and sums of squares of their expression."""
        out = {}
        for place, rows in self.places[name].items():
            for b in np.unique(self.batch[rows]):
                here = rows[self.batch[rows] == b]
                first, second = self.source.sums(here, np.ones((1, len(here))))
                out[place, b] = len(here), first[0], second[0]
        return out

    def _tests(self, sums: dict, batches=None) -> tuple[Any, Any, Any, Any]:
        """Statistics, freedom and standard errors (places, genes), and harmonic sizes."""
        found, size = [], []
        places = dict.fromkeys(place for place, _ in sums)
        for place in places:
            (n, mean, var), (m, c_mean, c_var) = (
                _moments(side, place, batches) for side in (sums, self.controls)
            )
            if n > 1 and m > 1:
                how = (var[None], [n], c_mean, c_var, m, self.source.how["test"])
                t, df = t_statistics(mean[None], *how)
                one, _ = t_statistics(c_mean[None] + 1.0, *how)  # of a difference of 1
                error = np.where(np.isfinite(one), 1 / one, np.inf)
                found.append([np.clip(t, -FARTHEST, FARTHEST)[0], df[0], error[0]])
                size.append(n * m / (n + m))
        if not found:
            return None, None, None, np.zeros(0)
        return (*np.stack(found, axis=1), np.array(size))

    def _noise(self, name: str) -> np.ndarray | None:
        """Square of the noise (genes,), mean over halves; None without two batches in both."""
        sums = self._sums(name)
        batches = np.array(sorted({b for _, b in sums}))
        rng = np.random.default_rng(child(self._stream(name), 0))
        squares = []
        for _ in range(self.n_splits if len(batches) > 1 else 0):
            half = rng.permutation(batches)[: len(batches) // 2]
            sides = [self._tests(sums, part) for part in (half, np.setdiff1d(batches, half))]
            if all(len(size) for *_, size in sides):
                t = [_joined(t, size) / np.sqrt(size.sum()) for t, _, _, size in sides]
                spread = sum(1 / size.sum() for *_, size in sides)
                squares.append((t[0] - t[1]) ** 2 / spread)
        return np.mean(squares, axis=0) if squares else None

    def _stream(self, name: str):
        return child(perturbation_stream(self.seed, self.position[name]), DRAWS)

    def predictions(self, name: str, n_draws: int, known=None) -> dict[str, list]:
        """Probabilities (3, genes) of each draw: estimate -> draws; `known`: true effects."""
        t, df, error, size = self._tests(self._sums(name))
        share = np.sqrt(size / size.sum())[:, None]
        rng = np.random.default_rng(child(self._stream(name), 1))
        drawn = draw_effects(_joined(t, size), self.noise, n_draws, rng)
        alpha = self.source.how["alpha"]
        cut = [_cut(row, d, alpha) for row, d in zip(t[:, None], df[:, None], strict=True)]
        out: dict[str, list] = {"repeated": [], "noise_floor": []}
        for effect in drawn:
            behind = effect * share
            again = behind + self.noise * rng.standard_normal(t.shape)
            label = call_genes(again, df, alpha)
            votes = [(label == c).sum(axis=0) for c in (1, -1, 0)]
            out["repeated"].append(one_hot(majority(*votes)[None])[:, 0])
            out["noise_floor"].append(_probabilities(behind, np.array(cut)[:, None], self.noise))
        if known is not None:
            behind = np.asarray(known, dtype=np.float64) / error
            out["true"] = [_probabilities(behind, np.array(cut)[:, None], self.noise)]
        return out


def _moments(sums: dict, place, batches) -> tuple[int, Any, Any]:
    """Cells, mean and variance of a place, or of some of its batches."""
    parts = [v for (p, b), v in sums.items() if p == place and (batches is None or b in batches)]
    n = sum(size for size, *_ in parts)
    if n < 2:
        return n, None, None
    first, second = (np.sum([part[i] for part in parts], axis=0) for i in (1, 2))
    mean, var = mean_and_variance(first[None], second[None], [n])
    return n, mean[0], var[0]


def _joined(t: np.ndarray, size: np.ndarray) -> np.ndarray:
    """One statistic of several places, (genes,): each counts as its size says."""
    return np.sqrt(size) @ t / np.sqrt(size.sum())


def _cut(t: np.ndarray, df: np.ndarray, alpha: float) -> float:
    """Smallest statistic that was called in this test; the strictest cut where none was."""
    called = call_genes(t, df, alpha) != 0
    return float(np.abs(t[called]).min()) if called.any() else float(-ndtri(alpha / 2 / t.size))


def _probabilities(effect, cut, noise) -> np.ndarray:
    """Probability of -1, 0 and 1 given true effects (places, genes), mean over places."""
    up, down = ndtr((effect - cut) / noise).mean(axis=0), ndtr((-effect - cut) / noise).mean(axis=0)
    return np.stack([down, 1 - up - down, up]).astype(np.float32)


def draw_effects(t: np.ndarray, noise: np.ndarray, n_draws: int, rng) -> np.ndarray:
    """Draw true effects behind statistics by a prior fitted on a grid (Kiefer & Wolfowitz)."""
    end = np.arcsinh(np.abs(t).max() + 1.0)
    grid = np.sinh(np.linspace(-end, end, GRID))
    away = (t[:, None] - grid) / noise[:, None]
    likelihood = np.exp(-0.5 * (away**2 - (away**2).min(axis=1, keepdims=True)))
    prior = np.full(GRID, 1 / GRID)
    for _ in range(STEPS):
        weight = likelihood * prior
        prior = (weight / weight.sum(axis=1, keepdims=True)).mean(axis=0)
    posterior = np.cumsum(likelihood * prior, axis=1)
    at = rng.random((n_draws, len(t), 1)) * posterior[:, -1:]
    return grid[np.minimum((posterior < at).sum(axis=-1), GRID - 1)]
