"""How simulated cells respond: expression, batches, and effects that travel through the network."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import scipy.sparse as sp

from perturbcore.data.simulate.knowledge import Knowledge

LIBRARY_SD = 0.35  # of the log of a cell's total count


@dataclass(frozen=True)
class Model:
    """The truth that cells are drawn from; all effects are on the natural-log rate scale.

    `baseline` (lines, genes): log rate in an undisturbed cell, up to a constant per line.
    `effects` (lines, perturbations, genes); `strength`, `near_null` (lines, perturbations).
    `loadings` (factors, genes): programmes that vary from cell to cell, perturbed or not.
    `batch_axis` (lines, genes): the direction in which batches differ most. `dropout` (genes,):
    chance that a count is lost whole. `settings`: the parameters of the simulation.
    """

    settings: SimpleNamespace
    genes: list
    perturbations: list
    cell_lines: list
    baseline: np.ndarray
    effects: np.ndarray
    strength: np.ndarray
    near_null: np.ndarray
    loadings: np.ndarray
    batch_axis: np.ndarray
    dropout: np.ndarray


def make_model(knowledge: Knowledge, settings: SimpleNamespace, seed) -> Model:
    """Draw the truth of an experiment on the genes of `knowledge`."""
    rng_expr, rng_pert, rng_reg, rng_cell, rng_batch = map(np.random.default_rng, seed.spawn(5))
    n_lines, n_genes = settings.n_cell_lines, len(knowledge.genes)
    common = rng_expr.normal(0.0, 1.6, n_genes)
    baseline = common + rng_expr.normal(0.0, 0.4, (n_lines, n_genes))
    silent = rng_expr.random((n_lines, n_genes)) < 0.06
    baseline[silent] -= 3.0

    perturbed = np.sort(rng_pert.choice(n_genes, settings.n_perturbations, replace=False))
    share = settings.null_fraction
    strength, near_null = _strengths(knowledge.modules, perturbed, silent, share, rng_pert)
    effects = _effects(knowledge, perturbed, strength, settings, rng_reg)
    for p, g in enumerate(perturbed):
        # the knock-down itself: 70 to 90 % of the transcript is gone
        effects[:, p, g] = np.log(rng_pert.uniform(0.1, 0.3, n_lines))

    rank = np.argsort(np.argsort(common)) / max(1, n_genes - 1)
    return Model(
        settings=settings,
        genes=knowledge.genes,
        perturbations=[knowledge.genes[g] for g in perturbed],
        cell_lines=[f"line{chr(65 + i) if i < 26 else i + 1}" for i in range(n_lines)],
        baseline=baseline,
        effects=effects.astype(np.float32),
        strength=strength,
        near_null=near_null,
        loadings=_loadings(knowledge.modules, rng_cell).astype(np.float32),
        batch_axis=rng_batch.normal(0.0, 1.0, (n_lines, n_genes)),
        dropout=settings.dropout * (1.0 - rank),
    )


def _strengths(modules, perturbed, silent, null_fraction, rng):
    """Strength follows how essential the module is; silent genes cannot be knocked down."""
    importance = rng.normal(0.0, 1.0, modules.max() + 1)
    score = 0.8 * importance[modules[perturbed]] + 0.6 * rng.normal(0.0, 1.0, len(perturbed))
    score = score + 0.35 * rng.normal(0.0, 1.0, (len(silent), len(perturbed)))
    score[silent[:, perturbed]] -= 4.0
    n_null = int(round(null_fraction * len(perturbed)))
    strength = np.full_like(score, 0.04)
    near_null = np.zeros(score.shape, dtype=bool)
    for line, row in enumerate(score):
        order = np.argsort(row, kind="stable")
        near_null[line, order[:n_null]] = True
        active = row[order[n_null:]]
        if len(active):
            size = 0.75 * np.exp(0.45 * (active - active.mean()))
            strength[line, order[n_null:]] = np.clip(size, 0.3, 3)
    return strength, near_null


def _effects(knowledge, perturbed, strength, settings, rng):
    """Random walk with restart through the true network, then each reached gene's regulation."""
    n_lines, n_genes = len(strength), len(knowledge.genes)
    degree = np.asarray(knowledge.interactions.sum(1)).ravel()
    walk = sp.diags(1.0 / degree) @ knowledge.interactions
    start = np.zeros((len(perturbed), n_genes))
    start[np.arange(len(perturbed)), perturbed] = 1.0
    reach, restart = start, 0.35
    for _ in range(25):
        reach = restart * start + (1 - restart) * (walk.T @ reach.T).T
    programmes = rng.normal(0, 1, (knowledge.modules.max() + 1, n_genes))
    programmes *= rng.random(programmes.shape) < 0.12
    stress_common = rng.standard_t(4, n_genes)
    effects = np.empty((n_lines, len(perturbed), n_genes))
    own = _sparse_regulation(n_genes, rng).toarray()
    shared, specificity = np.sqrt(1.0 - settings.line_specificity**2), settings.line_specificity
    for line in range(n_lines):
        local = rng.normal(0, 1, programmes.shape)
        local *= rng.random(programmes.shape) < 0.12
        used = shared * programmes + specificity * local
        specific = reach @ (used[knowledge.modules] + 0.8 * own)
        specific /= np.sqrt((specific**2).mean(1, keepdims=True)) + 1e-12
        stress = shared * stress_common + specificity * rng.standard_t(4, n_genes)
        stress /= np.sqrt((stress**2).mean())
        size = strength[line][:, None]
        effects[line] = size * (settings.effect_size * specific + settings.stress_size * stress)
    return np.clip(effects, -3.0, 3.0)


def _sparse_regulation(n_genes, rng, n_targets=30):
    k = min(n_targets, n_genes)
    columns = rng.integers(0, n_genes, (n_genes, k))
    values = rng.normal(0.0, 1.0, (n_genes, k))
    rows = np.repeat(np.arange(n_genes), k)
    return sp.csr_matrix((values.ravel(), (rows, columns.ravel())), shape=(n_genes, n_genes))


def _loadings(modules, rng, n_global=4):
    """Cell-to-cell programmes: a few strong ones of no module, and one weak one per module."""
    n_genes, n_modules = len(modules), modules.max() + 1
    strong = rng.normal(0.0, 0.15, (n_global, n_genes))
    weak = np.zeros((n_modules, n_genes))
    weak[modules, np.arange(n_genes)] = np.abs(rng.normal(0.0, 0.4, n_genes))
    weak[modules, np.arange(n_genes)] *= rng.random(n_genes) < 0.6
    return np.concatenate([strong, weak])
