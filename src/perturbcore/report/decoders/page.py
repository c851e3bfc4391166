"""What the chapter on generative decoders shows: its tables and sentences."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from perturbcore.data.published.tables import Published
from perturbcore.data.responses import cell_lines, rows_of
from perturbcore.models.decoders.distributions import HALVES, METRICS, training_latent
from perturbcore.report.comparison import Comparison
from perturbcore.report.decoders.run import COSTS, MEAN_SHIFTED, SHIFTED, UNCHANGED, DecoderRun
from perturbcore.report.published.claims.audit import answer as claim
from perturbcore.report.text import HEADINGS, interval_said, number, signed, tell
from perturbcore.score.model import Fold

DISTRIBUTION_COLUMNS = HEADINGS["distributions"]


def score_table(run: DecoderRun) -> pd.DataFrame:
    """Rank the methods of a run, each competitor against kNN on the same embedding; best first."""
    c = run.comparison
    columns = ["method", "embedding", "predictor", "modality", "value", "low", "high", "seconds"]
    gains = c.gains()[["method", "gain", "low", "high", "p_holm", "verdict"]]
    gains = gains.rename(columns={"low": "gain_low", "high": "gain_high"})
    costs = c.scores.groupby("method")[COSTS].mean()
    table = c.ranking()[columns].merge(gains, on="method", how="left")
    table = table.join(costs, on="method")
    return table.assign(
        beats_knn=table["verdict"] == "better",
        times_knn=table["seconds"] / c.seconds[c.reference],
        data=run.data.title,
    )


def summary_table(runs: Sequence[DecoderRun]) -> pd.DataFrame:
    """`score_table` of every data set, one below the other."""
    return pd.concat([score_table(run) for run in runs], ignore_index=True)


def other_metrics(runs: Sequence[DecoderRun]) -> pd.DataFrame:
    """Mean of every shared metric, one row per method and data set."""
    parts = []
    for run in runs:
        names = dict.fromkeys(["L2", *run.scores["metric"]])
        means = pd.DataFrame({m: Comparison(run.scores, m).means for m in names})
        means = means.sort_values("L2").rename_axis("method").reset_index()
        means.insert(0, "data", run.data.title)
        parts.append(means)
    return pd.concat(parts, ignore_index=True)


def cost_points(runs: Sequence[DecoderRun]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Methods with their seconds for the Pareto figure, and lines for those that cost nothing."""
    table = summary_table(runs).rename(columns={"method": "display"})
    # the two other controls are far off and would squeeze the rest
    ends = table["predictor"].isin(["train_mean", "experimental_error"])
    costly = table["seconds"].gt(0) & ~table["embedding"].isin(["", "idealized"])
    return table[costly], table[ends]


def curve_table(runs: Sequence[DecoderRun]) -> pd.DataFrame:
    """Losses relative to the first epoch, mean and range over folds and lines, by method."""
    parts = []
    for run in runs:
        history = run.histories()
        history["panel"] = history["method"]
        if len(runs) > 1:
            history["panel"] += f"\n{run.data.name}"
        for column, series in (("train_loss", "training"), ("val", "validation")):
            if column in history:
                loss = history[column]
                first = loss.groupby([history[c] for c in ("method", "cell_line", "fold")])
                part = history[["panel"]].assign(series=series, epoch=history["epoch"] + 1)
                parts.append(part.assign(value=loss / first.transform("first")).dropna())
    grouped = pd.concat(parts).groupby(["panel", "series", "epoch"], sort=False)["value"]
    return grouped.agg(value="mean", low="min", high="max").reset_index()


def distribution_summary(run: DecoderRun, table: pd.DataFrame) -> pd.DataFrame:
    """Mean of each distributional metric by source of cells, best energy distance first.

    `unexplained`: energy distance over that of unchanged controls; gain of each decoder in energy
    distance over the controls shifted by kNN, with low, high and verdict.
    """
    unit = ["metric", "cell_line", "fold", "method", "embedding", "predictor"]
    scores = table.groupby(unit, sort=False, as_index=False)[["value", "n_train", "n_test"]].mean()
    scores["modality"] = "Advanced"
    folds = scores.groupby(["metric", "method", "fold"])["value"].mean()
    means = folds.groupby(["metric", "method"]).mean().unstack("metric")[METRICS]
    means["data"] = run.data.title
    means["unexplained"] = means["energy"] / means.loc[UNCHANGED, "energy"]
    gains = Comparison(scores, "energy", SHIFTED).gains(methods=run.decoders).set_index("method")
    means = means.join(gains[["gain", "low", "high", "verdict"]])
    return means.sort_values("energy").rename_axis("method").reset_index()


def panels(runs: Sequence[DecoderRun]) -> pd.DataFrame:
    """L2 scores for the box plot; panels are cell lines, named by data set if there are several."""
    parts = []
    for run in runs:
        rows, short = run.comparison.scores, run.data.title.split(" (")[0]
        where = rows["cell_line"].astype(str)
        if len(runs) > 1:
            where = short if len(cell_lines(run.responses)) == 1 else short + ", " + where
        parts.append(rows.assign(cell_line=where))
    return pd.concat(parts, ignore_index=True)


SHOWN, MOST = 3, 90  # perturbations, and cells of a sample


def picture_table(run: DecoderRun, n_components: int = 30) -> pd.DataFrame:
    """Lay out cells of the strongest perturbations of the first fold and line, of those kept."""
    line, number, cells = cell_lines(run.responses)[0], run.folds[0], run.cells
    fold = Fold.of(run.responses, number, (line,))
    latent = training_latent(cells, fold, n_components)
    shift = next(m for m in run.shifts if m.name == SHIFTED)
    # the last decoder has random vectors
    kept = {m.name: m.generated(run.responses, line, number) for m in [shift, *run.models[:-1]]}
    common = set.intersection(*(set(k.obs["perturbation"]) for k in kept.values()))
    here = rows_of(run.responses, line)
    size = pd.Series(np.linalg.norm(np.asarray(here.X, dtype=np.float64), axis=1))
    size.index = here.obs["perturbation"].astype(str)
    ranked = size[fold.test_ids].sort_values(ascending=False, kind="stable").index
    frames = []
    for name in [p for p in ranked if p in common][:SHOWN]:
        own = cells.of_perturbations(line, [name])
        control = cells.draw_controls(line, MOST // 3, number, set(cells.batch[own]))
        z0, z1 = latent.transform(cells.X[control]), latent.transform(cells.X[own])
        axes = _axes(z0, z1)
        parts = [("", "control", z0), ("observed", "observed", z1)]
        for column, made in kept.items():
            mine = made[made.obs["perturbation"] == name]
            parts.append((column, "generated", latent.transform(mine.X)))
        for column, sample, z in parts:
            spread = np.linspace(0, len(z) - 1, min(MOST, len(z))).astype(int)
            frame = pd.DataFrame((z[spread] - z0.mean(axis=0)) @ axes, columns=["x", "y"])
            frames.append(frame.assign(perturbation=name, column=column, sample=sample))
    return pd.concat(frames, ignore_index=True)


def _axes(z0, z1) -> np.ndarray:
    """Return two orthonormal columns: from control to observed, and the widest at right angles."""
    first = z1.mean(axis=0) - z0.mean(axis=0)
    first = first / max(np.linalg.norm(first), 1e-12)
    rest = z1 - z1.mean(axis=0)
    rest = rest - np.outer(rest @ first, first)
    second = np.linalg.svd(rest, full_matrices=False)[2][0]
    # the sign of a principal component is arbitrary: the largest coordinate is positive
    second = second * np.sign(second[np.argmax(np.abs(second))])
    return np.stack([first, second], axis=1)


def setting(runs: Sequence[DecoderRun], without: Sequence[str]) -> str:
    """Say what is compared on which cells, and which data sets have none."""
    parts = []
    for run in runs:
        obs, lines = run.responses.obs, cell_lines(run.responses)
        held = obs.loc[obs["fold"].isin(run.folds), "perturbation"].nunique()
        sizes = dict(n=obs["perturbation"].nunique(), held=held, folds=len(run.folds))
        parts.append(tell("decoders.setting", run=run, lines=lines, **sizes).strip())
    if without:
        parts.append(tell("decoders.no_cells", names=list(without)))
    return "\n\n".join(parts)


def answer(run: DecoderRun) -> str:
    """Say whether a decoder beats kNN, by how much, and whether the distribution does it."""
    c, table = run.comparison, score_table(run).set_index("method")
    best, knn, floor = table.loc[c.best_of(run.decoders)], table.loc[c.reference], c.means[c.floor]
    better, worse = (_decoders(run, table, verdict) for verdict in ("better", "worse"))
    about = dict(best=best, knn=knn, floor=floor, gain=_gain_said(best), folds=len(run.folds))
    lead = tell("decoders.better" if better else "decoders.no_better", names=better)
    parts = [tell("decoders.best", run=run, lead=lead, **about)]
    if worse:
        parts.append(tell("decoders.worse", names=worse))
    parts.append(tell("decoders.times", best=best, knn=knn))
    if min(best["value"], knn["value"]) >= floor:
        parts.append(tell("decoders.neither"))
    if ridge := run.comparison.named(embedding=run.embedding, predictor="ridge"):
        parts.append(_attribution(best, table.loc[ridge]))
    return " ".join([*parts, run.note]).strip()


def _decoders(run: DecoderRun, table: pd.DataFrame, verdict: str) -> list[str]:
    """Return the decoders of this verdict against kNN, best first."""
    return [m for m in table.index[table["verdict"] == verdict] if m in run.decoders]


def _gain_said(row: pd.Series) -> str:
    interval = interval_said(row["gain_low"], row["gain_high"], "95 % interval ")
    return f"{signed(row['gain'])} ({interval})"


def _attribution(best: pd.Series, ridge: pd.Series) -> str:
    """Say whether a model without any distribution, on the same embedding, does as well."""
    rest = "."
    if best["gain"] > 0 and ridge["value"] <= best["value"]:
        rest = tell("decoders.no_distribution")
    elif best["verdict"] == "better" and ridge["gain"] <= 0:
        rest = tell("decoders.unexplained")
    elif best["verdict"] == "better":
        rest = tell("decoders.regression", share=ridge["gain"] / best["gain"])
    return tell("decoders.ridge", value=ridge["value"], rest=rest)


def take_home(runs: Sequence[DecoderRun], published: Published) -> str:
    """Condense the chapter to one sentence; without cells, to what is published."""
    if not runs:
        return f"No cells in this profile; published: {claim('cole-31', published).number}."
    parts = []
    for run in runs:
        table = score_table(run).set_index("method")
        best = table.loc[run.comparison.best_of(run.decoders)]
        better = _decoders(run, table, "better")
        about = dict(title=run.data.title.split(" (")[0], better=better, n=len(run.decoders))
        parts.append(tell("decoders.line", best=best, gain=_gain_said(best), **about))
    return f"Decoders shown to beat kNN on the same embedding: {'; '.join(parts)}."


def training_sentence(runs: Sequence[DecoderRun]) -> str:
    """Say in how many trainings the validation loss was still falling when the time was up."""
    parts = []
    for run in runs:
        history = run.histories().dropna(subset="val")
        trainings = [h["val"] for _, h in history.groupby(["method", "cell_line", "fold"])]
        late = sum(int(val.to_numpy().argmin() == len(val) - 1) for val in trainings)
        parts.append(f"{run.data.title}: {late} of {len(trainings)}")
    return tell("decoders.training", each="; ".join(parts))


def distribution_answer(summary: pd.DataFrame) -> str:
    """Say whether decoders generate better cells than shifted controls do."""
    by, decoders = summary.set_index("method"), summary.dropna(subset="verdict")
    better = list(decoders.loc[decoders["verdict"] == "better", "method"])
    lead = tell("decoders.closer" if better else "decoders.no_closer", names=better)
    if (decoders["verdict"] == "worse").all():
        lead = tell("decoders.farther")
    others = (SHIFTED, MEAN_SHIFTED, UNCHANGED, HALVES)
    energies = "; ".join(f"{name} {number(by.loc[name, 'energy'])}" for name in others)
    about = dict(energies=energies, shifted=by.loc[SHIFTED, "variance_ratio"])
    return tell("decoders.distributions", best=decoders.iloc[0], lead=lead, **about)


def published_sentences(published: Published) -> str:
    """Say what the published full set holds beside Figure S14, and which runs that figure draws."""
    full, drawn = claim("cole-31", published), claim("cole-32", published)
    told = f"Figure S14 mixes runs: {drawn.number}."
    lead = told if drawn.number else "Does Figure S14 mix runs?"
    return f"**{full.number}.** {full.why}\n\n**{lead}** {drawn.why}"
