"""The noise ceiling of labels: how well a repeated experiment would predict this one's."""

import numpy as np
import pandas as pd
import scipy.sparse as sp
from tqdm.auto import tqdm

from perturbcore.core.errors import InputError
from perturbcore.core.scheduler import spread
from perturbcore.data.deg import call_genes, majority, mean_and_variance, plan_tests, t_statistics
from perturbcore.data.effects import gene_columns
from perturbcore.data.responses import check_responses
from perturbcore.score.ceiling import sampler as resampling
from perturbcore.score.ceiling.ceiling import Cells
from perturbcore.score.metrics.deg import deg_metrics, one_hot
from perturbcore.score.task import task_of

DEG_QUANTILES = (0.005, 0.01, 0.1, 0.2, 0.5, 0.8, 0.9, 0.99, 0.995)
# what deg_labels records, and what it does by default
_RECORDED = {
    "variant": "pooled", "test": "welch", "alpha": 0.05, "min_cells": 30, "strict": True,
}  # fmt: skip


def deg_ceiling(
    screen, responses, *, n_trials=20, n_outer=3, n_inner=3, seed=5050, n_jobs=1, progress=True
) -> pd.DataFrame:
    """Score labels recomputed from resampled cells against the labels themselves, fold by fold.

    Pooled labels: each trial draws the cells of every perturbation and the controls of the line,
    batches ignored. Labels per batch: each outer trial draws a perturbation's batches, one drawn
    twice voting twice, each inner trial their cells. `responses`: complete labels with folds, which
    record how they were called; `n_trials`: for pooled labels; `n_outer, n_inner`: trials over
    batches, and over cells within them, for labels per batch. Of quantiles of the trials the
    nearest one is taken.

    Returns dataset, task, cell_line, fold, quantile, metric, value, n_test. Cole et al. 2026,
    4.7.1.
    """
    how = recorded(responses)
    about, task = responses.uns["perturbcore"], task_of(responses)
    trials = (n_outer, n_inner) if how["variant"] == "per_batch" else (1, n_trials)
    resampling.check_choices(n_outer=trials[0], n_inner=trials[1])
    metrics, source = task.metrics, Source(screen, responses.var_names, how)
    source.check(responses.obs)
    index = pd.MultiIndex.from_product([DEG_QUANTILES, metrics], names=["quantile", "metric"])
    units = responses.obs[responses.obs["fold"].astype(int) >= 0].groupby(
        ["cell_line", "fold"], observed=True, sort=True
    )
    tables, sampler = [], None
    with tqdm(total=len(responses), desc="noise ceiling of labels", disable=not progress) as bar:
        for (line, fold), part in units:
            if sampler is None or sampler.line != str(line):
                sampler = LabelSampler(source, str(line), trials, seed)
            truth = np.asarray(responses[part.index].layers["deg"])
            names = part["perturbation"].astype(str)
            samples = np.empty((trials[0] * trials[1], *truth.shape), dtype=np.int8)
            for i, found in spread(_labels, names, sampler, n_jobs=n_jobs):
                samples[:, i] = found
                bar.update()
            scores = pd.DataFrame([deg_metrics(truth, one_hot(s), metrics) for s in samples])
            values = np.quantile(scores[metrics], DEG_QUANTILES, axis=0, method="nearest")
            table = pd.DataFrame({"value": values.ravel()}, index=index).reset_index()
            tables.append(table.assign(cell_line=str(line), fold=int(fold), n_test=len(part)))
    table = pd.concat(tables, ignore_index=True).assign(dataset=about["dataset"], task=task.name)
    return table[["dataset", "task", "cell_line", "fold", "quantile", "metric", "value", "n_test"]]


def recorded(responses) -> dict:
    """Return how the labels of responses were made; refused where labels are not complete."""
    check_responses(responses)
    task = task_of(responses)
    if not task.classes:
        raise InputError(
            f"the responses hold {task.title}: complete labels (task 'deg') are needed"
        )
    about = responses.uns["perturbcore"]
    return {k: about.get(k, default) for k, default in _RECORDED.items()}


def _labels(name, sampler):
    return sampler.labels(name)


class Source:
    """Cells of each group that is tested, and how they are tested."""

    def __init__(self, screen, genes, how):
        self.how = how
        plan = plan_tests(screen.obs, how["variant"], how["min_cells"], how["strict"])
        column, kept = gene_columns(screen, genes)
        self.cells = Cells.of(screen)
        self.columns, self.n_genes = None, len(kept)
        if not np.array_equal(column, np.arange(screen.n_vars)):
            self.columns = screen.var_names.get_indexer(kept)
        used = plan.groups[plan.groups["used"]]
        order = np.argsort(plan.group_of_cell, kind="stable")
        start = np.searchsorted(plan.group_of_cell[order], np.arange(len(plan.groups) + 1))
        # cell line -> perturbation (None: controls) -> place -> rows
        self.lines: dict = {}
        for group in used.itertuples():
            names = self.lines.setdefault(group.cell_line, {})
            places = names.setdefault(None if group.is_control else group.perturbation, {})
            places[group.place] = order[start[group.Index] : start[group.Index + 1]]

    def check(self, obs) -> None:
        """Refuse a perturbation that has no label, before long work."""
        for line, name in obs[["cell_line", "perturbation"]].astype(str).itertuples(index=False):
            if name not in self.lines.get(line, {}):
                raise InputError(
                    f"perturbation {name!r} of cell line {line!r} cannot be tested in this screen "
                    f"with min_cells={self.how['min_cells']}: compute the ceiling on the screen "
                    "that the labels come from"
                )

    def sample(self, rows, weights):
        """Mean and variance of resampled cells, (samples, genes) each."""
        return mean_and_variance(*self.sums(rows, weights), np.full(len(weights), len(rows)))

    def sums(self, rows, weights):
        """Add up weighted cells, and their squares: (samples, genes) each."""
        step = resampling.block_length(self.cells.n_genes)
        first, second = (np.zeros((len(weights), self.n_genes)) for _ in range(2))
        for start in range(0, len(rows), step):
            block = self.cells.read(rows[start : start + step])
            block = block if self.columns is None else block[:, self.columns]
            weight = np.ascontiguousarray(weights[:, start : start + step])
            first += resampling.multiply(weight, block)
            second += resampling.multiply(
                weight, block.power(2) if sp.issparse(block) else block**2
            )
        return first, second


class LabelSampler:
    """Resampled labels of the perturbations of one cell line."""

    def __init__(self, source: Source, line: str, trials, seed):
        self.source, self.line, self.seed = source, line, seed
        self.n_outer, self.n_inner = trials
        groups = dict(source.lines[line])
        self.controls = groups.pop(None)
        self.perturbed = dict(sorted(groups.items()))
        self.position = {name: i for i, name in enumerate(self.perturbed)}
        places = {place: i for i, place in enumerate(sorted(self.controls))}
        drawn = [d for name in self.perturbed for d in self._drawn(name)]
        self._control: dict = {}
        for place, trial, copy in sorted({(p, t, c) for t, _, p, c in drawn}):
            rows = self.controls[place]
            stream = resampling.child(resampling.control_stream(seed), places[place])
            weights = resampling.cell_counts(
                len(rows), stream, trial, copy, resampling.CONTROL, self.n_inner
            )
            self._control[place, trial, copy] = source.sample(rows, weights)

    def _drawn(self, name):
        """List (outer trial, position, place, times the place was drawn before in the trial)."""
        places = sorted(self.perturbed[name])
        stream = resampling.perturbation_stream(self.seed, self.position[name])
        drawn = resampling.drawn_batches(len(places), stream, self.n_outer)
        return [
            (trial, position, places[batch], int((row[:position] == batch).sum()))
            for trial, row in enumerate(drawn)
            for position, batch in enumerate(row)
        ]

    def labels(self, name) -> np.ndarray:
        """Labels of a perturbation in every trial, int8 (n_outer * n_inner, genes)."""
        how, inner = self.source.how, self.n_inner
        stream = resampling.perturbation_stream(self.seed, self.position[name])
        shape = (self.n_outer * inner, self.source.n_genes)
        up, down, votes = (np.zeros(shape, dtype=np.int16) for _ in range(3))
        by_place: dict = {}
        for drawn in self._drawn(name):
            by_place.setdefault(drawn[2], []).append(drawn)
        for place, draws in by_place.items():
            rows = self.perturbed[name][place]
            n, m = np.full(inner, len(rows)), len(self.controls[place])
            counts = [
                resampling.cell_counts(len(rows), stream, t, p, resampling.PERTURBED, inner)
                for t, p, *_ in draws
            ]
            mean, var = self.source.sample(rows, np.concatenate(counts))
            for i, (trial, _, _, copy) in enumerate(draws):
                c_mean, c_var = self._control[place, trial, copy]
                here = slice(i * inner, (i + 1) * inner)
                there = slice(trial * inner, (trial + 1) * inner)
                t, df = t_statistics(mean[here], var[here], n, c_mean, c_var, m, how["test"])
                label = call_genes(t, df, how["alpha"])
                up[there] += label > 0
                down[there] += label < 0
                votes[there] += 1
        return majority(up, down, votes - up - down)
