"""Six tasks on embeddings of cells: runs, tables with intervals, and what a page says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from perturbcore.data import catalogue
from perturbcore.data.published.facts import facts
from perturbcore.data.sets.base import Dataset
from perturbcore.embeddings.cells import IDEALIZED, LOG_PCA, PROCESSING, SHUFFLED, cells_of
from perturbcore.embeddings.sources import read_edges
from perturbcore.report.paired import judged
from perturbcore.report.text import HEADINGS, listed, percent, plural
from perturbcore.score.cell_tasks import PUBLISHED, CellTasks, score_cells
from perturbcore.score.metrics.cell_tasks import UNEXPRESSED, pairs_among
from perturbcore.score.metrics.registry import metric, metrics_of
from perturbcore.score.uncertainty import resampled_means

FILES = {"CORUM": "corum", "HuMAP": "humap", "Reactome": "reactome_pairs", "SIGNOR": "signor",
         "StringDB": "stringdb"}  # fmt: skip
CONTROLS, LEAST_UNITS, ALIKE, WANTED_NULL = (SHUFFLED, IDEALIZED), 6, 0.95, 1000
COLUMNS, VARIANTS, GAINS = (HEADINGS[f"cell {t}"] for t in ("tasks", "variants", "gains"))
ROWS = metrics_of("cell_tasks")


@dataclass(eq=False)
class CellRun:
    """Embeddings of the cells of one data set, scored.

    `scores`: of the store; `each`: one value per unit of a metric (embedding, predictor, fold,
    metric, unit, value); `validation`: embedding, predictor, fold, metric, value; `known`: known
    pairs by metric; `left_out`: embeddings that could not be had, and why.
    """

    name: str
    data: Dataset
    tasks: CellTasks
    scores: pd.DataFrame
    each: pd.DataFrame
    validation: pd.DataFrame
    left_out: dict[str, str]
    n_boot: int

    @cached_property
    def names(self) -> list[str]:
        """Embeddings, the floor and the ceiling last."""
        there = list(dict.fromkeys(self.scores["embedding"]))
        return [n for n in there if n not in CONTROLS] + [n for n in CONTROLS if n in there]

    @property
    def rivals(self) -> list[str]:
        """Embeddings that compete."""
        return [n for n in self.names if n not in CONTROLS]

    @property
    def rows(self) -> list[str]:
        """Metrics that these data carry, in the order of the tasks."""
        there = set(self.each["metric"])
        return [name for name in ROWS if name in there]

    @cached_property
    def chosen(self) -> pd.DataFrame:
        """Post-processing of best validation score: metric, embedding, fold, predictor.

        Where the training cells are of one batch, nothing can be chosen: raw.
        """
        order = {how: i for i, how in enumerate(PROCESSING)}
        table = self.validation.assign(order=self.validation["predictor"].map(order))
        table["value"] = table["value"].fillna(-np.inf)
        table = table.sort_values(["value", "order"], ascending=[False, True])
        return table.drop_duplicates(["metric", "embedding", "fold"])[
            ["metric", "embedding", "fold", "predictor"]
        ]

    def sums(self, name: str) -> tuple[pd.DataFrame, pd.Series]:
        """Sum over splits the values of each unit, by embedding; count its splits."""
        part = self.each[self.each["metric"] == name].merge(self.chosen)
        wide = part.pivot_table(index="unit", columns="embedding", values="value", aggfunc="sum")
        count = part.groupby(["unit", "embedding"]).size().groupby(level="unit").max()
        return wide[self.names], count.loc[wide.index]

    @cached_property
    def table(self) -> pd.DataFrame:
        """Score of every embedding in every task; see `COLUMNS`.

        value (mean over units and splits, post-processing chosen on validation), low, high (95 %,
        bootstrap over units), place among competitors, optimism (by how much the post-processing
        that is best on the test itself is better), units.
        """
        return self._both[0].astype({"place": "Int64"})

    @cached_property
    def against(self) -> pd.DataFrame:
        """Gain of the PCA of logs over every rival in every task, paired over units.

        metric, method, gain, low, high, p, p_holm (over all rows and rivals), verdict.
        """
        gains = self._both[1]
        return judged(gains[gains["method"] != SHUFFLED].reset_index(drop=True))

    @property
    def unproven(self) -> list[str]:
        """Tasks in which the PCA of logs is not shown to be better than shuffled vectors."""
        gains = self._both[1]
        rows = gains[(gains["method"] == SHUFFLED) & (gains["metric"] != "ilisi_norm")]
        return list(rows["task"][~(rows["low"] > 0)])

    @cached_property
    def _both(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        rng, scores, gains = np.random.default_rng(0), [], []
        on_test = self.each.groupby(["metric", "embedding", "predictor"])["value"].mean()
        best = on_test.groupby(level=["metric", "embedding"]).max()
        for name in self.rows:
            wide, count = self.sums(name)
            n = len(wide)
            drawn = resampled_means(wide.to_numpy(), count.to_numpy()[:, None], self.n_boot, rng)
            drawn = pd.DataFrame(drawn, columns=wide.columns)
            drawn = drawn if n >= LEAST_UNITS else drawn * np.nan
            value = wide.sum() / count.sum()
            place = value[self.rivals].rank(ascending=False, method="min")
            low, high = drawn.quantile(0.025), drawn.quantile(0.975)
            for method in self.names:
                about = {
                    "metric": name,
                    "task": metric(name).label,
                    "embedding": method,
                    "units": n,
                }
                about |= {"value": value[method], "low": low[method], "high": high[method]}
                optimism = best[name, method] - value[method] if method in self.rivals else np.nan
                scores.append(about | {"place": place.get(method), "optimism": optimism})
                if method not in (LOG_PCA, IDEALIZED):
                    gain = drawn[LOG_PCA] - drawn[method]
                    tail = min((gain <= 0).sum(), (gain >= 0).sum()) + 1
                    p = min(1.0, 2 * tail / (len(gain) + 1)) if n >= LEAST_UNITS else np.nan
                    row = {"metric": name, "task": metric(name).label, "method": method}
                    row |= {"gain": value[LOG_PCA] - value[method], "p": p}
                    gains.append(row | {"low": gain.quantile(0.025), "high": gain.quantile(0.975)})
        columns = ["metric", "task", "method", "gain", "p", "low", "high"]
        return pd.DataFrame(scores), pd.DataFrame(gains, columns=columns)

    def wide(self, column: str = "value") -> pd.DataFrame:
        """Lay a column of `table` out: tasks as rows, embeddings as columns."""
        wide = self._both[0].pivot(index="task", columns="embedding", values=column)
        return wide.loc[[metric(name).label for name in self.rows], self.names].rename_axis(
            columns=None
        )

    @cached_property
    def variants(self) -> pd.DataFrame:
        """Best score as published, and corrected, of the PCA of logs and of shuffled vectors.

        Published: first split, post-processing of best test score.
        """
        told = self.scores[self.scores["task"] == PUBLISHED]
        told = told.groupby(["metric", "embedding"])["value"].max().unstack()
        rows = []
        for name in self.rows:
            row = {"task": metric(name).label}
            for method, short in ((LOG_PCA, "pca"), (SHUFFLED, "floor")):
                row[f"{short}_published"] = told[method].get(name, np.nan)
                row[short] = self.table.set_index(["metric", "embedding"])["value"][name, method]
            rows.append(row)
        return pd.DataFrame(rows)


def relations_of(data: Dataset) -> dict[str, pd.DataFrame]:
    """Known pairs of genes: of the simulation, or EFAAR's five files; none for drugs.

    Of a simulation: its reported network, and the 5 % of pairs of perturbations whose true effects,
    less their mean, are most alike.
    """
    if data.responses.uns["perturbcore"]["identifier"] != "symbol":
        return {}
    if not data.simulated:
        return {name: read_edges(catalogue.fetch(file)) for name, file in FILES.items()}
    simulation = data.extras["simulation"]
    truth = simulation.true_effects
    effect = np.asarray(truth.X) - np.asarray(truth.X).mean(axis=0)
    alike = np.corrcoef(effect)
    i, j = np.triu_indices(len(alike), 1)
    top = alike[i, j] >= np.quantile(alike[i, j], ALIKE)
    who = truth.obs["perturbation"].astype(str).to_numpy()
    pairs = pd.DataFrame({"source": who[i[top]], "target": who[j[top]]})
    return {"network": simulation.knowledge.network, "alike": pairs}


def run_cells(
    study,
    name: str,
    *,
    embeddings: Sequence[str],
    transfer_from: Mapping[str, str],
    splits: int,
    max_cells: int,
    dim: int,
    decoder: str = "ridge",
    n_boot: int = 10_000,
    seed: int = 42,
) -> CellRun:
    """Score embeddings of the cells of a data set of the profile; floor and ceiling are added.

    `embeddings`: see `perturbcore.embeddings.cells.cell_embedding`; `transfer_from`: data set ->
    the one that the transfer learns from; `splits`: repeated splits, seeds from `seed` on;
    `max_cells`: drawn from the screen; `decoder`: "ridge" or "mlp"; `n_boot`: draws.
    """
    data = study.dataset(name)
    tasks = CellTasks(cells_of(data.screen, max_cells, seed), relations_of(data), decoder)
    source = transfer_from.get(name)
    other = cells_of(study.dataset(source).screen, max_cells, seed) if source else None
    keys, left_out = score_cells(
        tasks, [*dict.fromkeys([LOG_PCA, *embeddings]), *CONTROLS], store=study.store,
        scope=study.scope(name), dataset=name, seeds=range(seed, seed + splits), dim=dim,
        other=other, n_jobs=study.n_jobs,
    )  # fmt: skip
    study.export()
    scores = study.store.scores(keys)
    about = scores.drop_duplicates("key").set_index("key")[["embedding", "predictor", "fold"]]
    each = [study.store.per_perturbation(keys, m).assign(metric=m) for m in ROWS]
    each = pd.concat([e for e in each if len(e)], ignore_index=True).join(about, on="key")
    notes = study.store.notes(keys)
    validation = [
        {"key": k, "metric": m, "value": note["validation"].get(m, np.nan)}
        for k, note in notes.items()
        for m in ROWS
    ]
    return CellRun(
        name, data, tasks, scores, each.rename(columns={"perturbation": "unit"}),
        pd.DataFrame(validation).join(about, on="key"), left_out, n_boot,
    )  # fmt: skip


def carries(run: CellRun) -> str:
    """Say what a data set holds, and which tasks it cannot carry."""
    label, tasks = run.tasks.label, run.tasks
    named = np.unique(label[label != ""])
    share = (label == "").mean()
    mean = pd.Series(tasks.cells.X.mean(axis=0), tasks.cells.var_names)
    null = int(np.isin(named, mean.index[mean < UNEXPRESSED]).sum())
    said = [
        f"**{run.data.title}**: {len(label):,} cells ({percent(share)} controls), {len(named)} "
        f"{plural(len(named), 'perturbation')}, {len(np.unique(tasks.place))} batches."
    ]
    if len(named) == 1:
        said.append("One perturbation: only batch mixing and reconstruction can be asked.")
        return " ".join(said)
    if null < WANTED_NULL:
        said.append(
            f"The published test of consistency needs {WANTED_NULL:,} unexpressed perturbations, "
            f"here {null} {plural(null, 'is', 'are')}."
        )
    pairs = {n: len(pairs_among(table, named)) for n, table in tasks.relations.items()}
    lacking = [n for n in pairs if n not in run.rows]
    said.append(f"Known pairs: {listed(f'{metric(n).label[12:]} {k}' for n, k in pairs.items())}.")
    if lacking:
        who = listed(metric(n).label[12:] for n in lacking)
        said.append(f"Too few within half of the perturbations for {who}: no recall is given.")
    if run.left_out:
        why = "; ".join(f"{n} ({w.split(':', 1)[-1].strip()})" for n, w in run.left_out.items())
        said.append(f"Not to be had here: {why}.")
    return " ".join(said)


def answer(run: CellRun) -> str:
    """Say whether the PCA of logs wins, with how many decided comparisons."""
    first = run.table[(run.table["place"] == 1)].groupby("embedding")["metric"].nunique()
    order = first.sort_values(ascending=False, kind="stable")
    each = [f"{name} {k}" for name, k in order.items()]
    n, lead = len(run.rows), order.index[0]
    said = [
        f"On **{run.data.title}**, first places over {n} {plural(n, 'row')} (ties counted for "
        f"each) go to {listed(each)}; most to {lead}."
    ]
    for method, part in run.against.groupby("method", sort=False):
        found = part["verdict"].value_counts()
        counts = [
            f"{v} in {found[v]}" for v in ("better", "worse", "tie", "undecidable") if v in found
        ]
        said.append(f"PCA of logs against {method}: {listed(counts)}.")
    if run.unproven:
        said.append(
            f"In {len(run.unproven)} of {n} rows the PCA of logs is not shown to be better than "
            f"shuffled vectors: {listed(run.unproven)}."
        )
    return " ".join(said)


def one_line(runs: Sequence[CellRun]) -> str:
    """Condense the answer to one or two sentences."""
    table = pd.concat([run.table for run in runs])
    first = table[table["place"] == 1]["embedding"].value_counts()
    against = pd.concat([run.against for run in runs])
    found = against["verdict"].value_counts()
    ahead, behind = (int(found.get(v, 0)) for v in ("better", "worse"))
    rows, mine = sum(len(run.rows) for run in runs), int(first.get(LOG_PCA, 0))
    weak = sum(len(run.unproven) for run in runs)
    rest = [f"{name} in {k}" for name, k in first.items() if name != LOG_PCA]
    where = f"{len(runs)} data {plural(runs, 'set')}"
    return (
        f"A PCA of logs is first in {mine} of {rows} rows of {where} ({listed(rest)}); of its "
        f"{len(against)} comparisons with other embeddings it wins {ahead} and loses {behind} "
        f"beyond doubt, the other {len(against) - ahead - behind} are undecided. In {weak} rows it "
        "is not shown to be better than shuffled vectors."
    )


def optimism_said(runs: Sequence[CellRun]) -> str:
    """Say what choosing the post-processing on the test itself would have added."""
    table = pd.concat([run.table for run in runs]).dropna(subset="optimism")
    shares = table[~table["metric"].isin(["ilisi_norm", "spearman", "structural_integrity"])]
    gain = shares["optimism"]
    return (
        "Had the post-processing been chosen on the test cells, as published, "
        f"{int((gain > 0).sum())} of {len(gain)} accuracies, consistencies and recalls would be "
        f"higher than with the choice on validation: by {100 * gain.mean():.1f} percentage points "
        f"on average over all of them, and by up to {100 * gain.max():.1f}. That is a gain of the "
        "choice, not of the embedding."
    )


def variants_said(run: CellRun) -> str:
    """Say what the corrections change on one data set, with its numbers."""
    table = run.variants.set_index("task")
    label = metric("knn_top1").label
    share = (run.tasks.label == "").mean()
    said = []
    if label in table.index:
        row = table.loc[label]
        said.append(
            f"On {run.data.title}, shuffled vectors retrieve {percent(row['floor_published'])} of "
            f"the cells rightly as published, since {percent(share)} of all cells are controls, "
            f"and {percent(row['floor'])} without controls and per perturbation; the PCA of logs "
            f"{percent(row['pca_published'])} and {percent(row['pca'])}."
        )
    row = table.loc[metric("structural_integrity").label]
    said.append(
        f"The structural integrity of the PCA of logs, {row['pca']:.3f}, is to be read from 0.5, "
        "which predicting no effect at all gives; shuffled vectors reach "
        f"{row['floor']:.3f}."
    )
    return " ".join(said)


def published_table(dataset: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Table 2 of Bendidi et al. for one of its data sets: values, and places among models."""
    rows = facts("bendidi2024_table2").query("dataset == @dataset")
    rows = rows.assign(task=[metric(m).label for m in rows["metric"]])
    wide = rows.pivot_table("value", "task", "model", aggfunc="first", sort=False)
    wide = wide.loc[[metric(m).label for m in ROWS if metric(m).label in wide.index]]
    place = wide.drop(columns="Rand. Labels").rank(axis=1, ascending=False, method="min")
    return wide.rename_axis(columns=None), place.reindex(columns=wide.columns)
