"""Frozen against fine-tuned, scored on the same folds, and what the chapter says of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from perturbcore.core.errors import ParameterError
from perturbcore.data.authors.layout import data_root
from perturbcore.data.identifiers import previous_symbols
from perturbcore.data.read import read_table
from perturbcore.data.sets.base import Dataset
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.build import MODELS, Plan
from perturbcore.embeddings.coverage import add_aliases
from perturbcore.embeddings.language_model import MODALITY as LANGUAGE
from perturbcore.embeddings.language_model import load_encoder
from perturbcore.embeddings.network import pretrained_network
from perturbcore.embeddings.sources import BuildContext
from perturbcore.models.finetuning.cells import FineTunedCells, cell_models
from perturbcore.models.finetuning.graph import FineTunedGraph, FineTunedText
from perturbcore.models.finetuning.model import FineTuned
from perturbcore.models.fusion.kernel_models import leading_fusion
from perturbcore.report.comparison import Comparison
from perturbcore.report.figures.style import colour, legend_of, marker, rows_of
from perturbcore.report.text import gain_said, tell
from perturbcore.score.model import predicts
from perturbcore.score.task import task_of

RETRAINED = "STRING GNN, retrained"
FEW = 100  # perturbations in a line
PRIOR = "Prior knowledge"
# Predictors that leave a representation as it is
FROZEN = ("knn", "kernel", "mixed", "lasso", "ridge")
NETWORKS = ["embedding", "learnt", "seconds", "quality"]


@dataclass(eq=False)
class FineTuningRun:
    """Scores of frozen and adapted representations on one data set.

    `scores`: tidy; column `predictor` says how a representation was used; `networks`: one row
    per pretrained network: embedding, what it learnt, seconds of pretraining, how well;
    `absent`: embeddings asked for that the profile has not, or that cover too little;
    `without`: sentences on what could not be compared, and why.
    """

    data: Dataset
    scores: pd.DataFrame
    networks: pd.DataFrame
    absent: list[str]
    without: list[str]

    @cached_property
    def comparison(self) -> Comparison:
        """All uses of all representations, by the leading metric of the task."""
        return Comparison(self.scores)


def run_fine_tuning(
    study,
    dataset: str,
    *,
    frozen: Sequence[str] = (),
    graphs: Sequence[str] = (),
    graph: dict | None = None,
    links: str = "",
    pretraining: dict | None = None,
    texts: Sequence[str] = (),
    text: dict | None = None,
    cells: dict | None = None,
    k: Sequence[int] = (5, 10, 20, 40, 80),
    k_few: Sequence[int] = (),
    n_components: int = 100,
    n_outer: int = 10,
    n_inner: int = 10,
    seed: int = 0,
) -> FineTuningRun:
    """Score embeddings frozen, and networks and encoders behind them adapted, on one data set.

    `frozen`: embeddings of the profile to score frozen; `graphs`, `texts`: those of builders
    ``gnn`` and ``language_model`` whose networks are fine-tuned (and scored frozen); `graph`,
    `text`: options of `FineTunedGraph` and `text_models`; `links`: a file of links in the authors'
    folder to pretrain on, see `links_models`, and `pretraining`: options of builder ``gnn`` for it;
    `cells`: options of `cell_models`; without, no cell encoder;
    `k, n_components, n_outer, n_inner`: of kNN, of PCA, of the noise ceiling; `k_few`: grid of kNN
    for data with fewer than 100 perturbations in a line; `k` if empty.
    """
    data, kept = study.dataset(dataset), study.profile.results / "models"
    task, obs = task_of(data.responses), data.responses.obs
    options = {"seed": seed, "folder": kept} | (graph or {})
    wanted = list(dict.fromkeys([*frozen, *graphs, *texts]))
    embeddings = study.embeddings(dataset, seed=seed, only=wanted)
    there = {e.name for e in embeddings}
    adapted = [graph_models(study, dataset, name, **options) for name in graphs if name in there]
    said = {"seed": seed, "folder": kept} | (text or {})
    adapted += [text_models(study, dataset, name, **said) for name in texts if name in there]
    without, path = [], data_root() / links if links else None
    if path is not None and path.exists():
        identifier = data.responses.uns["perturbcore"]["identifier"]
        made = links_models(study, path, identifier, pretraining or {}, **options)
        embeddings.append(made[0])
        adapted.append(made[1:])
    elif path is not None:
        without.append(tell("finetuning.no_links", links=links))
    if cells is not None and data.screen is not None and predicts(FineTunedCells, task):
        encoder = cell_models(data.screen, seed=seed, folder=kept, **cells)
        embeddings += encoder.embeddings
        trained, about = encoder.pretrained, ["a checkpoint from elsewhere", np.nan, ""]
        if trained is not None:
            quality = tell("finetuning.quality", encoder=trained)
            about = [encoder.cells.source, trained.seconds, quality]
        about = [encoder.models[0].name, *about]
        adapted.append((encoder.models, dict(zip(NETWORKS, about, strict=True))))
    elif cells is not None:
        why = "holds no cells" if data.screen is None else f"holds {task.title}"
        without.append(tell("finetuning.no_encoder", title=data.title, why=why))
    few = len(k_few) and obs["cell_line"].value_counts().max() < FEW
    predictors = study.models(task.name, knn=k_few if few else k, lasso=(1.0,))
    how = dict(k=k, n_components=n_components)
    same = [e for e in embeddings if task.partial and e.name in (*graphs, *texts)]
    plain = [leading_fusion(task.name, [e], e.name, e.modality, **how) for e in same]
    scores = study.evaluate(
        dataset, predictors if task.partial else predictors[:1],
        models=[*plain, *(model for models, _ in adapted for model in models)],
        embeddings=embeddings,
        protocol=study.protocol(n_components=n_components), seed=seed,
        ceiling=study.ceiling(dataset, n_outer=n_outer, n_inner=n_inner),
    )  # fmt: skip
    absent = [n for n in wanted if n not in there]
    networks = pd.DataFrame([about for _, about in adapted], columns=NETWORKS)
    return FineTuningRun(data, scores, networks, absent, without)


def plan_of(study, dataset: str, name: str, builder: str) -> Plan:
    """Plan an embedding of the profile anew, to get at the network behind it."""
    specs = {s["name"]: s for s in study.profile.embeddings if s.get("builder") == builder}
    if name not in specs:
        about = dict(profile=study.profile.name, there=", ".join(specs) or "none", builder=builder)
        raise ParameterError(tell("finetuning.no_network", name=name, **about))
    spec = {k: v for k, v in specs[name].items() if k not in ("datasets", "chapters", "optional")}
    if "convert_to" in spec:
        raise ParameterError(tell("finetuning.converted", name=name))
    context = BuildContext(dataset=study.dataset(dataset), folder=study.profile.path.parent)
    return Plan(spec, context, {})


def graph_models(study, dataset: str, name: str, **options) -> tuple[list[FineTuned], dict]:
    """Take the pretrained network behind an embedding of builder ``gnn``; see `models_of`."""
    plan = plan_of(study, dataset, name, "gnn")
    folder = study.profile.results / "embeddings" / MODELS
    pretrained, ids = pretrained_network(plan.sources[None].read(), models=folder, **plan.options)
    nodes, modality = numbers(ids, plan.spec), plan.spec.get("modality", PRIOR)
    return models_of(pretrained, nodes, name, modality, **options)


def text_models(
    study, dataset: str, name: str, *, layers: int = 1, **options
) -> tuple[list[FineTuned], dict]:
    """Take the encoder and the texts behind an embedding of builder ``language_model``.

    Its last `layers` are adapted, or none of them; `options`: those of `FineTunedText`.
    """
    plan = plan_of(study, dataset, name, "language_model")
    texts = dict(sorted(plan.sources[None].read().items()))
    tokenizer, encoder = load_encoder(plan.options["model"])
    options |= {"name": name, "modality": plan.spec.get("modality", LANGUAGE)}
    by_name = numbers(list(texts), plan.spec)
    models: list[FineTuned] = [
        FineTunedText(tokenizer, encoder, texts, by_name, layers=n, **options) for n in (layers, 0)
    ]
    weights = sum(p.numel() for p in encoder.parameters())
    learnt = tell("finetuning.language", weights=weights / 1e6, n=len(texts), **models[0].own)
    return models, dict(zip(NETWORKS, (name, learnt, np.nan, ""), strict=True))


def links_models(
    study, path: Path, identifier: str, pretraining: dict, **options
) -> tuple[Embedding, list[FineTuned], dict]:
    """Pretrain on a file of scored links, and make its embedding and models."""
    table = read_table(path)
    edges = table.iloc[:, :2].astype(str).set_axis(["source", "target"], axis=1)
    if "combined_score" in table:
        edges["weight"] = table["combined_score"].to_numpy(float) / 1000
    folder = study.profile.results / "embeddings" / MODELS
    pretrained, ids = pretrained_network(edges, models=folder, **pretraining)
    source = f"links of {path.name}"
    vectors = pretrained.vectors()
    embedding = Embedding(RETRAINED, PRIOR, pd.Index(ids), vectors, identifier, None, source)
    return embedding, *models_of(pretrained, numbers(ids, {}), RETRAINED, PRIOR, **options)


def models_of(
    pretrained, nodes: pd.Series, name: str, modality: str, **options
) -> tuple[list[FineTuned], dict]:
    """Make the fine-tuned model of a network and the one with a frozen backbone."""
    options |= {"name": name, "modality": modality}
    models: list[FineTuned] = [
        FineTunedGraph(pretrained, nodes, frozen=f, **options) for f in (False, True)
    ]
    learnt = f"{pretrained.A.nnz // 2:,} links of {pretrained.A.shape[0]:,} genes"
    quality = f"AUROC of held-out links {pretrained.auroc:.3f}"
    about = (name, learnt, pretrained.trained.seconds, quality)
    return models, dict(zip(NETWORKS, about, strict=True))


def numbers(ids: Sequence[str], spec: dict) -> pd.Series:
    """Place of each gene, under older names too where the specification has ``aliases``."""
    if "aliases" not in spec:
        return pd.Series(np.arange(len(ids)), index=pd.Index(ids))
    # places as one-dimensional vectors: the rule for older names is the one of embeddings
    places = np.arange(len(ids), dtype=np.float32)[:, None]
    named = add_aliases(Embedding("places", PRIOR, pd.Index(ids), places), previous_symbols())
    return pd.Series(named.X[:, 0].astype(np.int64), index=named.ids)


def gains(run: FineTuningRun) -> pd.DataFrame:
    """Compare each use of a representation with kNN on it frozen, over all cell lines."""
    table = run.comparison.own_gains()
    trained = ~table["predictor"].isin(FROZEN)
    return table.assign(
        data=run.data.title,
        trained=trained,
        adapted=trained & ~table["predictor"].astype(str).str.startswith("frozen"),
    )


def answer(run: FineTuningRun) -> str:
    """Say what each adaptation gains over kNN on the same representation, and what is best."""
    c, table, said = run.comparison, gains(run), []
    beside = {"better": "It beats the Train Mean.", "worse": "It is worse than the Train Mean."}
    for _, row in table[table["adapted"]].iterrows():
        floor = c.between(row["method"], c.floor)["verdict"]
        told = beside.get(floor, "It cannot be told apart from the Train Mean.")
        said.append(tell("finetuning.adapted", row=row, c=c, gain=_gain_said(row), beside=told))
    said = said or [tell("finetuning.nothing", title=run.data.title)]
    said.append(tell("finetuning.best", run=run, c=c, rest=c.rest_said(), value=c.means[c.best]))
    return "\n\n".join(filter(None, [*said, c.mask_said()]))


def _gain_said(row) -> str:
    """Write a gain with its interval and verdict."""
    told = {"better": "better", "worse": "worse"}.get(row["verdict"], "not told apart")
    return f"{gain_said(row, '95 % interval ')}: {told}"


def surprises(run: FineTuningRun) -> str:
    """Set the adaptation of a network beside its head alone, and beside other predictors on it."""
    c, table, said = run.comparison, gains(run), []
    if not table["adapted"].any():
        return f"On {run.data.title}, nothing was adapted."
    for name, rows in table.groupby("embedding", sort=False):
        for best in rows[rows["adapted"]].head(1).itertuples():
            heads, plain = rows[rows["trained"] & ~rows["adapted"]], rows[~rows["trained"]].head(1)
            for other in pd.concat([heads, plain]).itertuples():
                beyond = _gain_said(c.between(best.method, other.method))
                about = dict(beyond=beyond, times=best.seconds / max(other.seconds, 1e-6))
                key = "finetuning.head" if other.trained else "finetuning.plain"
                said.append(tell(key, name=name, other=other, best=best, **about))
    return "\n\n".join(said)


def one_line(runs: Sequence[FineTuningRun]) -> str:
    """Condense the answer to one sentence."""
    tables = [gains(run) for run in runs]
    adapted = pd.concat(tables).query("adapted")
    if adapted.empty:
        return tell("finetuning.frozen", best=runs[0].comparison.best)
    n, up, down = len(adapted), *((adapted["verdict"] == v).sum() for v in ("better", "worse"))
    run, table = next((r, t) for r, t in zip(runs, tables, strict=True) if t["adapted"].any())
    own = table[table["adapted"]]
    graphs = own[own["modality"] != "Expression"]
    top = (graphs if len(graphs) else own).iloc[0]
    said = tell("finetuning.line", n=n, up=up, down=down, rest=n - up - down, top=top, run=run)
    plain = table[(table["embedding"] == top["embedding"]) & ~table["trained"]]
    if len(plain):
        said += tell("finetuning.smoother", row=plain.iloc[0])
    return said + "."


def gain_figure(runs: Sequence[FineTuningRun]) -> Figure:
    """Draw the gain over frozen kNN, one panel per data set, one row per use, best on top."""
    drawn = [(run, table) for run in runs if len(table := gains(run))]
    if not drawn:
        figure = Figure(figsize=(7.4, 1.0))
        figure.text(0.5, 0.5, "Nothing could be adapted in this profile.", ha="center", va="center")
        return figure
    sizes = [len(table) for _, table in drawn]
    figure = Figure(figsize=(7.4, 0.32 * sum(sizes) + 1.1 * len(drawn) + 0.2), layout="constrained")
    axes = figure.subplots(len(drawn), squeeze=False, height_ratios=sizes)[:, 0]
    for axis, (run, rows) in zip(axes, drawn, strict=True):
        axis.axvline(0, color=colour("Negative control"), ls="--", lw=1, zorder=0)
        for y, row in enumerate(rows.itertuples()):
            c = colour(row.modality)
            axis.hlines(y, row.low, row.high, color=c, lw=2.2, alpha=0.6)
            inside = c if row.trained else "white"
            axis.plot(row.gain, y, marker=marker(row.modality), color=inside, ms=7, mec=c, mew=1.2)
        rows_of(axis, rows["method"])
        axis.set_title(run.data.title, loc="left")
        label = run.comparison.label
        axis.set_xlabel(f"Gain in {label} over kNN on the same representation (right is better)")
    legend_of(figure, pd.concat([table for _, table in drawn])["modality"])
    return figure


def setting(runs: Sequence[FineTuningRun]) -> str:
    """Say what is compared on what, and what could not be, and why."""
    said = []
    for run in runs:
        c = run.comparison
        names = list(dict.fromkeys(c.methods.loc[c.competitors, "embedding"]))
        about = dict(n=len(names), names=", ".join(names), lines=c.scores["cell_line"].nunique())
        said.append(tell("finetuning.setting", run=run, **about))
        said += run.without
        if run.absent:
            said.append(f"Not at hand for this data set: {', '.join(run.absent)}.")
    return "\n\n".join(said)


def networks(runs: Sequence[FineTuningRun]) -> pd.DataFrame:
    """List the pretrained networks once, whatever the data set."""
    return pd.concat([r.networks for r in runs], ignore_index=True).drop_duplicates("embedding")


def joined(runs: Sequence[FineTuningRun]) -> pd.DataFrame:
    """Put the gains on several data sets into one table, with a column `beats`."""
    table = pd.concat([gains(run) for run in runs], ignore_index=True)
    return table.assign(beats=table["verdict"] == "better")
