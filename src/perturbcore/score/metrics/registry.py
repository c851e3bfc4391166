"""What a metric is: a function of arrays together with its direction, bounds, formula and source."""

from collections.abc import Callable
from dataclasses import dataclass

from perturbcore.core.errors import ParameterError


@dataclass(frozen=True)
class Metric:
    """A registered metric.

    Attributes
    ----------
    name, label : str
        Key in the scores table; what an axis says.
    higher_is_better : bool
        Direction.
    bounds : tuple of float
        Smallest and largest possible value.
    formula, reference : str
        LaTeX formula for one perturbation (or one fold); where it comes from.
    task : str
        "lfc", "pairs" or "deg".
    function : callable
        ``lfc``: (truth, prediction, train_mean) -> one value a perturbation.
        ``pairs``: (label, score, gene, threshold) -> one value.
        ``deg``: (label, probability) -> one value, the mean over genes.
    """

    name: str
    label: str
    higher_is_better: bool
    bounds: tuple[float, float]
    formula: str
    reference: str
    task: str
    function: Callable


_METRICS: dict[str, Metric] = {}


def register(name, label, *, higher_is_better, bounds, formula, reference, task="lfc"):
    """Return a decorator that registers a function as metric `name`; see `Metric`."""

    def keep(function):
        _METRICS[name] = Metric(
            name, label, higher_is_better, bounds, formula, reference, task, function
        )
        return function

    return keep


def metric(name: str) -> Metric:
    """Return the registered metric `name`.

    Raises
    ------
    ParameterError
        No such metric; the message lists those there are.
    """
    if name not in _METRICS:
        raise ParameterError(f"no metric '{name}'; there are: {', '.join(_METRICS)}")
    return _METRICS[name]


def metrics_of(task: str) -> list[str]:
    """Return the names of the metrics of a task ("lfc", "pairs" or "deg")."""
    return [m.name for m in _METRICS.values() if m.task == task]
