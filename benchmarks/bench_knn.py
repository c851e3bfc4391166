"""kNN with nested cross-validation: ours beside scikit-learn's GridSearchCV, and all of Fig. 1."""

import numpy as np
import pandas as pd
from reporter import farthest, main, row, timed
from sklearn.decomposition import PCA
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from perturbcore.data.folds import add_folds
from perturbcore.data.responses import make_responses
from perturbcore.embeddings.base import Embedding
from perturbcore.models.simple import evaluate_embeddings
from perturbcore.models.simple.base import Targets
from perturbcore.models.simple.knn import KNN
from perturbcore.models.simple.space import NestedSpace

# dimensions of the 33 methods of Cole et al. 2026, Fig. 1, that use an embedding (31 files, random,
# idealized)
PUBLISHED_DIMS = [int(d) for d in """
4352 384 384 1024 1280 2304 2304 1024 2048 512 128 256 640 128 256 640 512 512
1536 1536 1536 1536 1536 1536 318 256 128 256 128 512 128 100 100
""".split()]  # fmt: skip


def latent_data(n, d, g, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 30))
    X = z @ rng.normal(size=(30, d)) + rng.normal(size=(n, d))
    Y = np.tanh(z[:, :10]) @ rng.normal(size=(10, g)) * 0.05 + 0.05 * rng.normal(size=(n, g))
    return X.astype(np.float32), Y.astype(np.float32)


def grid_search(d, grid):
    """What one would write with scikit-learn."""
    loss = make_scorer(lambda y, p: -np.linalg.norm(y - p, axis=1).mean())
    return GridSearchCV(
        make_pipeline(StandardScaler(), PCA(min(100, d)), KNeighborsRegressor()),
        {"kneighborsregressor__n_neighbors": grid},
        scoring=loss,
        cv=KFold(5, shuffle=True, random_state=42),
    )


def against_grid_search(n, d, g, grid=(20, 40, 60, 80, 100)):
    """One outer fold: same k, same predictions, seconds."""
    X, Y = latent_data(n + n // 4, d, g)
    train, test = slice(0, n), slice(n, None)
    model = KNN(grid)
    warm = NestedSpace(X[:200], X[200:210], 100)
    model.predict(warm, Targets(Y[:200]))  # compile
    (ours, k), seconds = timed(
        lambda: model.predict(NestedSpace(X[train], X[test], 100), Targets(Y[train]))
    )
    search = grid_search(d, grid)
    theirs, other = timed(lambda: search.fit(X[train], Y[train]).predict(X[test]))
    same_k = k == search.best_params_["kneighborsregressor__n_neighbors"]
    said = f"same k: {same_k}; largest difference {farthest(ours, theirs):.1e}"
    task = f"kNN nested CV, one outer fold, {n} x {d} -> {g} genes"
    return row(task, "scikit-learn GridSearchCV", seconds, other, said)


def five_folds(n, d, g, grid=(20, 40, 60, 80, 100)):
    """All outer folds of one embedding, as every ranking needs them; ours with all metrics."""
    X, Y = latent_data(n, d, g)
    names = [f"P{i:04d}" for i in range(n)]
    obs = pd.DataFrame({"perturbation": names, "cell_line": "A"})
    responses = make_responses(Y, obs, [f"g{i}" for i in range(g)], dataset="five folds")
    add_folds(responses)
    fold = responses.obs["fold"].to_numpy()
    embedding = Embedding("e", "Protein", pd.Index(names), X)
    how = dict(controls=(), progress=False)
    ours = lambda: evaluate_embeddings(responses, [embedding], [KNN(grid)], **how)  # noqa: E731

    def theirs():
        found = []
        for k in range(5):
            train, test = fold != k, fold == k
            said = grid_search(d, grid).fit(X[train], Y[train]).predict(X[test])
            found.append(np.linalg.norm(Y[test] - said, axis=1).mean())
        return found

    (scores, seconds), (losses, other) = timed(ours), timed(theirs)
    found = scores[(scores["metric"] == "L2") & (scores["embedding"] == "e")].sort_values("fold")
    said = f"L2 of the folds: largest difference {farthest(found['value'], losses):.1e}"
    task = f"kNN nested CV, five outer folds, {n} x {d} -> {g} genes"
    return row(task, "scikit-learn GridSearchCV, L2 alone", seconds, other, said)


def figure_one(sizes, genes, dims, predictors, target, n_jobs=2):
    """All models of Fig. 1, kNN or lasso as well: 4 cell lines x 5 folds x 33 embeddings."""
    names = pd.Index([f"P{i:04d}" for i in range(max(sizes.values()))])
    obs, Y = [], []
    for i, (line, n) in enumerate(sizes.items()):
        obs += [(p, line) for p in names[:n]]
        Y.append(latent_data(n, 1, genes, seed=i)[1])
    responses = make_responses(
        np.vstack(Y),
        pd.DataFrame(obs, columns=["perturbation", "cell_line"]),
        [f"g{i}" for i in range(genes)],
        dataset="full size",
    )
    add_folds(responses)
    embeddings = [
        Embedding(f"e{i}", "Protein", names, latent_data(len(names), d, 1, seed=100 + i)[0])
        for i, d in enumerate(dims)
    ]
    how = dict(controls=(), n_jobs=n_jobs)
    scores, seconds = timed(lambda: evaluate_embeddings(responses, embeddings, predictors, **how))
    units = scores["key"].nunique()
    rows = f"{sum(sizes.values())} perturbed x {genes} genes"
    task = f"{units} models of Fig. 1 ({' and '.join(predictors)}), {rows}, all nine metrics"
    said = f"{n_jobs} threads, {seconds / units:.2f} s per model"
    return row(task, f"the target: {target} s on two cores", seconds, agreement=said)


def cases(options):
    """Yield the rows."""
    if options.small:
        yield against_grid_search(300, 40, 200)
        yield five_folds(300, 40, 200)
        yield figure_one({"A": 300, "B": 250}, 200, [50, 120], ["knn", "lasso"], 480)
    else:
        yield against_grid_search(1500, 100, 8000)
        yield five_folds(1875, 100, 8000)
        sizes = {"K-562": 2053, "Hep-G2": 2386, "Jurkat": 2386, "hTERT-RPE1": 2386}
        yield figure_one(sizes, 6640, PUBLISHED_DIMS, ["knn"], 150)
        yield figure_one(sizes, 6640, PUBLISHED_DIMS, ["knn", "lasso"], 480)


if __name__ == "__main__":
    main(__doc__, cases)
