"""The published pipeline in plain scikit-learn, without any of this project's shortcuts.

Slow, and made to be read beside the published code: what the fast evaluation is held against.
"""

from itertools import product

import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn.decomposition import PCA
from sklearn.linear_model import Lasso
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from perturbcore.core.errors import InputError, check_choice
from perturbcore.data.authors.layout import layout_of
from perturbcore.data.responses import rows_of
from perturbcore.embeddings.base import Embedding, align
from perturbcore.report.text import tell

INNER = KFold(5, shuffle=True, random_state=42)


def negative_mean_l2(model, X, Y) -> float:
    """Score of the inner cross-validation: minus the mean Euclidean norm of the errors."""
    return -float(np.linalg.norm(model.predict(X) - Y, axis=1).mean())


def sklearn_scores(
    responses: AnnData,
    cell_line: str,
    fold: int,
    embedding: Embedding | None,
    estimator: str = "knn",
) -> dict:
    """Score one unit of the published benchmark with scikit-learn's own parts.

    Without an `embedding`, the idealized one: PCA of all responses. Metrics, and `chosen`.
    """
    check_choice("estimator", estimator, ("knn", "lasso"))
    layout = layout_of(responses.uns["perturbcore"]["dataset"])
    rows = rows_of(responses, cell_line)
    Y = np.asarray(rows.X)
    ids = rows.obs["perturbation"].astype(str).to_numpy()
    test = (rows.obs["fold"] == fold).to_numpy()
    train = ~test
    grid, model = {
        "knn": ({"estimator__n_neighbors": list(layout.k)}, KNeighborsRegressor()),
        "lasso": ({"estimator__alpha": list(layout.alpha)}, Lasso()),
    }[estimator]
    steps = [("estimator", model)]
    q = layout.n_components
    if embedding is None:
        both = np.vstack([Y[train], Y[test]])
        coordinates = PCA(q, svd_solver="full", random_state=0).fit_transform(both)
        X = np.empty((len(Y), q), dtype=coordinates.dtype)
        X[train], X[test] = coordinates[: train.sum()], coordinates[train.sum() :]
        present = np.ones(len(Y), dtype=bool)
    else:
        X, present = align(embedding, ids)
        pca = PCA(q, svd_solver="full", random_state=0)
        steps = [("scaler", StandardScaler()), ("pca", pca), *steps]
    smallest = int(np.floor((train & present).sum() * 0.8))
    if embedding is not None and min(smallest, X.shape[1]) < q:
        size = dict(name=embedding.name, rows=smallest, columns=X.shape[1], q=q)
        raise InputError(tell("reproduction.few_rows", **size))

    search = GridSearchCV(Pipeline(steps), grid, scoring=negative_mean_l2, cv=INNER)
    search.fit(X[train & present], Y[train & present])
    prediction = np.tile(Y[train].mean(axis=0), (test.sum(), 1))
    known = present[test]
    prediction[known] = search.predict(X[test & present])
    scores = plain_metrics(Y[test], prediction)
    scores["chosen"] = next(iter(search.best_params_.values()))
    return scores


def plain_metrics(Y: np.ndarray, prediction: np.ndarray) -> dict:
    """Compute the published metrics of one fold, written out; rows are perturbations."""
    error = prediction.astype(np.float64) - Y
    guess, truth = (pd.DataFrame(table.T, dtype=float) for table in (prediction, Y))
    constant = (guess.nunique() == 1) | (truth.nunique() == 1)
    guess.loc[:, constant] = np.nan  # a constant has no correlation
    return {
        "L2": float(np.linalg.norm(error, axis=1).mean()),
        "MSE": float((error**2).mean()),
        "MAE": float(np.abs(error).mean()),
        "Spearman": guess.corrwith(truth, method="spearman").mean(skipna=False),
        "Pearson": guess.corrwith(truth).mean(skipna=False),
    }


def against_sklearn(
    responses: AnnData,
    embeddings,
    scores: pd.DataFrame,
    *,
    cell_line: str,
    fold: int = 0,
    estimators=("knn", "lasso"),
) -> pd.DataFrame:
    """Compute units again with scikit-learn and set them beside scores that were computed fast.

    `responses`, `embeddings` and `scores` are what `evaluate_embeddings` was given and returned.
    """
    here = [e for e in embeddings if e.cell_line in (None, cell_line)]
    units = product([("idealized", None), *((e.name, e) for e in here)], estimators)
    out = []
    for (name, embedding), estimator in units:
        unit = dict(predictor=estimator, embedding=name, cell_line=cell_line, fold=fold)
        own = scores.loc[(scores[list(unit)] == pd.Series(unit)).all(axis=1)].set_index("metric")
        plain = sklearn_scores(responses, cell_line, fold, embedding, estimator)
        chosen = str(plain.pop("chosen"))
        for metric, value in plain.items():
            fast = own.loc[metric]
            both = dict(metric=metric, value=fast["value"], sklearn=value)
            out.append({**unit, **both, "chosen": fast["chosen"], "chosen_sklearn": chosen})
    table = pd.DataFrame(out)
    table["difference"] = table["value"] - table["sklearn"]
    return table
