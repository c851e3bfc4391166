"""Six tasks on embeddings of cells: runs, tables with intervals, and what a page says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from perturbcore.data import catalogue
from perturbcore.data.published.tables import facts
from perturbcore.data.sets.base import Dataset
from perturbcore.embeddings.cells import IDEALIZED, LOG_PCA, PROCESSING, SHUFFLED, cells_of
from perturbcore.embeddings.sources import read_edges
from perturbcore.report.paired import SIGNS, judged
from perturbcore.report.text import listed, tell
from perturbcore.score.cell_tasks import PUBLISHED, CellTasks, score_tasks
from perturbcore.score.metrics.cell_tasks import UNEXPRESSED, pairs_among
from perturbcore.score.metrics.registry import metric, metrics_of
from perturbcore.score.uncertainty import resampled_means

FILES = {"CORUM": "corum", "HuMAP": "humap", "Reactome": "reactome_pairs", "SIGNOR": "signor",
         "StringDB": "stringdb"}  # fmt: skip
CONTROLS, LEAST_UNITS, ALIKE, WANTED_NULL = (SHUFFLED, IDEALIZED), 6, 0.95, 1000
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
        """Post-processing of best validation score: metric, embedding, fold, predictor."""
        order = {how: i for i, how in enumerate(PROCESSING)}
        table = self.validation.assign(order=self.validation["predictor"].map(order))
        table["value"] = table["value"].fillna(-np.inf)
        table = table.sort_values(["value", "order"], ascending=[False, True])
        keys = ["metric", "embedding", "fold"]
        return table.drop_duplicates(keys)[[*keys, "predictor"]]

    def sums(self, name: str) -> tuple[pd.DataFrame, pd.Series]:
        """Sum over splits the values of each unit, by embedding; count its splits."""
        part = self.each[self.each["metric"] == name].merge(self.chosen)
        wide = part.pivot_table(index="unit", columns="embedding", values="value", aggfunc="sum")
        count = part.groupby(["unit", "embedding"]).size().groupby(level="unit").max()
        return wide[self.names], count.loc[wide.index]

    @cached_property
    def draws(self) -> dict[str, tuple[pd.Series, pd.DataFrame, int]]:
        """Score of each embedding, its bootstrap draws over units, number of units: by metric."""
        rng, out = np.random.default_rng(0), {}
        for name in self.rows:
            wide, count = self.sums(name)
            drawn = resampled_means(wide.to_numpy(), count.to_numpy()[:, None], self.n_boot, rng)
            drawn = pd.DataFrame(drawn, columns=wide.columns)
            drawn = drawn if len(wide) >= LEAST_UNITS else drawn * np.nan
            out[name] = wide.sum() / count.sum(), drawn, len(wide)
        return out

    @cached_property
    def table(self) -> pd.DataFrame:
        """Score of every embedding in every task."""
        on_test = self.each.groupby(["metric", "embedding", "predictor"])["value"].mean()
        best, scores = on_test.groupby(level=["metric", "embedding"]).max(), []
        for name, (value, drawn, n) in self.draws.items():
            about = {"metric": name, "task": metric(name).label, "units": n}
            table = pd.DataFrame({"value": value, **_interval(drawn)}).assign(**about)
            table["place"] = value[self.rivals].rank(ascending=False, method="min")
            table["optimism"] = best[name] - value[self.rivals]
            scores.append(table.rename_axis("embedding").reset_index())
        return pd.concat(scores, ignore_index=True).astype({"place": "Int64"})

    def gains(self, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
        """Gain of the first over the second (`method`) of each pair in every task, over units."""
        tables = []
        for name, (value, drawn, n) in self.draws.items():
            first, second = (list(side) for side in zip(*pairs, strict=True))
            gain = drawn[first].to_numpy() - drawn[second].to_numpy()
            tail = np.minimum((gain <= 0).sum(axis=0), (gain >= 0).sum(axis=0)) + 1
            p = np.minimum(1.0, 2 * tail / (len(gain) + 1)) * (1 if n >= LEAST_UNITS else np.nan)
            known = {"gain": value[first].to_numpy() - value[second].to_numpy(), "p": p}
            about = {"metric": name, "task": metric(name).label, **known}
            about |= {k: v.to_numpy() for k, v in _interval(pd.DataFrame(gain)).items()}
            tables.append(pd.DataFrame({"embedding": first, "method": second, **about}))
        return pd.concat(tables, ignore_index=True)

    @cached_property
    def against(self) -> pd.DataFrame:
        """Gain of the PCA of logs over every rival in every task, paired over units."""
        return judged(self.gains([(LOG_PCA, name) for name in self.rivals if name != LOG_PCA]))

    @cached_property
    def over_floor(self) -> pd.DataFrame:
        """Gain of the PCA of logs over shuffled vectors, which mix batches best of all."""
        floor = self.gains([(LOG_PCA, SHUFFLED)])
        return judged(floor[floor["metric"] != "ilisi_norm"].reset_index(drop=True))

    @property
    def unproven(self) -> list[str]:
        """Tasks in which the PCA of logs is not shown to be better than shuffled vectors."""
        return list(self.over_floor["task"][~(self.over_floor["low"] > 0)])

    def wide(self, column: str = "value") -> pd.DataFrame:
        """Lay a column of `table` out: tasks as rows, embeddings as columns."""
        wide = self.table.pivot(index="task", columns="embedding", values=column).astype(float)
        tasks = [metric(name).label for name in self.rows]
        return wide.loc[tasks, self.names].rename_axis(columns=None)

    @cached_property
    def variants(self) -> pd.DataFrame:
        """Best score as published, and corrected, of the PCA of logs and of shuffled vectors."""
        told = self.scores[self.scores["task"] == PUBLISHED]
        told = told.groupby(["metric", "embedding"])["value"].max().unstack()
        ours = self.table.pivot(index="metric", columns="embedding", values="value")
        out = pd.DataFrame({"task": [metric(name).label for name in self.rows]}, self.rows)
        for method, short in ((LOG_PCA, "pca"), (SHUFFLED, "floor")):
            out[f"{short}_published"], out[short] = told[method], ours[method]
        return out.reset_index(drop=True)


def _interval(drawn: pd.DataFrame) -> dict[str, pd.Series]:
    """Lay out the 95 % interval of draws."""
    return {"low": drawn.quantile(0.025), "high": drawn.quantile(0.975)}


def relations_of(data: Dataset) -> dict[str, pd.DataFrame]:
    """Known pairs of genes: of the simulation, or EFAAR's five files; none for drugs."""
    if data.responses is None or data.responses.uns["perturbcore"]["identifier"] != "symbol":
        return {}
    simulation = data.extras.get("simulation")
    if simulation is None:
        return {name: read_edges(catalogue.fetch(file)) for name, file in FILES.items()}
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
    processing: Sequence[str] = PROCESSING,
    asked: Sequence[str] = (),
) -> CellRun:
    """Score embeddings of the cells of a data set of the profile; floor and ceiling are added.

    `embeddings`: see `perturbcore.embeddings.cells.cell_embedding`; `transfer_from`: data set ->
    the one that the transfer learns from; `splits`: repeated splits, seeds from `seed` on;
    `max_cells`: drawn from the screen; `decoder`: "ridge" or "mlp"; `n_boot`: draws;
    `processing`: ways of post-processing, one of which is chosen; `asked`: only these metrics.
    """
    data = study.dataset(name)
    tasks = CellTasks(cells_of(data.screen, max_cells, seed), relations_of(data), decoder, asked)
    source = transfer_from.get(name)
    other = cells_of(study.dataset(source).screen, max_cells, seed) if source else None
    called = f"{name}, {', '.join(processing)}" if asked else name
    keys, left_out = score_tasks(
        tasks, [*dict.fromkeys([LOG_PCA, *embeddings]), *CONTROLS], store=study.store,
        scope=study.scope(called), dataset=called, seeds=range(seed, seed + splits), dim=dim,
        other=other, processing=processing, n_jobs=study.n_jobs,
    )  # fmt: skip
    study.export()
    scores = study.store.scores(keys)
    about = scores.drop_duplicates("key").set_index("key")[["embedding", "predictor", "fold"]]
    each = [study.store.per_perturbation(keys, m).assign(metric=m) for m in asked or ROWS]
    each = pd.concat([e for e in each if len(e)], ignore_index=True).join(about, on="key")
    notes = study.store.notes(keys)
    noted = pd.DataFrame({key: note["validation"] for key, note in notes.items()}).reindex(ROWS)
    validation = noted.T.rename_axis("key").reset_index().melt("key", var_name="metric")
    return CellRun(
        name, data, tasks, scores, each.rename(columns={"perturbation": "unit"}),
        validation.join(about, on="key"), left_out, n_boot,
    )  # fmt: skip


def carries(run: CellRun) -> str:
    """Say what a data set holds, and which tasks it cannot carry."""
    label, tasks = run.tasks.label, run.tasks
    named = np.unique(label[label != ""])
    mean = pd.Series(tasks.cells.X.mean(axis=0), tasks.cells.var_names)
    null = int(np.isin(named, mean.index[mean < UNEXPRESSED]).sum())
    about = dict(title=run.data.title, cells=len(label), named=len(named))
    share, batches = (label == "").mean(), len(np.unique(tasks.place))
    said = [tell("cell_tasks.carries", share=share, batches=batches, **about)]
    if len(named) == 1:
        return " ".join([*said, tell("cell_tasks.one")])
    if null < WANTED_NULL:
        said.append(tell("cell_tasks.unexpressed", wanted=WANTED_NULL, null=null))
    pairs = {n: len(pairs_among(table, named)) for n, table in tasks.relations.items()}
    who = [metric(n).label[12:] for n in pairs if n not in run.rows]
    said.append(f"Known pairs: {listed(f'{metric(n).label[12:]} {k}' for n, k in pairs.items())}.")
    if who:
        said.append(tell("cell_tasks.lacking", who=who))
    if run.left_out:
        why = "; ".join(f"{n} ({w.split(':', 1)[-1].strip()})" for n, w in run.left_out.items())
        said.append(f"Not to be had here: {why}.")
    return " ".join(said)


def answer(run: CellRun) -> str:
    """Say whether the PCA of logs wins, with how many decided comparisons."""
    first = run.table[(run.table["place"] == 1)].groupby("embedding")["metric"].nunique()
    order, n = first.sort_values(ascending=False, kind="stable"), len(run.rows)
    about = dict(title=run.data.title, n=n, lead=order.index[0])
    said = [tell("cell_tasks.answer", each=[f"{name} {k}" for name, k in order.items()], **about)]
    for method, part in run.against.groupby("method", sort=False):
        found = part["verdict"].value_counts().reindex(SIGNS).dropna()
        counts = listed(f"{v} in {k:.0f}" for v, k in found.items())
        said.append(f"PCA of logs against {method}: {counts}.")
    if weak := run.unproven:
        said.append(tell("cell_tasks.unproven", count=len(weak), n=n, names=weak))
    return " ".join(said)


def one_line(runs: Sequence[CellRun]) -> str:
    """Condense the answer to one or two sentences."""
    table = pd.concat([run.table for run in runs])
    first = table[table["place"] == 1]["embedding"].value_counts()
    against = pd.concat([run.against for run in runs])
    ahead, behind = (int((against["verdict"] == v).sum()) for v in ("better", "worse"))
    n, mine = len(against), int(first.get(LOG_PCA, 0))
    return tell(
        "cell_tasks.line", mine=mine, rows=sum(len(run.rows) for run in runs), runs=len(runs),
        rest=[f"{name} in {k}" for name, k in first.items() if name != LOG_PCA], n=n, ahead=ahead,
        behind=behind, other=n - ahead - behind, weak=sum(len(run.unproven) for run in runs),
    )  # fmt: skip


def optimism_said(runs: Sequence[CellRun]) -> str:
    """Say what choosing the post-processing on the test itself would have added."""
    table = pd.concat([run.table for run in runs]).dropna(subset="optimism")
    shares = table[~table["metric"].isin(["ilisi_norm", "spearman", "structural_integrity"])]
    gain = 100 * shares["optimism"]
    about = dict(n=len(gain), mean=gain.mean(), most=gain.max())
    return tell("cell_tasks.optimism", higher=int((gain > 0).sum()), **about)


def variants_said(run: CellRun) -> str:
    """Say what the corrections change on one data set, with its numbers."""
    table, said = run.variants.set_index("task"), []
    if (label := metric("knn_top1").label) in table.index:
        about = dict(title=run.data.title, share=(run.tasks.label == "").mean())
        said.append(tell("cell_tasks.retrieval", row=table.loc[label], **about))
    row = table.loc[metric("structural_integrity").label]
    return " ".join([*said, tell("cell_tasks.integrity", row=row)])


def published_table(dataset: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Table 2 of Bendidi et al. for one of its data sets: values, and places among models."""
    rows = facts("bendidi2024_table2").query("dataset == @dataset")
    rows = rows.assign(task=[metric(m).label for m in rows["metric"]])
    wide = rows.pivot_table("value", "task", "model", aggfunc="first", sort=False)
    wide = wide.loc[[metric(m).label for m in ROWS if metric(m).label in wide.index]]
    place = wide.drop(columns="Rand. Labels").rank(axis=1, ascending=False, method="min")
    return wide.rename_axis(columns=None), place.reindex(columns=wide.columns)
