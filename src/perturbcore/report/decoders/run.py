"""Decoders, kNN and controls on one data set: everything that the chapter draws from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import ParameterError
from perturbcore.data.responses import cell_lines
from perturbcore.data.sets.base import Dataset
from perturbcore.models.decoders.backbones import preset
from perturbcore.models.decoders.cells import Cells
from perturbcore.models.decoders.distributions import distribution_table
from perturbcore.models.decoders.evaluation import DecoderModel, GearsPredictions, Shift
from perturbcore.models.decoders.model import Decoder
from perturbcore.models.simple.embedding import Floor, OnEmbedding
from perturbcore.models.simple.knn import KNN
from perturbcore.models.simple.linear import Linear
from perturbcore.report.comparison import Comparison
from perturbcore.report.text import tell
from perturbcore.score.model import Model

TITLES = {"diffusion": "Latent diffusion", "flow": "Flow matching", "bridge": "Schrödinger bridge"}
SHIFTED, MEAN_SHIFTED = "controls shifted by kNN", "controls shifted by the Train Mean"
UNCHANGED = "controls"
RIDGE = (1e-1, 1.0, 10.0, 100.0, 1000.0)
REHEARSAL_FOLDS = 2
# with fewer, alpha is tuned on a handful, and one odd coordinate of a new perturbation decides all
LEAST_FOR_RIDGE = 12
COSTS = ["train_seconds", "sample_seconds"]


@dataclass
class DecoderRun:
    """What was run on one data set.

    `models`: decoders on `embedding`, then one on random vectors; `shifts`: control cells, moved by
    kNN, by the Train Mean, and not at all; `note`: what was cut down, if anything. `seconds` of
    `scores` are those of training and sampling.
    """

    data: Dataset
    responses: AnnData
    cells: Cells
    embedding: str
    folds: list[int]
    models: list[DecoderModel]
    shifts: list[DecoderModel]
    scores: pd.DataFrame
    note: str = ""

    @cached_property
    def comparison(self) -> Comparison:
        """All methods by L2, against kNN on the embedding."""
        found = Comparison(self.scores, "L2")
        found.reference = found.named(embedding=self.embedding, predictor="knn") or None
        return found

    @property
    def decoders(self) -> list[str]:
        """Decoders on the embedding."""
        m = self.comparison.methods
        return list(m.index[m["embedding"].isin(TITLES.values())])

    def distributions(self, n_components: int = 30, seed: int = 0) -> pd.DataFrame:
        """Compare generated with held-out cells: `distribution_table` with a column `method`."""
        table = distribution_table(
            [*self.models, *self.shifts], self.responses, self.cells, folds=self.folds,
            n_components=n_components, seed=seed,
        )  # fmt: skip
        who = table[["embedding", "predictor"]].to_dict("records")
        return table.assign(method=[self.comparison.named(**w) or w["embedding"] for w in who])

    def histories(self) -> pd.DataFrame:
        """Losses by epoch of every training: method, cell_line, fold, epoch, what was logged."""
        parts = []
        for model in self.models:
            name = self.comparison.named(embedding=model.name, predictor=model.predictor)
            for line in cell_lines(self.responses):
                for fold in self.folds:
                    history = model.generated(self.responses, line, fold).uns["history"]
                    parts.append(history.assign(method=name, cell_line=line, fold=fold))
        return pd.concat(parts, ignore_index=True)


def run_decoders(
    study,
    name: str,
    *,
    embedding: str,
    methods: Sequence[str],
    size: str = "laptop",
    changes: dict | None = None,
    folds: Sequence[int] = (),
    k: Sequence[int] = (5, 10, 20, 40),
    n_components: int = 30,
    inner_folds: int = 5,
    cells_per_batch: int = 60,
    n_outer: int = 5,
    n_inner: int = 5,
    gears: str = "",
    seed: int = 0,
) -> DecoderRun | None:
    """Run decoders and their competitors on a data set of the profile; None where it has no cells.

    `name, embedding`: data set of the profile, and the embedding that all methods are given;
    `methods`: of "diffusion", "flow", "bridge"; the last one is also trained on random vectors;
    `size`: "laptop" or "published"; `changes`: options of the decoders that differ from those of
    that size; `folds`: all by default; `k, n_components, inner_folds`: grid of kNN, components of
    the embedding, folds by which kNN and ridge are tuned; `cells_per_batch`: see `DecoderModel`;
    `n_outer, n_inner`: resamplings for the experimental error; `gears`: file of saved predictions,
    which may hold ``{dataset}``; see `GearsPredictions`.

    Raises `ParameterError` where there is no such embedding.
    """
    data = study.dataset(name)
    if data.screen is None:
        return None
    responses, rehearsal = data.responses, data.simulated and size == "published"
    if rehearsal:
        size = "laptop"
        responses = responses[responses.obs["cell_line"] == cell_lines(responses)[0]].copy()
    obs, lines = responses.obs, cell_lines(responses)
    there = sorted(set(obs["fold"].astype(int)) - {-1})
    folds = [f for f in there if not folds or f in folds][: REHEARSAL_FOLDS if rehearsal else None]
    *chosen, random = study.embeddings(name, seed=seed, covering=0, only=[embedding])
    if not chosen:
        raise ParameterError(f"no embedding '{embedding}' for data set '{name}' in this profile")
    counts = pd.crosstab(obs["cell_line"].astype(str), obs["fold"].astype(int))
    fewest = int((-counts[folds]).add(counts.sum(axis=1), axis=0).min(axis=None))
    predictors = [KNN(k)] + [Linear("ridge", RIDGE)] * (fewest >= LEAST_FOR_RIDGE)
    cells = Cells.of(data.screen, responses.var_names)
    folder = Path(study.profile.results) / "models" / "generative_decoders"
    model = partial(DecoderModel, cells, cells_per_batch=cells_per_batch, seed=seed, folder=folder)
    make = {m: partial(Decoder, preset(size, m, **changes or {})) for m in methods}
    models = [model(make[m], name=TITLES[m], predictor=m, embedding=chosen[0]) for m in methods]
    control = model(
        make[methods[-1]], name=random.name, predictor=methods[-1], embedding=random,
        modality=random.modality,
    )  # fmt: skip
    models.append(control)
    protocol = study.protocol(n_components=n_components, inner_folds=inner_folds)
    moves: dict[str, Model] = {SHIFTED: OnEmbedding(chosen[0], KNN(k), protocol)}
    moves |= {MEAN_SHIFTED: Floor("train_mean"), UNCHANGED: Floor("no_change")}
    shifts = [
        model(
            partial(Shift, by), name=title, predictor=f"shift_{by.predictor}", embedding=chosen[0]
        )
        for title, by in moves.items()
    ]
    file = Path(gears.format(dataset=name))
    rivals = [*models, *([GearsPredictions(file)] if gears and file.exists() else [])]
    scores = study.evaluate(
        name, predictors, models=rivals, embeddings=[*chosen, random], folds=folds,
        cell_lines=lines, seed=seed,
        protocol=protocol, ceiling=study.ceiling(name, n_outer=n_outer, n_inner=n_inner),
    )  # fmt: skip
    scores = scores[scores["fold"].isin(folds) & scores["cell_line"].isin(lines)]
    noted = pd.DataFrame.from_dict(study.store.notes(scores["key"].unique()), orient="index")
    noted = noted.reindex(columns=COSTS).reindex(scores["key"])
    scores = scores.assign(**{column: noted[column].to_numpy() for column in COSTS})
    own = scores[COSTS].sum(axis=1, skipna=False)
    scores["seconds"] = own.fillna(scores["seconds"])
    notes = [tell("decoders.rehearsal", folds=REHEARSAL_FOLDS)] * rehearsal
    notes += [tell("decoders.no_ridge", fewest=fewest)] * (len(predictors) < 2)
    note = " ".join(notes)
    return DecoderRun(data, responses, cells, embedding, folds, models, shifts, scores, note)
