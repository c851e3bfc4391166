"""The fusion transformer as a model that `evaluate_joint` can score."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn.model_selection import train_test_split

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.folds import check_disjoint
from perturbcore.models.fusion.fitted import Fitted
from perturbcore.models.fusion.presets import LFC_SIMPLE, Settings
from perturbcore.models.fusion.sources import lay_out
from perturbcore.models.simple.labels import best_threshold, pair_labels
from perturbcore.score.joint import Prediction
from perturbcore.score.run import PAIR_TARGETS


def validation_rows(perturbations: Sequence[str], share: float) -> np.ndarray:
    """Mark the rows of a random share of the distinct perturbations, all their lines together.

    Parameters
    ----------
    perturbations : (n,) sequence of str
        Of the training rows; the distinct ones enter in their order of first appearance.
    share : float

    Returns
    -------
    (n,) bool array

    References
    ----------
    Cole et al. 2026, released code (``train_test_split`` with random state 42).
    """
    ids = np.asarray(perturbations, dtype=str)
    if share == 0:
        return np.zeros(len(ids), dtype=bool)
    distinct = pd.unique(ids)
    if len(distinct) < 2:
        raise InputError(f"{len(distinct)} training perturbation: validation needs at least two")
    _, held = train_test_split(distinct, test_size=share, random_state=42)
    return np.isin(ids, held)


@dataclass(eq=False)
class TransformerFusion:
    """Simple or full fusion of embeddings by a transformer, one model over all cell lines.

    Parameters
    ----------
    embeddings : sequence of Embedding
        Those of one name that serve different cell lines are one source.
    settings : Settings
        See `perturbcore.models.fusion.presets`.
    name : str
    seed : int
        123 as published.
    expression_line : str, optional
        Cell line whose embeddings serve all lines ("HepG2": the published quirk); by default each
        line has its own.
    controls : pandas.DataFrame, optional
        Mean log1p control profile of each cell line, for ``line_source="autoencoder"``.
    control_quirk : bool
        See `perturbcore.models.fusion.cell_line.line_profiles`.
    hidden : sequence of str
        Sources hidden at prediction only.
    folder : path, optional
        Where trainings are kept, each under its content key: a killed one resumes, a finished one is
        loaded, whatever is hidden.
    precision, device : str
        See `perturbcore.core.training.fit`; bf16 is "bf16-mixed".
    progress : bool
    joint : bool
        Whether `evaluate_joint` gives it all cell lines at once, as published, or one at a time: for
        splits that differ between lines.
    trials : int
        Settings tried by `perturbcore.models.fusion.tuning.tune` in each fold, on its training rows alone; 0:
        none, the settings are used as they are.
    space : dict, optional
        What is varied, see `perturbcore.models.fusion.tuning.read_space`.

    References
    ----------
    Cole et al. 2026, 4.9.
    """

    embeddings: Sequence
    settings: Settings = LFC_SIMPLE
    name: str = "Simple fusion"
    seed: int = 123
    expression_line: str | None = None
    controls: pd.DataFrame | None = None
    control_quirk: bool = True
    hidden: Sequence[str] = ()
    folder: Path | None = None
    precision: str = "32-true"
    device: str = "auto"
    progress: bool = False
    predictor: str = "transformer"
    modality: str = "Fusion"
    joint: bool = True
    trials: int = 0
    space: dict | None = None

    def __post_init__(self):
        if not self.embeddings:
            raise InputError("fusion needs at least one embedding")
        unknown = sorted(set(self.hidden) - set(self.sources))
        if unknown:
            raise ParameterError(
                f"no source '{unknown[0]}' to hide; there are: {', '.join(self.sources)}"
            )
        if self.settings.line_source == "autoencoder" and self.controls is None:
            raise ParameterError(
                "line_source='autoencoder' needs the lines' mean control profiles: give controls="
            )

        if self.trials and self.settings.validation == 0:
            raise ParameterError(
                f"{self.name}: trials need validation rows: set validation above 0"
            )

    @property
    def sources(self) -> list[str]:
        """Names of the sources, sorted."""
        return sorted({e.name for e in self.embeddings})

    @property
    def training_spec(self) -> dict:
        """What decides the weights, besides data: settings, seed, options."""
        return {
            "class": "transformer_fusion",
            **self.settings.spec,
            "model_seed": self.seed,
            "expression_line": self.expression_line,
            "control_quirk": self.control_quirk,
            "precision": self.precision,
        }

    @property
    def spec(self) -> dict:
        """What decides the predictions, besides data."""
        tuned = {"trials": self.trials, "space": self.space} if self.trials else {}
        return {**self.training_spec, "hidden": sorted(self.hidden), **tuned}

    @cached_property
    def digest(self) -> str:
        """Content of the embeddings and control profiles; the order of embeddings does not count."""
        parts = sorted((e.name, e.cell_line or "", e.digest) for e in self.embeddings)
        return digest(parts, *([] if self.controls is None else [self.controls]))

    def with_only(self, sources: Sequence[str], name: str | None = None) -> "TransformerFusion":
        """Return the same model of some sources only, to be trained anew."""
        kept = [e for e in self.embeddings if e.name in set(sources)]
        return replace(self, embeddings=kept, hidden=(), name=name or self.name)

    def fit(self, train: AnnData, test: AnnData, *, fold: int = 0) -> Fitted:
        """Train on `train`; nothing of `test` is read but perturbations, cell lines and fold."""
        from perturbcore.models.fusion.train import fit_members

        ids = train.obs["perturbation"].astype(str)
        check_disjoint(ids, test.obs["perturbation"].astype(str))
        strange = sorted(
            set(test.obs["cell_line"].astype(str)) - set(train.obs["cell_line"].astype(str))
        )
        if strange:
            raise InputError(
                f"cell line '{strange[0]}' has no training rows: a joint model learns each line"
            )
        columns = ["perturbation", "cell_line"]
        obs = pd.concat([train.obs[columns].astype(str), test.obs[columns].astype(str)])
        held = validation_rows(ids, self.settings.validation)
        learning = np.r_[~held, np.zeros(test.n_obs, dtype=bool)]
        sources = lay_out(self.embeddings, obs, learning, expression_line=self.expression_line)
        folder = None
        if self.folder is not None:
            folder = Path(self.folder) / self._key(train, obs, fold)
        learners, trainings = fit_members(self, train, obs, sources, held, folder)
        return Fitted(learners, trainings, sources, obs.reset_index(drop=True), train.n_obs, held)

    def fit_predict(self, train: AnnData, test: AnnData, *, fold: int) -> Prediction:
        """Tune where trials are asked for, train, and predict the rows of `test`."""
        model, found = self.tuned(train, fold)
        prediction = model.prediction(model.fit(train, test, fold=fold), train, test)
        prediction.note.update(found)
        return prediction

    def tuned(self, train: AnnData, fold: int) -> tuple["TransformerFusion", dict]:
        """Return the model with the settings best on validation rows of `train`, and what they are."""
        if not self.trials:
            return self, {}
        from perturbcore.models.fusion.tuning import read_space, tune

        plain = replace(self, trials=0, space=None)
        space = read_space(self.space)
        with TemporaryDirectory() as scratch:
            folder, how = (
                Path(self.folder or scratch) / "searches",
                {"space": space, "seed": self.seed},
            )
            best, tried = tune(plain, train, trials=self.trials, folder=folder, fold=fold, **how)
        return best, {"tuned": {k: best.settings.spec[k] for k in space}, "trials": len(tried)}

    def prediction(self, fitted: Fitted, train: AnnData, test: AnnData) -> Prediction:
        """Turn what trained members say of the test rows into a prediction."""
        task = train.uns["perturbcore"]["task"]
        rows = np.arange(fitted.n_train, len(fitted.obs))
        values = fitted.predict(rows, self.hidden)
        threshold = None
        if task == "deg":
            logit = values.reshape(len(rows), -1, 3)
            values = np.exp(logit - logit.max(axis=2, keepdims=True))
            values = (values / values.sum(axis=2, keepdims=True)).transpose(2, 0, 1)
        elif task in PAIR_TARGETS and fitted.validation.any() and self.settings.refit == "none":
            threshold = self._thresholds(fitted, train)
        known = fitted.sources.without(
            [h for h in self.hidden if h in fitted.sources.names]
        ).present
        epochs = ", ".join(str(t.best_epoch + 1) for t in fitted.trainings)
        note = {
            "train_seconds": round(sum(t.seconds for t in fitted.trainings), 2),
            "epochs": [t.epochs for t in fitted.trainings],
            "sources": fitted.sources.names,
        }
        if not self.hidden:
            note["weights"] = self._attention(fitted)
        return Prediction(
            values,
            threshold=threshold,
            chosen=f"epoch {epochs}",
            coverage=float(known.any(axis=1).mean()),
            note=note,
        )

    def _attention(self, fitted: Fitted) -> dict[str, float]:
        """Mean attention to each source over the test rows; to its kernel, where neighbours are asked."""
        from perturbcore.models.fusion.inspect import source_attention

        way = "neighbours" if self.settings.neighbours else "rollout"
        share = source_attention(fitted, way=way).groupby("source")["attention"].mean()
        return {source: round(float(w), 4) for source, w in share.fillna(0).items()}

    def _thresholds(self, fitted: Fitted, train: AnnData) -> dict[str, float]:
        rows = np.flatnonzero(fitted.validation)
        score = fitted.predict(rows, self.hidden)
        label, observed = pair_labels(train)
        line = train.obs["cell_line"].astype(str).to_numpy()[rows]
        out = {}
        for name in pd.unique(line):
            asked = observed[rows] & (line == name)[:, None]
            if asked.any():
                out[name] = best_threshold(label[rows][asked].astype(np.float64), score[asked])
        return out

    def _key(self, train: AnnData, obs: pd.DataFrame, fold: int) -> str:
        layers = [train.layers[k] for k in ("deg", "observed") if k in train.layers]
        about = [train.uns["perturbcore"]["task"], int(fold), list(train.var_names)]
        content = [train.X, *layers, obs["perturbation"], obs["cell_line"]]
        return digest(about, *content, self.training_spec, self.digest, code_digest(type(self)))
