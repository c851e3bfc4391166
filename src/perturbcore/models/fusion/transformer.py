"""Simple and full fusion of embeddings by a transformer (Cole et al. 2026, 4.9), and its tuning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from scipy.linalg import eigh
from scipy.special import softmax
from sklearn.model_selection import train_test_split

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.core.training import Batches, Trained, fit
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.linalg import fix_signs, unit
from perturbcore.models.fusion import learner as learners
from perturbcore.models.fusion.network import FusionNetwork, Settings, line_profiles, preset
from perturbcore.models.fusion.sources import Tables, lay_out, normalise
from perturbcore.models.simple.space import standardise
from perturbcore.score.model import Fold, Model, Prediction

COLUMNS = ["perturbation", "cell_line"]
# as published: depth, learning rate, and how the cell line enters
PUBLISHED_SPACE = {
    "layers": {"low": 1, "high": 8},
    "lr": {"low": 1e-5, "high": 1e-3, "log": True},
    "line": ["add", "token"],
}


@dataclass(eq=False)
class TransformerFusion(Model):
    """Fusion of embeddings by a transformer, one model over all cell lines (Cole et al. 2026, 4.9).

    `embeddings`: those of one name that serve different cell lines are one source;
    `expression_line`: line whose embeddings serve all lines ("HepG2": the published quirk);
    `controls`: mean log1p control profile of each line, for ``line_source="autoencoder"``;
    `folder`: where trainings are kept: a killed one resumes, a finished one is loaded; `joint`:
    whether it gets all lines at once, as published; `trials, space`: settings tried in each fold,
    see `tune`.
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
    searched: dict = field(default_factory=dict, init=False)

    def __post_init__(self):
        if not self.embeddings:
            raise InputError("fusion needs at least one embedding")
        if self.settings.line_source == "autoencoder" and self.controls is None:
            raise ParameterError("line_source='autoencoder' needs control profiles: give controls=")
        if self.trials and self.settings.validation == 0:
            raise ParameterError(f"{self.name}: trials need validation rows: set validation > 0")

    @property
    def spec(self) -> dict:
        """What decides the predictions, besides data."""
        tuned = {"trials": self.trials, "space": self.space} if self.trials else {}
        return {
            "class": "transformer_fusion", **self.settings.model_dump(), "model_seed": self.seed,
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
                chosen = tune(self, fold, trials=self.trials, folder=folder)
            self.settings = self.settings.changed(**chosen)
            self.searched = {"tuned": chosen, "trials": self.trials}
        s, parts = self.settings, (fold.train, fold.test)
        lines = [set(part.obs["cell_line"].astype(str)) for part in parts]
        if strange := sorted(lines[1] - lines[0]):
            raise InputError(f"line '{strange[0]}' has no training rows: a joint model needs them")
        obs = pd.concat([part.obs[COLUMNS].astype(str) for part in parts], ignore_index=True)
        held = validation_rows(fold.train_ids, s.validation, fold.train.obs["cell_line"])
        learning = np.r_[~held, np.zeros(len(fold.test_ids), dtype=bool)]
        self.sources = lay_out(self.embeddings, obs, learning, expression_line=self.expression_line)
        folder = None if self.folder is None else Path(self.folder) / self._key(fold, obs)
        self.learner = self.build(fold, obs, self.sources, ~held)
        self.trained = self._train(held, folder)
        return self

    def build(
        self, fold: Fold, obs: pd.DataFrame, sources: Tables, learning: np.ndarray
    ) -> learners.FusionLearner:
        """Make an untrained learner of rows `learning` (n_train,); the others are for validation.

        `obs` and `sources` are of the training rows, then of those to be predicted.
        """
        s, truth, n_genes, seed = self.settings, fold.truth, fold.train.n_vars, self.seed
        lines, line = np.unique(obs["cell_line"].to_numpy().astype(str), return_inverse=True)
        rows = np.r_[learning, np.zeros(len(obs) - len(learning), dtype=bool)]
        autoencoder = s.line_source == "autoencoder"
        profiles = line_profiles(self.controls, lines) if autoencoder else None
        partial = fold.task.partial
        genes = gene_vectors(self.embeddings, fold.train.var_names) if partial else None
        dims = [t.shape[1] for t in sources.tables]
        n_out = int(np.prod(fold.task.shape(1, n_genes)))
        network = FusionNetwork(
            s, sources.names, dims, len(lines), n_out, profiles=profiles, genes=genes, seed=seed
        )
        steps = -(-int(learning.sum()) // s.batch)
        common = (network, normalise(sources, rows, s.input_norm), line, s, steps)
        if partial:
            ids = obs["perturbation"].to_numpy().astype(str)
            near = learners.Neighbours(sources, ids, line, truth, rows, genes, network.width)
            return learners.PairLearner(*common, known=truth, neighbours=near)
        if fold.task.classes:
            return learners.DEGLearner(*common, label=truth, train=learning)
        return learners.LFCLearner(*common, Y=truth)

    def _train(self, held: np.ndarray, folder: Path | None) -> Trained:
        s = self.settings
        if held.all():
            raise InputError("no training rows are left: there are too few perturbations")

        def batches(marked, **options):
            rows = torch.from_numpy(np.flatnonzero(marked))
            return Batches(len(rows), s.batch, lambda i: rows[torch.from_numpy(i)], **options)

        check = batches(held, shuffle=False) if held.any() else None
        return fit(
            self.learner, batches(~held, seed=self.seed), check, max_epochs=s.max_epochs,
            patience=s.patience if check else None, folder=folder, grad_clip=s.grad_clip,
            seed=self.seed, key="" if folder is None else folder.name,
        )  # fmt: skip

    def predict(self, fold: Fold) -> Prediction:
        """Predict every gene of the test rows."""
        rows = len(fold.train_ids) + np.arange(len(fold.test_ids))
        values = self.learner.predict(rows)
        if fold.task.classes:
            values = softmax(values.reshape(len(rows), -1, 3), axis=2).transpose(2, 0, 1)
        weights = pd.DataFrame(self.attention(rows), columns=self.sources.names).mean().fillna(0)
        note = {
            "train_seconds": round(self.trained.seconds, 2),
            "epochs": self.trained.epochs,
            "weights": weights.round(4).to_dict(),
            **self.searched,
        }
        coverage = float(self.sources.present.any(axis=1).mean())
        epoch = f"epoch {self.trained.best_epoch + 1}"
        return Prediction(values, None, epoch, coverage, note)

    def attention(self, rows: np.ndarray) -> np.ndarray:
        """Share of each source in what a row draws on, (m, S); NaN where the row has it not."""
        present = self.sources.present[rows]
        share = self.learner.attention(rows) * present
        total = share.sum(axis=1, keepdims=True)
        return np.where(present, share / np.where(total > 0, total, 1), np.nan)

    def _key(self, fold: Fold, obs: pd.DataFrame) -> str:
        about = [fold.task.name, fold.number, list(fold.train.var_names), self.spec, self.digest]
        layers = [fold.train.layers[k] for k in fold.task.layers]
        return digest(about, fold.train.X, *layers, obs[COLUMNS], code_digest(type(self)))


def search_space(space: Mapping | None) -> dict:
    """Turn a profile's search space (lists, or low and high) into optuna's; else the published."""
    from optuna import distributions as kinds

    out = {}
    for name, choice in (space or PUBLISHED_SPACE).items():
        try:
            if isinstance(choice, Mapping):
                whole = all(isinstance(choice[k], int) for k in ("low", "high"))
                kind = kinds.IntDistribution if whole else kinds.FloatDistribution
                out[name] = kind(**choice)
            else:
                out[name] = kinds.CategoricalDistribution(choice)
        except (KeyError, TypeError, ValueError) as error:
            raise ParameterError(
                f"space['{name}'] = {choice!r}: give low, high and perhaps log: true, or a list"
            ) from error
    return out


def tune(model: TransformerFusion, fold: Fold, *, trials: int, folder: Path) -> dict:
    """Choose settings by the validation loss within the training rows of one fold.

    `trials` are all of them: those found in `folder` count, so that a killed search goes on. Cole
    et al. 2026, 4.9.2 (100 trials of depth, rate, style of the line); Akiba et al. 2019 (optuna).
    """
    import optuna

    space, folder = search_space(model.space), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    trained = replace(model, trials=0, space=None, folder=folder / "trainings")
    # nothing is predicted: the test rows are none
    fold = replace(fold, test=fold.test[:0].copy())
    name = digest({k: str(v) for k, v in space.items()}, trained._key(fold, fold.train.obs))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{folder / 'search.sqlite'}", study_name=name, load_if_exists=True,
        direction="minimize",
    )  # fmt: skip
    while len(done := study.get_trials(states=[optuna.trial.TrialState.COMPLETE])) < trials:
        # a sampler that starts from the number of finished trials draws the same after a kill
        study.sampler = optuna.samplers.TPESampler(seed=model.seed + len(done))
        trial = study.ask(space)
        one = replace(trained, settings=model.settings.changed(**trial.params)).fit(fold).trained
        study.tell(trial, float(one.history["val"].min()))
    return study.best_params


def validation_rows(perturbations: Sequence[str], share: float, lines: Sequence[str]) -> np.ndarray:
    """Mark a random share of the perturbations, drawn as published from those of sorted `lines`."""
    ids = np.asarray(perturbations, dtype=str)
    if share == 0:
        return np.zeros(len(ids), dtype=bool)
    distinct = pd.unique(ids[np.argsort(np.asarray(lines, dtype=str), kind="stable")])
    if len(distinct) < 2:
        raise InputError(f"{len(distinct)} training perturbation: validation needs at least two")
    _, held = train_test_split(distinct, test_size=share, random_state=42)
    return np.isin(ids, held)


def gene_vectors(
    embeddings: Sequence[Embedding], genes: Sequence[str], n_components: int = 128
) -> np.ndarray:
    """Reduce embeddings of readout genes to (G, f <= n_components); zeros (G, 1) without any."""
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
