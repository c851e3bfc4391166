"""Models of one embedding: predictors, tuned inside the fold, floors and a ceiling."""

from perturbcore.models.simple.base import Predictor, SklearnPredictor, Targets
from perturbcore.models.simple.by_name import BY_KIND, predictor
from perturbcore.models.simple.deg import DEGKNN, DEGLogistic
from perturbcore.models.simple.embedding import Floor, OnEmbedding, evaluate_embeddings
from perturbcore.models.simple.knn import KNN
from perturbcore.models.simple.label_logistic import LabelLogistic
from perturbcore.models.simple.labels import LabelKernel, LabelKNN
from perturbcore.models.simple.linear import Linear
from perturbcore.models.simple.softmax import Softmax
from perturbcore.models.simple.space import NestedSpace, Protocol

__all__ = [
    "BY_KIND",
    "DEGKNN",
    "KNN",
    "DEGLogistic",
    "Floor",
    "LabelKNN",
    "LabelKernel",
    "LabelLogistic",
    "Linear",
    "NestedSpace",
    "OnEmbedding",
    "Predictor",
    "Protocol",
    "SklearnPredictor",
    "Softmax",
    "Targets",
    "evaluate_embeddings",
    "predictor",
]
