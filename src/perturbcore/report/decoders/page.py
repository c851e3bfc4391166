"""The sentences of the chapter on generative decoders, each with its numbers."""

from collections.abc import Sequence

import pandas as pd

from perturbcore.data.published.tables import Published
from perturbcore.data.responses import cell_lines
from perturbcore.models.decoders.distributions import HALVES
from perturbcore.report.decoders.run import MEAN_SHIFTED, SHIFTED, UNCHANGED, DecoderRun
from perturbcore.report.decoders.tables import cost_points, score_table
from perturbcore.report.figures.decoders import pareto_front
from perturbcore.report.published.claims.audit import answer as claim
from perturbcore.report.text import listed, number, signed, tell


def setting(runs: Sequence[DecoderRun], without: Sequence[str]) -> str:
    """Say what is compared on which cells, and which data sets have none."""
    parts = []
    for run in runs:
        obs, lines = run.responses.obs, cell_lines(run.responses)
        held = obs.loc[obs["fold"].isin(run.folds), "perturbation"].nunique()
        sizes = dict(n=obs["perturbation"].nunique(), cells=run.cells.X.shape[0])
        sizes |= dict(genes=run.responses.n_vars, held=held, folds=len(run.folds))
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
    wins = round(best["wins"] * best["n_each"])
    parts = [tell("decoders.best", run=run, lead=lead, wins=wins, **about)]
    if worse:
        parts.append(tell("decoders.worse", names=worse))
    parts.append(tell("decoders.times", best=best, knn=knn))
    if min(best["value"], knn["value"]) >= floor:
        parts.append(tell("decoders.neither"))
    ridge = run.method(run.embedding, "ridge")
    if ridge is not None:
        parts.append(_attribution(best, table.loc[ridge]))
    return " ".join([*parts, run.note]).strip()


def _decoders(run: DecoderRun, table: pd.DataFrame, verdict: str) -> list[str]:
    """Return the decoders of this verdict against kNN, best first."""
    return [m for m in table.index[table["verdict"] == verdict] if m in run.decoders]


def _gain_said(row: pd.Series) -> str:
    interval = f"{signed(row['gain_low'])} to {signed(row['gain_high'])}"
    return f"{signed(row['gain'])} (95 % interval {interval})"


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
        about = dict(title=run.title.split(" (")[0], better=better, n=len(run.decoders))
        parts.append(tell("decoders.line", best=best, gain=_gain_said(best), **about))
    return f"Decoders shown to beat kNN on the same embedding: {'; '.join(parts)}."


def front_sentence(runs: Sequence[DecoderRun]) -> str:
    """Say who is on the Pareto front of each data set."""
    parts = []
    for title, here in cost_points(runs)[0].groupby("data", sort=False):
        on = here[pareto_front(here["seconds"], here["value"])].sort_values("seconds")
        parts.append(f"{title}: {listed(on['display'])}")
    return "On the Pareto front, from quick to slow. " + ". ".join(parts) + "."


def training_sentence(runs: Sequence[DecoderRun]) -> str:
    """Say in how many trainings the validation loss was still falling when the time was up."""
    parts = []
    for run in runs:
        history = run.histories().dropna(subset="val")
        trainings = [h["val"] for _, h in history.groupby(["method", "cell_line", "fold"])]
        late = sum(int(val.to_numpy().argmin() == len(val) - 1) for val in trainings)
        parts.append(f"{run.title}: {late} of {len(trainings)}")
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
