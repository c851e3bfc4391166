"""What the published scores say and the papers do not report."""

import pandas as pd

from perturbcore.core.errors import InputError
from perturbcore.data.published.names import without_line
from perturbcore.data.published.read import PRIMARY
from perturbcore.data.published.tables import HOW_TO_GET, Published
from perturbcore.report.published.evidence import Evidence
from perturbcore.report.published.figure_specs import FIGURES
from perturbcore.report.published.figures import FigureData, figure_data

# Five folds: the test set is a quarter of the training set.
TEST_RATIO = 0.25
RANKINGS = ("1", "S2", "S4", "5", "S1", "S7", "S8", "S10", "S14")


def _need_folds(published: Published) -> None:
    if published.level != "folds":
        raise InputError(
            f"this is decided on single folds, and only medians are at hand: {HOW_TO_GET}"
        )


def _competitors(figure: FigureData) -> pd.DataFrame:
    """Scores of a figure without positive controls; a method goes by its display name."""
    rows = figure.scores[figure.scores["modality"] != "Positive control"]
    return rows.assign(embedding=rows["display"], predictor="")


def neighbours(figure: str, published: Published, *, by: tuple[str, ...] = ()) -> pd.DataFrame:
    """Which neighbours in the ranking of a figure are distinguishable, paired over folds.

    Parameters
    ----------
    figure : str
        A box-plot figure, such as "1".
    published : Published
        At level "folds".
    by : tuple of str
        ``()`` averages the cell lines of a figure within a fold; ("cell_line",) has a ranking a
        line.

    Returns
    -------
    pandas.DataFrame
        place, method, mean, next_method, behind (how much worse the next is), low, high (95%),
        p_holm, distinguishable; and `by`.

    Raises
    ------
    InputError
        If only medians are at hand.

    Notes
    -----
    Folds are the units, and the interval is that of the corrected resampled t-test, because the
    training sets of folds overlap; five folds separate only what differs clearly.

    References
    ----------
    Nadeau and Bengio 2003, Machine Learning 52.
    """
    from perturbcore.score.uncertainty.differences import neighbour_table

    _need_folds(published)
    data = figure_data(figure, published)
    table = neighbour_table(
        _competitors(data),
        data.spec.metric,
        by=by,
        higher_is_better=not data.spec.lower_is_better,
        test_ratio=TEST_RATIO,
    )
    table = table.rename(columns={"embedding": "method", "next_embedding": "next_method"})
    wanted = ["place", "method", "mean", "next_method", "behind", "low", "high", "p_holm"]
    return table[[*by, *wanted, "distinguishable"]]


def ranking_certainty(published: Published, figures: tuple[str, ...] = RANKINGS) -> pd.DataFrame:
    """For each ranking: how many neighbours differ clearly, and how many share the first place.

    Parameters
    ----------
    published : Published
        At level "folds".
    figures : tuple of str
        Box-plot figures.

    Returns
    -------
    pandas.DataFrame
        figure, ranking, methods, neighbours (pairs), interval_without_0 (pairs whose own interval
        leaves out no difference), distinguishable (pairs, adjusted for their number), best, and
        as_good_as_best (methods not distinguishable from the best, the best not counted).

    Raises
    ------
    InputError
        If only medians are at hand.
    """
    from perturbcore.score.uncertainty.differences import indistinguishable

    _need_folds(published)
    rows = []
    for name in figures:
        data = figure_data(name, published)
        pairs = neighbours(name, published)
        best = indistinguishable(
            _competitors(data),
            data.spec.metric,
            by=(),
            higher_is_better=not data.spec.lower_is_better,
            test_ratio=TEST_RATIO,
        )
        same = best[~best["distinguishable"] & ~best["best"]]
        rows.append(
            {
                "figure": name,
                "ranking": data.spec.title,
                "methods": len(best),
                "neighbours": len(pairs) - 1,
                "interval_without_0": int((pairs["low"] > 0).sum()),
                "distinguishable": int(pairs["distinguishable"].sum()),
                "best": pairs["method"].iloc[0],
                "as_good_as_best": len(same),
            }
        )
    return pd.DataFrame(rows)


def run_choice(published: Published) -> pd.DataFrame:
    """Effect of choosing the run to show for each line in Figure S14.

    Parameters
    ----------
    published : Published
        At level "folds".

    Returns
    -------
    pandas.DataFrame
        model, cell_line, the median of each published run, of what is drawn, and of kNN on WaveGC;
        `gain`, how much lower what is drawn is than the worse run.

    Raises
    ------
    InputError
        If only medians are at hand.
    """
    _need_folds(published)
    scores = published.scores
    older = scores[(scores["perturbation_set"] == "older") & (scores["metric"] == "L2")]
    drawn = figure_data("S14", published).medians()
    rows = []
    for predictor, prefix, display in (
        ("latent_diffusion", "Diffusion", "Latent Diffusion (PCA 50)"),
        ("schrodinger_bridge", "Schrodinger", "Schrödinger Bridge (PCA 50)"),
    ):
        runs = older[older["predictor"] == predictor]
        runs = runs.pivot_table(
            index="cell_line", columns="method", values="value", aggfunc="median"
        )
        for line in drawn.index:
            first, second = runs.loc[line, f"{prefix}_V1"], runs.loc[line, f"{prefix}_R2"]
            rows.append(
                {
                    "model": display.rsplit(" (", 1)[0],
                    "cell_line": line,
                    "run_V1": first,
                    "run_R2": second,
                    "drawn": drawn.loc[line, display],
                    "gain": max(first, second) - drawn.loc[line, display],
                    "WaveGC_kNN": drawn.loc[line, "STRING WaveGC"],
                }
            )
    return pd.DataFrame(rows)


def unused_rows(published: Published) -> pd.DataFrame:
    """Methods of the full-set tables that no figure shows, next to the best that one shows.

    Parameters
    ----------
    published : Published
        At level "folds".

    Returns
    -------
    pandas.DataFrame
        dataset, task, predictor, display, method, modality, n (folds and lines), mean (primary metric),
        reference (the best single embedding of the figure), ahead (folds better than it), and
        difference (mean; positive is better). Best first within a data set and task.

    Raises
    ------
    InputError
        If only medians are at hand.
    """
    _need_folds(published)
    evidence = Evidence(published)
    main = {
        ("essential", "lfc"): "1",
        ("norman", "lfc"): "S1",
        ("sciplex", "lfc"): "S8",
        ("essential", "deg"): "S4",
        ("sciplex", "deg"): "S10",
    }
    shown = {
        (row.dataset, row.task, without_line(row.method, row.cell_line))
        for name, spec in FIGURES.items()
        if not spec.missing and spec.perturbation_set == "full"
        for row in figure_data(name, published)
        .scores[["dataset", "task", "method", "cell_line"]]
        .drop_duplicates()
        .itertuples()
    }
    out = []
    for (dataset, task), figure in main.items():
        metric = PRIMARY[task]
        scores = published.scores
        rows = scores[
            (scores["dataset"] == dataset)
            & (scores["task"] == task)
            & (scores["perturbation_set"] == "full")
            & (scores["metric"] == metric)
        ]
        keys = [without_line(m, c) for m, c in zip(rows["method"], rows["cell_line"], strict=True)]
        rows = rows.assign(key=keys)
        rows = rows[[(dataset, task, k) not in shown for k in keys]]
        rows = rows[rows["modality"] != "Positive control"]
        wide = evidence.better(figure, evidence.fig(figure).folds())
        best = wide[evidence.embeddings(figure)].mean().idxmax()
        for key, group in rows.groupby("key", sort=False):
            values = evidence.better(figure, group.set_index(["cell_line", "fold"])["value"])
            change = values - wide[best].reindex(values.index)
            out.append(
                {
                    "dataset": dataset,
                    "task": task,
                    "predictor": group["predictor"].iloc[0],
                    "display": group["display"].iloc[0],
                    "method": key,
                    "modality": group["modality"].iloc[0],
                    "n": len(group),
                    "mean": group["value"].mean(),
                    "reference": best,
                    "ahead": int((change > 0).sum()),
                    "difference": change.mean(),
                }
            )
    table = pd.DataFrame(out)
    return table.sort_values(
        ["dataset", "task", "difference"], ascending=[True, True, False], ignore_index=True
    )
