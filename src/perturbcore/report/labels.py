"""What the chapter on labels of differential expression computes, shows and says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.responses import cell_lines, rows_of
from perturbcore.data.sets.base import Dataset
from perturbcore.models.simple.labels import LabelKNN, LabelLogistic
from perturbcore.report.comparison import Comparison
from perturbcore.report.fusion.scores import fusion_transformers
from perturbcore.report.paired import REPEATED
from perturbcore.report.text import HEADINGS, listed, tell
from perturbcore.score.metrics.registry import metric as find_metric
from perturbcore.score.task import task_of

CONTROLS = ("train_mean", "most_frequent", "no_change", "idealized")
NEGATIVE, RANDOM, MAIN = "Negative control", "random", "logistic"
# effects on log1p(1e4) expression that a screen of some dozen cells could see
VISIBLE = 0.25
# a difference of F1 below this is not worth an explanation
NOTABLE = 0.005


@dataclass(frozen=True, eq=False)
class Labelled:
    """One data set of labels, scored with the logistic classifier and with kNN.

    `left_out`: embeddings asked for that this data set has not, or hardly has.
    """

    data: Dataset
    scores: pd.DataFrame
    left_out: list

    @property
    def title(self) -> str:
        """Title without what stands in brackets."""
        return self.data.title.split(" (")[0]

    def comparison(self, metric: str | None = None, predictor: str = MAIN) -> Comparison:
        """Methods of one predictor, with floors and ceilings."""
        return Comparison(self.scores, metric, predictor=predictor)


def models_of(study, task: str, *, k, C, max_iter: int) -> list:
    """List the classifier and kNN for a task of labels, complete or known in part."""
    kind = task_of(task)
    if kind.partial:
        return [LabelLogistic(C), LabelKNN(k)]
    if not kind.classes:
        raise ParameterError(tell("labels.no_labels", task=task))
    return study.models(task, knn=k, C=C, softmax={"max_iter": max_iter})[::-1]


def evaluate_labels(
    study,
    names: Sequence[str],
    *,
    embeddings: Sequence[str] | Mapping[str, Sequence[str]] = (),
    k: Sequence[int],
    C: Sequence[float],
    C_of: Mapping[str, Sequence[float]] | None = None,
    max_iter: int = 100,
    n_components: int = 100,
    n_outer: int = 3,
    n_inner: int = 3,
    n_trials: int = 20,
    transformers: Mapping[str, Mapping] | None = None,
    seed: int = 0,
) -> tuple[dict[str, Labelled], dict[str, str]]:
    """Score embeddings on data sets of labels with the logistic classifier and with kNN.

    Only `embeddings` of the profile, by data set or for all, and random vectors (all by default).
    `C_of` has the grid of C for single data sets; `transformers`: data set -> fusions of them all,
    see `perturbcore.report.fusion.scores.fusion_transformers`; the experimental error is resampled
    `n_outer`, `n_inner`, `n_trials` times where there are cells. Returns the scored data sets, and
    why others are not at hand, by name.
    """
    parts, absent = {}, {}
    for name in names:
        try:
            data = study.dataset(name)
        except InputError as error:
            absent[name] = str(error)
            continue
        only = embeddings.get(name, ()) if isinstance(embeddings, Mapping) else embeddings
        built = study.embeddings(name, seed=seed, only=only)
        if all(e.modality == NEGATIVE for e in built):
            raise InputError(tell("labels.no_vectors", name=name, embeddings=repr(list(only))))
        grid = dict(C_of or {}).get(name, C)
        models = models_of(study, data.task, k=k, C=grid, max_iter=max_iter)
        limit = study.ceiling(name, n_outer=n_outer, n_inner=n_inner, n_trials=n_trials)
        options = {"controls": CONTROLS} if task_of(data.task).classes else {}
        wanted = dict(transformers or {}).get(name, {})
        sources = [e for e in built if not e.modality.endswith("control")]
        deep, lost = fusion_transformers(study, data, sources, wanted)
        scores = study.evaluate(
            name, models, protocol=study.protocol(n_components=n_components), embeddings=built,
            models=deep, ceiling=limit, seed=seed, **options,
        )  # fmt: skip
        left_out = [*sorted(set(only) - {e.name for e in built}), *lost]
        parts[name] = Labelled(data, scores, left_out)
    return parts, absent


def fused_said(part: Labelled, wanted: Mapping[str, Mapping]) -> str:
    """Compare each fusion of all embeddings with the best single one, and the fusions themselves.

    `wanted`: as in `perturbcore.report.fusion.scores.fusion_transformers`; empty without any.
    """
    from perturbcore.models.fusion.network import preset

    c = part.comparison()
    fused = [m for m in wanted if m in c.methods.index]
    single = [m for m in c.competitors if m not in fused]
    if not fused or not single:
        return ""
    best, said = c.best_of(single), []
    for name in fused:
        published = preset(wanted[name]["preset"]).max_epochs
        epochs = wanted[name].get("max_epochs", published)
        about = dict(title=part.title, a=name, b=best, row=c.between(name, best))
        said.append(tell("labels.fused", epochs=epochs, published=published, **about))
    said.append(tell("labels.fused_floor", floor=c.means[c.floor]))
    if len(fused) > 1:
        a = c.best_of(fused)
        b = c.best_of([m for m in fused if m != a])
        said.append(tell("labels.fused_both", a=a, b=b, row=c.between(a, b)))
    return " ".join(said)


def averaged(scores: pd.DataFrame, label: str) -> pd.DataFrame:
    """Average over the cell lines within each fold, as published for Tahoe: one row per fold."""
    n = scores["cell_line"].nunique()
    keys = ["dataset", "task", "fold", "embedding", "modality", "predictor", "metric"]
    out = scores.groupby(keys, as_index=False)[["value", "n_train", "n_test"]].mean()
    # a method that is missing in a line would be averaged over other lines than the rest
    whole = scores.groupby(keys)["cell_line"].nunique().to_numpy() == n
    return out[whole].assign(cell_line=label)


def panels(parts: Mapping[str, Labelled], by_line: Sequence[str] = ()) -> pd.DataFrame:
    """Lay scores out as panels of one figure (column `cell_line`): the mean over the lines of each.

    Data sets in `by_line` get a panel per cell line as well, as published for Sci-Plex.
    """
    out = []
    for name, part in parts.items():
        front = f"{part.title}: " if len(parts) > 1 else ""
        n = part.scores["cell_line"].nunique()
        if name in by_line or n == 1:
            out.append(part.scores.assign(cell_line=front + part.scores["cell_line"].astype(str)))
        if n > 1:
            out.append(averaged(part.scores, f"{front}mean of {n} lines"))
    return pd.concat(out, ignore_index=True)


def label_counts(part: Labelled) -> pd.DataFrame:
    """Count labels by cell line."""
    rows = []
    for line in cell_lines(part.data.responses):
        layers = rows_of(part.data.responses, line).layers
        label = np.asarray(layers["deg"])
        known = np.asarray(layers.get("observed", np.ones(label.shape)), dtype=bool)
        moved, asked = (label != 0) & known, known.any(axis=0)
        rows.append([
            line, len(label), int(asked.sum()), moved.sum() / known.sum(),
            float(np.median(moved.sum(axis=1))), float((~moved.any(axis=1)).mean()),
            float((~moved.any(axis=0))[asked].mean()),
        ])  # fmt: skip
    return pd.DataFrame(rows, columns=list(HEADINGS["labels"]))


def truth_table(part: Labelled) -> pd.DataFrame | None:
    """Compare the labels of a simulated screen with the true effects, by cell line; else None."""
    simulation = part.data.extras.get("simulation")
    if simulation is None:
        return None
    rows = []
    for line in cell_lines(part.data.responses):
        here = rows_of(part.data.responses, line)
        true = simulation.true_effects[here.obs_names, here.var_names]
        y, effect = np.asarray(here.layers["deg"]), np.asarray(true.X)
        right, seen = np.sign(effect) == y, np.abs(effect) >= VISIBLE
        inert = true.obs["inert" if "inert" in true.obs else "near_null"].to_numpy(bool)
        shares = {"right": right[y != 0], "found": right[seen], "inert": y[inert] != 0}
        means = {k: float(v.mean()) if v.size else np.nan for k, v in shares.items()}
        rows.append({"cell_line": line, **means})
    return pd.DataFrame(rows)


def families(c: Comparison) -> pd.DataFrame:
    """Condense a ranking to families of embeddings, each held against random vectors."""
    real = c.methods.loc[c.competitors, "modality"]
    best = {family: c.best_of(list(part.index)) for family, part in real.groupby(real)}
    out = pd.DataFrame({"modality": list(best), "method": list(best.values())})
    out["n"] = out["modality"].map(real.value_counts())
    out["value"] = out["method"].map(c.means)
    out["median"] = out["modality"].map(c.means[real.index].groupby(real).median())
    for column, floor in (("random", c.named(embedding=RANDOM)), ("floor", c.floor)):
        table = c.gains(floor, methods=list(best.values())).set_index("method") if floor else {}
        out[f"over_{column}"] = out["method"].map(table["gain"] if floor else {})
        out[f"p_{column}"] = out["method"].map(table["p_holm"] if floor else {})
    return out.sort_values("value", ascending=not c.higher_is_better, ignore_index=True)


def beats_floors(c: Comparison) -> tuple[list[str], list[str]]:
    """Embeddings that are better than random vectors and than the Train Mean, and those not."""
    good = set(c.competitors)
    for floor in filter(None, (c.named(embedding=RANDOM), c.floor)):
        gains = c.gains(floor, methods=c.competitors)
        good &= set(gains.loc[gains["verdict"] == "better", "method"])
    return [m for m in c.competitors if m in good], [m for m in c.competitors if m not in good]


def by_line(part: Labelled, metric: str) -> pd.DataFrame:
    """Mean over folds by method and cell line, and over the lines, both predictors side by side."""
    tables = {p: part.comparison(metric, p).table() for p in (MAIN, "knn")}
    keys = ["method", "modality"]
    long = [t.melt(keys, var_name="cell_line", value_name=p) for p, t in tables.items()]
    out = long[0].merge(long[1], on=[*keys, "cell_line"], how="outer")
    up = find_metric(metric).higher_is_better
    return out.sort_values(["cell_line", MAIN], ascending=[True, not up], ignore_index=True)


def absent_said(parts: Mapping[str, Labelled], absent: Mapping[str, str]) -> str:
    """Name data sets that are not at hand, with the reason, and embeddings that others lack."""
    said = [f"Left out: data set `{name}`. {why}" for name, why in absent.items()]
    for part in parts.values():
        if part.left_out:
            said.append(tell("labels.left_out", title=part.title, names=part.left_out))
    return "\n\n".join(said)


def reading(c: Comparison, title: str) -> str:
    """Say what floor, random vectors and ceiling mean for the scores of a data set."""
    floor, random, why = c.means[c.floor], c.means.get(c.named(embedding=RANDOM), np.nan), ""
    if abs(random - floor) > NOTABLE:
        why = tell("labels.above" if random > floor else "labels.below")
    ideal = c.means[c.methods["embedding"] == "idealized"].max()
    text = tell("labels.floors", title=title, floor=floor, random=random, why=why, ideal=ideal)
    named = {p: c.means[m] for m, p in c.methods["predictor"].items()}
    again = named.get(REPEATED, named.get("experimental_error"))
    if again is None:
        return text + tell("labels.no_cells")
    bootstrap = ", by the published bootstrap"
    if "noise_floor" in named:
        text += f"; the true effects would reach {named['noise_floor']:.3f} (noise floor)"
        bootstrap = f", {named['experimental_error']:.3f} by the published bootstrap"
    text += tell("labels.again", again=again, bootstrap=bootstrap)
    if again > named.get("noise_floor", again):
        text += " The score rewards calling rare classes at all, which a repeated experiment does."
    return text


def _numbers(c: Comparison) -> dict:
    """Collect what every sentence on the best embedding tells of a comparison."""
    good, rest = beats_floors(c)
    random, floor = c.means.get(c.named(embedding=RANDOM), np.nan), c.means[c.floor]
    about = dict(best=c.best, value=c.means[c.best], random=random, floor=floor, good=good)
    return about | {"n": len(good) + len(rest)}


def finding(c: Comparison, title: str) -> str:
    """Say which embedding is best, and how many beat random vectors and the Train Mean."""
    told = _numbers(c)
    good = told.pop("good")
    some = f"{len(good)} ({listed(good)})" if good else "none"
    about = dict(title=title, about=c.about(c.best), label=c.label, some=some)
    return tell("labels.finding", **told, **about)


def one_line(parts: Mapping[str, Labelled], metric: str) -> str:
    """Condense the answer on all data sets of drugs to one sentence."""
    said = []
    for part in parts.values():
        c = part.comparison(metric)
        told = _numbers(c) | {"score": "macro F1" if metric == "f1_score" else c.label}
        told["good"] = len(told["good"]) or "none"
        said.append(tell("labels.line", title=part.title, **told))
    if not said:
        return "No labels of drugs are at hand in this profile."
    return f"Which genes a drug moves: {'; '.join(said)}."


def truth_said(part: Labelled) -> str:
    """Say how true the labels of a simulated screen are; empty where it cannot be known."""
    table = truth_table(part)
    if table is None:
        return ""
    mean = table[["right", "found", "inert"]].mean()
    mean["inert"] *= 100
    return tell("labels.truth", title=part.title, **mean)
