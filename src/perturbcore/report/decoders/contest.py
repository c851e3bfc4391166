"""Decoders, kNN and the controls of both on one data set: everything that the chapter draws from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import ParameterError
from perturbcore.embeddings.authors import own_embeddings
from perturbcore.embeddings.build import build_all
from perturbcore.embeddings.controls import random_embedding
from perturbcore.embeddings.sources import BuildContext
from perturbcore.models.decoders.cells import Cells
from perturbcore.models.decoders.distributions import distribution_table
from perturbcore.models.decoders.evaluation import DecoderModel
from perturbcore.models.decoders.generators import DecoderGenerator, Shift
from perturbcore.models.simple.knn import KNN
from perturbcore.models.simple.linear import Linear
from perturbcore.models.simple.space import Protocol

TITLES = {"diffusion": "Latent diffusion", "flow": "Flow matching", "bridge": "Schrödinger bridge"}
SHIFTED, MEAN_SHIFTED, UNCHANGED = (
    "controls shifted by kNN",
    "controls shifted by the Train Mean",
    "controls",
)
RIDGE = (1e-1, 1.0, 10.0, 100.0, 1000.0)
REHEARSAL_FOLDS = 2
# with fewer, alpha is tuned on a handful, and one odd coordinate of a new perturbation decides everything
LEAST_FOR_RIDGE = 12


@dataclass
class Contest:
    """What was run on one data set.

    Attributes
    ----------
    data : Dataset
    responses : AnnData
        Those that were scored: all, or the rehearsed lines.
    embedding : Embedding
        What every competitor is given, but for the random controls.
    folds : list of int
    models : list of DecoderModel
        Decoders on the embedding, then a decoder on random vectors.
    shifts : list of DecoderModel
        Control cells, moved by kNN, by the Train Mean, and not at all.
    scores : pandas.DataFrame
        Tidy scores with a column `display`.
    cost : pandas.DataFrame
        Mean seconds a fold and cell line: display, train_seconds, sample_seconds, seconds.
    each : pandas.DataFrame
        L2 of every held-out perturbation: display, cell_line, fold, perturbation, value.
    note : str
        What was cut down, if anything.
    """

    data: object
    responses: AnnData
    embedding: object
    folds: list
    models: list
    shifts: list
    scores: pd.DataFrame
    cost: pd.DataFrame
    each: pd.DataFrame
    cells: Cells
    note: str = ""

    @property
    def title(self) -> str:
        """What a page calls the data set."""
        return self.data.title

    def lines(self) -> list[str]:
        """Cell lines that were scored."""
        return [str(line) for line in pd.unique(self.responses.obs["cell_line"].astype(str))]

    def distributions(self, n_components: int = 30, seed: int = 0) -> pd.DataFrame:
        """Compare generated with held-out cells; see `distribution_table`. Adds a column `display`."""
        table = distribution_table(
            [*self.models, *self.shifts], self.responses, self.cells, folds=self.folds,
            n_components=n_components, seed=seed,
        )  # fmt: skip
        who = zip(table["embedding"], table["predictor"], strict=True)
        return table.assign(display=[shown(e, p, self.embedding.name) for e, p in who])

    def histories(self) -> pd.DataFrame:
        """Losses by epoch of every training: display, cell_line, fold, epoch, and the logged columns."""
        parts = []
        for model in self.models:
            for line in self.lines():
                for fold in self.folds:
                    history = model.generated(self.responses, line, fold).history
                    who = {
                        "display": shown(model.name, model.predictor, self.embedding.name),
                        "cell_line": line,
                    }
                    parts.append(history.assign(**who, fold=fold))
        return pd.concat(parts, ignore_index=True)


def shown(embedding: str, predictor: str, given: str) -> str:
    """Name a method as figures and tables do; `given` is the embedding that all competitors get."""
    if embedding == "random":
        how = TITLES.get(predictor, {"knn": "kNN", "ridge": "Ridge"}.get(predictor, predictor))
        return f"{how}, random embedding"
    if embedding == given:
        return f"{ {'knn': 'kNN', 'ridge': 'Ridge'}.get(predictor, predictor) }, {given}"
    fixed = {
        "train_mean": "Train Mean",
        "no_change": "No Change",
        "experimental_error": "Experimental error",
        "idealized": "Idealized",
    }
    return fixed.get(embedding or predictor, embedding)


def contest(
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
    device: str = "auto",
    seed: int = 0,
) -> Contest | None:
    """Run decoders and their competitors on a data set of the profile.

    Parameters
    ----------
    study : Study
    name : str
        Data set of the profile; it needs cells.
    embedding : str
        Name of the embedding that all competitors are given.
    methods : sequence of str
        Of "diffusion", "flow", "bridge"; the last one is also trained on random vectors.
    size : str
        See `perturbcore.models.decoders.presets`.
    changes : dict, optional
        Options of the decoders that differ from the preset.
    folds : sequence of int
        All by default.
    k, n_components, inner_folds
        Grid of kNN; components of the embedding; folds by which kNN and ridge are tuned.
    cells_per_batch : int
        See `DecoderModel`.
    n_outer, n_inner : int
        Resamplings for the experimental error.
    gears : str
        File of saved predictions; see `perturbcore.models.decoders.gears.GearsPredictions`.
    device : str
    seed : int

    Returns
    -------
    Contest or None
        None where the data set brings no cells.

    Raises
    ------
    ParameterError
        There is no such embedding.
    """
    from perturbcore.models.decoders import presets

    data = study.dataset(name)
    if data.screen is None:
        return None
    responses, note, rehearsal = data.responses, "", data.simulated and size == "published"
    if rehearsal:
        size, note = "laptop", _rehearsed()
        first = responses.obs["cell_line"].astype(str) == str(responses.obs["cell_line"].iloc[0])
        responses = responses[first.to_numpy()].copy()
    there = sorted(set(responses.obs["fold"].astype(int)) - {-1})
    folds = [f for f in there if f in folds] if folds else there
    folds = folds[:REHEARSAL_FOLDS] if rehearsal else folds
    chosen = _embedding(study, data, embedding)
    ids = sorted(responses.obs["perturbation"].astype(str).unique())
    random = random_embedding(ids, 100, seed, identifier=responses.uns["perturbcore"]["identifier"])
    lines = [str(line) for line in pd.unique(responses.obs["cell_line"].astype(str))]
    predictors = [KNN(k), Linear("ridge", RIDGE)]
    n_train = min(int((responses.obs.loc[responses.obs["cell_line"].astype(str) == line, "fold"] != f).sum())
                  for line in lines for f in folds)  # fmt: skip
    if n_train < LEAST_FOR_RIDGE:
        predictors.pop()
        note = f"{note} Ridge regression is left out: {n_train} training perturbations are too few for it.".strip()
    scores = study.evaluate(
        name, predictors, embeddings=[chosen, random], folds=folds, seed=seed,
        protocol=Protocol(n_components=n_components, inner_folds=inner_folds), cell_lines=lines,
        ceiling=study.ceiling(name, n_outer=n_outer, n_inner=n_inner),
    )  # fmt: skip
    cells = Cells.of(data.screen, responses.var_names)
    shared = {"cells_per_batch": cells_per_batch, "seed": seed,
              "folder": Path(study.profile.results) / "models" / "generative_decoders"}  # fmt: skip

    def decoder(method, given, title, **look):
        options = {"laptop": presets.LAPTOP, "published": presets.PUBLISHED}[size][method].changed(
            **(changes or {})
        )

        def make():
            return DecoderGenerator(options, device=device)

        return DecoderModel(
            cells, make, name=title, predictor=method, embedding=given, **look, **shared
        )

    def shift(by, title):
        def make():
            return Shift(by, k, n_components, inner_folds)

        return DecoderModel(
            cells, make, name=title, predictor=f"shift_{by}", embedding=chosen, **shared
        )

    models = [decoder(m, chosen, TITLES[m]) for m in methods]
    models.append(decoder(methods[-1], random, "random", modality="Negative control"))
    shifts = [shift("knn", SHIFTED), shift("train_mean", MEAN_SHIFTED), shift("nothing", UNCHANGED)]
    rivals = [*models, *(_gears(gears, name))]
    joint = study.evaluate_joint(name, rivals, responses=responses, folds=folds, seed=seed)
    scores = pd.concat(
        [scores[scores["fold"].isin(folds) & scores["cell_line"].isin(lines)], joint]
    )
    scores = scores[~((scores["embedding"] == "idealized") & (scores["predictor"] != "knn"))]
    names = zip(scores["embedding"], scores["predictor"], strict=True)
    scores = scores.assign(display=[shown(e, p, embedding) for e, p in names]).reset_index(
        drop=True
    )
    cost = _cost(scores, study.store.notes(joint["key"].unique()))
    each = _each(scores, study.store)
    return Contest(data, responses, chosen, folds, models, shifts, scores, cost, each, cells, note)


def _embedding(study, data, name: str):
    """Build one embedding of the profile, or take it from those that the data set brings along."""
    brought = {e.name: e for e in own_embeddings(data)}
    if name in brought:
        return brought[name]
    specs = {spec["name"]: dict(spec) for spec in study.profile.embeddings}
    if name not in specs:
        there = ", ".join([*brought, *specs])
        raise ParameterError(
            f"no embedding '{name}' for data set '{data.name}'; there are: {there or 'none'}"
        )
    spec = specs[name]
    spec.pop("datasets", None)
    needed = [specs[spec["of"]]] if spec.get("of") in specs else []
    context = BuildContext(dataset=data, folder=study.profile.path.parent)
    made = build_all([*needed, spec], context, cache=study.profile.results / "embeddings")
    return next(e for e in made if e.name == name)


def _gears(path: str, name: str) -> list:
    if not path:
        return []
    from perturbcore.models.decoders.gears import GearsPredictions

    file = Path(path.format(dataset=name))
    return [GearsPredictions(file)] if file.exists() else []


def _rehearsed() -> str:
    return (
        "These cells are a simulated rehearsal of the authors' files: the decoders have the small size, and "
        f"one cell line and {REHEARSAL_FOLDS} folds are scored."
    )


def _each(scores: pd.DataFrame, store) -> pd.DataFrame:
    """L2 of single perturbations, for the methods that predict them."""
    units = scores.drop_duplicates(["key", "cell_line", "fold"])[
        ["key", "display", "cell_line", "fold"]
    ]
    return store.per_perturbation(units["key"], "L2").merge(units, on="key").drop(columns="key")


def _cost(scores: pd.DataFrame, notes: dict) -> pd.DataFrame:
    """Mean seconds of a fold in a cell line: of training, of sampling, together."""
    units = scores.drop_duplicates(["key", "cell_line", "fold"])
    rows = []
    for unit in units.itertuples():
        note = notes.get(unit.key, {})
        both = note.get("train_seconds", np.nan) + note.get("sample_seconds", np.nan)
        rows.append(
            {
                "display": unit.display,
                "train_seconds": note.get("train_seconds", np.nan),
                "sample_seconds": note.get("sample_seconds", np.nan),
                "seconds": both if np.isfinite(both) else unit.seconds,
            }
        )
    table = pd.DataFrame(rows).groupby("display", as_index=False, sort=False).mean()
    return table[~table["display"].isin(["Experimental error"])].reset_index(drop=True)
