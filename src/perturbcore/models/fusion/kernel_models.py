"""Fusions by summed kernels, and the list of all fusions without a neural network."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numba
import numpy as np
import scipy.sparse as sp
from scipy.linalg import eigh

from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.linalg import unit
from perturbcore.models.fusion import kernels as kn
from perturbcore.models.fusion import simple
from perturbcore.models.fusion.sources import LineFold, Source
from perturbcore.models.simple.labels import raise_to
from perturbcore.score.labels import Labels
from perturbcore.score.model import Prediction
from perturbcore.score.task import Task, task_of


@numba.njit(nogil=True, cache=True, fastmath=True)
def _within_genes(start, rows, K, a, out):
    """Add the product of the block-diagonal part: pairs of one gene through the kernel K."""
    for g in range(len(start) - 1):
        for i in range(start[g], start[g + 1]):
            line = K[rows[i]]
            total = np.float32(0)
            for j in range(start[g], start[g + 1]):
                total += line[rows[j]] * a[j]
            out[i] += total


@numba.njit(nogil=True, cache=True, fastmath=True)
def _gather(rows, genes, a, phi, out):
    """out[p] += sum over pairs of p of a * phi of the pair's gene."""
    for i in range(len(rows)):
        for j in range(phi.shape[1]):
            out[rows[i], j] += a[i] * phi[genes[i], j]


@numba.njit(nogil=True, cache=True, fastmath=True)
def _spread(rows, genes, left, phi, out):
    """out[pair] += left of its perturbation . phi of its gene."""
    for i in range(len(rows)):
        total = np.float32(0)
        for j in range(phi.shape[1]):
            total += left[rows[i], j] * phi[genes[i], j]
        out[i] += total


def gene_features(sources: Sequence[Source], n_features: int = 32) -> np.ndarray:
    """Leading coordinates of the readout genes over all sources, (g, q), mean square length 1."""
    F = np.concatenate([unit(s.gene) for s in sources], axis=1) / np.sqrt(len(sources))
    F -= F.mean(axis=0)
    width = F.shape[1]
    _, vectors = eigh(F.T @ F, subset_by_index=[max(width - n_features, 0), width - 1])
    F = F @ vectors[:, ::-1]
    length = np.sqrt((F**2).sum(axis=1).mean())
    return (F / max(length, 1e-12)).astype(np.float32)


@dataclass(frozen=True)
class MixedModel:
    """Labels of a gene's own response, shared modules and overall strength, as variances.

    The label of (perturbation p, gene g) is ``b_g + f(p, g) + noise`` with a Gaussian ``f`` of
    covariance ``k(p, p') [1(g = g') + shared + module phi_g . phi_g'] + own 1(p = p')``, k a
    `power` of the summed cosine kernels, phi `gene_features`. Conjugate gradients stop after
    `iterations`, or at `tolerance`, relative to the labels.
    """

    shared: float = 0.02
    module: float = 0.01
    own: float = 0.3
    noise: float = 2.3
    power: float = 3.0
    iterations: int = 20
    tolerance: float = 3e-2

    def scores(
        self, known: Labels, train: np.ndarray, test: np.ndarray, phi: np.ndarray
    ) -> np.ndarray:
        """Posterior mean of the label of every pair of the test rows, (m, g) float32.

        `train` (n, n) and `test` (m, n) are summed cosine kernels, `phi` (g, q) as `gene_features`.
        """
        K, T = (raise_to(np.asarray(k, dtype=np.float32), self.power) for k in (train, test))
        scale = np.float32(np.diag(K).mean())
        K, T = (np.ascontiguousarray(k / scale if scale > 0 else k) for k in (K, T))
        shared = np.full((known.n_genes, 1), np.sqrt(self.shared))
        joined = np.concatenate([shared, phi * np.sqrt(self.module)], axis=1)
        joined = joined[:, (joined != 0).any(axis=0)]
        system = _System(known, K, joined, self.own, self.noise)
        alpha = system.solve(self.iterations, self.tolerance)
        A = sp.csr_matrix((alpha, (system.rows, system.genes)), shape=(len(K), known.n_genes))
        f = known.rates().astype(np.float32) + (A.T @ T.T).T
        return f + (T @ system.gathered(alpha)) @ system.phi.T


class _System:
    """Covariance of the known pairs as a linear map."""

    def __init__(self, known: Labels, K, phi, own, noise):
        order = np.lexsort((known.rows, known.genes))
        self.rows, self.genes = (x[order].astype(np.int32) for x in (known.rows, known.genes))
        self.start = np.r_[0, np.cumsum(np.bincount(self.genes, minlength=known.n_genes))]
        self.residual = (known.label - known.rates()[known.genes])[order].astype(np.float32)
        self.K, self.own, self.noise = K, np.float32(own), np.float32(noise)
        self.phi = np.ascontiguousarray(phi, dtype=np.float32)

    def gathered(self, a):
        out = np.zeros((len(self.K), self.phi.shape[1]), dtype=np.float32)
        _gather(self.rows, self.genes, a, self.phi, out)
        return out

    def times(self, a):
        out = self.noise * a
        _within_genes(self.start, self.rows, self.K, a, out)
        strength = np.bincount(self.rows, weights=a, minlength=len(self.K)).astype(np.float32)
        out += self.own * strength[self.rows]
        _spread(self.rows, self.genes, self.K @ self.gathered(a), self.phi, out)
        return out

    def solve(self, iterations, tolerance):
        r = self.residual.copy()
        x, d = np.zeros_like(r), r.copy()
        size = first = float(r @ r)
        for _ in range(iterations):
            if size <= tolerance**2 * first:
                break
            moved = self.times(d)
            bend = float(d @ moved)
            # cutting negative cosines may cost the kernel its definiteness: stop where it shows
            if bend <= 0:
                break
            step = np.float32(size / bend)
            x += step * d
            r -= step * moved
            before, size = size, float(r @ r)
            d = r + np.float32(size / before) * d
        return x


# What the mixed model chooses from on the inner folds: strength shared by all genes, modules, own.
# These two, and the blend, were found on inner folds of PerturbQA's training split.
MIXED = (
    MixedModel(shared=0.02, module=0.01, own=0.3),
    MixedModel(shared=0.005, module=0.1, own=0.1),
)


@dataclass
class KernelSum(simple.Fusion):
    """Smooth labels by a power of the summed kernels, sources weighed by how good each is alone."""

    powers: Sequence[float] = (1.0, 2.0, 3.0, 4.0, 6.0)
    exponents: Sequence[float] = (0.0, 1.0, 2.0)
    name: str = "Kernel sum smoother"
    predictor: str = "kernel"
    tasks = ("deg_pairs", "dir_pairs")

    def predict_line(self, fold: LineFold) -> Prediction:
        """See `perturbcore.models.fusion.kernels.smooth`."""
        # one after the other: first what a source counts, at the middle power, then the power
        kernels, alone = kn.cosines(fold), kn.auroc_alone(fold)
        middle = [self.powers[len(self.powers) // 2]]
        sums = {e: kn.summed(kernels, kn.source_weights(alone, e)) for e in self.exponents}
        exponent, _ = simple.tuned_pairs(
            fold,
            self.exponents,
            lambda i: [kn.smooth_inner(fold, train, i, middle)[0] for train, _ in sums.values()],
        )
        train, test = sums[exponent]
        power, inner = simple.tuned_pairs(
            fold, self.powers, lambda i: kn.smooth_inner(fold, train, i, self.powers)
        )
        values = kn.smooth_all(fold.truth, test, power)
        note = simple.noted_weights(fold, kn.source_weights(alone, exponent))
        chosen = f"power {power:g}, exponent {exponent:g}"
        return simple.pair_prediction(fold, values, inner, chosen, note)


@dataclass
class KernelRidge(simple.Fusion):
    """Kernel ridge with one kernel per source; weights and penalty by exact leave-one-out error."""

    degrees: Sequence[int] = (1, 2, 4)
    penalties: Sequence[float] = kn.PENALTIES
    steps: int = 8
    name: str = "Multi-kernel ridge"
    predictor: str = "ridge"
    tasks = ("lfc",)

    def predict_line(self, fold: LineFold) -> Prediction:
        """See `perturbcore.models.fusion.kernels.tune_weights`."""
        bent = {d: kn.bent_cosines(fold, d) for d in self.degrees}
        # one after the other: the degree with equal weights, then the weights
        losses = {
            d: kn.Ridge(kn.summed(k)[0]).losses(fold.gram, self.penalties).min()
            for d, k in bent.items()
        }
        degree = min(losses, key=losses.get)
        weights, penalty, _ = kn.tune_weights(
            [train for train, _ in bent[degree]], fold.gram, self.penalties, steps=self.steps
        )
        train, test = kn.summed(bent[degree], weights)
        values = kn.Ridge(train).predict(test, penalty, fold.truth)
        chosen = f"degree {degree}, penalty {penalty:g}"
        return Prediction(values, chosen=chosen, note=simple.noted_weights(fold, weights))


@dataclass
class PairModel(simple.Fusion):
    """Kernel mixed model of labelled pairs, with some of the smoother's score added.

    `candidates` and `blends` (in standard deviations) are chosen on the first `tuned_on` inner
    folds.
    """

    candidates: Sequence[MixedModel] = MIXED
    exponent: float = 2.0
    blends: Sequence[float] = (0.0, 0.3, 0.6)
    power: float = 2.0
    tuned_on: int = 2
    name: str = "Kernel mixed model"
    predictor: str = "mixed"
    tasks = ("deg_pairs", "dir_pairs")

    def predict_line(self, fold: LineFold) -> Prediction:
        """See `perturbcore.models.fusion.kernel_models`."""
        weights = kn.source_weights(kn.auroc_alone(fold), self.exponent)
        train, test = kn.summed(kn.cosines(fold), weights)
        phi = gene_features(fold.sources)
        grid = [(c, b) for c in self.candidates for b in self.blends]
        spread = []

        def blended(i):
            (a, b), (known, query) = fold.splits[i], fold.inner[i]
            inner, cross = train[np.ix_(a, a)], train[np.ix_(b, a)]
            rate = known.rates()[query.genes]
            near = kn.smooth_inner(fold, train, i, [self.power])[0] - rate
            mixed = [
                c.scores(known, inner, cross, phi)[query.rows, query.genes] - rate
                for c in self.candidates
            ]
            # both are shrunken, by different amounts: brought to one spread before they are added
            spread.append([m.std() / max(near.std(), 1e-12) for m in mixed])
            scaled = zip(mixed, spread[-1], strict=True)
            return [rate + m + w * s * near for m, s in scaled for w in self.blends]

        (best, blend), inner = simple.tuned_pairs(fold, grid, blended, self.tuned_on)
        values = best.scores(fold.truth, train, test, phi)
        if blend:
            scale = float(np.mean(spread, axis=0)[list(self.candidates).index(best)])
            near = kn.smooth_all(fold.truth, test, self.power) - fold.truth.rates()
            values = values + blend * scale * near
        chosen = (
            f"shared {best.shared:g}, module {best.module:g}, own {best.own:g}, smoother {blend:g}"
        )
        note = simple.noted_weights(fold, weights)
        return simple.pair_prediction(fold, values, inner, chosen, note)


# a new fusion: one class and one line here
ALL = (simple.Concatenation, simple.AveragedKNN, simple.Stacked, KernelSum, KernelRidge, PairModel)


def fusions(
    task: str | Task,
    embeddings: Sequence[Embedding],
    *,
    k: Sequence[int] = (5, 10, 20, 40, 80),
    n_components: int = 100,
    inner_folds: int = 5,
) -> list[simple.Fusion]:
    """List the fusions without a neural network of a task; `k` are candidates of kNN."""
    name = task_of(task).name
    sources = [e for e in embeddings if e.modality != "Negative control"]
    made = [kind(sources, n_components, inner_folds) for kind in ALL if name in kind.tasks]
    return [replace(m, k=tuple(k)) if hasattr(m, "k") else m for m in made]  # type: ignore[call-arg]


def leading_fusion(
    task: str | Task, sources: Sequence[Embedding], name: str, modality: str = "Fusion", **options
) -> simple.Fusion:
    """Make the last of `fusions`, the best one, under a name; `options`: those of `fusions`."""
    made = replace(fusions(task, sources, **options)[-1], name=name, modality=modality)
    made.group = name  # each lays its own sources out: kept together, they would fill memory
    return made
