"""Frozen against fine-tuned: everything that the chapter compares, scored on the same folds."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

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
from perturbcore.models.finetuning.cells import CellModels, FineTunedCells, cell_models
from perturbcore.models.finetuning.graph import FineTunedGraph
from perturbcore.models.finetuning.model import FineTuned
from perturbcore.models.finetuning.text import FineTunedText
from perturbcore.report.comparison import Comparison
from perturbcore.report.text import tell
from perturbcore.score.model import predicts
from perturbcore.score.task import task_of

RETRAINED = "STRING GNN, retrained"
FEW = 100  # perturbations in a line
PRIOR = "Prior knowledge"
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

    @property
    def title(self) -> str:
        """What a page calls the data."""
        return self.data.title

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
        embedding, models, about = links_models(
            study, path, identifier, pretraining or {}, **options
        )
        embeddings.append(embedding)
        adapted.append((models, about))
    elif path is not None:
        without.append(tell("finetuning.no_links", links=links))
    if cells is not None and data.screen is not None and predicts(FineTunedCells, task):
        encoder = cell_models(data.screen, seed=seed, folder=kept, **cells)
        embeddings += encoder.embeddings
        adapted.append((encoder.models, _about_cells(encoder)))
    elif cells is not None:
        why = "holds no cells" if data.screen is None else f"holds {task.title}"
        without.append(tell("finetuning.no_encoder", title=data.title, why=why))
    few = len(k_few) and obs["cell_line"].value_counts().max() < FEW
    predictors = study.models(task.name, knn=k_few if few else k, lasso=(1.0,))
    scores = study.evaluate(
        dataset, predictors if task.partial else predictors[:1],
        models=[model for models, _ in adapted for model in models], embeddings=embeddings,
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
    pretrained, ids = pretrained_network(
        edges, models=study.profile.results / "embeddings" / MODELS, **pretraining
    )
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
    about = {
        "embedding": name,
        "learnt": f"{pretrained.A.nnz // 2:,} links of {pretrained.A.shape[0]:,} genes",
        "seconds": pretrained.trained.seconds,
        "quality": f"AUROC of held-out links {pretrained.auroc:.3f}",
    }
    return models, about


def numbers(ids: Sequence[str], spec: dict) -> pd.Series:
    """Place of each gene, under older names too where the specification has ``aliases``."""
    if "aliases" not in spec:
        return pd.Series(np.arange(len(ids)), index=pd.Index(ids))
    # places as one-dimensional vectors: the rule for older names is the one of embeddings
    places = np.arange(len(ids), dtype=np.float32)[:, None]
    named = add_aliases(Embedding("places", PRIOR, pd.Index(ids), places), previous_symbols())
    return pd.Series(named.X[:, 0].astype(np.int64), index=named.ids)


def _about_cells(encoder: CellModels) -> dict:
    trained, name = encoder.pretrained, encoder.models[0].name
    if trained is None:
        return dict(zip(NETWORKS, (name, "a checkpoint from elsewhere", np.nan, ""), strict=True))
    quality = tell("finetuning.quality", encoder=trained)
    about = (name, encoder.cells.source, trained.seconds, quality)
    return dict(zip(NETWORKS, about, strict=True))
