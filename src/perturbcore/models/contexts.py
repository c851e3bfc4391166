"""What other cell lines tell of a new one: from the plainest offset to a mixed model of lines.

Each model is tuned as it is asked: one training line after the other is held out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.decomposition import PCA
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler

from perturbcore.core.digest import digest, seed_of
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.catalogue import hash_of
from perturbcore.data.contexts import SPLITS, control_profiles
from perturbcore.data.effects import pseudobulk
from perturbcore.data.read import read_h5ad
from perturbcore.data.screens.declare import declare_screen
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.linalg import unit
from perturbcore.models.fusion.kernels import Ridge
from perturbcore.models.simple.base import best_of
from perturbcore.score.model import NEGATIVE, Fold, Model, Prediction

ADVANCED = "Advanced"
SHRINKS = tuple((a, b) for a in (0.5, 0.75, 1.0) for b in (0.25, 0.5, 0.75, 1.0))
INNER_GROUPS = 3  # of perturbations, where those that are asked are new in the inner folds too


@dataclass(eq=False)
class Known:
    """What is known when a line is asked: lines, names and responses of n rows, control means.

    `controls`: genes x lines, the asked line among them; no columns where nothing is known.
    """

    line: np.ndarray
    name: np.ndarray
    Y: np.ndarray
    controls: pd.DataFrame
    memo: dict = field(default_factory=dict)  # what candidates of one model share

    def once(self, key, make: Callable):
        """Return what `make` gives, made once."""
        if key not in self.memo:
            self.memo[key] = make()
        return self.memo[key]

    def part(self, rows: np.ndarray) -> "Known":
        """Only some rows."""
        return Known(self.line[rows], self.name[rows], self.Y[rows], self.controls)

    def alike(self, target: str) -> pd.Series:
        """Correlation of lines' control cells with those of `target`, 1 of two lines or without."""
        lines = pd.unique(np.append(self.line, target))
        if not set(lines) <= set(self.controls.columns) or len(lines) < 3:
            return pd.Series(1.0, lines)
        centred = self.controls[lines].sub(self.controls[lines].mean(axis=1), axis=0)
        return centred.corr()[target].fillna(0.0)

    def offset(self, target: str, asked, weight: pd.Series | None = None) -> np.ndarray:
        """Weighted mean over other lines of each asked perturbation; unknown ones: the mean."""
        w = np.ones(len(self.line)) if weight is None else weight[self.line].to_numpy()
        w = np.where(self.line == target, 0.0, w)
        rows = pd.Index(asked).get_indexer(self.name)
        there = np.flatnonzero((rows >= 0) & (w > 0))
        table = sp.csr_matrix((w[there], (rows[there], there)), (len(asked), len(w)))
        total = np.asarray(table.sum(axis=1))
        out = np.tile(self.mean(target), (len(asked), 1))
        known = total[:, 0] > 0
        out[known] = (table @ self.Y)[known] / total[known]
        return out

    def mean(self, target: str) -> np.ndarray:
        """Mean response over all perturbations of the other lines, of all where there is none."""
        others = self.line != target
        return self.Y[others if others.any() else slice(None)].mean(axis=0)


@dataclass
class ContextModel(Model):
    """A model of a new line; a subclass says how it guesses with one of its candidates."""

    embeddings: Sequence[Embedding] = ()
    name: str = ""
    predictor: str = ""
    modality: str = ADVANCED
    digest: str = field(default="", init=False)
    tasks: ClassVar[tuple[str, ...]] = tuple(SPLITS.values())
    joint: ClassVar[bool] = True
    uses: ClassVar[bool] = False

    def __post_init__(self):
        if not self.uses:
            self.embeddings = ()
        self.digest = digest([(e.name, e.digest) for e in self.embeddings])

    def candidates(self) -> list:
        """List what is tuned over, the default first."""
        return [None]

    def guess(self, known: Known, target: str, asked: pd.Index, chosen) -> np.ndarray:
        """Predict perturbations of the line `target`."""
        raise NotImplementedError

    def predict(self, fold: Fold) -> Prediction:
        """Tune by holding out each training line in turn, then guess."""
        (target,) = fold.test.obs["cell_line"].astype(str).unique()
        obs = fold.train.obs
        line, name = (obs[c].astype(str).to_numpy() for c in ("cell_line", "perturbation"))
        known = Known(line, name, fold.truth, control_profiles(fold.train.var))
        grid = self.candidates()
        chosen = grid[0]
        if len(grid) > 1 and len(losses := self._losses(fold, known, target, grid)):
            chosen = best_of(losses, grid)
        values = self.guess(known, target, fold.test_ids, chosen).astype(np.float32)
        return Prediction(values, chosen="" if chosen is None else str(chosen))

    def _losses(self, fold: Fold, known: Known, target: str, grid: list) -> np.ndarray:
        """Loss of each inner fold and candidate; none with less than two other lines."""
        given = set(known.name[known.line == target])
        others = [x for x in pd.unique(known.line) if x != target]
        group = np.array([seed_of(n) % INNER_GROUPS for n in known.name])
        out = []
        for one in others if len(others) > 1 else ():
            test = (known.line == one) & ~np.isin(known.name, list(given))
            if fold.task.unseen:
                test &= group == 0
            learned = fold.task.learned(fold.train.obs, test)
            if test.any() and learned.any():
                part, asked = known.part(learned), pd.Index(known.name[test])
                guesses = (self.guess(part, one, asked, c) for c in grid)
                out.append([fold.task.loss(known.Y[test], v) for v in guesses])
        return np.array(out)


@dataclass
class ContextMean(ContextModel):
    """Mean of the known perturbations of the line, as published; its control where none is."""

    name: str = "Context mean"
    predictor: str = "context_mean"
    modality: str = NEGATIVE

    def guess(self, known, target, asked, chosen):
        """Predict the same for every perturbation."""
        own = known.Y[known.line == target]
        one = own.mean(axis=0) if len(own) else np.zeros(known.Y.shape[1])
        return np.tile(one, (len(asked), 1))


@dataclass
class MeanOffset(ContextModel):
    """Mean effect of the perturbation over the other lines."""

    name: str = "Mean offset"
    predictor: str = "mean_offset"

    def guess(self, known, target, asked, chosen):
        """See `Known.offset`."""
        return known.offset(target, asked)


@dataclass
class ShrunkenOffset(ContextModel):
    """Offsets weighted by how alike control cells are, shrunken towards their mean and zero.

    Tuned are the sharpness of the weights and both shrinkages; what is left on average of known
    perturbations of the line is added, shrunken as well.
    """

    sharpness: Sequence[float] = (0.0, 2.0, 8.0)
    name: str = "Shrunken offset"
    predictor: str = "shrunken_offset"

    def candidates(self):
        """Sharpness, share of the mean, share of the rest; nothing shrunken comes first."""
        return [(s, a, b) for s in self.sharpness for a, b in reversed(SHRINKS)]

    def guess(self, known, target, asked, chosen):
        """Mean and rest, each shrunken; then the line's own shift."""
        sharp, whole, rest = chosen
        mean = known.once(("mean", target), lambda: known.mean(target))

        def offset(names):
            return known.offset(target, names, np.exp(sharp * known.alike(target)))

        def shrunken(names):
            found = known.once((target, sharp, *names), lambda: offset(names))
            return whole * mean + rest * (found - mean)

        out, own = shrunken(asked), known.line == target
        if own.any():
            left = known.Y[own] - shrunken(known.name[own])
            out = out + left.sum(axis=0) / (own.sum() + 10)
        return out


@dataclass
class SimilarLines(ContextModel):
    """Mean effect of the perturbation in the k lines whose control cells are most alike."""

    k: Sequence[int] = (1, 2, 3)
    name: str = "kNN of lines"
    predictor: str = "similar_lines"

    def candidates(self):
        """Numbers of lines."""
        return sorted(self.k)

    def guess(self, known, target, asked, chosen):
        """See `Known.offset`, of some lines."""
        near = known.alike(target).drop(target).sort_values(ascending=False, kind="stable")
        weight = pd.Series(0.0, [*near.index, target])
        weight[near.index[:chosen]] = 1.0
        return known.offset(target, asked, weight)


@dataclass
class ContextMLP(ContextModel):
    """A network from a code of the perturbation and the control cells of the line to its effect.

    `source`: embedding that codes perturbations, the first by default; `one_hot`: a random
    projection of one-hot codes. A perturbation without a vector gets its mean offset. Both as
    published.
    """

    source: str = ""
    one_hot: bool = False
    width: int = 50
    hidden: int = 128
    max_iter: int = 150
    seed: int = 0
    name: str = ""
    predictor: str = "mlp"
    uses: ClassVar[bool] = True

    def __post_init__(self):
        if self.one_hot:
            self.embeddings, self.name = (), self.name or "MLP (one-hot)"
        else:
            self.embeddings = [e for e in self.embeddings if self.source in ("", e.name)][:1]
            if not self.embeddings:
                raise ParameterError(f"model 'mlp': no embedding '{self.source}'; name one")
            self.name = self.name or f"MLP ({self.embeddings[0].name})"
        super().__post_init__()

    def _codes(self, names: pd.Index) -> pd.DataFrame:
        if self.one_hot:
            rows = [np.random.default_rng(seed_of(self.seed, n)).normal(size=self.width)
                    for n in names]  # fmt: skip
            return pd.DataFrame(rows, names)
        (e,) = self.embeddings
        there = names[e.ids.get_indexer(names) >= 0]
        X = StandardScaler().fit_transform(e.X[e.ids.get_indexer(there)].astype(float))
        return pd.DataFrame(PCA(min(self.width, *X.shape), random_state=0).fit_transform(X), there)

    def guess(self, known, target, asked, chosen):
        """Fit on all known rows with a code."""
        codes = self._codes(pd.Index(np.append(known.name, asked)).unique())
        out = known.offset(target, asked)
        train, there = np.isin(known.name, codes.index), np.isin(asked, codes.index)
        if not train.any() or not there.any():
            return out
        cells = pd.DataFrame(index=pd.unique(np.append(known.line, target)))
        if set(cells.index) <= set(known.controls.columns):
            profiles = known.controls[cells.index].to_numpy().T
            cells = pd.DataFrame(PCA(min(3, len(cells))).fit_transform(profiles), cells.index)
        inputs = np.hstack([codes.loc[known.name[train]], cells.loc[known.line[train]]])
        test = np.hstack([codes.loc[asked[there]], cells.loc[[target] * there.sum()]])
        scale, size = StandardScaler().fit(inputs), max(float(known.Y.std()), 1e-12)
        net = MLPRegressor(
            hidden_layer_sizes=(self.hidden,),
            max_iter=self.max_iter,
            random_state=self.seed,
            tol=1e-5,
        )
        net.fit(scale.transform(inputs), known.Y[train] / size)
        out[there] = size * net.predict(scale.transform(test)).reshape(there.sum(), -1)
        return out


@dataclass
class LineKernel(ContextModel):
    """Mixed model: effects share what perturbations and lines share, by kernels of both.

    `mixes`: weights of the same perturbation; the same in like lines; like ones; like lines.
    """

    mixes: Sequence[tuple[float, ...]] = ((1, 0, 0, 0.2), (1, 1, 0, 0.2), (1, 0, 0.5, 0.2))
    penalties: Sequence[float] = (0.1, 0.3, 1.0, 3.0)
    name: str = "Line kernel"
    predictor: str = "line_kernel"
    uses: ClassVar[bool] = True

    def candidates(self):
        """Weights and penalty."""
        return [(tuple(m), p) for m in self.mixes for p in self.penalties]

    def _kernel(self, known: Known, target: str, rows: tuple, mix) -> np.ndarray:
        (name, line), lines = rows, pd.unique(np.append(known.line, target))
        near = known.once("near", lambda: pd.DataFrame({x: known.alike(x) for x in lines}))
        like = ((1 + near.fillna(0.0).loc[line, known.line].to_numpy()) / 2) ** 2
        same = (np.asarray(name)[:, None] == known.name[None]).astype(float)
        K = mix[0] * same + mix[1] * same * like + mix[3] * like
        for e in self.embeddings if mix[2] else ():
            sides = []
            for names in (name, known.name):
                at = e.ids.get_indexer(names)
                sides.append(np.where((at >= 0)[:, None], unit(e.X[at]), 0).astype(float))
            K += mix[2] / len(self.embeddings) * np.maximum(sides[0] @ sides[1].T, 0)
        return K

    def guess(self, known, target, asked, chosen):
        """Ridge on the summed kernel."""
        mix, penalty = chosen
        rows = (asked, np.repeat(target, len(asked)))

        def made():
            train = self._kernel(known, target, (known.name, known.line), mix)
            return Ridge(train), self._kernel(known, target, rows, mix)

        ridge, cross = known.once((target, mix, *asked), made)
        return ridge.predict(cross, penalty, known.Y)


@dataclass
class SavedPredictions(ContextModel):
    """Predicted cells of another program in cell-eval's layout, such as a run of STATE.

    `path`: `.h5ad` with counts, or log1p of counts scaled to 10,000 (`scale`); `perturbation`,
    `cell_line`: columns of obs; `control`: label of the cells that effects are differences to. A
    perturbation that is not in the file gets No Change.
    """

    path: str = ""
    title: str = "Saved predictions"
    scale: str = "counts"
    perturbation: str = "target"
    cell_line: str = "cell_line"
    control: str = "non-targeting"
    predictor: str = "saved"

    def __post_init__(self):
        super().__post_init__()
        self.name = self.title
        if not Path(self.path).is_file():
            raise InputError(f"model 'saved': {self.path or 'path'}: no such file; give its .h5ad")
        self.digest = hash_of(self.path)

    def predict(self, fold):
        """Means of the cells of the asked line, less those of its controls."""
        (target,) = fold.test.obs["cell_line"].astype(str).unique()
        cells = read_h5ad(self.path, (self.perturbation, self.cell_line))
        cells = cells[(cells.obs[self.cell_line].astype(str) == target).to_numpy()].copy()
        missing = fold.test.var_names.difference(cells.var_names)
        if not cells.n_obs or len(missing):
            what = f"gene '{missing[0]}'" if len(missing) else f"cell of line '{target}'"
            raise InputError(f"{self.path}: it has no {what}; predict every line and gene")
        screen = declare_screen(
            cells, dataset="saved", scale=self.scale, perturbation=self.perturbation, batch=None,
            batch_value="1", cell_line=self.cell_line, control=self.control, unmatched="keep",
        )  # fmt: skip
        bulk = pseudobulk(screen, ("perturbation",)).to_df()[fold.test.var_names]
        effect = bulk - bulk.loc[self.control]
        there = fold.test_ids.isin(effect.index)
        values = effect.reindex(fold.test_ids).fillna(0.0).to_numpy(dtype=np.float32)
        return Prediction(values, coverage=float(there.mean()))
