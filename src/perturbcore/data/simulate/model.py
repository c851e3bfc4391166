"""How simulated cells respond: expression, batches, and effects that travel through the network."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from perturbcore.data.simulate.knowledge import Knowledge


@dataclass(frozen=True)
class Model:
    """The truth that cells are drawn from; all effects are on the natural-log rate scale.

    Attributes
    ----------
    genes, perturbations, cell_lines : list of str
    baseline : ndarray, shape (n_cell_lines, n_genes)
        Log rate of each gene in an undisturbed cell, up to a constant a line.
    effects : ndarray, shape (n_cell_lines, n_perturbations, n_genes)
    strength : ndarray, shape (n_cell_lines, n_perturbations)
    near_null : ndarray of bool, shape (n_cell_lines, n_perturbations)
    loadings : ndarray, shape (n_factors, n_genes)
        Programmes that vary from cell to cell, perturbed or not (co-expression).
    batch_axis : ndarray, shape (n_cell_lines, n_genes)
        The direction in which batches differ most.
    batch_effect, dispersion, library_size, library_sd : float
    dropout : ndarray, shape (n_genes,)
        Probability that a transcript count is lost whole.
    stress : ndarray, shape (n_cell_lines, n_genes)
        The programme that every perturbation sets off in proportion to its strength.
    """

    genes: list
    perturbations: list
    cell_lines: list
    baseline: np.ndarray
    effects: np.ndarray
    strength: np.ndarray
    near_null: np.ndarray
    loadings: np.ndarray
    batch_axis: np.ndarray
    batch_effect: float
    dispersion: float
    library_size: float
    library_sd: float
    dropout: np.ndarray
    stress: np.ndarray


def make_model(
    knowledge: Knowledge,
    seed: np.random.SeedSequence,
    *,
    n_cell_lines: int,
    n_perturbations: int,
    null_fraction: float,
    effect_size: float,
    stress_size: float,
    line_specificity: float,
    batch_effect: float,
    dispersion: float,
    dropout: float,
    library_size: float,
) -> Model:
    """Draw the truth of an experiment on the genes of `knowledge`."""
    rng_expr, rng_pert, rng_reg, rng_cell, rng_batch = (
        np.random.default_rng(s) for s in seed.spawn(5)
    )
    n_genes = len(knowledge.genes)
    common = rng_expr.normal(0.0, 1.6, n_genes)
    baseline = common + rng_expr.normal(0.0, 0.4, (n_cell_lines, n_genes))
    silent = rng_expr.random((n_cell_lines, n_genes)) < 0.06
    baseline[silent] -= 3.0

    perturbed = np.sort(rng_pert.choice(n_genes, n_perturbations, replace=False))
    strength, near_null = _strengths(
        knowledge.modules, perturbed, silent, null_fraction, n_cell_lines, rng_pert
    )
    effects, stress = _effects(
        knowledge, perturbed, strength, rng_reg, effect_size, stress_size, line_specificity
    )
    for p, g in enumerate(perturbed):
        # the knock-down itself: 70 to 90 % of the transcript is gone
        effects[:, p, g] = np.log(rng_pert.uniform(0.1, 0.3, n_cell_lines))

    rank = np.argsort(np.argsort(common)) / max(1, n_genes - 1)
    return Model(
        genes=knowledge.genes,
        perturbations=[knowledge.genes[g] for g in perturbed],
        cell_lines=[
            f"line{chr(65 + i)}" if i < 26 else f"line{i + 1}" for i in range(n_cell_lines)
        ],
        baseline=baseline,
        effects=effects.astype(np.float32),
        strength=strength,
        near_null=near_null,
        loadings=_loadings(knowledge.modules, rng_cell).astype(np.float32),
        batch_axis=rng_batch.normal(0.0, 1.0, (n_cell_lines, n_genes)),
        batch_effect=batch_effect,
        dispersion=dispersion,
        library_size=library_size,
        library_sd=0.35,
        dropout=dropout * (1.0 - rank),
        stress=stress,
    )


def _strengths(modules, perturbed, silent, null_fraction, n_lines, rng):
    """Strength follows how essential the module is; silent genes cannot be knocked down."""
    importance = rng.normal(0.0, 1.0, modules.max() + 1)
    score = 0.8 * importance[modules[perturbed]] + 0.6 * rng.normal(0.0, 1.0, len(perturbed))
    score = score + 0.35 * rng.normal(0.0, 1.0, (n_lines, len(perturbed)))
    score[silent[:, perturbed]] -= 4.0
    n_null = int(round(null_fraction * len(perturbed)))
    strength = np.empty_like(score)
    near_null = np.zeros(score.shape, dtype=bool)
    for line, row in enumerate(score):
        order = np.argsort(row, kind="stable")
        near_null[line, order[:n_null]] = True
        active = row[order[n_null:]]
        if len(active):
            strength[line, order[n_null:]] = np.clip(
                0.75 * np.exp(0.45 * (active - active.mean())), 0.3, 3
            )
        strength[line, order[:n_null]] = 0.04
    return strength, near_null


def _effects(knowledge, perturbed, strength, rng, effect_size, stress_size, line_specificity):
    """Random walk with restart through the true network, then each reached gene's regulation."""
    n_lines, n_genes = len(strength), len(knowledge.genes)
    walk = (
        sp.diags(1.0 / np.asarray(knowledge.interactions.sum(1)).ravel()) @ knowledge.interactions
    )
    start = sp.csr_matrix(
        (np.ones(len(perturbed)), (np.arange(len(perturbed)), perturbed)),
        shape=(len(perturbed), n_genes),
    )
    reach, restart = start.toarray(), 0.35
    for _ in range(25):
        reach = restart * start.toarray() + (1 - restart) * (walk.T @ reach.T).T
    programmes = rng.normal(0, 1, (knowledge.modules.max() + 1, n_genes))
    programmes *= rng.random(programmes.shape) < 0.12
    stress_common = rng.standard_t(4, n_genes)
    effects = np.empty((n_lines, len(perturbed), n_genes))
    stress = np.empty((n_lines, n_genes))
    own = _sparse_regulation(n_genes, rng)
    keep = np.sqrt(1.0 - line_specificity**2)
    for line in range(n_lines):
        local_programmes = rng.normal(0, 1, programmes.shape) * (
            rng.random(programmes.shape) < 0.12
        )
        used = keep * programmes + line_specificity * local_programmes
        specific = reach @ (used[knowledge.modules] + 0.8 * own.toarray())
        specific /= np.sqrt((specific**2).mean(1, keepdims=True)) + 1e-12
        local = rng.standard_t(4, n_genes)
        stress[line] = keep * stress_common + line_specificity * local
        stress[line] /= np.sqrt((stress[line] ** 2).mean())
        size = strength[line][:, None]
        effects[line] = size * (effect_size * specific + stress_size * stress[line])
    return np.clip(effects, -3.0, 3.0), stress


def _sparse_regulation(n_genes, rng, n_targets=30):
    k = min(n_targets, n_genes)
    columns = rng.integers(0, n_genes, (n_genes, k))
    values = rng.normal(0.0, 1.0, (n_genes, k))
    rows = np.repeat(np.arange(n_genes), k)
    return sp.csr_matrix((values.ravel(), (rows, columns.ravel())), shape=(n_genes, n_genes))


def _loadings(modules, rng, n_global=4):
    """Cell-to-cell programmes: a few strong ones of no module, and one weak one a module."""
    n_genes, n_modules = len(modules), modules.max() + 1
    strong = rng.normal(0.0, 0.15, (n_global, n_genes))
    weak = np.zeros((n_modules, n_genes))
    weak[modules, np.arange(n_genes)] = np.abs(rng.normal(0.0, 0.4, n_genes))
    weak[modules, np.arange(n_genes)] *= rng.random(n_genes) < 0.6
    return np.concatenate([strong, weak])
