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
from perturbcore.embeddings.build import MODELS, check_spec
from perturbcore.embeddings.coverage import add_aliases
from perturbcore.embeddings.network import pretrained_network
from perturbcore.embeddings.sources import BuildContext, find_source
from perturbcore.models.finetuning.cells import CellModels, FineTunedCells, cell_models
from perturbcore.models.finetuning.graph import FineTunedGraph
from perturbcore.models.finetuning.model import FineTuned
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
    cells: dict | None = None,
    k: Sequence[int] = (5, 10, 20, 40, 80),
    k_few: Sequence[int] = (),
    n_components: int = 100,
    n_outer: int = 10,
    n_inner: int = 10,
    seed: int = 0,
) -> FineTuningRun:
    """Score embeddings frozen, and graph networks and cell encoders adapted, on one data set.

    `frozen`: embeddings of the profile to score frozen; `graphs`: embeddings of builder ``gnn``
    whose networks are fine-tuned (and scored frozen); `graph`: options of `FineTunedGraph`;
    `links`: a file of links in the authors' folder to pretrain on, see `links_models`, and
    `pretraining`: options of builder ``gnn`` for it; `cells`: options of `cell_models`; without, no
    cell encoder;
    `k, n_components, n_outer, n_inner`: of kNN, of PCA, of the noise ceiling; `k_few`: grid of kNN
    for data with fewer than 100 perturbations in a line; `k` if empty.
    """
    data, kept = study.dataset(dataset), study.profile.results / "models"
    task, obs = task_of(data.responses), data.responses.obs
    options = {"seed": seed, "folder": kept} | (graph or {})
    wanted = list(dict.fromkeys([*frozen, *graphs]))
    embeddings = study.embeddings(dataset, seed=seed, only=wanted)
    there = {e.name for e in embeddings}
    adapted = [graph_models(study, dataset, name, **options) for name in graphs if name in there]
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


def graph_models(study, dataset: str, name: str, **options) -> tuple[list[FineTuned], dict]:
    """Take the pretrained network behind an embedding of builder ``gnn``; see `models_of`."""
    specs = {s["name"]: dict(s) for s in study.profile.embeddings if s.get("builder") == "gnn"}
    if name not in specs:
        there = ", ".join(specs) or "none"
        about = dict(profile=study.profile.name, there=there)
        raise ParameterError(tell("finetuning.no_network", name=name, **about))
    spec = {k: v for k, v in specs[name].items() if k not in ("datasets", "chapters")}
    if "convert_to" in spec:
        raise ParameterError(tell("finetuning.converted", name=name))
    _, built = check_spec(spec, [name])
    context = BuildContext(dataset=study.dataset(dataset), folder=study.profile.path.parent)
    edges = find_source(spec, "edges", context).read()
    pretrained, ids = pretrained_network(
        edges, models=study.profile.results / "embeddings" / MODELS, **built
    )
    aliases = previous_symbols() if "aliases" in spec else None
    modality = spec.get("modality", PRIOR)
    return models_of(pretrained, node_numbers(ids, aliases), name, modality, **options)


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
    return embedding, *models_of(pretrained, node_numbers(ids), RETRAINED, PRIOR, **options)


def models_of(
    pretrained, nodes: pd.Series, name: str, modality: str, **options
) -> tuple[list[FineTuned], dict]:
    """Make the fine-tuned model of a network and the one with a frozen backbone."""
    options |= {"name": name, "modality": modality}
    models = [FineTunedGraph(pretrained, nodes, frozen=f, **options) for f in (False, True)]
    about = {
        "embedding": name,
        "learnt": f"{pretrained.A.nnz // 2:,} links of {pretrained.A.shape[0]:,} genes",
        "seconds": pretrained.trained.seconds,
        "quality": f"AUROC of held-out links {pretrained.auroc:.3f}",
    }
    return models, about


def node_numbers(ids: Sequence[str], aliases: pd.Series | None = None) -> pd.Series:
    """Node number, indexed by gene, and by older names of genes where `aliases` are given."""
    if aliases is None:
        return pd.Series(np.arange(len(ids)), index=pd.Index(ids))
    # numbers as one-dimensional vectors: the rule for older names is the one of embeddings
    numbers = np.arange(len(ids), dtype=np.float32)[:, None]
    named = add_aliases(Embedding("nodes", PRIOR, pd.Index(ids), numbers), aliases)
    return pd.Series(named.X[:, 0].astype(np.int64), index=named.ids)


def _about_cells(encoder: CellModels) -> dict:
    trained, name = encoder.pretrained, encoder.models[0].name
    if trained is None:
        return dict(zip(NETWORKS, (name, "a checkpoint from elsewhere", np.nan, ""), strict=True))
    quality = tell("finetuning.quality", encoder=trained)
    about = (name, encoder.cells.source, trained.seconds, quality)
    return dict(zip(NETWORKS, about, strict=True))
