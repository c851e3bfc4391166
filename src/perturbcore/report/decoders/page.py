"""The sentences of the chapter on generative decoders, each with its numbers."""

from collections.abc import Sequence

import pandas as pd

from perturbcore.data.published.tables import Published
from perturbcore.data.responses import cell_lines
from perturbcore.models.decoders.distributions import HALVES
from perturbcore.report.decoders.run import MEAN_SHIFTED, SHIFTED, UNCHANGED, DecoderRun
from perturbcore.report.decoders.tables import cost_points, score_table
from perturbcore.report.figures.pareto import pareto_front
from perturbcore.report.published.claims.audit import answer as claim
from perturbcore.report.text import duration, listed, number, percent, plural, signed


def setting(runs: Sequence[DecoderRun], without: Sequence[str]) -> str:
    """Say what is compared on which cells, and which data sets have none."""
    parts = []
    for run in runs:
        obs, lines = run.responses.obs, cell_lines(run.responses)
        held = obs.loc[obs["fold"].isin(run.folds), "perturbation"].nunique()
        parts.append(
            f"{run.title}: {obs['perturbation'].nunique()} perturbations in {len(lines)} cell "
            f"{plural(lines, 'line')} ({listed(lines)}), {run.cells.X.shape[0]:,} cells, "
            f"{run.responses.n_vars} genes; {held} of the perturbations are held out, in "
            f"{len(run.folds)} folds. Every method gets the embedding {run.embedding}. "
            f"{run.note}".strip()
        )
    if without:
        parts.append(
            f"{listed(without)}: no cells in this profile. A decoder needs single cells, and this "
            "profile has responses only, so that nothing is trained: what follows are the "
            "published results."
        )
    return "\n\n".join(parts)


def answer(run: DecoderRun) -> str:
    """Say whether a decoder beats kNN, by how much, and whether the distribution does it."""
    c, table = run.comparison, score_table(run).set_index("method")
    best, knn, floor = table.loc[c.best_of(run.decoders)], table.loc[c.reference], c.means[c.floor]
    better, worse = (_decoders(run, table, verdict) for verdict in ("better", "worse"))
    lead = "No decoder can be shown to beat kNN on the same embedding."
    if better:
        lead = f"{listed(better)} {plural(better, 'beats', 'beat')} kNN on the same embedding."
    parts = [
        f"{run.title}: **{lead}** The best decoder, {best.name}, has L2 {best['value']:.3f}, kNN "
        f"on {run.embedding} {knn['value']:.3f}, the Train Mean {floor:.3f}; its gain over kNN is "
        f"{_gain_said(best)}, over {len(run.folds)} folds. It is better for "
        f"{round(best['wins'] * best['n_each'])} of {best['n_each']:.0f} held-out responses."
    ]
    if worse:
        parts.append(
            f"{listed(worse)} {plural(worse, 'is', 'are')} distinguishably worse than kNN."
        )
    parts.append(
        f"Training and sampling take {duration(best['seconds'])} per fold and cell line, kNN "
        f"{duration(knn['seconds'])}: {best['times_knn']:,.0f} times as long."
    )
    if min(best["value"], knn["value"]) >= floor:
        parts.append(
            "Neither is better than the Train Mean: here the embedding teaches nothing beyond it, "
            "and which of the two is worse decides little."
        )
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
        rest = ", no worse than the decoder: its gain over kNN needs no distribution."
    elif best["verdict"] == "better" and ridge["gain"] <= 0:
        rest = ", so that a linear regression does not explain the gain."
    elif best["verdict"] == "better":
        share = percent(ridge["gain"] / best["gain"])
        rest = f": {share} of the decoder's gain over kNN is that of a better regression."
    return (
        "Ridge regression on the same embedding, which models no distribution, is at "
        f"{ridge['value']:.3f}{rest}"
    )


def take_home(runs: Sequence[DecoderRun], published: Published) -> str:
    """Condense the chapter to one sentence; without cells, to what is published."""
    if not runs:
        return f"No cells in this profile; published: {claim('cole-31', published).number}."
    parts = []
    for run in runs:
        table = score_table(run).set_index("method")
        best = table.loc[run.comparison.best_of(run.decoders)]
        parts.append(
            f"on {run.title.split(' (')[0]}, {listed(_decoders(run, table, 'better'))} of "
            f"{len(run.decoders)} (best {best.name}, a gain of {_gain_said(best)} in L2, "
            f"{best['times_knn']:,.0f} times the time)"
        )
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
    return (
        "Trainings whose validation loss was lowest in the very last epoch, so that more time "
        f"might have helped: {'; '.join(parts)}. Where these are many, a verdict against a decoder "
        "is one against a decoder trained this briefly."
    )


def distribution_answer(summary: pd.DataFrame) -> str:
    """Say whether decoders generate better cells than shifted controls do."""
    by, decoders = summary.set_index("method"), summary.dropna(subset="verdict")
    best = decoders.iloc[0]
    better = list(decoders.loc[decoders["verdict"] == "better", "method"])
    lead = "No decoder can be shown to generate cells closer to"
    if better:
        lead = f"{listed(better)} {plural(better, 'generates', 'generate')} cells closer to"
    elif (decoders["verdict"] == "worse").all():
        lead = "Every decoder generates cells farther from"
    others = (SHIFTED, MEAN_SHIFTED, UNCHANGED, HALVES)
    energies = "; ".join(f"{name} {number(by.loc[name, 'energy'])}" for name in others)
    return (
        f"{best['data']}: {lead} the held-out ones than control cells shifted by the kNN "
        f"prediction. Energy distance of the best decoder, {best['method']}, {best['energy']:.3f}; "
        f"{energies}. The median gene of its cells has {percent(best['variance_ratio'])} of the "
        f"variance observed, that of shifted controls {percent(by.loc[SHIFTED, 'variance_ratio'])}."
    )


def published_sentences(published: Published) -> str:
    """Say what the published full set holds beside Figure S14, and which runs that figure draws."""
    full, drawn = claim("cole-31", published), claim("cole-32", published)
    told = f"Figure S14 mixes runs: {drawn.number}."
    lead = told if drawn.number else "Does Figure S14 mix runs?"
    return f"**{full.number}.** {full.why}\n\n**{lead}** {drawn.why}"
