"""PerturbQA's own test: the authors' split and metric, published methods and ours side by side."""

import warnings
from collections.abc import Callable
from itertools import product

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.data.published.tables import facts
from perturbcore.data.responses import make_responses, rows_of
from perturbcore.data.sets import essential
from perturbcore.models.fusion.kernel_models import fusions
from perturbcore.models.simple.embedding import Floor, OnEmbedding, mask_only
from perturbcore.models.simple.labels import LabelKernel, LabelKNN
from perturbcore.report.fusion.scores import FusionScores, fusion_transformers
from perturbcore.report.text import TEXTS, listed, plural, tell
from perturbcore.score.evaluate import evaluate
from perturbcore.score.model import MASK
from perturbcore.score.task import task_of

LINES = TEXTS["leaderboard"]["lines"]
TASKS = {"de": "deg_pairs", "dir": "dir_pairs"}
CONTROL = "control, sees the test mask"
METRIC, PUBLISHED, OURS, SPLIT = "auroc_per_gene", "Wu et al. 2025", "this book", "perturbqa"
BOUNDS = [f"{line} {bound}" for line in LINES.values() for bound in ("low", "high")]


def split_responses(line: str, task: str) -> AnnData:
    """Return the labelled pairs of one line and task, with the authors' test split as fold 0."""
    pairs = essential.pairs(line, task)
    names, rows = np.unique(pairs["pert"].astype(str), return_inverse=True)
    genes, columns = np.unique(pairs["gene"].astype(str), return_inverse=True)
    observed = np.zeros((len(names), len(genes)), dtype=bool)
    observed[rows, columns] = True
    label = np.zeros(observed.shape, dtype=np.int8)
    value = pairs["label"].to_numpy()
    label[rows, columns] = value if task == "de" else np.where(value == 1, 1, -1)
    test = pairs.groupby("pert")["split"].first().reindex(names) == "test"
    obs = pd.DataFrame({"perturbation": names, "cell_line": line, "fold": np.where(test, 0, -1)})
    out = make_responses(label, obs, genes, dataset=SPLIT, task=TASKS[task], observed=observed)
    out.uns["perturbcore"]["published_split"] = True
    return out


def _on_split(study, there: bool, part: str, models: Callable[..., list]) -> pd.DataFrame:
    """Score the `models` of responses on the authors' split, if the labels are there; tidy."""
    out = [pd.DataFrame()]
    for line in LINES.values() if there else ():
        for short in TASKS:
            responses = split_responses(line, short)
            with warnings.catch_warnings():
                # their split is made per line: a model of one line sees none of its tests
                warnings.filterwarnings("ignore", message=".*joint models.*")
                scores = evaluate(
                    responses, models(responses), store=study.store, folds=[0],
                    scope=study.scope(f"{line}/{short}{part}"), n_jobs=study.n_jobs, progress=False,
                )  # fmt: skip
            # 95 % intervals of the metric over the test perturbations
            notes, none = study.store.notes(scores["key"]), (np.nan, np.nan)
            each = [notes.get(k, {}).get("intervals", {}).get(METRIC, none) for k in scores["key"]]
            low, high = np.array(each, dtype=float).reshape(-1, 2).T
            low, high = (np.where(scores["metric"] == METRIC, v, np.nan) for v in (low, high))
            out.append(scores.assign(low=low, high=high, wu_task=short))
    study.export()
    return pd.concat(out, ignore_index=True)


def ours(study, dataset: str = "essential", *, knn=(5, 10, 20, 40, 80)) -> pd.DataFrame:
    """Score every embedding of the profile on the authors' split; empty where it lacks the labels.

    Predictors are tuned on inner folds of the training split only.
    """
    there = dataset in study.names()
    pairs = product(study.embeddings(dataset) if there else (), [LabelKNN(knn), LabelKernel()])
    models = [*(OnEmbedding(e, p) for e, p in pairs), Floor("train_mean")]
    return _on_split(study, there, "", lambda _: models)


def mask_on_split(study, dataset: str = "essential") -> pd.DataFrame:
    """Score the control `mask_only` on the authors' split; empty where the profile lacks labels."""
    return _on_split(study, dataset in study.names(), "/mask", mask_only)


def mask_on_folds(study, dataset: str) -> pd.DataFrame:
    """Score the control `mask_only` on the folds of a data set of partial labels."""
    responses = study.dataset(dataset).responses
    models = [Floor("train_mean"), *mask_only(responses)]
    scores = evaluate(
        responses, models, store=study.store, scope=study.scope(f"{dataset}/mask"), dataset=dataset,
        n_jobs=study.n_jobs, progress=False,
    )  # fmt: skip
    rows = scores[scores["metric"] == task_of(responses).primary]
    wide = rows.pivot_table(index="cell_line", columns="embedding", values="value")
    table = wide.rename(columns={"": "train_mean", MASK: "mask_only"})
    known = {x: int(rows_of(responses, x).layers["observed"].sum()) for x in table.index}
    table.insert(0, "labels", pd.Series(known))
    return table.rename_axis(columns=None).reset_index()


def mask_said(low: float, high: float, what: str) -> str:
    """Say that which labels are known tells the answer in part; scores from `low` to `high`."""
    return tell("leaderboard.mask", low=low, high=high, what=what)


def with_control(table: pd.DataFrame, control: pd.DataFrame, task: str) -> pd.DataFrame:
    """Add the control `mask_on_split` to a `board`, at its place and marked as no competitor."""
    if not len(control):
        return table
    row = board(control, task)
    row = row[row["origin"] == OURS].assign(origin=CONTROL, method=MASK)
    return pd.concat([table, row]).sort_values("mean", ascending=False, ignore_index=True)


def fused(
    study, f: FusionScores, *, k=(5, 10, 20, 40, 80), inner_folds: int = 3, transformers=None
) -> pd.DataFrame:
    """Score every fusion of the sources of `f` on the authors' split, as `ours`."""
    if not f.pairs:
        return pd.DataFrame()
    deep, _ = fusion_transformers(study, f.data, f.sources, transformers or {}, joint=False)

    def models(responses) -> list:
        return [*fusions(task_of(responses), f.sources, k=k, inner_folds=inner_folds), *deep]

    return _on_split(study, True, "/fused", models)


def scorings(store) -> pd.DataFrame:
    """Count the scorings of the test split per method, over all chapters and settings."""
    log = store.scorings()
    log = log[log["dataset"] == SPLIT]
    times = log.assign(method=_method(log)).groupby(["method", "task", "cell_line"])["finished"]
    most = times.size().groupby("method").max()
    groups = log.groupby(_method(log).rename("method"))
    table = groups.agg(
        units=("finished", "size"), commits=("commit", "nunique"),
        first=("finished", "min"), last=("finished", "max"),
    )  # fmt: skip
    table.insert(1, "most", most)
    return table.sort_values("units", ascending=False).reset_index()


def _method(scores: pd.DataFrame) -> pd.Series:
    name = scores["embedding"] + ", " + scores["predictor"]
    return name.where(scores["embedding"] != "", "Train Mean")


def board(scores: pd.DataFrame, task: str) -> pd.DataFrame:
    """Put ours and the published methods into one table, best mean over lines first.

    Published values have two decimals and no bounds ("<line> low", "<line> high").
    """
    lines = list(LINES.values())
    published = facts("wu2025_table1")
    published = published[published["task"] == task]
    wide = published.pivot(index="method", columns="cell_line", values="auc_per_gene")
    parts = [wide.rename(columns=LINES)[lines].assign(origin=PUBLISHED)]
    if len(scores):
        rows = scores[(scores["wu_task"] == task) & (scores["metric"] == METRIC)]
        rows = rows.assign(method=_method(rows))
        mine = rows.pivot(index="method", columns="cell_line", values="value")
        for bound in [b for b in ("low", "high") if b in rows]:
            wide = rows.pivot(index="method", columns="cell_line", values=bound)
            mine = mine.join(wide.add_suffix(f" {bound}"))
        parts.append(mine.assign(origin=OURS))
    table = pd.concat(parts).reindex(columns=["origin", *lines, *BOUNDS])
    table["mean"] = table[lines].mean(axis=1)
    return table.sort_values("mean", ascending=False).rename_axis("method").reset_index()


def heads(table: pd.DataFrame) -> dict[str, str]:
    """Headings of the columns of `board` to show; bounds only where there are some."""
    columns = [c for c in table if c not in BOUNDS or table[BOUNDS].notna().any(axis=None)]
    return {c: c if c[0].isupper() else c.capitalize() for c in columns}


def standing(scores: pd.DataFrame, task: str) -> tuple[pd.Series, pd.DataFrame, list[str]]:
    """Return our best row of `board`, the published rows, and the lines in which ours is ahead."""
    table = board(scores, task)
    theirs = table[table["origin"] == PUBLISHED]
    mine = table[(table["origin"] != PUBLISHED) & (table["method"] != "Train Mean")].iloc[0]
    return mine, theirs, [x for x in LINES.values() if round(mine[x], 2) > theirs[x].max()]


def verdict(scores: pd.DataFrame, singles: pd.DataFrame | None = None) -> str:
    """Say where the best of `scores` stands against the best published method."""
    if not len(scores):
        return tell("leaderboard.no_labels")
    said, which = [], "ours" if singles is None else "the fusions"
    for task in TASKS:
        mine, theirs, ahead = standing(scores, task)
        beside, alone = "the best published value", None
        if singles is not None:
            alone = standing(singles, task)[0]
            beside = f"the best single embedding of ours ({alone['method']}) and {beside}"
        values = []
        for x in LINES.values():
            first = "" if alone is None else f"{alone[x]:.3f} and "
            values.append(f"{x} {mine[x]:.3f} ({first}{theirs[x].max():.2f})")
        about = dict(what=TEXTS["leaderboard"][task], task=task, mine=mine, which=which)
        about |= dict(beside=beside, values=", ".join(values), ahead=len(ahead), lines=len(LINES))
        said.append(tell("leaderboard.verdict", far=_beyond(mine, theirs), **about))
    if singles is None:
        n = len(scores.loc[scores["embedding"] != "", ["embedding", "predictor"]].drop_duplicates())
        said.append(tell("leaderboard.scored", n=n))
    return "\n\n".join(said)


def _beyond(mine: pd.Series, theirs: pd.DataFrame) -> str:
    """Say which differences to the best published value exceed half of our interval."""
    if mine[BOUNDS].isna().any():
        return ""
    half = {x: (mine[f"{x} high"] - mine[f"{x} low"]) / 2 for x in LINES.values()}
    far = [x for x in LINES.values() if abs(mine[x] - theirs[x].max()) > half[x]]
    what = f"The {plural(len(far), 'difference')} in {listed(far)}" if far else "No difference"
    verb = plural(max(len(far), 1), "exceeds", "exceed")
    return tell("leaderboard.beyond", what=what, verb=verb)


def one_line(scores: pd.DataFrame, control: pd.DataFrame | None = None) -> str:
    """Condense the leaderboard to one sentence, and one on what `mask_on_split` reaches."""
    if not len(scores):
        return tell("leaderboard.published", best=board(scores, "de").iloc[0])
    said = []
    for task in TASKS:
        mine, theirs, _ = standing(scores, task)
        said.append(tell("leaderboard.line", task=task, mine=mine, best=theirs.iloc[0]))
    line = f"Mean AUROC per gene over four lines: {'; '.join(said)}."
    if control is None or not len(control):
        return line
    blind = {task: board(control, task) for task in TASKS}
    means = {t: table.loc[table["origin"] == OURS, "mean"].iloc[0] for t, table in blind.items()}
    return f"{line} {tell('leaderboard.blind', each=[f'{t} {m:.3f}' for t, m in means.items()])}"


def record(fused: pd.DataFrame) -> str:
    """Condense the fusions' places to one clause; empty where there are none."""
    if not len(fused):
        return ""
    said = []
    for task in TASKS:
        mine, theirs, _ = standing(fused, task)
        said.append(f"{task} {mine['mean']:.3f} against {theirs['mean'].max():.2f}")
    return f"on PerturbQA's own split {' and '.join(said)} for the best published"


def combined(singles: pd.DataFrame, fused: pd.DataFrame, task: str) -> pd.DataFrame:
    """Board of fusions, the three best single embeddings and the published methods."""
    if not len(fused):
        return board(fused, task)
    table = board(pd.concat([singles, fused], ignore_index=True), task)
    ours = table["origin"] != PUBLISHED
    fusion = ours & table["method"].isin(board(fused, task)["method"])
    table.loc[fusion, "origin"] = f"fusion ({OURS})"
    table.loc[ours & ~fusion, "origin"] = f"single source ({OURS})"
    return table[~ours | fusion | ((ours & ~fusion).cumsum() <= 3)].reset_index(drop=True)
