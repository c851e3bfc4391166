"""Frozen against fine-tuned: everything that the chapter compares, scored on the same folds."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from perturbcore.core.errors import ParameterError
from perturbcore.data.identifiers import previous_symbols
from perturbcore.data.tables import read_table
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.build import MODELS
from perturbcore.embeddings.convert import add_aliases
from perturbcore.embeddings.graph_network import pretrained_network
from perturbcore.embeddings.sources import BuildContext, find_source
from perturbcore.embeddings.specs import check_spec
from perturbcore.models.simple.space import Protocol
from perturbcore.score.run import PAIR_TARGETS

RETRAINED = "STRING GNN, retrained"
FEW = 100  # perturbations in a line
FROZEN = ("knn", "kernel", "lasso", "ridge")  # predictors that leave a representation as it is


@dataclass(frozen=True, eq=False)
class Contest:
    """Scores of frozen and adapted representations on one data set.

    Attributes
    ----------
    data : perturbcore.data.sets.base.Dataset
    scores : pandas.DataFrame
        Tidy; column `predictor` says how a representation was used.
    networks : pandas.DataFrame
        One row a pretrained network: embedding, what it learnt, seconds of pretraining, how well.
    absent : list of str
        Embeddings asked for that the profile has not, or that cover too little.
    without : list of str
        Sentences on what could not be compared, and why.
    """

    data: Any
    scores: pd.DataFrame
    networks: pd.DataFrame
    absent: list = field(default_factory=list)
    without: list = field(default_factory=list)

    @property
    def title(self) -> str:
        """What a page calls the data."""
        return self.data.title


def contest(
    study,
    dataset: str,
    *,
    frozen=(),
    graphs=(),
    graph: dict | None = None,
    links: str = "",
    pretraining: dict | None = None,
    cells: dict | None = None,
    k=(5, 10, 20, 40, 80),
    k_few=(),
    n_components: int = 100,
    n_outer: int = 10,
    n_inner: int = 10,
    seed: int = 0,
) -> Contest:
    """Score embeddings frozen, and graph networks and cell encoders adapted, on one data set.

    Parameters
    ----------
    study : perturbcore.book.study.Study
    dataset : str
        Data set of the profile.
    frozen : sequence of str
        Embeddings of the profile to score frozen.
    graphs : sequence of str
        Embeddings of builder ``gnn`` whose networks are fine-tuned (and scored frozen).
    graph : dict, optional
        Options of `perturbcore.models.finetuning.graph.graph_model`.
    links : str
        A file of links in the authors' folder to pretrain on; see `links_models`.
    pretraining : dict, optional
        Options of builder ``gnn`` for it.
    cells : dict, optional
        Options of `perturbcore.models.finetuning.cells.cell_models`; without them, no cell encoder.
    k, n_components, n_outer, n_inner
        Of kNN, of PCA, of the noise ceiling.
    k_few : sequence of int
        Grid of kNN for data with fewer than 100 perturbations in a line; `k` if empty.
    seed : int
    """
    data = study.dataset(dataset)
    task = data.responses.uns["perturbcore"]["task"]
    wanted = [*dict.fromkeys([*frozen, *graphs])]
    made = study.embeddings(dataset, seed=seed)
    there = {e.name for e in made}
    absent = [n for n in wanted if n not in there]
    embeddings = [e for e in made if e.name in (*wanted, "random")]
    models, networks, without = [], [], []
    for name in graphs:
        if name not in there:
            continue
        found, about = graph_models(study, dataset, name, seed=seed, **(graph or {}))
        models += found
        networks.append(about)
    if links:
        from perturbcore.data.authors.layout import data_root

        path = data_root() / links
        if path.exists():
            identifier = data.responses.uns["perturbcore"]["identifier"]
            embedding, found, about = links_models(
                study,
                path,
                identifier,
                name=RETRAINED,
                pretraining=pretraining or {},
                seed=seed,
                **(graph or {}),
            )
            embeddings.append(embedding)
            models += found
            networks.append(about)
        else:
            without.append(
                f"{links} is not in the authors' folder: no graph network can be fine-tuned."
            )
    if cells is not None and data.screen is not None and task == "lfc":
        from perturbcore.models.finetuning.cells import cell_models

        targets = sorted(data.responses.obs["perturbation"].astype(str).unique())
        encoder = cell_models(
            data.screen,
            targets=targets,
            seed=seed,
            folder=study.profile.results / "models",
            **cells,
        )
        embeddings += encoder.embeddings
        models += encoder.models
        networks.append(_about_cells(encoder))
    elif cells is not None:
        why = "holds no cells" if data.screen is None else "holds labels, not log fold-changes"
        without.append(f"{data.title} {why}: the expression transformer cannot be tried on it.")
    largest = data.responses.obs["cell_line"].value_counts().max()
    grid = k_few if len(k_few) and largest < FEW else k
    predictors = study.models(task, knn=grid, lasso=(1.0,))
    predictors = predictors if task in PAIR_TARGETS else predictors[:1]
    limit = study.ceiling(dataset, n_outer=n_outer, n_inner=n_inner)
    scores = study.evaluate(
        dataset, predictors, protocol=Protocol(n_components=n_components), embeddings=embeddings,
        ceiling=limit, seed=seed,
    )  # fmt: skip
    if models:
        scores = pd.concat(
            [scores, study.evaluate_joint(dataset, models, seed=seed)], ignore_index=True
        )
    columns = ["embedding", "learnt", "seconds", "quality"]
    return Contest(data, scores, pd.DataFrame(networks, columns=columns), absent, without)


def graph_models(study, dataset: str, name: str, *, seed: int = 0, **options) -> tuple[list, dict]:
    """Take the pretrained network behind an embedding of the profile, fine-tuned and with a frozen backbone.

    Parameters
    ----------
    study, dataset, name
        `name` is an embedding of builder ``gnn``; its training is found where building it left it.
    seed, **options
        See `models_of`.

    Returns
    -------
    models : list of FineTuned
    about : dict
        Row of `Contest.networks`.

    Raises
    ------
    ParameterError
        There is no such embedding, or another builder made it.
    """
    spec = next((dict(s) for s in study.profile.embeddings if s["name"] == name), None)
    if spec is None or spec.get("builder") != "gnn":
        has = [s["name"] for s in study.profile.embeddings if s.get("builder") == "gnn"]
        raise ParameterError(
            f"embedding {name!r} is not made by builder gnn, so there is no network to fine-tune; profile "
            f"'{study.profile.name}' has: {', '.join(has) or 'none'}"
        )
    if "convert_to" in spec:
        raise ParameterError(
            f"embedding {name!r}: its ids are converted; give edges in the ids of the responses"
        )
    spec.pop("datasets", None)
    _, built = check_spec(spec, [name])
    context = BuildContext(dataset=study.dataset(dataset), folder=study.profile.path.parent)
    edges = find_source(spec, "edges", context).read()
    pretrained, ids = pretrained_network(edges, models=_networks_of(study), **built)
    aliases = previous_symbols() if "aliases" in spec else None
    modality = spec.get("modality", "Prior knowledge")
    return models_of(
        study, pretrained, ids, aliases, name=name, modality=modality, seed=seed, **options
    )


def links_models(
    study, path: Path, identifier: str, *, name: str, pretraining: dict, seed: int = 0, **options
):
    """Pretrain on a file of scored links, and make its embedding and models.

    Parameters
    ----------
    study
    path : Path
        Table of links: two columns of genes, and ``combined_score`` of 1000 where links are scored.
    identifier : str
        What the genes are called.
    name : str
    pretraining : dict
        Options of builder ``gnn``.
    seed, **options
        See `models_of`.

    Returns
    -------
    embedding : Embedding
    models : list of FineTuned
    about : dict
    """
    table = read_table(path)
    edges = table.iloc[:, :2].astype(str).set_axis(["source", "target"], axis=1)
    if "combined_score" in table:
        edges["weight"] = table["combined_score"].to_numpy(float) / 1000
    pretrained, ids = pretrained_network(edges, models=_networks_of(study), **pretraining)
    embedding = Embedding(
        name,
        "Prior knowledge",
        pd.Index(ids),
        pretrained.vectors(),
        identifier,
        None,
        f"links of {path.name}",
    )
    return embedding, *models_of(
        study, pretrained, ids, None, name=name, modality="Prior knowledge", seed=seed, **options
    )


def models_of(study, pretrained, ids, aliases, *, name, modality, seed=0, ablation=True, **options):
    """Make the fine-tuned model of a network, and (`ablation`) the one with a frozen backbone.

    Parameters
    ----------
    study
    pretrained, ids
        As `pretrained_network` returns them.
    aliases : pandas.Series or None
        See `node_numbers`.
    name, modality, seed, **options
        Of `perturbcore.models.finetuning.graph.graph_model`.
    """
    from perturbcore.models.finetuning.graph import graph_model

    nodes = node_numbers(ids, aliases)
    shared = {
        "seed": seed,
        "name": name,
        "modality": modality,
        "folder": study.profile.results / "models",
    } | options
    models = [graph_model(pretrained, nodes, **shared)]
    if ablation:
        models.append(graph_model(pretrained, nodes, frozen=True, **shared))
    about = {
        "embedding": name,
        "learnt": f"{pretrained.A.nnz // 2:,} links of {len(ids):,} genes",
        "seconds": pretrained.trained.seconds,
        "quality": f"AUROC of held-out links {pretrained.auroc:.3f}",
    }
    return models, about


def _networks_of(study) -> Path:
    return study.profile.results / "embeddings" / MODELS


def node_numbers(ids, aliases: pd.Series | None = None) -> pd.Series:
    """Node number, indexed by gene; older names of a gene lead to its node where `aliases` are given."""
    if aliases is None:
        return pd.Series(np.arange(len(ids)), index=pd.Index(ids))
    # numbers as one-dimensional vectors: the rule for older names is the one of embeddings
    numbers = np.arange(len(ids), dtype=np.float32)[:, None]
    named = add_aliases(Embedding("nodes", "Prior knowledge", pd.Index(ids), numbers), aliases)
    return pd.Series(named.X[:, 0].astype(np.int64), index=named.ids)


def _about_cells(encoder) -> dict:
    trained = encoder.pretrained
    name = encoder.models[0].name
    if trained is None:
        return {
            "embedding": name,
            "learnt": "a checkpoint from elsewhere",
            "seconds": np.nan,
            "quality": "",
        }
    return {
        "embedding": name,
        "learnt": encoder.cells.source,
        "seconds": trained.seconds,
        "quality": f"error of masked genes {trained.error:.3f} of their variance "
        f"(line mean: {trained.error_of_mean:.3f})",
    }
