"""Models of one embedding, the floors and the idealized ceiling."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import ElasticNet

from perturbcore.core.errors import InputError, ParameterError, check_choice
from perturbcore.data.responses import cell_lines as lines_in
from perturbcore.data.responses import check_responses, rows_of
from perturbcore.embeddings.base import Embedding
from perturbcore.models.simple.base import Predictor, SklearnPredictor, Targets
from perturbcore.models.simple.deg import DEGKNN, DEGLogistic
from perturbcore.models.simple.knn import KNN
from perturbcore.models.simple.labels import FunctionLogistic, LabelKernel, LabelKNN, LabelLogistic
from perturbcore.models.simple.linear import Linear
from perturbcore.models.simple.space import NestedSpace, Protocol
from perturbcore.score.evaluate import evaluate
from perturbcore.score.model import MASK, NEGATIVE, POSITIVE, Fold, Model, Prediction
from perturbcore.score.task import Task, task_of

CONTROLS = ("train_mean", "no_change", "idealized")
# a new predictor: one file beside these and one line here, under the kind of task that it predicts
BY_KIND: dict[str, dict[str, Callable[..., Predictor]]] = {
    "lfc": {
        "knn": KNN,
        "lasso": lambda **o: Linear("lasso", **o),
        "ridge": lambda **o: Linear("ridge", **o),
        "forest": lambda grid=(100, 300), **o: SklearnPredictor(
            RandomForestRegressor(random_state=42, **o), {"n_estimators": grid}, "forest"
        ),
        "elastic_net": lambda grid=(0.1, 0.01), **o: SklearnPredictor(
            ElasticNet(**o), {"alpha": grid}, "elastic_net"
        ),
    },
    "deg": {"knn": DEGKNN, "logistic": DEGLogistic},
    "functions": {"logistic": FunctionLogistic},
    "pairs": {"knn": LabelKNN, "kernel": LabelKernel, "logistic": LabelLogistic},
}


def predictor(name: str, task: Task | str = "lfc", **options) -> Predictor:
    """Return the predictor called `name` in profiles and score tables, for a task."""
    task = task_of(task)
    there = BY_KIND.get(task.kind, {})
    check_choice(f"{task.title}: predictor", name, there)
    try:
        made = there[name](**options)
    except TypeError as error:
        raise ParameterError(f"predictor '{name}': {error}") from error
    if made.task.kind == task.kind:
        made.task = task  # type: ignore[misc]
    return made


class OnEmbedding(Model):
    """A predictor on one embedding, refitted in every fold; without a vector: the floor."""

    def __init__(self, embedding, predictor: Predictor, protocol: Protocol | None = None):
        self.embedding, self.way, self.protocol = embedding, predictor, protocol or Protocol()
        self.name, self.modality = embedding.name, embedding.modality
        self.cell_line, self.predictor = embedding.cell_line, predictor.name
        self.digest = self.group = embedding.digest
        self.spec = {"predictor": dict(predictor.spec), "protocol": vars(self.protocol)}
        self.code = (type(self), type(predictor))

    def predict(self, fold: Fold) -> Prediction:
        """Tune on the inner folds, learn from all training rows, predict the test rows."""
        ids = [fold.train_ids, fold.test_ids]
        at = [self.embedding.ids.get_indexer(i) for i in ids]
        order = [self.protocol.order(i) for i in ids]
        train, test = (o[a[o] >= 0] for o, a in zip(order, at, strict=True))
        values = fold.task.floor(fold.truth, len(ids[1]), fold.task.missing)
        chosen, cut = "", [0.5]
        if len(test):
            space = self._space(fold, ids[0][train], ids[1][test], at[0][train], at[1][test])
            targets = Targets(fold.truth, fold.gram, train)
            values[..., test, :], chosen, *cut = self.way.predict(space, targets)
        coverage = (len(train) + len(test)) / (len(ids[0]) + len(ids[1]))
        threshold = {fold.cell_lines[0]: cut[0]} if cut else None
        return Prediction(values, threshold, str(chosen), coverage, covered=at[1] >= 0)

    def _space(self, fold: Fold, train_ids, test_ids, train, test) -> NestedSpace:
        """Reduced coordinates, shared with other predictors and with lines of the same rows."""
        p = self.protocol
        shuffle = fold.task.inner_shuffle if p.inner_shuffle is None else p.inner_shuffle
        key = (tuple(train_ids), tuple(test_ids), p, shuffle)
        if key not in fold.cache:
            fold.cache[key] = NestedSpace(
                self.embedding.X[train],
                self.embedding.X[test],
                p.n_components,
                reduce=self.embedding.modality != POSITIVE and p.n_components > 0,
                inner_folds=p.inner_folds,
                inner_seed=p.inner_seed,
                inner_shuffle=shuffle,
            )
        return fold.cache[key]


@dataclass(eq=False)
class Floor(Model):
    """A prediction without embedding, see `Task.floors` (Cole et al. 2026, 4.7.2)."""

    predictor: str
    name = ""
    modality = NEGATIVE
    group = "floors"

    def predict(self, fold: Fold) -> Prediction:
        """Predict the same for every perturbation."""
        values = fold.task.floor(fold.truth, fold.test.n_obs, self.predictor)
        return Prediction(values, {fold.cell_lines[0]: 0.5}, coverage=float("nan"))


def idealized(responses: AnnData, line: str, protocol: Protocol, seed: int = 0) -> Embedding:
    """Compress responses of a line, test included, by PCA: a ceiling (Cole et al. 2026, 4.7.1)."""
    rows, task = rows_of(responses, line), task_of(responses)
    ids = rows.obs["perturbation"].astype(str)
    order = protocol.order(ids)
    Y = task.dense(task.truth(rows[order]))
    q = min(protocol.n_components, *Y.shape)
    X = PCA(q, random_state=seed).fit_transform(Y)
    return Embedding("idealized", POSITIVE, ids.iloc[order], X, cell_line=line)


def mask_only(responses: AnnData, dim: int = 100) -> list[OnEmbedding]:
    """Make the control that sees which labels are known, of each line; none where all are known.

    A leak, on purpose: its vectors are `dim` components of the pattern of known labels of a line.
    """
    made = []
    for line in lines_in(responses) if task_of(responses).partial else ():
        rows = rows_of(responses, line)
        known = np.asarray(rows.layers["observed"], dtype=np.float32)
        known = known[:, known.any(axis=0)]
        X = PCA(min(dim, *known.shape), random_state=0).fit_transform(known)
        ids = rows.obs["perturbation"].astype(str)
        made.append(OnEmbedding(Embedding(MASK, POSITIVE, ids, X, cell_line=line), LabelKernel()))
    return made


def evaluate_embeddings(
    responses: AnnData,
    embeddings: Sequence,
    predictors: Sequence = ("knn",),
    *,
    models: Sequence[Model] = (),
    protocol: Protocol | None = None,
    controls: Sequence[str] = CONTROLS,
    cell_lines: Sequence[str] | None = None,
    seed: int = 0,
    **options,
) -> pd.DataFrame:
    """Score embeddings and predictors by nested cross-validation, with floors and a ceiling.

    Parameters
    ----------
    responses : AnnData
        Perturbations x genes; see `perturbcore.data.responses.check_responses`.
    embeddings : sequence of Embedding
        Aligned by id with the perturbations. One with a `cell_line` serves only that line.
    predictors : sequence of str or Predictor
        "knn", "lasso", "ridge"; for labels "knn", "logistic", for partial ones also "kernel".
    models, protocol : sequence of Model, Protocol, optional
        More models, scored beside them; components, inner folds, order.
    controls : sequence of str
        "idealized" and floors of the task, such as "train_mean" and "no_change".
    cell_lines, seed, **options
        See `perturbcore.score.evaluate.evaluate`, which says what is returned.

    Examples
    --------
    >>> sizes = dict(n_cell_lines=1, n_perturbations=40, n_genes=80, n_control_cells=60)
    >>> from perturbcore.embeddings.base import Embedding
    >>> responses = pc.load_dataset("simulated", **sizes).responses
    >>> mine = Embedding("mine", "Expression", responses.obs["perturbation"], responses.X[:, :8])
    >>> scores = pc.evaluate(responses, [mine], ["knn"], progress=False)
    >>> sorted(scores.loc[scores["embedding"] == "mine", "fold"].unique().tolist())
    [0, 1, 2, 3, 4]
    """
    check_responses(responses)
    protocol, task = protocol or Protocol(), task_of(responses)
    chosen = [predictor(p, task) if isinstance(p, str) else p for p in predictors]
    for p in chosen:
        if p.task.kind != task.kind:
            raise ParameterError(f"predictor '{p.name}' predicts {p.task.title}, not {task.title}")
    for name in controls:
        check_choice("control", name, dict.fromkeys([*CONTROLS, *task.floors]))
    lines = list(cell_lines or lines_in(responses))
    _check_coverage(embeddings, {n: rows_of(responses, n).obs["perturbation"] for n in lines})
    served = list(embeddings)
    if "idealized" in controls:
        served += [idealized(responses, line, protocol, seed) for line in lines]
    made = [OnEmbedding(e, p, protocol) for e in served for p in chosen]
    floors = [Floor(c) for c in controls if c in task.floors]
    return evaluate(responses, [*made, *floors, *models], cell_lines=lines, seed=seed, **options)


def _check_coverage(embeddings: Sequence, ids: dict[str, pd.Series]) -> None:
    for e in embeddings:
        served = {line: names for line, names in ids.items() if e.cell_line in (None, line)}
        if served and not any(e.ids.isin(names).any() for names in served.values()):
            first = next(iter(served.values())).iloc[0]
            raise InputError(
                f"embedding '{e.name}' has none of the perturbations: its ids look like "
                f"'{e.ids[0]}', the perturbations like '{first}'; convert one to the "
                "other (perturbcore.embeddings.coverage.convert_ids)"
            )
