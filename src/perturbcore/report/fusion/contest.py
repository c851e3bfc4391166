"""Fusions against single sources: everything that the chapter compares, scored on the same folds."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from perturbcore.core.errors import ParameterError
from perturbcore.models.fusion.competitors import competitors
from perturbcore.models.simple.space import Protocol
from perturbcore.report.summary import primary_metric
from perturbcore.score.metrics.registry import metric as find_metric
from perturbcore.score.run import PAIR_TARGETS

NOT_SOURCES = ("Negative control", "Positive control")


@dataclass(frozen=True, eq=False)
class Contest:
    """Scores of single sources and of fusions on one data set.

    Attributes
    ----------
    data : perturbcore.data.sets.base.Dataset
    sources : list of Embedding
    singles, fused : pandas.DataFrame
        Tidy scores: of every single source, floors and ceilings; of every fusion.
    weights : pandas.DataFrame
        method, cell_line, fold, source, weight: what a fusion gave each source, adding up to 1.
    without : list of str
        Sentences on what could not be run, and why.
    """

    data: Any
    sources: list
    singles: pd.DataFrame
    fused: pd.DataFrame
    weights: pd.DataFrame
    without: list = field(default_factory=list)

    @property
    def metric(self) -> str:
        """Main metric of the task."""
        return primary_metric(self.singles)

    @property
    def best_single(self) -> tuple[str, str]:
        """Embedding and predictor with the best mean over lines and folds, named after the fact."""
        rows = self.singles[self.singles["metric"] == self.metric]
        rows = rows[~rows["modality"].isin(NOT_SOURCES)]
        mean = rows.groupby(["embedding", "predictor"])["value"].mean()
        return mean.idxmax() if find_metric(self.metric).higher_is_better else mean.idxmin()

    @property
    def scores(self) -> pd.DataFrame:
        """Single sources and fusions, one method a name: "STRING, kernel", "Stacking"."""
        singles = self.singles.copy()
        free = ~singles["modality"].isin(NOT_SOURCES)
        singles.loc[free, "embedding"] += ", " + singles.loc[free, "predictor"]
        second = singles["modality"].isin(NOT_SOURCES) & (singles["embedding"] != "")
        singles = singles[~second | (singles["predictor"] == "knn")]
        singles.loc[free, "predictor"] = "knn"
        return pd.concat([singles, self.fused.assign(predictor="knn")], ignore_index=True)


def contest(
    study,
    dataset: str,
    *,
    transformers: dict | None = None,
    k=(5, 10, 20, 40, 80),
    n_components: int = 100,
    inner_folds: int = 5,
    n_outer: int = 10,
    n_inner: int = 10,
    seed: int = 0,
) -> Contest:
    """Score every single source, every simple fusion and the transformers on one data set.

    Parameters
    ----------
    study : perturbcore.book.study.Study
    dataset : str
    transformers : dict of dict
        Name -> ``preset`` (see `perturbcore.models.fusion.presets`) and settings that are to differ from it; with
        ``trials`` (and ``space``) settings are searched in each fold, see `perturbcore.models.fusion.tuning`;
        ``seed`` is that of the training.
    k, n_components
        Of kNN and PCA.
    inner_folds : int
        Inner folds of the simple fusions.
    n_outer, n_inner : int
        Of the noise ceiling.
    seed : int

    Raises
    ------
    ParameterError
        A transformer names no preset, or there are fewer than two sources.
    """
    data = study.dataset(dataset)
    task = data.task
    made = study.embeddings(dataset, seed=seed)
    sources = [e for e in made if e.modality not in NOT_SOURCES]
    if len({e.name for e in sources}) < 2:
        raise ParameterError(
            f"data set '{dataset}' has {len({e.name for e in sources})} source: fusion needs at least two; add "
            "embeddings to the profile"
        )
    models, without = (
        competitors(task, sources, k=k, n_components=n_components, inner_folds=inner_folds),
        [],
    )
    found, missing = fusion_transformers(study, data, sources, transformers or {})
    predictors = study.models(task, knn=k, lasso=(1.0,))
    predictors = predictors if task in PAIR_TARGETS else predictors[:1]
    singles = study.evaluate(
        dataset, predictors, protocol=Protocol(n_components=n_components), embeddings=made,
        ceiling=study.ceiling(dataset, n_outer=n_outer, n_inner=n_inner), seed=seed,
    )  # fmt: skip
    fused = study.evaluate_joint(dataset, [*models, *found], seed=seed)
    return Contest(
        data, sources, singles, fused, weights_of(study.store, fused), [*without, *missing]
    )


def fusion_transformers(
    study, data, sources, wanted: dict, *, joint: bool = True
) -> tuple[list, list[str]]:
    """Make the transformers of a profile, and say which could not be made.

    Parameters
    ----------
    study, data, sources
    wanted : dict of dict
        See `contest`.
    joint : bool
        One model over all lines, or one a line.
    """
    # torch and lightning are heavy: only a chapter that trains pays for them
    from perturbcore.models.fusion.joint_model import TransformerFusion
    from perturbcore.models.fusion.presets import preset

    models, without = [], []
    for name, options in wanted.items():
        options = dict(options)
        if "preset" not in options:
            raise ParameterError(
                f"transformer '{name}' names no preset: give preset: lfc_simple, lfc_full, ..."
            )
        own = {k: options.pop(k) for k in ("seed", "trials", "space") if k in options}
        settings = preset(options.pop("preset"), **options)
        controls = None
        if settings.line_source == "autoencoder":
            controls = control_profiles(data)
            if controls is None:
                without.append(
                    f"{name} encodes each line from its mean control cell; {data.title} holds no cells, so it is "
                    "left out."
                )
                continue
        models.append(
            TransformerFusion(
                sources,
                settings,
                name=name,
                controls=controls,
                joint=joint,
                folder=study.profile.results / "models",
                **own,
            )  # fmt: skip
        )
    return models, without


def control_profiles(data) -> pd.DataFrame | None:
    """Mean log1p profile of the control cells of each line (lines x genes); None without cells."""
    if data.screen is None:
        return None
    from perturbcore.data.effects.moments import pseudobulk

    controls = data.screen[data.screen.obs["is_control"].to_numpy(bool)]
    bulk = pseudobulk(controls, by=["cell_line"], progress=False)
    values = pd.DataFrame(
        np.asarray(bulk.X),
        index=bulk.obs["cell_line"].astype(str).to_numpy(),
        columns=bulk.var_names,
    )
    return values[list(data.responses.var_names)]


def weights_of(store, fused: pd.DataFrame) -> pd.DataFrame:
    """Gather what fusions noted of their sources' weights, scaled to add up to 1."""
    units = fused.drop_duplicates("key").set_index("key")
    rows = []
    for key, note in store.notes(units.index).items():
        weights = note.get("weights")
        total = sum(weights.values()) if weights else 0
        if total > 0:
            about = {"method": units.at[key, "embedding"], "cell_line": units.at[key, "cell_line"],
                     "fold": units.at[key, "fold"]}  # fmt: skip
            rows += [{**about, "source": s, "weight": w / total} for s, w in weights.items()]
    return pd.DataFrame(rows, columns=["method", "cell_line", "fold", "source", "weight"])
