"""Assemble and train the members of a fusion transformer; torch and lightning are imported here only."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from scipy.linalg import eigh

from perturbcore.core.digest import digest
from perturbcore.core.errors import InputError
from perturbcore.core.training.batches import Batches
from perturbcore.core.training.fit import fit
from perturbcore.embeddings.linalg import fix_signs
from perturbcore.models.fusion.cell_line import line_profiles
from perturbcore.models.fusion.fitted import known_labels
from perturbcore.models.fusion.learner import DEGLearner, FusionLearner, LFCLearner, PairLearner
from perturbcore.models.fusion.neighbours import Neighbours, remember
from perturbcore.models.fusion.network import FusionNetwork
from perturbcore.models.fusion.sources import Sources, normalise
from perturbcore.models.simple.space import standardise
from perturbcore.score.run import PAIR_TARGETS

GENE_COMPONENTS = 128


def gene_vectors(embeddings: Sequence, genes, n_components: int = GENE_COMPONENTS) -> np.ndarray:
    """Vectors of readout genes from their own embeddings: genes of the readout are genes too.

    Each source is standardised over the genes it has and divided by its length; all are put side by
    side and reduced by a singular value decomposition. A gene with no embedding gets the mean.

    Parameters
    ----------
    embeddings : sequence of Embedding
        Of a source with one embedding a cell line, the first is taken.
    genes : sequence of str
        G ids.
    n_components : int

    Returns
    -------
    (G, f) float32 array
        f = min(n_components, G, total width); zeros (G, 1) where no gene has an embedding.
    """
    blocks = []
    for name in sorted({e.name for e in embeddings}):
        one = next(e for e in embeddings if e.name == name)
        at = one.ids.get_indexer(pd.Index(list(genes), dtype=object))
        has = at >= 0
        if not has.any():
            continue
        z = standardise(one.X[at[has]])[0]
        length = np.linalg.norm(z, axis=1, keepdims=True)
        block = np.zeros((len(at), one.dim), np.float32)
        block[has] = np.divide(z, length, out=np.zeros_like(z), where=length > 0)
        blocks.append(block)
    if not blocks:
        return np.zeros((len(genes), 1), np.float32)
    X = np.concatenate(blocks, axis=1)
    X = X - X.mean(axis=0)
    # eigenvectors of the small side: the genes are many
    width, q = X.shape[1], min(n_components, *X.shape)
    _, axes = eigh((X.T @ X).astype(np.float64), subset_by_index=[width - q, width - 1])
    # the sign of an eigenvector is the solver's choice, and what is trained would depend on it
    out = X @ fix_signs(axes[:, ::-1].copy()).astype(np.float32)
    size = np.sqrt((out**2).sum(axis=1).mean())
    return (out / size * np.sqrt(q)).astype(np.float32) if size > 0 else out


def build(model, train, obs, sources: Sources, learning: np.ndarray, seed: int) -> FusionLearner:
    """Make an untrained learner.

    Parameters
    ----------
    model : TransformerFusion
    train : AnnData
        The only responses it will see.
    obs : pandas.DataFrame
        Rows of `train`, then those to be predicted.
    sources : Sources
        Of the same rows.
    learning : (n_train,) bool array
        Rows to learn from; the others are for validation.
    seed : int
    """
    s = model.settings
    task = train.uns["perturbcore"]["task"]
    if (s.head == "factor" or s.neighbours) and task not in PAIR_TARGETS:
        raise InputError(
            f"head='factor' and neighbours=True are for partial labels, not for task '{task}': use another preset"
        )
    lines = sorted(obs["cell_line"].unique())
    line = (
        obs["cell_line"].map({name: i for i, name in enumerate(lines)}).to_numpy().astype(np.int64)
    )
    rows = np.r_[learning, np.zeros(len(obs) - len(learning), dtype=bool)]
    profiles = None
    if s.line_source == "autoencoder":
        profiles = line_profiles(model.controls, lines, quirk=model.control_quirk)
    genes = gene_vectors(model.embeddings, train.var_names) if task in PAIR_TARGETS else None
    tables = normalise(sources, rows, s.input_norm)
    n_out = train.n_vars * (3 if task == "deg" else 1)
    network = FusionNetwork(
        s, sources.names, sources.dims, len(lines), n_out, profiles=profiles, genes=genes, seed=seed
    )
    steps = -(-int(learning.sum()) // s.batch)
    common = (network, tables, line, s, steps)
    if task == "lfc":
        return LFCLearner(*common, Y=np.asarray(train.X, dtype=np.float32))
    if task == "deg":
        return DEGLearner(*common, label=np.asarray(train.layers["deg"]), train=learning)
    known = known_labels(train)
    base = np.empty((len(lines), train.n_vars))
    for i in range(len(lines)):
        rate = known.take(np.flatnonzero(learning & (line[: len(learning)] == i))).rates()
        rate = np.clip(rate, 1e-4, 1 - 1e-4)
        base[i] = np.log(rate / (1 - rate))
    neighbours = None
    if s.neighbours:
        ids = obs["perturbation"].to_numpy().astype(str)
        memory = remember(sources, ids, line, known, rows, len(lines))
        width = 2 * s.d_model if s.line == "apart" else s.d_model
        neighbours = Neighbours(memory, width, genes)
    return PairLearner(*common, known=known, base=base, neighbours=neighbours)


def fit_members(model, train, obs, sources: Sources, held: np.ndarray, folder) -> tuple[list, list]:
    """Train all members of a fold; returns learners and how their trainings went."""
    s = model.settings
    learners, trainings = [], []
    for member in range(s.members):
        seed = model.seed + 1009 * member
        here = None if folder is None else folder / f"member_{member}"
        learner = build(model, train, obs, sources, ~held, seed)
        validated = held.any()
        trained = _fit(model, learner, ~held, held if validated else None, s.max_epochs, seed, here)
        if validated and s.refit == "all":
            everything = np.ones_like(held)
            learner = build(model, train, obs, sources, everything, seed)
            again = None if folder is None else folder / f"member_{member}_refit"
            trained = _fit(model, learner, everything, None, trained.best_epoch + 1, seed, again)
        learners.append(learner)
        trainings.append(trained)
    return learners, trainings


def _fit(model, learner, learning, held, epochs, seed, folder):
    s = model.settings
    rows = np.flatnonzero(learning)
    if len(rows) == 0:
        raise InputError("no training rows are left: there are too few perturbations")
    batches = Batches(len(rows), s.batch, lambda index: torch.from_numpy(rows[index]), seed=seed)
    check = None
    if held is not None:
        kept = np.flatnonzero(held)
        check = Batches(
            len(kept), s.batch, lambda index: torch.from_numpy(kept[index]), shuffle=False
        )
    return fit(
        learner, batches, check, max_epochs=epochs, patience=s.patience if check else None,
        folder=folder, key=digest(folder.parent.name, epochs) if folder is not None else "",
        grad_clip=s.grad_clip, precision=model.precision, device=model.device, seed=seed,
        progress=model.progress,
    )  # fmt: skip
