"""The truth that simulated cells are drawn from, the cells, and what no noise would measure."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from scipy.stats import nbinom

from perturbcore.data.responses import make_responses
from perturbcore.data.simulate.knowledge import Knowledge

CONTROL = "control"
LIBRARY_SD = 0.35  # of the log of a cell's total count
TARGETS = 30  # genes that a gene regulates itself
_CHUNK = 2048


@dataclass(frozen=True)
class Model:
    """The truth that cells are drawn from; all effects are on the natural-log rate scale."""

    settings: SimpleNamespace
    genes: list
    perturbations: list
    cell_lines: list
    baseline: np.ndarray
    effects: np.ndarray
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
    k = min(TARGETS, n_genes)
    columns = rng.integers(0, n_genes, (n_genes, k))
    own = np.zeros((n_genes, n_genes))
    np.add.at(own, (np.arange(n_genes)[:, None], columns), rng.normal(0.0, 1.0, (n_genes, k)))
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


def _loadings(modules, rng, n_global=4):
    """Cell-to-cell programmes: a few strong ones of no module, and one weak one per module."""
    n_genes, n_modules = len(modules), modules.max() + 1
    strong = rng.normal(0.0, 0.15, (n_global, n_genes))
    weak = np.zeros((n_modules, n_genes))
    weak[modules, np.arange(n_genes)] = np.abs(rng.normal(0.0, 0.4, n_genes))
    weak[modules, np.arange(n_genes)] *= rng.random(n_genes) < 0.6
    return np.concatenate([strong, weak])


def draw_batches(model: Model, n_batches: int, seed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw batch shifts, and shares of control and perturbed cells confounded with them."""
    rng = np.random.default_rng(seed)
    n_lines, n_genes = model.baseline.shape
    shift = np.empty((n_lines, n_batches, n_genes))
    control, perturbed = (np.empty((n_lines, n_batches)) for _ in range(2))
    ramp = np.linspace(-1.0, 1.0, n_batches) if n_batches > 1 else np.zeros(1)
    for line in range(n_lines):
        position = rng.permutation(ramp)
        own = rng.normal(0.0, 0.7, (n_batches, n_genes))
        # batches late on the axis hold many perturbed and few control cells: pooling is biased
        moved = position[:, None] * model.batch_axis[line] + own
        shift[line] = model.settings.batch_effect * moved
        shift[line] -= shift[line].mean(0)
        control[line] = np.exp(-0.9 * position) / np.exp(-0.9 * position).sum()
        perturbed[line] = np.exp(0.4 * position) / np.exp(0.4 * position).sum()
    return shift, control, perturbed


def draw_design(model: Model, control_share, perturbed_share, seed) -> pd.DataFrame:
    """Draw one row per cell: integer codes of line, perturbation (-1 for control) and batch."""
    frames = []
    few, many = model.settings.cells_per_perturbation
    for line, stream in enumerate(seed.spawn(len(model.cell_lines))):
        rng = np.random.default_rng(stream)
        n_batches, n = control_share.shape[1], len(model.perturbations)
        n_cells = rng.integers(few, many + 1, n)
        share = rng.dirichlet(8.0 * n_batches * perturbed_share[line], n)
        counts = rng.multinomial(n_cells, share)
        spare = model.settings.n_control_cells - n_batches
        controls = 1 + rng.multinomial(spare, control_share[line])
        counts = np.concatenate([controls[None], counts])
        pert = np.repeat(np.arange(-1, n), counts.sum(1))
        batch = np.concatenate([np.repeat(np.arange(n_batches), row) for row in counts])
        order = rng.permutation(len(pert))
        cells = {"line": line, "perturbation": pert[order], "batch": batch[order]}
        frames.append(pd.DataFrame(cells))
    return pd.concat(frames, ignore_index=True)


def draw_cells(model: Model, design: pd.DataFrame, shift: np.ndarray, seed) -> sp.csr_matrix:
    """Draw int32 counts of the cells of a design; at most 2,048 cells are ever dense."""
    n_cells, n_genes = len(design), len(model.genes)
    line, pert, batch = (design[c].to_numpy() for c in ("line", "perturbation", "batch"))
    moved = (model.baseline[:, None, :] + shift).astype(np.float32)
    shape = np.float32(1.0 / model.settings.dispersion)
    blocks = []
    starts = range(0, n_cells, _CHUNK)
    streams = seed.spawn(len(starts))
    for start, stream in zip(starts, streams, strict=True):
        rows = slice(start, min(start + _CHUNK, n_cells))
        rng = np.random.default_rng(stream)
        n = rows.stop - rows.start
        rate = rng.standard_normal((n, len(model.loadings)), dtype=np.float32) @ model.loadings
        rate += moved[line[rows], batch[rows]]
        treated = np.flatnonzero(pert[rows] >= 0)
        rate[treated] += model.effects[line[rows][treated], pert[rows][treated]]
        np.exp(rate, out=rate)
        library = rng.lognormal(np.log(model.settings.library_size), LIBRARY_SD, n)
        rate *= (library / rate.sum(1, dtype=np.float64)).astype(np.float32)[:, None]
        rate *= rng.standard_gamma(shape, rate.shape, dtype=np.float32)
        rate /= shape
        counts = rng.poisson(rate).astype(np.int32)
        r, c = np.nonzero(counts)
        kept = rng.random(len(c), dtype=np.float32) >= model.dropout.astype(np.float32)[c]
        r, c = r[kept], c[kept]
        # a cell with no count at all would never have been called a cell
        empty = np.flatnonzero(np.bincount(r, minlength=n) == 0)
        if len(empty):
            best = rate[empty].argmax(1)
            counts[empty, best] = np.maximum(counts[empty, best], 1)
            r, c = np.concatenate([r, empty]), np.concatenate([c, best])
        blocks.append(sp.csr_matrix((counts[r, c], (r, c)), shape=(n, n_genes), dtype=np.int32))
    return sp.vstack(blocks, format="csr", dtype=np.int32)


def as_screen(model: Model, design: pd.DataFrame, counts, dataset: str) -> AnnData:
    """Put counts and labels together as a screen (see `perturbcore.data.screens`)."""
    labels = np.array([*model.perturbations, CONTROL], dtype=object)
    n_batches = design["batch"].max() + 1
    width = max(2, len(str(n_batches)))
    names = np.array([f"batch{b + 1:0{width}d}" for b in range(n_batches)], dtype=object)
    obs = pd.DataFrame(
        {
            "perturbation": labels[design["perturbation"].to_numpy()],
            "batch": names[design["batch"].to_numpy()],
            "cell_line": np.array(model.cell_lines, dtype=object)[design["line"].to_numpy()],
            "is_control": (design["perturbation"] < 0).to_numpy(),
        },
        index=[f"cell{i + 1:06d}" for i in range(len(design))],
    )
    screen = AnnData(counts, obs=obs, var=pd.DataFrame(index=pd.Index(model.genes, dtype=object)))
    about = {"scale": "counts", "dataset": dataset, "identifier": "symbol", "simulated": True}
    screen.uns["perturbcore"] = about
    return screen


def expected_effects(model: Model, shift: np.ndarray) -> np.ndarray:
    """Compute the expected BA-ATE on the log1p(1e4) scale; off by 1 to 2 % at 1,000 genes."""
    sd = np.sqrt((model.loadings.astype(float) ** 2).sum(0))
    keep = 1.0 - model.dropout
    n_lines, n_batches, n_genes = shift.shape
    # quantiles bound the table; rates beyond it are so rare that their expectation is ~0
    move, share = np.abs(shift).max(1), _log_share(model.baseline, sd)
    low = (share - move + np.minimum(model.effects.min(1), 0)).min()
    high = (share + move + np.maximum(model.effects.max(1), 0)).max()
    margin = 4 * sd.max() + 0.5
    grid = np.linspace(low - margin, min(high + margin, 0.5), 220)
    typical = np.exp(share + sd**2 / 2)
    scales = np.array([0.97, 1.03]) * float((typical * keep).sum(-1).mean())
    table = _gene_tables(model, grid, scales, sd, keep)
    out = np.zeros((n_lines, len(model.perturbations), n_genes))
    for line in range(n_lines):
        for b in range(n_batches):
            base = model.baseline[line] + shift[line, b]
            control = _expect(base[None], sd, keep, grid, scales, table)
            treated = _expect(base + model.effects[line], sd, keep, grid, scales, table)
            out[line] += (treated - control) / n_batches
    return out


def _log_share(log_rate, sd):
    log_rate = np.asarray(log_rate, dtype=float)
    total = np.exp(log_rate + sd**2 / 2).sum(-1, keepdims=True)
    return log_rate - np.log(total)


def _gene_tables(model, grid, scales, sd, keep):
    """Tabulate the expectation by gene over log shares, for two kept fractions of the total."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(9)
    weights = weights / weights.sum()
    libraries = model.settings.library_size * np.exp(LIBRARY_SD * nodes)
    size = 1.0 / model.settings.dispersion
    top = np.exp(grid[-1]) * libraries.max()
    far = int(top * (1 + 12 / np.sqrt(size)) + 100)
    # every count up to 256, then bins 2 % wide
    edges = np.arange(257)
    if far > 256:
        wide = np.geomspace(256, far, 60 + far // 256).astype(int)
        edges = np.unique(np.concatenate([edges, wide]))
    middle = (edges[1:] + edges[:-1] - 1) / 2.0
    base = np.zeros((2, len(grid)))
    for library, weight in zip(libraries, weights, strict=True):
        mean = np.exp(grid) * library
        below = nbinom.cdf(edges[None, :] - 1, size, (size / (size + mean))[:, None])
        mass = np.diff(below, axis=1)
        for i, scale in enumerate(scales):
            base[i] += weight * (mass @ np.log1p(1e4 * middle / (library * scale)))
    t, w = np.polynomial.hermite_e.hermegauss(7)
    w = w / w.sum()
    table = np.zeros((2, len(sd), len(grid)))
    for node, weight in zip(t, w, strict=True):
        for i in range(2):
            table[i] += weight * np.interp(grid[None, :] + node * sd[:, None], grid, base[i])
    return table * keep[None, :, None]


def _expect(log_rate, sd, keep, grid, scales, table):
    share = _log_share(log_rate, sd)
    kept = (np.exp(share + sd**2 / 2) * keep).sum(-1, keepdims=True)
    position = np.clip((share - grid[0]) / (grid[1] - grid[0]), 0, len(grid) - 1.001)
    left = position.astype(np.int64)
    part = position - left
    gene = np.arange(table.shape[1])
    low, high = (t[gene, left] * (1 - part) + t[gene, left + 1] * part for t in table)
    along = (np.log(kept) - np.log(scales[0])) / (np.log(scales[1]) - np.log(scales[0]))
    return low + along * (high - low)


def truth_of(model: Model, effects, dataset: str, identifier: str, about: dict) -> AnnData:
    """Lay expected effects (lines, perturbations, genes) out as responses; `about`: obs columns."""
    index = pd.MultiIndex.from_product([model.cell_lines, model.perturbations])
    line, name = (index.get_level_values(i).to_numpy(dtype=object) for i in (0, 1))
    obs = pd.DataFrame({"perturbation": name, "cell_line": line, **about})
    X, how = effects.reshape(len(obs), -1), dict(dataset=dataset, identifier=identifier)
    out = make_responses(X, obs, model.genes, simulated=True, **how)
    out.uns["perturbcore"]["truth"] = "expected BA-ATE"
    return out
