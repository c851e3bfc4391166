"""What a metric is: a function of arrays with its direction, bounds, formula and source."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from perturbcore.core.errors import check_choice
from perturbcore.core.files import read_yaml

_ABOUT = read_yaml(Path(__file__).with_name("metrics.yml"))


@dataclass(frozen=True)
class Metric:
    """A registered metric: what an axis says, direction, bounds, LaTeX formula, source.

    `function` of task "lfc": (truth, prediction, train_mean) -> one value per perturbation;
    "pairs": (label, score, gene, threshold) -> one value; "deg": (label, probability) -> mean over
    genes.
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


def register(name: str) -> Callable:
    """Register a function as metric `name` of ``metrics.yml``."""
    task = next(kind for kind, metrics in _ABOUT.items() if name in metrics)
    about = _ABOUT[task][name]
    known = {**about, "bounds": tuple(about["bounds"])}

    def keep(function):
        _METRICS[name] = Metric(name=name, task=task, function=function, **known)
        return function

    return keep


def metric(name: str) -> Metric:
    """Return the registered metric `name`; a `ParameterError` lists those there are."""
    return _METRICS[check_choice("metric", name, _METRICS)]


def metrics_of(task: str) -> list[str]:
    """Return the names of the metrics of a kind of task ("lfc", "pairs" or "deg")."""
    return [m.name for m in _METRICS.values() if m.task == task]
