"""Models of one embedding: predictors, tuned inside the fold, floors and a ceiling."""

# ruff: noqa: F401  what is passed on
from perturbcore.models.simple.base import Predictor
from perturbcore.models.simple.embedding import BY_KIND, OnEmbedding, evaluate_embeddings, predictor
from perturbcore.models.simple.knn import KNN
from perturbcore.models.simple.space import Protocol
