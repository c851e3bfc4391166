"""What is predicted: truth, floors, inner loss and metrics of each task. Nothing else knows tasks.

A new task is one object passed to `register_task`; the kinds below cover log fold-changes, complete
labels and partial labels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import InputError, check_choice
from perturbcore.core.order import row_ranks
from perturbcore.data.responses import LAYERS
from perturbcore.score.labels import Labels, class_shares, most_frequent
from perturbcore.score.metrics.deg import deg_metrics, one_hot
from perturbcore.score.metrics.pairs import (
    auroc_interval,
    auroc_within,
    concordance,
    concordance_of,
    tied,
)
from perturbcore.score.metrics.registry import metric, metrics_of
from perturbcore.score.metrics.regression import l2, pearson

LARGEST_KEPT = 2_000_000  # values of a prediction that is kept whole


@dataclass(frozen=True)
class Task:
    """What is to be predicted of the test perturbations of a fold.

    `primary`: the metric that leads; `kind`: group of its metrics, whose tasks share predictors;
    `classes`: of complete labels; `partial`: labels are known only for some genes of a
    perturbation; `floors`: name -> function of the training truth that returns one prediction for
    all, "train_mean" first; `missing`: the floor of a perturbation of which a model knows nothing;
    `inner_shuffle`: whether inner folds are shuffled; `detail`: metrics kept per perturbation;
    `across`: whether each model learns from all cell lines; `euclidean`: whether the loss is the
    mean L2, which inner products give.
    """

    name: str
    title: str
    primary: str
    kind: ClassVar[str]
    classes: ClassVar[tuple[int, ...]] = ()
    partial: ClassVar[bool] = False
    floors: ClassVar[Mapping[str, Callable]]
    layers: ClassVar[tuple[str, ...]] = ()
    missing: ClassVar[str] = "train_mean"
    detail: ClassVar[tuple[str, ...]] = ()
    inner_shuffle: ClassVar[bool] = True
    across: ClassVar[bool] = False
    euclidean: ClassVar[bool] = False

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics, the leading one first."""
        names = metrics_of(self.kind)
        return [self.primary, *(m for m in names if m != self.primary)]

    def check_metrics(self, names: Sequence[str] | None) -> list[str]:
        """Return `names`, all metrics by default; refuse those of another task."""
        for name in names or ():
            check_choice("metric", name, self.metrics)
        return list(names or self.metrics)

    def learned(self, obs: pd.DataFrame, test: np.ndarray) -> np.ndarray:
        """Rows of responses, (n,) bool, that models learn from when `test` (n,) is asked."""
        return ~test

    def truth(self, rows: AnnData) -> Any:
        """Return what is known of rows: an (n, g) array, or `Labels` where labels are partial."""
        raise NotImplementedError

    def shape(self, n: int, n_genes: int) -> tuple[int, ...]:
        """Shape of a prediction of `n` perturbations."""
        return (n, n_genes)

    def floor(self, truth, n: int, name: str = "train_mean") -> np.ndarray:
        """Predict `n` perturbations by a floor of this task, learned from training truth."""
        one = self.floors[name](truth)[..., None, :]
        return np.repeat(one, n, axis=-2)

    def dense(self, truth) -> np.ndarray:
        """Truth as (n, g) floats: the coordinates of the idealized embedding."""
        return np.asarray(truth, dtype=np.float32)

    def products(self, truth) -> np.ndarray | None:
        """Return inner products between rows, (n, n) float64, where tuning can use them."""
        return None

    def loss(self, truth, values) -> float:
        """Loss that inner folds minimise."""
        raise NotImplementedError

    def score(self, truth, values, names, *, train, memo: dict, threshold=None):
        """Evaluate the metrics `names`: name -> value; those in `detail`: name -> values (n,)."""
        raise NotImplementedError

    def kept(self, truth, values) -> dict[str, np.ndarray]:
        """Return what `score_some` needs of a prediction; nothing where `detail` says it all."""
        return {}

    def score_some(self, kept: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, float]:
        """Score some of the test perturbations, `rows` (n,) bool: name -> value, where it can."""
        return {}

    def intervals(self, truth, values) -> dict[str, tuple[float, float]]:
        """Bootstrap metrics over the test perturbations: name -> (low, high), where it is known."""
        return {}


@dataclass(frozen=True)
class LogFoldChanges(Task):
    """Log fold-changes: (n, g) floats."""

    kind = "lfc"
    floors = {
        "train_mean": lambda Y: Y.mean(axis=0, dtype=np.float64).astype(Y.dtype),
        "no_change": lambda Y: np.zeros(Y.shape[1], dtype=Y.dtype),
    }
    detail = ("L2", "Pearson_delta")
    euclidean = True
    whole: ClassVar[bool] = False  # keep predictions, which are scored against cells later

    def truth(self, rows):
        """(n, g) float32."""
        return np.ascontiguousarray(rows.X, dtype=np.float32)

    def products(self, truth):
        """``Y Y'`` in float64."""
        Y = truth.astype(np.float64)
        return Y @ Y.T

    def loss(self, truth, values):
        """Mean over perturbations of the Euclidean norm of the error."""
        return float(l2(truth, values).mean())

    def score(self, truth, values, names, *, train, memo, threshold=None):
        """One value per perturbation, then their mean."""
        if "mean" not in memo:
            memo["mean"], memo["ranks"] = self.floors["train_mean"](train), row_ranks(truth)
        each = {}
        for name in names:
            if name == "Spearman":
                each[name] = pearson(memo["ranks"], row_ranks(values))
            else:
                each[name] = metric(name).function(truth, values, memo["mean"])
        kept = {m: each[m] for m in self.detail if m in each}
        return {m: float(v.mean()) for m, v in each.items()}, kept

    def kept(self, truth, values):
        """Keep the prediction itself, where it is to be scored against cells."""
        keep = self.whole and values.size <= LARGEST_KEPT
        return {"values": values.astype(np.float32)} if keep else {}


@dataclass(frozen=True)
class Expression(LogFoldChanges):
    """Log fold-changes tuned by what Csendes et al. 2025 report: their correlation over genes."""

    detail = ("Pearson", "L2")
    euclidean = False
    whole = True

    def loss(self, truth, values):
        """Minus the mean correlation."""
        return -float(pearson(truth, values).mean())


@dataclass(frozen=True)
class NewContext(LogFoldChanges):
    """Log fold-changes in a held-out cell line; with `unseen` of new perturbations."""

    unseen: bool = field(default=False)
    kind = "context"
    across = True
    whole = True

    @property
    def metrics(self) -> list[str]:
        """Those of log fold-changes that are quick, and the published rank by L1."""
        return [self.primary, "MAE", "Pearson_delta", "discrimination_l1"]

    def learned(self, obs, test):
        """All that is not asked; where perturbations are new, other lines and other ones only."""
        if not self.unseen:
            return ~test
        line, name = (obs[c].astype(str) for c in ("cell_line", "perturbation"))
        return ~(line.isin(set(line[test])) | name.isin(set(name[test]))).to_numpy()


@dataclass(frozen=True)
class Classes(Task):
    """Complete labels: -1, 0 or 1 of every gene; predictions are (3, n, g) probabilities."""

    kind = "deg"
    classes = (-1, 0, 1)
    floors = {
        "train_mean": class_shares,
        "prior": class_shares,
        "most_frequent": most_frequent,
        "no_change": lambda label: one_hot(np.zeros_like(label[:1]))[:, 0],
    }
    layers = ("deg",)
    missing = "most_frequent"
    inner_shuffle = False

    def truth(self, rows):
        """(n, g) int8."""
        return np.ascontiguousarray(rows.layers["deg"], dtype=np.int8)

    def shape(self, n, n_genes):
        """Three probabilities per label."""
        return (3, n, n_genes)

    def loss(self, truth, values):
        """Minus macro F1."""
        return -deg_metrics(truth, values, ["f1_score"])["f1_score"]

    def score(self, truth, values, names, *, train, memo, threshold=None):
        """Each gene over the test perturbations, then the mean over genes."""
        return deg_metrics(truth, values, list(names)), {}

    def kept(self, truth, values):
        """Labels and the classes called, which need no probabilities."""
        return {"label": truth, "called": (np.argmax(values, axis=0) - 1).astype(np.int8)}

    def score_some(self, kept, rows):
        """Of what is called: F1, precision and recall."""
        names = ["f1_score", "precision", "recall"]
        return deg_metrics(kept["label"][rows], one_hot(kept["called"][rows]), names)


@dataclass(frozen=True)
class Pairs(Task):
    """Partial labels, 0 or 1, of known pairs of perturbation and gene; `direction`: up or down."""

    direction: bool = field(default=False)
    kind = "pairs"
    partial = True
    floors = {"train_mean": Labels.rates}
    layers = ("deg", "observed")
    detail = ("auroc_within",)

    def dense_labels(self, rows: AnnData) -> tuple[np.ndarray, np.ndarray]:
        """Labels (n, g) in {0, 1} and which are known."""
        deg = np.asarray(rows.layers["deg"])
        observed = np.asarray(rows.layers["observed"], dtype=bool)
        return (deg > 0, observed & (deg != 0)) if self.direction else (deg != 0, observed)

    def truth(self, rows):
        """`Labels` of the known pairs."""
        return Labels.from_dense(*self.dense_labels(rows))

    def dense(self, truth):
        """Known positives are 1, all else 0; genes without any known pair are left out."""
        used, gene = np.unique(truth.genes, return_inverse=True)
        out = np.zeros((len(truth), len(used)), dtype=np.float32)
        out[truth.rows, gene] = truth.label
        return out

    def loss(self, truth, values):
        """Minus AUROC within gene, over the known pairs."""
        return -auroc_within(truth.label, values[truth.rows, truth.genes], truth.genes)

    def score(self, truth, values, names, *, train, memo, threshold=None):
        """Only known pairs count; F1 only where there is a threshold."""
        score = values[truth.rows, truth.genes].astype(np.float64)
        names = [m for m in names if threshold is not None or m != "macro_F1"]
        each = {
            m: concordance_of(truth.label, score, truth.genes, truth.rows, len(truth))
            for m in self.detail
            if m in names
        }
        return {
            m: metric(m).function(truth.label, score, truth.genes, threshold) for m in names
        }, each

    def kept(self, truth, values):
        """Known pairs, and the order of their scores."""
        score, kinds = tied(values[truth.rows, truth.genes]), np.min_scalar_type
        order = np.unique(score, return_inverse=True)[1]
        return {
            "indptr": truth.indptr.astype(np.int32),
            "genes": truth.genes.astype(kinds(truth.n_genes)),
            "label": truth.label.astype(bool),
            "order": order.astype(kinds(len(score))),
        }

    def score_some(self, kept, rows):
        """Metrics that compare within a gene; none where there is nothing to compare."""
        entries = np.repeat(rows, np.diff(kept["indptr"]))
        label, order, genes = (kept[n][entries].astype(float) for n in ("label", "order", "genes"))
        if not concordance(label, order, genes)[1].sum():
            return {}
        names = [m for m in self.metrics if m != "macro_F1"]
        return {m: metric(m).function(label, order, genes) for m in names}

    def intervals(self, truth, values):
        """Of the AUROC per gene."""
        score = values[truth.rows, truth.genes]
        return {"auroc_per_gene": auroc_interval(truth.label, score, truth.genes, truth.rows)}


_TASKS: dict[str, Task] = {}


def register_task(task: Task) -> Task:
    """Make a task known by its name; responses that declare it are then read, scored and shown."""
    _TASKS[task.name] = task
    LAYERS[task.name] = task.layers
    return task


def task_of(source: AnnData | str | Task) -> Task:
    """Return the task of responses, or the one of this name."""
    if isinstance(source, Task):
        return source
    name = source if isinstance(source, str) else source.uns["perturbcore"]["task"]
    return _TASKS[check_choice("task", name, _TASKS)]


register_task(LogFoldChanges("lfc", "log fold-changes", "L2"))
register_task(Expression("expression", "expression profiles of new perturbations", "Pearson"))
register_task(Classes("deg", "labels of differential expression", "f1_score"))
_SOME = "labels of differential expression, known for some genes of each perturbation"
register_task(Pairs("deg_pairs", _SOME, "auroc_within"))
_WAYS = "directions of differential expression, known for some genes"
register_task(Pairs("dir_pairs", _WAYS, "auroc_within", direction=True))
for _name, _asked in (
    ("cross_context", "of known perturbations in a new cell line"),
    ("cross_context_few", "in a cell line of which a few perturbations are known"),
    ("cross_context_new", "of new perturbations in a new cell line"),
):
    _title, _unseen = f"log fold-changes {_asked}", _name == "cross_context_new"
    register_task(NewContext(_name, _title, "L2", unseen=_unseen))


def primary_metric(scores: pd.DataFrame) -> str:
    """Return the metric that ranks methods on the one task of these scores."""
    tasks = list(scores["task"].unique())
    if len(tasks) != 1 or tasks[0] not in _TASKS:
        raise InputError(f"scores of one task among {', '.join(_TASKS)} are needed, not {tasks}")
    return _TASKS[tasks[0]].primary
