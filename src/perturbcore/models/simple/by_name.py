"""Predictors by their names in profiles and score tables."""

from collections.abc import Callable

from perturbcore.core.errors import ParameterError
from perturbcore.models.simple.base import Predictor
from perturbcore.models.simple.deg import DEGKNN, DEGLogistic
from perturbcore.models.simple.knn import KNN
from perturbcore.models.simple.label_logistic import LabelLogistic
from perturbcore.models.simple.labels import LabelKernel, LabelKNN
from perturbcore.models.simple.linear import Linear
from perturbcore.score.task import Task, task_of

# a new predictor: one file beside these and one line here, under the kind of task that it predicts
BY_KIND: dict[str, dict[str, Callable[..., Predictor]]] = {
    "lfc": {
        "knn": KNN,
        "lasso": lambda **o: Linear("lasso", **o),
        "ridge": lambda **o: Linear("ridge", **o),
    },
    "deg": {"knn": DEGKNN, "logistic": DEGLogistic},
    "pairs": {"knn": LabelKNN, "kernel": LabelKernel, "logistic": LabelLogistic},
}


def predictor(name: str, task: Task | str = "lfc", **options) -> Predictor:
    """Return the predictor called `name` in profiles and score tables, for a task."""
    task = task_of(task)
    there = BY_KIND.get(task.kind, {})
    if name not in there:
        raise ParameterError(
            f"no predictor '{name}' of {task.title}; there are: {', '.join(there) or 'none'}"
        )
    try:
        return there[name](**options)
    except TypeError as error:
        raise ParameterError(f"predictor '{name}': {error}") from error
