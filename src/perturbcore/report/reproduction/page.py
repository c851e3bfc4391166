"""What the chapter on reproduction shows: the data it read, and its scores beside a reference."""

from collections.abc import Mapping
from importlib import resources
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.linear_model import Lasso
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from perturbcore.core.errors import InputError, check_choice
from perturbcore.data.authors.layout import HOW_TO_GET, LAYOUTS, data_root, layout_of, present
from perturbcore.data.authors.read import read_authors_responses
from perturbcore.data.published.tables import load_published
from perturbcore.data.responses import rows_of
from perturbcore.embeddings.authors import read_embeddings
from perturbcore.embeddings.base import Embedding, align
from perturbcore.report import figures
from perturbcore.report.reproduction import benchmark
from perturbcore.report.reproduction.fixture import write_fixture
from perturbcore.report.text import tell

SEEDS = (5050, 5051)  # of the experimental error: the published one, and another


class Files(NamedTuple):
    """Where the authors' data are, and what a page must say of them."""

    root: Path
    simulated: bool
    sentence: str


def find_data(chapter, datasets, *, root: str = "", fixture: bool = True, seed: int = 0) -> Files:
    """Find the authors' data, or write a small simulated fixture in their layout.

    `root`: folder of the layout; empty: ``PERTURBCORE_PAPER_DATA``, else ``data/paper``; `fixture`:
    whether a fixture may take the place of data that are not there, else InputError.
    """
    place = data_root(root or None)
    there = [d for d in present(place)[0] if d in datasets]
    if there:
        read = (read_authors_responses(d, root=place) for d in there)
        simulated = any(r.uns["perturbcore"]["simulated"] for r in read)
        kind = "simulated files in their layout" if simulated else "authors' preprocessed data"
        return Files(place, simulated, f"Read from the {kind}: {', '.join(there)}.")
    if not fixture:
        raise InputError(f"{place}: none of the authors' data are there; {HOW_TO_GET}")
    place = write_fixture(chapter.profile.results / "authors_fixture", seed=seed, datasets=datasets)
    return Files(place, True, tell("reproduction.no_fixture", how=HOW_TO_GET))


def choices() -> pd.DataFrame:
    """Where paper and published code differ or leave open, and the parameter that decides here."""
    return pd.read_csv(resources.files("perturbcore.report.reproduction") / "choices.csv")


def left_out(done: benchmark.Benchmark) -> str:
    """List what was left out, in a sentence and a closed list."""
    if not done.notes:
        return "Nothing of the layout is missing."
    lines = "\n".join(f"- {note}" for note in done.notes)
    return tell("reproduction.left_out", n=len(done.notes), lines=lines)


def sklearn_check(
    files: Files, done: benchmark.Benchmark, embeddings, *, fold: int = 0
) -> pd.DataFrame:
    """Compute a few units of each data set's first cell line again with plain scikit-learn."""
    tables = []
    estimators = [p for p in ("knn", "lasso") if p in set(done.scores["predictor"])]
    for dataset, scores in done.scores.groupby("dataset", sort=False):
        responses = read_authors_responses(dataset, root=files.root)
        names = sorted(set(embeddings) & set(scores["embedding"]))
        used, _ = read_embeddings(
            dataset, responses, files.root, missing_drugs="leave_out", names=names
        )
        line = scores["cell_line"].iloc[0]
        table = against_sklearn(
            responses, used, scores, cell_line=line, fold=fold, estimators=estimators
        )
        tables.append(table.assign(dataset=dataset))
    return pd.concat(tables, ignore_index=True)


def spread_said(files: Files, cell_lines=(), *, dataset: str = "essential", **draws) -> str:
    """Say how far two seeds of the experimental error differ, where there are raw cells."""
    line = (*cell_lines, *LAYOUTS[dataset].lines)[0]
    how = dict(cell_line=line, progress=False, **draws)
    try:
        drawn = [benchmark.error_of_raw(dataset, files.root, seed=seed, **how) for seed in SEEDS]
    except InputError as error:
        return f"No raw cells: {error}."
    one, two = (t[t["quantile"] == 0.9].set_index("pert_id")["L2"] for t in drawn)
    each, level = (two / one - 1).abs(), abs(two.mean() / one.mean() - 1)
    about = dict(n=len(one), line=line, mean=each.mean(), most=each.max(), level=level)
    return tell("reproduction.seeds", **about)


def answer(files: Files, table: pd.DataFrame, other: Mapping, check: pd.DataFrame) -> str:
    """Give the chapter's one-paragraph answer, computed; `table` and `other`: of `compare`."""
    rows = check[check["metric"] == "L2"]
    off = rows["difference"].abs()
    same = (rows["chosen"].astype(float) == rows["chosen_sklearn"].astype(float)).sum()
    knn = off[rows["predictor"] == "knn"].max()
    said = tell("reproduction.check", n=len(rows), most=off.max(), knn=knn, same=same)
    if files.simulated:
        return f"Nothing can be said about the published scores without the data. {said}"
    return f"{benchmark.verdict(table, other)} {said}"


def reference_figure(table: pd.DataFrame, other: Mapping, check: pd.DataFrame) -> Figure:
    """Draw L2 here against the published value, or, of other data, against scikit-learn's."""
    same = table[(table["metric"] == "L2") & (table["status"] == "both")]
    same = same[~same["dataset"].isin(other)]
    if same.empty:
        rows = check[check["metric"] == "L2"]
        x, y, what = rows["sklearn"], rows["value"], "scikit-learn (same files)"
        labels = rows["predictor"]
    else:
        x, y, labels = same["published"], same["reproduced"], same["dataset"]
        what = f"published ({load_published().level})"
    return figures.named_points(
        x, y, list(labels), xlabel=f"L2, {what}", ylabel="L2, here", equal=True
    )


def scores_for_figure(
    done: benchmark.Benchmark, dataset: str, predictor: str = "knn"
) -> pd.DataFrame:
    """Scores of a data set under the names of the published figures, for a box plot."""
    rows = benchmark.published_names(done.scores)
    rows = rows[(rows["dataset"] == dataset) & (rows["fold"] >= 0)]
    return rows[(rows["predictor"] == predictor) | (rows["embedding"] == "")]


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
