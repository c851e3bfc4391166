"""Simple and full fusion of embeddings by a transformer (Cole et al. 2026, 4.9)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from scipy.linalg import eigh
from sklearn.model_selection import train_test_split

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.core.training.batches import Batches
from perturbcore.core.training.fit import Trained, fit
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.linalg import fix_signs
from perturbcore.models.fusion.learner import DEGLearner, FusionLearner, LFCLearner, PairLearner
from perturbcore.models.fusion.neighbours import Neighbours
from perturbcore.models.fusion.network import FusionNetwork, line_profiles
from perturbcore.models.fusion.settings import Settings, preset
from perturbcore.models.fusion.sources import Tables, lay_out, normalise, unit
from perturbcore.models.fusion.tuning import check_space, tune
from perturbcore.models.simple.space import standardise
from perturbcore.score.labels import Labels, best_threshold
from perturbcore.score.model import Fold, Model, Prediction

COLUMNS = ["perturbation", "cell_line"]


@dataclass(eq=False)
class TransformerFusion(Model):
    """Fusion of embeddings by a transformer, one model over all cell lines.

    Parameters
    ----------
    embeddings : sequence of Embedding
        Those of one name that serve different cell lines are one source.
    settings : Settings
        By default those of simple fusion; see `perturbcore.models.fusion.settings`.
    seed : int
        123 as published.
    expression_line : str, optional
        Cell line whose embeddings serve all lines ("HepG2": the published quirk); by default each
        line has its own.
    controls : pandas.DataFrame, optional
        Mean log1p control profile of each cell line, for ``line_source="autoencoder"``.
    folder : path, optional
        Where trainings are kept: a killed one resumes, a finished one is loaded.
    joint : bool
        Whether it gets all cell lines at once, as published, or one at a time: for splits that
        differ between lines.
    trials : int
        Settings tried in each fold, on its training rows alone, see
        `perturbcore.models.fusion.tuning`; 0: none, the settings are used as they are.
    space : dict, optional
        What is varied.

    References
    ----------
    Cole et al. 2026, 4.9.
    """

    embeddings: Sequence[Embedding]
    settings: Settings = preset("lfc_simple")
    name: str = "Simple fusion"
    seed: int = 123
    expression_line: str | None = None
    controls: pd.DataFrame | None = None
    folder: Path | None = None
    predictor: str = "transformer"
    modality: str = "Fusion"
    joint: bool = True
    trials: int = 0
    space: dict | None = None
    learners: list[FusionLearner] = field(default_factory=list, init=False)
    trainings: list[Trained] = field(default_factory=list, init=False)
    searched: dict = field(default_factory=dict, init=False)

    def __post_init__(self):
        if not self.embeddings:
            raise InputError("fusion needs at least one embedding")
        if self.settings.line_source == "autoencoder" and self.controls is None:
            raise ParameterError(
                "line_source='autoencoder' needs the lines' mean control profiles: give controls="
            )
        if self.trials and self.settings.validation == 0:
            raise ParameterError(
                f"{self.name}: trials need validation rows: set validation above 0"
            )

    @property
    def spec(self) -> dict:
        """What decides the predictions, besides data."""
        tuned = {"trials": self.trials, "space": self.space} if self.trials else {}
        return {
            "class": "transformer_fusion", **asdict(self.settings), "model_seed": self.seed,
            "expression_line": self.expression_line, **tuned,
        }  # fmt: skip

    @cached_property
    def digest(self) -> str:
        """Content of the embeddings, in any order, and of the control profiles."""
        parts = sorted((e.name, e.cell_line or "", e.digest) for e in self.embeddings)
        return digest(parts, *([] if self.controls is None else [self.controls]))

    def fit(self, fold: Fold) -> "TransformerFusion":
        """Search settings where trials are asked for, then train on the training part."""
        if self.trials:
            with TemporaryDirectory() as scratch:
                folder = Path(self.folder or scratch) / "searches"
                best, tried = tune(self, fold, trials=self.trials, folder=folder)
            self.settings = best.settings
            chosen = {k: getattr(best.settings, k) for k in check_space(self.space)}
            self.searched = {"tuned": chosen, "trials": len(tried)}
        s, ids = self.settings, fold.train_ids
        lines = [set(part.obs["cell_line"].astype(str)) for part in (fold.train, fold.test)]
        if strange := sorted(lines[1] - lines[0]):
            raise InputError(
                f"cell line '{strange[0]}' has no training rows: a joint model learns each line"
            )
        obs = pd.concat([part.obs[COLUMNS].astype(str) for part in (fold.train, fold.test)])
        held = validation_rows(ids, s.validation)
        learning = np.r_[~held, np.zeros(len(fold.test_ids), dtype=bool)]
        sources = lay_out(self.embeddings, obs, learning, expression_line=self.expression_line)
        folder = None if self.folder is None else Path(self.folder) / self._key(fold, obs)
        self.sources, self.obs, self.held = sources, obs.reset_index(drop=True), held
        self.learners, self.trainings = [], []
        for member in range(s.members):
            seed = self.seed + 1009 * member
            here = None if folder is None else folder / f"member_{member}"
            learner = self.build(fold, obs, sources, ~held, seed)
            trained = self._train(learner, ~held, held, s.max_epochs, seed, here)
            if held.any() and s.refit == "all":
                every, none = np.ones_like(held), np.zeros_like(held)
                learner = self.build(fold, obs, sources, every, seed)
                again = None if folder is None else folder / f"member_{member}_refit"
                trained = self._train(learner, every, none, trained.best_epoch + 1, seed, again)
            self.learners.append(learner)
            self.trainings.append(trained)
        return self

    def build(
        self, fold: Fold, obs: pd.DataFrame, sources: Tables, learning: np.ndarray, seed: int
    ) -> FusionLearner:
        """Make an untrained learner of rows `learning` (n_train,); the others are for validation.

        `obs` and `sources` are of the training rows, then of those to be predicted.
        """
        s, truth, n_genes = self.settings, fold.truth, fold.train.n_vars
        pairs = isinstance(truth, Labels)
        if (s.head == "factor" or s.neighbours) and not pairs:
            raise InputError(
                "head='factor' and neighbours=True are for partial labels, not for "
                f"{fold.task.title}: use another preset"
            )
        lines, line = np.unique(obs["cell_line"].to_numpy().astype(str), return_inverse=True)
        rows = np.r_[learning, np.zeros(len(obs) - len(learning), dtype=bool)]
        autoencoder = s.line_source == "autoencoder"
        profiles = line_profiles(self.controls, lines) if autoencoder else None
        genes = gene_vectors(self.embeddings, fold.train.var_names) if pairs else None
        dims = [t.shape[1] for t in sources.tables]
        n_out = int(np.prod(fold.task.shape(1, n_genes)))
        network = FusionNetwork(
            s, sources.names, dims, len(lines), n_out, profiles=profiles, genes=genes, seed=seed
        )
        steps = -(-int(learning.sum()) // s.batch)
        common = (network, normalise(sources, rows, s.input_norm), line, s, steps)
        if fold.task.classes:
            return DEGLearner(*common, label=truth, train=learning)
        if not pairs:
            return LFCLearner(*common, Y=truth)
        here = line[: len(learning)]
        rate = [truth[np.flatnonzero(learning & (here == i))].rates() for i in range(len(lines))]
        rate = np.clip(rate, 1e-4, 1 - 1e-4)
        neighbours = None
        if s.neighbours:
            ids = obs["perturbation"].to_numpy().astype(str)
            neighbours = Neighbours(sources, ids, line, truth, rows, genes, network.width)
        base = np.log(rate / (1 - rate))
        return PairLearner(*common, known=truth, base=base, neighbours=neighbours)

    def _train(self, learner, learning, held, epochs, seed, folder) -> Trained:
        s = self.settings
        if not learning.any():
            raise InputError("no training rows are left: there are too few perturbations")

        def batches(marked, **options):
            rows = torch.from_numpy(np.flatnonzero(marked))
            return Batches(
                len(rows), s.batch, lambda index: rows[torch.from_numpy(index)], **options
            )

        check = batches(held, shuffle=False) if held.any() else None
        return fit(
            learner, batches(learning, seed=seed), check, max_epochs=epochs,
            patience=s.patience if check else None, folder=folder, grad_clip=s.grad_clip, seed=seed,
            key="" if folder is None else digest(folder.parent.name, epochs),
        )  # fmt: skip

    def predict(self, fold: Fold) -> Prediction:
        """Predict every gene of the test rows by the mean of the trained members."""
        rows = np.arange(len(self.held), len(self.obs))
        values, threshold = self.values(rows), None
        if fold.task.classes:
            logit = values.reshape(len(rows), -1, 3)
            values = np.exp(logit - logit.max(axis=2, keepdims=True))
            values = (values / values.sum(axis=2, keepdims=True)).transpose(2, 0, 1)
        elif fold.task.partial and self.held.any() and self.settings.refit == "none":
            threshold = self._thresholds(fold.truth)
        weights = pd.DataFrame(self.attention(rows), columns=self.sources.names).mean().fillna(0)
        note = {
            "train_seconds": round(sum(t.seconds for t in self.trainings), 2),
            "epochs": [t.epochs for t in self.trainings],
            "sources": self.sources.names,
            "weights": weights.round(4).to_dict(),
            **self.searched,
        }
        epochs = ", ".join(str(t.best_epoch + 1) for t in self.trainings)
        coverage = float(self.sources.present.any(axis=1).mean())
        return Prediction(values, threshold, f"epoch {epochs}", coverage, note)

    def values(self, rows: np.ndarray) -> np.ndarray:
        """Mean prediction of the members for some rows (training, then test), (m, n_out)."""
        return np.mean([one.predict(rows) for one in self.learners], axis=0)

    def attention(self, rows: np.ndarray) -> np.ndarray:
        """Share of each source in what a row draws on, (m, S); NaN where the row has it not."""
        present = self.sources.present[rows]
        share = np.mean([one.attention(rows) for one in self.learners], axis=0) * present
        total = share.sum(axis=1, keepdims=True)
        return np.where(present, share / np.where(total > 0, total, 1), np.nan)

    def _thresholds(self, truth: Labels) -> dict[str, float]:
        """Score of best F1 in each line, on the validation rows."""
        line, out = self.obs["cell_line"].to_numpy()[: len(self.held)], {}
        for name in pd.unique(line[self.held]):
            rows = np.flatnonzero(self.held & (line == name))
            known = truth[rows]
            if len(known.label):
                out[name] = best_threshold(known.label, self.values(rows)[known.rows, known.genes])
        return out

    def _key(self, fold: Fold, obs: pd.DataFrame) -> str:
        about = [fold.task.name, fold.number, list(fold.train.var_names), self.spec, self.digest]
        layers = [fold.train.layers[k] for k in fold.task.layers]
        return digest(
            about, fold.train.X, *layers, *(obs[c] for c in COLUMNS), code_digest(type(self))
        )


def validation_rows(perturbations: Sequence[str], share: float) -> np.ndarray:
    """Mark the rows of a random share of the distinct perturbations, all lines together, (n,).

    As published: the distinct ones enter ``train_test_split`` in their order of first appearance.
    """
    ids = np.asarray(perturbations, dtype=str)
    if share == 0:
        return np.zeros(len(ids), dtype=bool)
    distinct = pd.unique(ids)
    if len(distinct) < 2:
        raise InputError(f"{len(distinct)} training perturbation: validation needs at least two")
    _, held = train_test_split(distinct, test_size=share, random_state=42)
    return np.isin(ids, held)


def gene_vectors(
    embeddings: Sequence[Embedding], genes: Sequence[str], n_components: int = 128
) -> np.ndarray:
    """Vectors of readout genes from their own embeddings, (G, f) float32 with f <= n_components.

    Each source (of one with an embedding per cell line, the first) is standardised over the genes
    it has and divided by its length; all are put side by side and reduced by a singular value
    decomposition. A gene with no embedding gets the mean; zeros (G, 1) where none has one.
    """
    blocks = []
    for name in sorted({e.name for e in embeddings}):
        one = next(e for e in embeddings if e.name == name)
        at = one.ids.get_indexer(pd.Index(list(genes), dtype=object))
        has = at >= 0
        if has.any():
            blocks.append(np.zeros((len(at), one.dim), np.float32))
            blocks[-1][has] = unit(standardise(one.X[at[has]])[0])
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
