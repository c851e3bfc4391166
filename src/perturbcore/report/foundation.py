"""What foundation models add to all that is known of genes, and where little is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from perturbcore.data.identifiers import previous_symbols
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.sources import BuildContext, find_source
from perturbcore.models.fusion.kernel_models import leading_fusion
from perturbcore.models.simple import predictor
from perturbcore.report.comparison import Comparison
from perturbcore.report.figures.style import FOUNDATION
from perturbcore.report.paired import PREDICTORS
from perturbcore.report.text import gain_said, listed, plural, tell
from perturbcore.score.uncertainty import t_statistics

BASE, EVERY = "All knowledge", "+ all of these"


@dataclass(frozen=True, eq=False)
class FoundationScores:
    """Scores with and without foundation models, under one predictor.

    `tried` are the foundation models at hand (or what stands in for them), `missing` those that are
    not; `controls` maps each to a plain count of the same text or sequence; `known` are the sources
    without both; `every` compares all of them, `BASE` being the reference.
    """

    study: Any
    data: Any
    tried: list[Embedding]
    missing: list[str]
    controls: dict[str, str]
    known: list[Embedding]
    every: Comparison
    under: str

    @property
    def models(self) -> list[str]:
        """Names of foundation models among what was tried; none where all are stand-ins."""
        return [e.name for e in self.tried if e.modality in FOUNDATION]

    @cached_property
    def added(self) -> list[str]:
        """Methods that are `BASE` and something else."""
        return [m for m in self.every.methods.index if m.startswith("+ ")]

    @cached_property
    def gains(self) -> pd.DataFrame:
        """Compare each addition with `BASE`, over all lines."""
        return self.every.gains(BASE, methods=self.added)

    @cached_property
    def lines(self) -> pd.DataFrame:
        """Compare each addition with `BASE`, in every line."""
        return self.every.gains(BASE, by=("cell_line",), methods=self.added)

    @cached_property
    def alone(self) -> pd.DataFrame:
        """Compare each source alone with its control, under each predictor."""
        pairs = {n: c for n, c in self.controls.items() if n in {e.name for e in self.tried}}
        ways = [PREDICTORS.get(p, p) for p in ("knn", self.under)]
        names = self.every.methods.index
        reference = {f"{n}, {w}": f"{c}, {w}" for w in ways for n, c in pairs.items()}
        reference = {m: r for m, r in reference.items() if m in names and r in names}
        return self.every.gains(reference).sort_values("value", ascending=False)


def score_foundation(
    study,
    dataset: str,
    *,
    foundation: Sequence[str],
    controls: Mapping[str, str],
    k: Sequence[int],
    n_components: int,
    inner_folds: int,
    seed: int = 0,
) -> FoundationScores:
    """Score all knowledge with and without each foundation model, and each of them alone.

    `foundation` and `controls` are names of the profile's embeddings; all others but controls are
    knowledge. The predictor is the best one that fuses sources by kernels for the task.
    """
    data, made = study.dataset(dataset), study.embeddings(dataset, seed=seed)
    there = {e.name: e for e in made}
    aside = list(dict.fromkeys([*foundation, *controls.values()]))
    known = [e for e in made if e.name not in aside and not e.modality.endswith("control")]
    tried = [there[n] for n in foundation if n in there]
    single = [there[n] for n in aside if n in there]

    def model(sources, name, *modality):
        options = dict(k=k, n_components=n_components, inner_folds=inner_folds)
        return leading_fusion(data.task, sources, name, *modality, **options)

    models = [model([e], e.name, e.modality) for e in single]
    models += [model(known, BASE), *(model([*known, e], f"+ {e.name}") for e in single)]
    models += [model([*known, *tried], EVERY)] if len(tried) > 1 else []
    scores = study.evaluate(
        dataset, [predictor("knn", data.task, grid=k)], models=models, embeddings=single,
        protocol=study.protocol(n_components=n_components), seed=seed,
    )  # fmt: skip
    missing = [n for n in foundation if n not in there]
    every = Comparison(scores, reference=BASE)
    left = {n: c for n, c in controls.items() if n in there and c in there}
    return FoundationScores(study, data, tried, missing, left, known, every, models[0].predictor)


def setting(f: FoundationScores) -> str:
    """Say what was compared, and whether any foundation model is in it."""
    known, tried = (list(dict.fromkeys(e.name for e in of)) for of in (f.known, f.tried))
    said = [tell("foundation.setting", f=f, n=len(known), known=known, tried=tried)]
    if not f.models and f.tried:
        said.append(tell("foundation.stand_ins", tried=tried))
    if f.missing:
        said.append(f"Not at hand here: {listed(f.missing)}.")
    return " ".join(said)


def answer(f: FoundationScores) -> str:
    """Say what each foundation model adds to all knowledge, and what its control adds."""
    table, c = f.gains.set_index("method"), f.every
    said = [tell("foundation.base", base=BASE, f=f, value=c.means[BASE])]
    for e in f.tried:
        row, control = table.loc[f"+ {e.name}"], f.controls.get(e.name)
        other = f"; {control} adds {gain_said(table.loc[f'+ {control}'])}" if control else ""
        said.append(tell("foundation.adds", name=e.name, row=row, other=other))
    if EVERY in table.index:
        said.append(tell("foundation.together", row=table.loc[EVERY]))
    said += [tell("foundation.alone", row=row) for _, row in f.alone.iterrows()]
    return "\n".join(f"- {line}" for line in [*said, *filter(None, [c.mask_said()])])


def one_line(f: FoundationScores) -> str:
    """Condense the chapter to one sentence."""
    names = {f"+ {e.name}" for e in f.tried} | {EVERY}
    rows = f.gains[f.gains["method"].isin(names)]
    if rows.empty:
        return tell("foundation.none")
    best, better = rows.iloc[0], int((rows["verdict"] == "better").sum())
    return tell(
        "foundation.line", n=len(rows), sources=len({e.name for e in f.known}),
        who="Foundation models" if f.models else "Stand-ins (no foundation model is in this build)",
        better=better or "none", verb=plural(better or 1, "is", "are"), name=best["method"][2:],
        best=best, f=f, value=f.every.means[BASE],
    )  # fmt: skip


def knowledge_of(f: FoundationScores, network: str) -> pd.DataFrame:
    """Tell of each perturbed gene whether it has `edges` in a network, and its number of `sets`."""
    ids = pd.Index(sorted(f.data.responses.obs["perturbation"].astype(str).unique()))
    spec = next(dict(s) for s in f.study.profile.embeddings if s.get("builder") == "annotation")
    sets = find_source(spec, "sets", BuildContext(dataset=f.data)).read()
    count = pd.Series([g for genes in sets.values() for g in set(genes)]).value_counts()
    older = previous_symbols() if spec.get("aliases") else {}
    today = [i if i in count.index else older.get(i, i) for i in ids]
    edges = ids.isin(next(e.ids for e in f.known if e.name == network))
    return pd.DataFrame({"edges": edges, "sets": count.reindex(today, fill_value=0).values}, ids)


def by_knowledge(f: FoundationScores, network: str) -> pd.DataFrame:
    """Gains of genes of which more or less is known; one row per group and addition.

    Means over perturbations within folds, with 95 % intervals over folds; base: score of `BASE`.
    """
    about = f.every.scores[["key", "method", "cell_line", "fold"]].drop_duplicates()
    about = about[about["method"].isin([BASE, *f.added])]
    each = f.study.store.per_perturbation(about["key"], f.every.metric).merge(about, on="key")
    unit = ["fold", "cell_line", "perturbation"]
    wide = each.pivot_table(index=unit, columns="method", values="value")
    found = knowledge_of(f, network).reindex(wide.index.get_level_values("perturbation"))
    cuts = np.unique(np.quantile(found["sets"][found["sets"] > 0], [1 / 3, 2 / 3]).round())
    where = np.digitize(found["sets"], [1, *(cuts + 1)])
    edge = [0, *(int(c) for c in cuts)]
    names = ["in no gene set"]
    for a, b in pairwise(edge):
        names.append(f"in {a + 1} to {b} gene sets" if b > a + 1 else f"in {b} gene sets")
    names.append(f"in more than {edge[-1]} gene sets")
    groups = {
        f"without edges in {network}": ~found["edges"].to_numpy(bool),
        f"with edges in {network}": found["edges"].to_numpy(bool),
        **{name: where == i for i, name in enumerate(names)},
    }
    rows = []
    for name, mask in groups.items():
        part = wide[mask].dropna()
        if part.empty:
            continue
        gain = f.every.sign * part[f.added].sub(part[BASE], axis=0)
        folds = gain.groupby(level="fold").mean()
        t = t_statistics(folds.to_numpy(), 1 / max(len(folds) - 1, 1))
        n = part.index.get_level_values("perturbation").nunique()
        table = pd.DataFrame({"gain": t["mean"], "low": t["low"], "high": t["high"]}, folds.columns)
        rows.append(table.reset_index().assign(group=name, n=n, base=part[BASE].mean()))
    return pd.concat(rows, ignore_index=True)


def knowledge_table(table: pd.DataFrame) -> pd.DataFrame:
    """Lay `by_knowledge` out: groups as rows, additions as columns."""
    text = table.assign(text=[gain_said(r) for _, r in table.iterrows()])
    wide = text.pivot(index="group", columns="method", values="text").loc[table["group"].unique()]
    first = table.groupby("group")[["n", "base"]].first().loc[wide.index]
    return first.join(wide).rename_axis(columns=None).reset_index()


def knowledge_said(f: FoundationScores, table: pd.DataFrame) -> str:
    """Say whether foundation models help where little is known, either way."""
    rows = table[table["method"].isin([f"+ {e.name}" for e in f.tried])]
    little = rows["group"].str.startswith("without") | (rows["group"] == "in no gene set")
    said = []
    for group, part in rows[little].groupby("group", sort=False):
        each = [f"{r['method'][2:]} {gain_said(r)}" for _, r in part.iterrows()]
        said.append(f"Genes {group} (n = {int(part['n'].iloc[0])}): {listed(each)}.")
    up, down = (rows[little][c] for c in ("low", "high"))
    sign = "some sign" if (up > 0).any() else "no sign"
    counts = dict(n=int(little.sum()), up=int((up > 0).sum()), down=int((down < 0).sum()))
    return " ".join([*said, tell("foundation.known", sign=sign, **counts)])


def stand_ins_table(c: Comparison, stand_ins: Mapping[str, str]) -> pd.DataFrame:
    """Compare each trained embedding with one of the same data that needs no training."""
    return c.gains({a: b for a, b in stand_ins.items() if {a, b} <= set(c.methods.index)})
