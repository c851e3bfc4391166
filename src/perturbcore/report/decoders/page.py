"""The sentences of the chapter on generative decoders, each with its numbers."""

import numpy as np
import pandas as pd

from perturbcore.data.published.tables import Published
from perturbcore.models.decoders.distributions import HALVES
from perturbcore.report.decoders.contest import (
    MEAN_SHIFTED,
    SHIFTED,
    TITLES,
    UNCHANGED,
    Contest,
    shown,
)
from perturbcore.report.decoders.tables import cost_points, is_decoder, score_table
from perturbcore.report.published.claims.audit import answer as claim
from perturbcore.report.sentences import listed, signed


def setting(contests: list[Contest], without: list[str]) -> str:
    """Say what is compared on which cells, and which data sets have none."""
    parts = []
    for c in contests:
        obs = c.responses.obs
        n, lines = obs["perturbation"].nunique(), c.lines()
        held = int(
            obs["fold"].isin(c.folds).groupby(obs["perturbation"], observed=True).any().sum()
        )
        parts.append(
            f"{c.title}: {n} perturbations in {len(lines)} cell {_verb(lines, 'line', 'lines')} "
            f"({listed(lines)}), {c.cells.X.shape[0]:,} cells, {c.responses.n_vars} genes; {held} of the "
            f"perturbations are held out, in {len(c.folds)} folds. Every "
            f"competitor gets the embedding {c.embedding.name}. {c.note}".strip()
        )
    if without:
        parts.append(
            f"{listed(without)}: no cells in this profile. A decoder needs single cells, and this profile has "
            "responses only, so that nothing is trained: what follows are the published results."
        )
    return "\n\n".join(parts)


def verdict(contest: Contest) -> dict:
    """Say in numbers whether a decoder beats kNN.

    Returns
    -------
    dict
        best (the decoder of lowest L2), its row of `score_table`, knn, ridge (rows), beats and loses
        (decoders whose interval of the difference lies below, or above, zero), n.
    """
    table = score_table(contest)
    decoders = table[is_decoder(table)]
    by = table.set_index("display")
    given = contest.embedding.name
    return {
        "best": decoders.iloc[0],
        "knn": by.loc[shown(given, "knn", given)],
        "ridge": by.loc[ridge] if (ridge := shown(given, "ridge", given)) in by.index else None,
        "floor": by.loc["Train Mean"],
        "beats": list(decoders.loc[decoders["difference_high"] < 0, "display"]),
        "loses": list(decoders.loc[decoders["difference_low"] > 0, "display"]),
        "n": len(decoders),
    }


def answer(contest: Contest) -> str:
    """Answer for one data set whether a decoder beats kNN, by how much, and whether the distribution does it."""
    v = verdict(contest)
    best, knn = v["best"], v["knn"]
    low, high = signed(best["difference_low"]), signed(best["difference_high"])
    between = f"{signed(best['difference'])} (95 % interval {low} to {high}, {int(best['n_folds'])} folds)"
    if v["beats"]:
        lead = f"**{listed(v['beats'])} {_verb(v['beats'], 'beats', 'beat')} kNN on the same embedding.**"
    else:
        lead = "**No decoder can be shown to beat kNN on the same embedding.**"
    text = (
        f"{contest.title}: {lead} The best decoder, {best['display']}, has L2 {best['value']:.3f}, kNN on "
        f"{contest.embedding.name} {knn['value']:.3f}, the Train Mean {v['floor']['value']:.3f}; decoder minus "
        f"kNN {between}."
    )
    text += f" It is better for {round(best['wins'] * best['n_each']):.0f} of {best['n_each']:.0f} held-out responses."
    if v["loses"]:
        text += f" {listed(v['loses'])} {_verb(v['loses'], 'is', 'are')} distinguishably worse than kNN."
    ratio = best["seconds"] / knn["seconds"]
    text += (
        f" Training and sampling take {seconds(best['seconds'])} a fold and cell line, kNN "
        f"{seconds(knn['seconds'])}: {ratio:,.0f} times as long."
    )
    if min(best["value"], knn["value"]) >= v["floor"]["value"]:
        text += (
            " Neither is better than the Train Mean: here the embedding teaches nothing beyond it, and which of "
            "the two is worse decides little."
        )
    return " ".join(part for part in (text, _attribution(v), contest.note) if part)


def _attribution(v: dict) -> str:
    """Say whether a model without any distribution, on the same embedding, does as well."""
    ridge, best = v["ridge"], v["best"]
    if ridge is None:
        return ""
    head = f"Ridge regression on the same embedding, which models no distribution, is at {ridge['value']:.3f}"
    if best["difference"] >= 0:
        return f"{head}."
    if ridge["value"] <= best["value"]:
        return f"{head}, no worse than the decoder: its gain over kNN needs no distribution."
    if not v["beats"]:
        return f"{head}."
    if ridge["difference"] < 0:
        share = 100 * ridge["difference"] / best["difference"]
        return (
            f"{head}: {share:.0f} % of the decoder's gain over kNN is that of a better regression."
        )
    return f"{head}, so that a linear regression does not explain the gain."


def take_home(contests: list[Contest], published: Published) -> str:
    """Condense the chapter to one sentence; without cells, to what is published."""
    if not contests:
        return f"No cells in this profile; published: {claim('cole-31', published).number}."
    parts = []
    for c in contests:
        v = verdict(c)
        best = v["best"]
        parts.append(
            f"on {c.title.split(' (')[0]}, {listed(v['beats'])} of {v['n']} (best {best['display']}, "
            f"{signed(best['difference'])} L2, 95 % interval "
            f"{signed(best['difference_low'])} to {signed(best['difference_high'])}, "
            f"{best['seconds'] / v['knn']['seconds']:,.0f} times the time)"
        )
    return f"Decoders shown to beat kNN on the same embedding: {'; '.join(parts)}."


def front_sentence(contests: list[Contest]) -> str:
    """Say who is on the Pareto front of each data set."""
    from perturbcore.report.figures.pareto import pareto_front

    points = cost_points(contests)[0]
    parts = []
    for title, here in points.groupby("data", sort=False):
        on = here[pareto_front(here["seconds"], here["value"])].sort_values("seconds")
        parts.append(f"{title}: {listed(on['display'])}")
    return "On the Pareto front, from quick to slow. " + ". ".join(parts) + "."


def training_sentence(contests: list[Contest]) -> str:
    """Say in how many trainings the validation loss was still falling when the time was up."""
    parts = []
    for c in contests:
        runs = [h for _, h in c.histories().groupby(["display", "cell_line", "fold"], sort=False)]
        runs = [h for h in runs if "val" in h and h["val"].notna().any()]
        late = sum(h["val"].idxmin() == h.index[-1] for h in runs)
        parts.append(f"{c.title}: {late} of {len(runs)}")
    return (
        "Trainings whose validation loss was lowest in the very last epoch, so that more time might have helped: "
        + "; ".join(parts)
        + ". Where these are many, a verdict against a decoder is one against a decoder trained this briefly."
    )


def distribution_answer(summary: pd.DataFrame) -> str:
    """Say whether decoders generate better cells than shifted controls, and how far they are from the floor."""
    by = summary.set_index("display")
    decoders = summary[summary["display"].isin(TITLES.values())]
    best = decoders.iloc[0]
    shift = by.loc[SHIFTED]
    better = list(decoders.loc[decoders["high"] < 0, "display"])
    worse = list(decoders.loc[decoders["low"] > 0, "display"])
    if better:
        lead = f"{listed(better)} {_verb(better, 'generates', 'generate')} cells closer to the held-out ones"
    elif worse and len(worse) == len(decoders):
        lead = "Every decoder generates cells farther from the held-out ones"
    else:
        lead = "No decoder can be shown to generate cells closer to the held-out ones"
    energies = "; ".join(
        f"{name} {by.loc[name, 'energy']:.3f}"
        for name in (SHIFTED, MEAN_SHIFTED, UNCHANGED, HALVES)
    )
    return (
        f"{summary['data'].iloc[0]}: {lead} than control cells shifted by the kNN prediction. Energy distance of "
        f"the best decoder, {best['display']}, {best['energy']:.3f}; {energies}. The median gene of its cells has "
        f"{100 * best['variance_ratio']:.0f} % of the variance observed, that of shifted controls "
        f"{100 * shift['variance_ratio']:.0f} %."
    )


def published_sentences(published: Published) -> str:
    """Say what the published rows of the full set hold beside Figure S14, and which runs that figure draws."""
    full, drawn = claim("cole-31", published), claim("cole-32", published)
    return (
        f"**{full.number}.** {full.why}\n\n**Figure S14 mixes runs: {drawn.number}.** {drawn.why}"
    )


def seconds(value: float) -> str:
    """Write a duration with the precision it deserves."""
    if not np.isfinite(value):
        return "an unknown time"
    if value >= 120:
        return f"{value / 60:.0f} minutes"
    return (
        f"{value:.0f} s"
        if value >= 10
        else f"{value:.1f} s"
        if value >= 0.1
        else f"{1000 * value:.0f} ms"
    )


def _verb(names, one: str, many: str) -> str:
    return one if len(names) == 1 else many
