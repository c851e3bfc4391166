"""The published benchmark on the authors' data, beside the published scores; error of raw cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import pandas as pd

from perturbcore.core.errors import InputError, check_choice
from perturbcore.core.profile import load_profile
from perturbcore.data.authors.layout import file_of, layout_of, present
from perturbcore.data.authors.raw import raw_screens
from perturbcore.data.authors.read import read_authors_responses
from perturbcore.data.published.tables import Published, load_published
from perturbcore.data.screens.declare import normalise
from perturbcore.embeddings.authors import read_embeddings
from perturbcore.embeddings.controls import random_embedding
from perturbcore.models.simple import evaluate_embeddings
from perturbcore.models.simple.knn import KNN
from perturbcore.models.simple.linear import Linear
from perturbcore.models.simple.space import Protocol
from perturbcore.report.text import tell
from perturbcore.score.ceiling.ceiling import noise_ceiling
from perturbcore.score.limits import ceiling_scores

METRICS = ("L2", "MSE", "MAE", "Spearman", "Pearson")
ESTIMATORS = ("knn", "lasso")
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


@dataclass(frozen=True)
class Benchmark:
    """Scores of the published benchmark, and one line for everything that was left out.

    `genes`: number of genes by data set.
    """

    scores: pd.DataFrame
    notes: tuple[str, ...] = ()
    genes: Mapping[str, int] = field(default_factory=dict)


def score_dataset(
    dataset: str,
    root=None,
    *,
    embeddings: Sequence[str] | None = None,
    estimators: Sequence[str] = ESTIMATORS,
    missing_drugs: str = "error",
    seed: int = 0,
    **options,
) -> Benchmark:
    """Run the published benchmark of one data set (Cole et al. 2026, Supplemental Methods).

    Embeddings through standardisation, PCA and both estimators, tuned on inner folds; controls; the
    experimental error of each perturbation where the published tables are at hand. `embeddings`:
    only these, by display or published name; `missing_drugs`: see `read_embeddings`; `options`: of
    `evaluate_embeddings`.
    """
    layout, published = layout_of(dataset), load_profile("paper")
    lasso = Linear("lasso", layout.alpha, tolerance=published.lasso_tolerance)
    made = {"knn": KNN(layout.k), "lasso": lasso}
    models = [made[check_choice("estimator", name, ESTIMATORS)] for name in estimators]
    responses = read_authors_responses(dataset, root=root)
    used, left_out = read_embeddings(
        dataset, responses, root, missing_drugs=missing_drugs, names=embeddings
    )
    q, ids = layout.n_components, sorted(responses.obs["perturbation"].astype(str).unique())
    drawn = random_embedding(ids, q, seed, identifier=layout.identifier)
    protocol = Protocol(n_components=q, inner_order=published.inner_order)
    scores = evaluate_embeddings(
        responses, [*used, drawn], models, protocol=protocol, metrics=METRICS, seed=seed,
        scope=f"reproduction/{dataset}", **options,
    )  # fmt: skip
    about = responses.uns["perturbcore"]
    notes = [*about.get("notes", []), *left_out]
    error = load_published().ceilings
    if error is not None and (error["dataset"] == dataset).any():
        # as published, the 0.9 quantile of every metric, of correlations too
        error = error[(error["dataset"] == dataset) & error["metric"].isin(["L2", "MSE", "MAE"])]
        keys = pd.MultiIndex.from_frame(scores[["cell_line", "fold"]].drop_duplicates())
        kept = pd.MultiIndex.from_frame(responses.obs[["cell_line", "fold"]]).isin(keys)
        try:
            error = ceiling_scores(error, responses[kept])
        except InputError as why:
            notes.append(f"{about['dataset']}: no experimental error, {why}")
        else:
            error = error.assign(dataset=about["dataset"], task=about["task"], seed=0)
            scores = pd.concat([scores, error], ignore_index=True)
    genes = {dataset: responses.n_vars}
    return Benchmark(scores, tuple(notes), genes)


def reproduce(
    datasets: Sequence[str],
    root=None,
    *,
    cell_lines: Mapping[str, Sequence[str]] = MappingProxyType({}),
    **options,
) -> Benchmark:
    """Run the published benchmark on every data set named whose file is there.

    `root`: folder of the layout; `cell_lines`: by data set, where not all; `options`: see
    `score_dataset`.
    """
    wanted = [layout_of(d).name for d in datasets]
    there, left_out = present(root)
    notes = [line for line in left_out if line.split(":")[0] in wanted]
    there = [d for d in there if d in wanted]
    if not there:
        raise InputError(f"{file_of(wanted[0], root=root)}: no data of the authors there: {notes}")
    done = [score_dataset(d, root, cell_lines=cell_lines.get(d), **options) for d in there]
    scores = pd.concat([one.scores for one in done], ignore_index=True)
    notes += [note for one in done for note in one.notes]
    genes = {name: n for one in done for name, n in one.genes.items()}
    return Benchmark(scores, tuple(notes), genes)


def error_of_raw(
    dataset: str,
    folder,
    *,
    control: str | None = None,
    totals: str = "kept",
    dose: float | None = None,
    n_outer: int | None = None,
    n_inner: int | None = None,
    cell_line: str | None = None,
    backed: bool = True,
    **options,
) -> pd.DataFrame:
    """Compute the experimental error of every perturbation (Cole et al. 2026, Eq. 12).

    `control`: controls of the whole line, or of the same batch; `totals`: chemicals: the published
    error is on cells normalised over kept genes, its effects over all; `n_outer, n_inner`: draws of
    batches and of cells in each; all as published by default. `cell_line`: only this line;
    `options`: of `noise_ceiling`. Returns the published columns.
    """
    layout = layout_of(dataset)
    first = check_choice("totals", totals, ("all", "kept")) == "kept"
    control = check_choice("control", control or layout.error_control, ("global", "matched"))
    outer, inner = layout.trials
    tables, lines = [], set()
    for screen in raw_screens(dataset, folder, filter_first=first, dose=dose, backed=backed):
        here = screen.obs["cell_line"].astype(str)
        lines |= set(here)
        if cell_line is not None:
            screen = screen[np.flatnonzero(here == cell_line)]
            if not screen.n_obs:
                continue
        if not first and "genes" in screen.uns["perturbcore"]:
            screen = normalise(screen)[:, list(screen.uns["perturbcore"]["genes"])]
        draws = dict(n_outer=n_outer or outer, n_inner=n_inner or inner)
        metrics = ("L2",) if layout.chemical else METRICS
        tables.append(noise_ceiling(screen, control=control, metrics=metrics, **draws, **options))
    if not tables:
        raise InputError(f"{folder}: no line '{cell_line}'; there are: {', '.join(sorted(lines))}")
    keys = ["cell_line", "perturbation", "quantile", "n_batches"]
    wide = pd.concat(tables).pivot(index=keys, columns="metric", values="value").reset_index()
    wide = wide.rename(columns={"perturbation": "pert_id", "n_batches": "n_batches_pert"})
    columns = ["quantile", *METRICS, "pert_id", "n_batches_pert"]
    if wide["cell_line"].nunique() > 1:
        columns.append("cell_line")
    if layout.chemical:
        wide = wide.rename(columns={"L2": "value"})
        wide["cell_line"] = f"{dataset}_" + wide["cell_line"]
        columns = ["quantile", "value", "pert_id", "n_batches_pert", "cell_line"]
    return wide[columns].rename_axis(columns=None)


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


def families(table: pd.DataFrame) -> pd.DataFrame:
    """Condense rows that `compare` found in both: values compared, the largest difference."""
    found = table.groupby(table["modality"].rename("family"), sort=False)["difference"]
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
