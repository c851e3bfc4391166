"""Models by name: what ``models: [...]`` of a profile may list."""

from collections.abc import Mapping, Sequence
from importlib import import_module

from perturbcore.core.errors import ParameterError, check_choice
from perturbcore.models.simple import BY_KIND, OnEmbedding, Predictor, Protocol
from perturbcore.models.simple import predictor as make_predictor
from perturbcore.score.model import NEGATIVE, POSITIVE, Model, predicts
from perturbcore.score.task import Task, task_of

# a new model: one file with its class, and one line here
_MODELS = {
    "concatenation": "perturbcore.models.fusion.simple:Concatenation",
    "averaged": "perturbcore.models.fusion.simple:AveragedKNN",
    "stacking": "perturbcore.models.fusion.simple:Stacked",
    "kernel_sum": "perturbcore.models.fusion.kernel_models:KernelSum",
    "multi_kernel_ridge": "perturbcore.models.fusion.kernel_models:KernelRidge",
    "mixed": "perturbcore.models.fusion.kernel_models:PairModel",
    "additive": "perturbcore.models.simple.additive:Additive",
    "bilinear": "perturbcore.models.simple.additive:Bilinear",
    "context_mean": "perturbcore.models.contexts:ContextMean",
    "mean_offset": "perturbcore.models.contexts:MeanOffset",
    "shrunken_offset": "perturbcore.models.contexts:ShrunkenOffset",
    "similar_lines": "perturbcore.models.contexts:SimilarLines",
    "mlp": "perturbcore.models.contexts:ContextMLP",
    "line_kernel": "perturbcore.models.contexts:LineKernel",
    "saved": "perturbcore.models.contexts:SavedPredictions",
}


def register_model(name: str, where: str) -> None:
    """Make a model known by a name that a profile may list; `where` is ``"module:class"``.

    Of a `Predictor` one is made for each embedding; any other class is called with
    ``embeddings=[...]``.
    """
    _MODELS[name] = where


def model_names() -> list[str]:
    """Names that a profile may list."""
    return list(dict.fromkeys([*(n for kind in BY_KIND.values() for n in kind), *_MODELS]))


def build_models(
    wanted: Sequence, task: Task | str, embeddings: Sequence, protocol: Protocol | None = None
) -> list[Model]:
    """Make those of the listed models (names, or mappings of `name` and options) for a task."""
    task = task_of(task)
    models: list[Model] = []
    sources = [e for e in embeddings if e.modality not in (NEGATIVE, POSITIVE)]
    for entry in wanted:
        options = dict(entry) if isinstance(entry, Mapping) else {"name": entry}
        name = options.pop("name")
        check_choice("model", name, model_names())
        if name in BY_KIND.get(task.kind, {}):
            way = make_predictor(name, task, **options)
            models += [OnEmbedding(e, way, protocol) for e in embeddings]
        elif name in _MODELS:
            module, _, attribute = _MODELS[name].partition(":")
            kind = getattr(import_module(module), attribute)
            try:
                if issubclass(kind, Predictor):
                    made = kind(**options)
                    if made.task.kind == task.kind:
                        models += [OnEmbedding(e, made, protocol) for e in embeddings]
                elif predicts(kind, task):
                    models.append(kind(embeddings=sources, **options))
            except TypeError as error:
                raise ParameterError(f"model '{name}': {error}") from error
    return models
