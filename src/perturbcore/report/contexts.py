"""New cell lines: scores of effects and of cells, which part is found, what is said."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.digest import code_digest, digest
from perturbcore.data.contexts import context_responses
from perturbcore.data.responses import cell_lines
from perturbcore.data.sets.base import Dataset
from perturbcore.data.simulate.screen import simulate_screen
from perturbcore.models.registry import build_models
from perturbcore.models.simple import evaluate_embeddings
from perturbcore.report import figures, pages
from perturbcore.report.comparison import Comparison
from perturbcore.report.paired import REPEATED, method_names
from perturbcore.report.published.figures import figure_data
from perturbcore.report.text import TEXTS, number, tell
from perturbcore.score.cells import SIX, THREE, references
from perturbcore.score.evaluate import stamp
from perturbcore.score.limits import limit_units
from perturbcore.score.metrics.registry import metric
from perturbcore.score.model import NEGATIVE, POSITIVE, Fold, fit_predict
from perturbcore.score.store import UnitResult
from perturbcore.score.task import task_of

PLAIN = ("context_mean", "mean_offset", "shrunken_offset", "similar_lines")
ON_CODES = ("mlp", {"name": "mlp", "one_hot": True}, "line_kernel")
MEAN_RESPONSE = "mean_response"
SHARED, OWN = "shared by all lines", "of the line alone"
LEAST_RANKED, LEAST_LINES = 30, 3  # perturbations and lines below which methods are not ranked
SAID = TEXTS["contexts"]  # among them, in words, what is known where each split is asked


class Scoreboard(Comparison):
    """Methods between the two yardsticks of the measured cells of each line."""

    @property
    def floor(self) -> str:
        """The mean response of the line, which only its answers tell."""
        return self._control((MEAN_RESPONSE,), "floor")


def context_models(responses: AnnData, embeddings: Sequence) -> list:
    """Make the models of new lines; those on codes need an embedding."""
    wanted = [*PLAIN, *(ON_CODES if embeddings else ())]
    return build_models(wanted, task_of(responses), embeddings)


def score_contexts(
    study, name: str, split: str, *, embeddings: Sequence, n_known: int, limit=None, seed: int = 0
) -> pd.DataFrame:
    """Score the models and those that the profile lists on held-out lines of a data set.

    `split`: see `perturbcore.data.contexts.context_responses`; `limit`: the data set's ceiling.
    """
    responses = laid_out(study.dataset(name), split, n_known, seed)
    models = context_models(responses, embeddings)
    models += build_models(study.profile.models, task_of(responses), embeddings)
    limits = [] if limit is None else limit_units(limit, responses, seed, dataset=name)
    known = task_of(responses).metrics
    for unit in limits:
        unit.metrics = {m: v for m, v in unit.metrics.items() if m in known}
    scores = evaluate_embeddings(
        responses, embeddings, (), models=models, controls=("train_mean", "no_change"),
        store=study.store, scope=study.scope(f"{name}-{split}"), dataset=name, seed=seed,
        also=limits, progress=False,
    )  # fmt: skip
    study.export()
    return scores


def laid_out(data: Dataset, split: str, n_known: int = 5, seed: int = 0) -> AnnData:
    """Responses of a data set, laid out by held-out line, with its control cells."""
    how = dict(n_known=n_known, seed=seed)
    return context_responses(data.responses, split, screen=data.screen, **how)


def score_as_cells(study, name: str, scores: pd.DataFrame, *, n_splits: int, seed: int = 0):
    """Score kept predictions of effects as cells, by the metrics of the challenge."""
    screen = study.dataset(name).screen
    units = scores.drop_duplicates("key").set_index("key")
    units = units[units["modality"] != POSITIVE]
    made_by = [code_digest("perturbcore.score.cells"), n_splits, seed]
    keys = {key: digest("cells", key, made_by) for key in units.index}
    ends = units.drop_duplicates(["cell_line", "fold"])
    keys |= {(key, end): digest("cells", key, end, made_by) for key in ends.index
             for end in (MEAN_RESPONSE, REPEATED)}  # fmt: skip
    if len(study.store.have(keys.values())) < len(keys):
        how: Any = dict(perturbation="perturbation", cell_line="cell_line")
        how |= dict(n_splits=n_splits, seed=seed)
        control = str(screen.obs["perturbation"][screen.obs["is_control"].to_numpy()].iloc[0])
        known = references(screen, control=control, **how)
        study.store.put(_units(study.store, units, ends, keys, known, seed))
    scope = study.scope(f"{name}-cells")
    study.store.claim(scope, list(keys.values()))
    study.export()
    return study.store.scores(keys.values())


def _units(store, units, ends, keys: dict, known: dict, seed: int) -> list[UnitResult]:
    """Score each unit's kept prediction in its line, and the yardsticks."""
    out = []

    def add(key, row, values, **more):
        values = values | known[row["cell_line"]].scaled(values)
        there = {m: v for m, v in values.items() if m not in SIX or np.isfinite(v)}
        raw = {m: float(v) for m, v in (there | {"vcc2026": values["vcc2026"]}).items()}
        about = {c: getattr(v, "item", lambda v=v: v)() for c, v in row.items()} | more | stamp()
        out.append(UnitResult(key, about, {m: v for m, v in raw.items() if np.isfinite(v)}))

    columns = [c for c in units if c not in ("metric", "value", "common", *stamp())]
    for key, row in units[columns].iterrows():
        one, kept = known[row["cell_line"]], store.kept(key)
        effects = pd.DataFrame(kept["values"], kept["perturbation"]).loc[list(one.groups)]
        add(keys[key], row, one.score_effects(effects.to_numpy(), seed))
        if key in ends.index:
            for end, kind, values in (
                (MEAN_RESPONSE, NEGATIVE, one.baseline), (REPEATED, POSITIVE, one.repeat)
            ):  # fmt: skip
                said = dict(embedding="", predictor=end, modality=kind, chosen="", seconds=0.0)
                add(keys[key, end], row, values, **said)
    return out


def board_of(scores: pd.DataFrame | None) -> Scoreboard | None:
    """Put methods between the yardsticks; none where there are no counts, or one perturbation."""
    if scores is None or "vcc2026" not in set(scores["metric"]):
        return None
    return Scoreboard(scores, "vcc2026")


def metrics_table(scores: pd.DataFrame | None) -> pd.DataFrame:
    """Value of each metric of cells by method, mean over lines, best first; empty without cells."""
    if scores is None:
        return pd.DataFrame({"method": ["no counts at hand"]})
    names = [m for m in ("vcc2026", *SIX, *THREE) if m in set(scores["metric"])]
    named = scores.assign(method=method_names(scores))
    wide = named.pivot_table(index="method", columns="metric", values="value")[names]
    sign = 1 if metric(names[0]).higher_is_better else -1
    wide = wide.loc[(sign * wide[names[0]]).sort_values(ascending=False).index]
    wide = wide.rename(columns={m: metric(m).label for m in names})
    return wide.rename_axis(columns=None).reset_index()


# ------------------------------------------------------------------------- which part is found


def parts_found(
    data: Dataset, embeddings: Sequence, *, targets: int = 2, n_known: int = 5, seed: int = 0
) -> pd.DataFrame | None:
    """How much of the shared and of the line's own part of true effects each model finds.

    Asked are the first `targets` lines, from one other line up to all, with nothing and `n_known`
    perturbations known. The shared part is the true effect in the same simulation without
    line-specific programmes, the own part what is left of it at a right angle; a share is the
    projection of the prediction on a part over that of the truth. None where it is not known.
    """
    simulation = data.extras.get("simulation")
    if simulation is None:
        return None
    plain = dict(simulation.parameters) | {
        "line_specificity": 0.0,
        "cells_per_perturbation": (1, 1),
    }
    truth, shared = simulation.true_effects, simulate_screen(**plain).true_effects
    lines, rows = cell_lines(data.responses), []
    for split, known in (("new_line", 0), ("few_known", n_known)):
        whole = laid_out(data, split, max(known, 1), seed)
        models = context_models(whole, embeddings)
        for place, target in enumerate(lines[:targets]):
            others = [line for line in lines if line != target]
            for n in range(1, len(lines)):
                fold = Fold.of(whole, place, [target, *others[:n]])
                at = [f"{target}|{name}" for name in fold.test_ids]
                t, u = (np.asarray(x[at].X, dtype=float) for x in (truth, shared))
                own = t - _on(t, u)[:, None] * u
                active = ~truth[at].obs["near_null"].to_numpy(dtype=bool)
                for model in models:
                    said = fit_predict(model, fold).values
                    for part, axis in ((SHARED, u), (OWN, own)):
                        share = (_on(said, axis) / _on(t, axis))[active].mean()
                        rows.append((model.name, n, part, known, float(share)))
    table = pd.DataFrame(rows, columns=["method", "lines", "part", "known", "share"])
    return table.groupby(["method", "lines", "part", "known"], sort=False).mean().reset_index()


def _on(rows: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Coefficient of each row on its axis."""
    return (rows * axis).sum(axis=1) / np.maximum((axis**2).sum(axis=1), 1e-12)


def show_parts(chapter, table: pd.DataFrame | None) -> None:
    """Show the curves of `parts_found`, where there are any."""
    if table is None:
        return
    state = np.where(table["known"] > 0, f", {table['known'].max()} known", "")
    named = table.assign(panel=table["part"] + state)
    look: Any = dict(xlabel="other lines", ylabel="share of the true effect", log=False)
    drawn = figures.curves(named, "lines", "share", "method", panel="panel", **look)
    pages.show_figure(chapter, drawn, "parts", table)


def parts_said(table: pd.DataFrame | None) -> str:
    """Say who finds which part with the fewest and with the most lines."""
    if table is None:
        return tell("contexts.parts_real")
    least, most = int(table["lines"].min()), table["lines"].max()
    said = []
    for known, part in ((0, SHARED), (0, OWN), (table["known"].max(), OWN)):
        rows = table[(table["known"] == known) & (table["part"] == part)]
        wide = rows.pivot(index="method", columns="lines", values="share")
        best = wide[most].idxmax()
        state = "nothing known of the line" if not known else f"{known} perturbations of it known"
        which = dict(state=state, part=part, best=best, least=least, most=most)
        first, last = wide.loc[best, [least, most]]
        said.append(tell("contexts.part", first=first, last=last, **which))
    return " ".join(said)


# ------------------------------------------------------------------------- what is said


def answer(c: Comparison, data: Dataset, split: str) -> str:
    """Say what other lines tell; where there is too little to rank, only that."""
    assert data.responses is not None
    n, lines = data.responses.obs[["perturbation", "cell_line"]].nunique()
    state = f"{data.title}, where {SAID[split]}"
    if can_rank(data):
        return c.answer(state)
    rows = c.gains("No Change", methods=c.competitors)
    better = rows.loc[rows["verdict"] == "better", "method"].tolist()
    nothing, mean = (number(float(c.means[m])) for m in ("No Change", "Mean offset"))
    about = dict(label=c.label, nothing=nothing, mean=mean, better=better)
    return tell("contexts.too_few", state=state, n=n, lines=lines, **about)


def verdicts(c: Comparison, data: Dataset, board: Scoreboard | None) -> list[str]:
    """Verdict on the best method; none where there is too little to rank."""
    if not can_rank(data):
        return []
    return [(board or c).verdict_said(data.title)]


def can_rank(data: Dataset) -> bool:
    """Whether there are perturbations and lines enough to rank methods."""
    assert data.responses is not None
    n, lines = data.responses.obs[["perturbation", "cell_line"]].nunique()
    return bool(n >= LEAST_RANKED and lines >= LEAST_LINES)


def embedding_said(c: Comparison | None, published=None) -> str:
    """Say what an embedding adds to one-hot codes in the network, here and as published."""
    said = []
    nets = [m for m in (c.competitors if c else ()) if m.startswith("MLP (")]
    on = [m for m in nets if "one-hot" not in m]
    if c and on and len(nets) > len(on):
        one = c.gains(next(m for m in nets if m not in on), methods=on).iloc[0]
        said.append(tell("contexts.codes", on=on[0][5:-1], label=c.label, row=one))
    if published is not None:
        means = figure_data("S13", published).medians("overlap_at_N").mean()
        on, codes, state = means[["MLP (ChatGPT)", "MLP (One-Hot)", "STATE"]]
        kept = (codes - state) / (on - state)
        said.append(tell("contexts.published", on=on, codes=codes, state=state, kept=kept))
    return " ".join(said)


def one_line(c: Comparison, data: Dataset, board: Scoreboard | None) -> str:
    """Condense the answer."""
    if board is None:
        return c.one_line() if can_rank(data) else answer(c, data, "new_line")
    row = board.ranking().set_index("method").loc[board.best, ["value", "low", "high"]]
    value, low, high = (number(v, 2) for v in row)
    over = "" if row.hasnans else f" (95 % interval over lines {low} to {high})"
    return tell("contexts.line", line=c.one_line(), best=board.best, value=value + over)
