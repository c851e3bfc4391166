"""Reproduced against published: the same rows side by side, with their differences."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from perturbcore.core.errors import InputError
from perturbcore.data.authors.layout import layout_of
from perturbcore.data.published.tables import Published, load_published
from perturbcore.report.reproduction.benchmark import METRICS, Benchmark
from perturbcore.report.text import tell

KEYS = ["dataset", "task", "cell_line", "fold", "predictor", "display", "metric"]
VALUES = ["reproduced", "published", "difference"]
COLUMNS = [*KEYS, "modality", "method", *VALUES, "n", "status"]
CONTROLS = {
    "train_mean": "Train Mean",
    "no_change": "No Change",
    "experimental_error": "Experimental Error",
}
EMBEDDINGS = {"random": "Random Embeddings", "idealized": "Idealized Baseline"}
CORRELATIONS = ("Spearman", "Pearson")
# neither a solver nor a seed moves these: the same files give the same values
FIXED = ("Train Mean", "No Change")
EQUAL = 1e-3  # medians are kept with three decimals
N_FOLDS = 5
ALIKE = 0.01  # the published components come from an unseeded solver
STATUS = {"both": "both", "left_only": "not published", "right_only": "not reproduced"}


def published_names(scores: pd.DataFrame) -> pd.DataFrame:
    """Call the rows of a scores table as the figures of the paper do, in the column `display`."""
    scores = scores.copy()
    scores["display"] = scores["embedding"].replace(EMBEDDINGS)
    control = scores["predictor"].isin(CONTROLS)
    scores.loc[control, "display"] = scores.loc[control, "predictor"].map(CONTROLS)
    undefined = (scores["predictor"] == "no_change") & scores["metric"].isin(CORRELATIONS)
    scores.loc[undefined, "value"] = np.nan
    return scores


def compare(scores: pd.DataFrame, published: Published | None = None) -> pd.DataFrame:
    """Set reproduced and published scores side by side, row by row.

    `scores` are those of `reproduce`; `published` those of `load_published` by default: single
    folds where the tables are at hand; else the kept medians over folds, and then both columns are
    medians and `fold` is -1.

    Returns columns `COLUMNS`: `difference` = reproduced - published; `n` folds behind the row;
    `status` "both", "not published" or "not reproduced"; `method` is the published name of the row.
    Published rows are those of the data sets, cell lines and estimators in `scores`, of the full
    perturbation set.
    """
    published = load_published() if published is None else published
    ours = published_names(scores)
    ours = ours[ours["metric"].isin(METRICS) & (ours["fold"] >= 0)]
    if ours.empty:
        raise InputError(f"the scores have none of the published metrics {', '.join(METRICS)}")
    theirs = published.scores[published.scores["perturbation_set"] == "full"]
    for keys in (["dataset", "cell_line"], ["task"], ["predictor"], ["metric"]):
        theirs = theirs.merge(ours[keys].drop_duplicates(), on=keys)
    both = [_averaged(t, published.level) for t in (ours, theirs)]
    if published.level == "folds":
        same = both[0][["dataset", "cell_line", "fold"]].drop_duplicates()
        both[1] = both[1].merge(same, on=["dataset", "cell_line", "fold"])
    left = both[0].rename(columns={"value": "reproduced"})
    right = both[1].rename(columns={"value": "published"}).drop(columns="n")
    table = left.merge(right, on=KEYS, how="outer", suffixes=("", "_published"), indicator="status")
    table["modality"] = table["modality"].fillna(table["modality_published"])
    table["status"] = table["status"].astype(str).map(STATUS)
    table["difference"] = table["reproduced"] - table["published"]
    # a value that is missing in the published table by definition is not a row of its own
    table = table.dropna(subset=["reproduced", "published"], how="all")
    return table[COLUMNS].sort_values(KEYS, ignore_index=True)


def _averaged(table: pd.DataFrame, level: str) -> pd.DataFrame:
    names = [*KEYS, "modality", *(["method"] if "method" in table else [])]
    if level == "folds" or (table["fold"] < 0).all():
        out = table[[*names, "value"]].assign(n=1)
    else:
        grouped = table.assign(fold=-1).groupby(names, sort=False, dropna=False)["value"]
        out = grouped.agg(value="median", n="size").reset_index()
    return out.drop_duplicates(KEYS)


def agreement(table: pd.DataFrame) -> pd.DataFrame:
    """Summarise L2 in the table of `compare` by data set, estimator, embedding; worst first."""
    rows = table[(table["metric"] == "L2") & (table["status"] == "both")]
    by = ["dataset", "predictor", "display", "modality"]
    out = rows.groupby(by, sort=False, as_index=False).agg(
        rows=("difference", "size"),
        reproduced=("reproduced", "median"),
        published=("published", "median"),
        mean_difference=("difference", "mean"),
        largest=("difference", lambda d: d.abs().max()),
    )
    return out.sort_values(["dataset", "largest"], ascending=[True, False], ignore_index=True)


def families(check: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Condense to families of values: reference, family, values compared, largest difference."""
    tuned = check.drop_duplicates(["dataset", "predictor", "embedding"])
    off = tuned["chosen"].astype(float) - tuned["chosen_sklearn"].astype(float)
    theirs = table[table["status"] == "both"]
    rows = {
        "plain scikit-learn": [
            check.assign(family="scores of " + check["predictor"]),
            tuned.assign(family="tuned parameter of " + tuned["predictor"], difference=off),
        ],
        "published": [theirs.assign(family="scores of " + theirs["modality"].str.lower())],
    }
    every = pd.concat({name: pd.concat(parts) for name, parts in rows.items()}, names=["reference"])
    found = every.groupby(["reference", "family"], sort=False)["difference"]
    return found.agg(values="size", largest=lambda d: d.abs().max()).reset_index()


def counts(table: pd.DataFrame) -> pd.DataFrame:
    """Count rows of L2 by data set and status."""
    rows = table[table["metric"] == "L2"]
    return rows.groupby(["dataset", "status"]).size().rename("rows").reset_index()


def other_data(done: Benchmark, table: pd.DataFrame) -> dict[str, str]:
    """Find data sets whose files are not the published ones, and say what differs."""
    found = {}
    scores, rows = done.scores, table[(table["metric"] == "L2") & (table["status"] == "both")]
    for dataset, genes in done.genes.items():
        layout, said = layout_of(dataset), []
        if genes != layout.genes:
            said.append(f"{genes:,} genes (published: {layout.genes:,})")
        floor = scores[(scores["dataset"] == dataset) & (scores["predictor"] == "train_mean")]
        sizes = (floor["n_train"] + floor["n_test"]).groupby(floor["cell_line"]).max()
        for line, n in sizes.items():
            published = layout.perturbations.get(line, n)
            if n - published not in (0, 1):  # the paper counts the controls as one more
                said.append(f"{n:,.0f} perturbations in {line} (published: {published:,})")
        fixed = rows[(rows["dataset"] == dataset) & rows["display"].isin(FIXED)]
        fixed = fixed[(fixed["fold"] >= 0) | (fixed["n"] == N_FOLDS)]
        fixed = fixed[fixed["difference"].abs() > EQUAL]
        for name, off in fixed.groupby("display")["difference"]:
            said.append(f"L2 of {name} differs by up to {off.abs().max():.3g}")
        if said:
            found[dataset] = ", ".join(said)
    return found


def verdict(table: pd.DataFrame, other: Mapping[str, str] | None = None) -> str:
    """Say in a sentence how well the published scores (L2) were reproduced."""
    if other:
        why = "; ".join(f"{name}: {text}" for name, text in other.items())
        said = tell("reproduction.other", why=why)
        table = table[~table["dataset"].isin(other)]
        return said if table.empty else f"{said} {verdict(table)}"
    rows = table[(table["metric"] == "L2") & (table["status"] == "both")]
    if rows.empty:
        return "No row of L2 is both reproduced and published."
    rows = rows[~rows["display"].isin(["Random Embeddings"])]
    off = rows["difference"].abs()
    about = dict(worst=rows.loc[off.idxmax()], most=off.max(), n=len(rows), least=ALIKE)
    return tell("reproduction.verdict", alike=int((off <= ALIKE).sum()), **about)
