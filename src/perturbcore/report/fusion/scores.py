"""Everything that the chapter on fusion compares, scored on the same folds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from perturbcore.core.errors import ParameterError
from perturbcore.data.contexts import controls_of
from perturbcore.embeddings.base import Embedding
from perturbcore.models.fusion.choice import ANY, BEST, SET, SINGLE, fewer_sources, kind_of
from perturbcore.models.fusion.kernel_models import fusions
from perturbcore.report.comparison import Comparison
from perturbcore.report.paired import judged
from perturbcore.report.text import tell
from perturbcore.score.task import task_of

TOP_SINGLES, ALL = 4, "All sources"


@dataclass(frozen=True, eq=False)
class FusionScores:
    """Scores of single sources and of fusions on one data set.

    `scores` are tidy, with floors and ceilings; `weights` (method, cell_line, fold, source, weight)
    what a fusion gave each source, adding up to 1; `left_out` sentences on what could not be run;
    `sets` names of sources by the name of their set.
    """

    data: Any
    sources: list[Embedding]
    scores: pd.DataFrame
    weights: pd.DataFrame
    left_out: list[str]
    sets: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def pairs(self) -> bool:
        """Whether labels are partial."""
        return task_of(self.data.task).partial

    @cached_property
    def every(self) -> Comparison:
        """All methods."""
        return Comparison(self.scores)

    @cached_property
    def shown(self) -> Comparison:
        """All fusions and the best single sources, with floors and ceilings."""
        every = self.every
        order = (-every.sign * every.means[self.singles]).sort_values()
        hidden = set(order.index[TOP_SINGLES:]) - {self.best_single}
        hidden |= set(every.methods.index[every.methods["modality"] == SET])
        rows = every.scores[~every.scores["method"].isin(hidden)]
        return Comparison(rows, reference=self.best_single)

    @property
    def fusions(self) -> list[str]:
        """Names of the fusions."""
        return list(self.every.methods.index[self.every.methods["modality"] == "Fusion"])

    @property
    def singles(self) -> list[str]:
        """Names of the single sources, one per predictor."""
        modality = self.every.methods.loc[self.every.competitors, "modality"]
        return list(modality.index[~modality.isin(["Fusion", SET])])

    @cached_property
    def best_single(self) -> str:
        """Yardstick: the best source under the best predictor, both chosen in training."""
        return self.every.named(predictor=ANY)

    @cached_property
    def gains(self) -> pd.DataFrame:
        """Compare each fusion with the best single source under any predictor."""
        return self.every.gains(self.best_single, methods=self.fusions)

    @cached_property
    def lines(self) -> pd.DataFrame:
        """Compare in every cell line, methods in the order of `gains`."""
        table = self.every.gains(self.best_single, by=("cell_line",), methods=self.fusions)
        return table.set_index("method").loc[self.gains["method"]].reset_index()

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Method of each predictor (rows, the best fusion first) with each choice of sources."""
        table = self.every.methods.reset_index()
        table = table[table["modality"].isin(["Fusion", SET, SINGLE]) & (table["predictor"] != ANY)]
        fused = table["modality"] == "Fusion"
        kinds = [kind_of(r.embedding, r.predictor) for r in table.itertuples()]
        table["kind"] = table["predictor"].where(~fused, kinds)
        table["sources"] = table["embedding"].where(~fused, ALL)
        wide = table[table["kind"] != ""].pivot(index="kind", columns="sources", values="method")
        wide = wide[[c for c in (*self.sets, BEST, ALL) if c in wide]].dropna(subset=[BEST, ALL])
        means = self.every.sign * wide[ALL].map(self.every.means)
        return wide.loc[means.sort_values(ascending=False).index].rename_axis(columns=None)

    @cached_property
    def parts(self) -> pd.DataFrame:
        """What predictor and fusion add, apart: columns of `Comparison.gains`, `kind` and `what`.

        "predictor": one source chosen in training, against kNN with one; "fusion": all sources
        against the best one under the same predictor, or under any; "over <set>": against a set.
        p is adjusted over all rows, so that equal differences have equal verdicts.
        """
        cells, parts = self.cells, []
        wanted = {
            "predictor": (BEST, cells.loc[["knn"] * len(cells), BEST]),
            "fusion": (ALL, cells[BEST]),
            "fusion, any predictor": (ALL, [self.best_single] * len(cells)),
            **{f"over {name}": (ALL, cells[name]) for name in self.sets if name in cells},
        }
        for what, (column, against) in wanted.items():
            pairs = zip(cells[column], against, strict=True)
            table = self.every.gains({m: r for m, r in pairs if m != r and isinstance(r, str)})
            table["kind"] = table["method"].map({m: kind for kind, m in cells[column].items()})
            parts.append(table.assign(what=what))
        return judged(pd.concat(parts, ignore_index=True))


def score_fusions(
    study,
    dataset: str,
    *,
    transformers: Mapping[str, Mapping] | None = None,
    sets: Mapping[str, Sequence[str]] | None = None,
    set_transformers: Sequence[str] = (),
    k: Sequence[int] = (5, 10, 20, 40, 80),
    n_components: int = 100,
    inner_folds: int = 5,
    n_outer: int = 10,
    n_inner: int = 10,
    seed: int = 0,
) -> FusionScores:
    """Score every single source, every simple fusion and the transformers on one data set.

    Every predictor also gets each of `sets` (name -> sources) alone, and one source chosen in
    training; of the transformers (see `fusion_transformers`) only `set_transformers`. `k` and
    `n_components` are of kNN and PCA, `inner_folds` of the simple fusions, `n_outer` and `n_inner`
    of the noise ceiling.
    """
    data = study.dataset(dataset)
    made = study.embeddings(dataset, seed=seed)
    sources = [e for e in made if not e.modality.endswith("control")]
    n = len({e.name for e in sources})
    if n < 2:
        raise ParameterError(tell("fusion.one_source", dataset=dataset, n=n))
    simple = fusions(data.task, sources, k=k, n_components=n_components, inner_folds=inner_folds)
    deep, left_out = fusion_transformers(study, data, sources, transformers or {})
    predictors = study.models(data.task, knn=k, lasso=(1.0,))
    predictors = predictors if task_of(data.task).partial else predictors[:1]
    again = [*simple, *(m for m in deep if m.name in set_transformers)]
    layout = {"n_components": n_components, "inner_folds": inner_folds}
    models = [*simple, *deep, *fewer_sources(again, sets or {}, **layout)]
    scores = study.evaluate(
        dataset, predictors, models=models, protocol=study.protocol(n_components=n_components),
        embeddings=made, seed=seed,
        ceiling=study.ceiling(dataset, n_outer=n_outer, n_inner=n_inner),
    )  # fmt: skip
    weights = weights_of(study.store, scores[scores["modality"] == "Fusion"])
    return FusionScores(data, sources, scores, weights, left_out, sets or {})


def fusion_transformers(
    study, data, sources: Sequence[Embedding], wanted: Mapping[str, Mapping], *, joint: bool = True
) -> tuple[list, list[str]]:
    """Make the transformers of a profile, and say which could not be made.

    `wanted`: name -> ``preset`` and settings that differ from it; ``seed``, ``trials``, ``space``
    of training and search; ``expression_line``: line whose embeddings serve all lines. With `joint`
    one model serves all lines.
    """
    # torch is heavy: only a chapter that trains pays for them
    from perturbcore.models.fusion.network import preset
    from perturbcore.models.fusion.transformer import TransformerFusion

    models, left_out = [], []
    for name, options in wanted.items():
        options = dict(options)
        if "preset" not in options:
            raise ParameterError(tell("fusion.no_preset", name=name))
        keys = ("seed", "trials", "space", "expression_line")
        own = {k: options.pop(k) for k in keys if k in options}
        settings, controls = preset(options.pop("preset"), **options), None
        if settings.line_source == "autoencoder":
            controls = controls_of(data)
            if controls is None:
                left_out.append(tell("fusion.no_controls", name=name, title=data.title))
                continue
        line = own.get("expression_line")
        there = {e.name for e in sources if line is None or e.cell_line in (None, line)}
        used = [e for e in sources if e.name in there]
        for lost in sorted({e.name for e in sources} - there):
            left_out.append(f"{name} goes without {lost}, which is not there for {line}.")
        folder = study.profile.results / "models"
        models.append(
            TransformerFusion(
                used, settings, name=name, controls=controls, joint=joint, folder=folder, **own
            )
        )
    return models, left_out


def weights_of(store, scores: pd.DataFrame) -> pd.DataFrame:
    """Gather what fusions noted of their sources' weights, scaled to add up to 1."""
    units = scores.drop_duplicates("key").set_index("key")
    rows = []
    for key, note in store.notes(units.index).items():
        weights, unit = note.get("weights") or {}, units.loc[key]
        if (total := sum(weights.values())) > 0:
            about = (unit["embedding"], unit["cell_line"], unit["fold"])
            rows += [(*about, source, w / total) for source, w in weights.items()]
    return pd.DataFrame(rows, columns=["method", "cell_line", "fold", "source", "weight"])
