"""Predictors: scikit-learn's fit and predict, with tuning inside the fold."""

from perturbcore.core.errors import ParameterError
from perturbcore.models.simple.base import Predictor, SklearnPredictor, Targets
from perturbcore.models.simple.deg import DEGKNN, DEGLogistic
from perturbcore.models.simple.knn import KNN
from perturbcore.models.simple.label_logistic import LabelLogistic
from perturbcore.models.simple.labels import LabelKernel, LabelKNN
from perturbcore.models.simple.linear import Linear
from perturbcore.models.simple.softmax import Softmax
from perturbcore.models.simple.space import NestedSpace

__all__ = [
    "DEGKNN",
    "KNN",
    "DEGLogistic",
    "LabelKNN",
    "LabelKernel",
    "LabelLogistic",
    "Linear",
    "NestedSpace",
    "Predictor",
    "SklearnPredictor",
    "Softmax",
    "Targets",
    "predictor",
]

# a new predictor: one file beside these and one line here
BY_NAME = {
    "knn": lambda **o: KNN(**o),
    "lasso": lambda **o: Linear("lasso", **o),
    "ridge": lambda **o: Linear("ridge", **o),
    "label_knn": lambda **o: LabelKNN(**o),
    "label_kernel": lambda **o: LabelKernel(**o),
    "label_logistic": lambda **o: LabelLogistic(**o),
    "deg_knn": lambda **o: DEGKNN(**o),
    "deg_logistic": lambda **o: DEGLogistic(**o),
}


def predictor(name: str, **options) -> Predictor:
    """Return the predictor called `name` in profiles and score tables.

    Raises
    ------
    ParameterError
        No such predictor, or it has no such option.
    """
    if name not in BY_NAME:
        raise ParameterError(f"no predictor '{name}'; there are: {', '.join(BY_NAME)}")
    try:
        return BY_NAME[name](**options)
    except TypeError as error:
        raise ParameterError(f"predictor '{name}': {error}") from error
