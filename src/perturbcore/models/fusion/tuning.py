"""Search of a fusion transformer's hyperparameters by optuna, stored, resumable, off unless called."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
from anndata import AnnData

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import ParameterError

# as published: depth, learning rate (log), and how the cell line enters
PUBLISHED_SPACE = {"layers": (1, 8), "lr": (1e-5, 1e-3, "log"), "line": ["add", "token"]}


def read_space(space: Mapping | None) -> dict:
    """Read a search space as a profile writes it; the published one by default.

    Parameters
    ----------
    space : mapping, optional
        Setting -> list of choices, or a mapping with ``low``, ``high`` and perhaps ``log: true``.

    Raises
    ------
    ParameterError
        A value is neither.
    """
    if not space:
        return dict(PUBLISHED_SPACE)
    out = {}
    for name, choice in space.items():
        if isinstance(choice, Mapping):
            unknown = sorted(set(choice) - {"low", "high", "log"})
            if unknown or not {"low", "high"} <= set(choice):
                raise ParameterError(
                    f"space['{name}'] = {dict(choice)}: give low, high and perhaps log: true"
                )
            choice = (choice["low"], choice["high"], *(["log"] if choice.get("log") else []))
        _check(name, choice)
        out[name] = choice
    return out


def tune(
    model,
    train: AnnData,
    *,
    trials: int,
    folder: Path,
    fold: int = 0,
    space: Mapping | None = None,
    seed: int = 0,
) -> tuple:
    """Choose settings by the validation loss within the training rows of one fold.

    Parameters
    ----------
    model : TransformerFusion
        Its settings are what is varied; they must hold out validation rows.
    train : AnnData
        Training rows of the fold on which to tune; test rows are never given.
    trials : int
        Trials in all: those found in `folder` count.
    folder : path
        Holds the search (sqlite) and the trainings, so that a killed search goes on where it was.
    fold : int
        Which fold it is, for the record.
    space : mapping, optional
        Setting -> (low, high), (low, high, "log") or list of choices; `PUBLISHED_SPACE` by default.
    seed : int
        Of the sampler.

    Returns
    -------
    model : TransformerFusion
        With the best settings.
    trials : pandas.DataFrame
        One row a trial: the settings tried, `val`, `epochs`, `seconds`.

    Raises
    ------
    ParameterError
        The space is not understood, or the settings hold out nothing.

    References
    ----------
    Cole et al. 2026, 4.9.2 (100 trials of depth, learning rate and style of the cell line);
    Akiba et al. 2019 (optuna).
    """
    import optuna

    if model.settings.validation == 0:
        raise ParameterError("tuning needs validation rows: set validation above 0")
    space = dict(PUBLISHED_SPACE if space is None else space)
    model.settings.but(**{k: getattr(model.settings, k, None) for k in space})
    for name, choice in space.items():
        _check(name, choice)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    trained = replace(model, folder=folder / "trainings", settings=model.settings.but(refit="none"))
    layers = [train.layers[k] for k in ("deg", "observed") if k in train.layers]
    obs = [train.obs[c].astype(str) for c in ("perturbation", "cell_line")]
    about = [model.training_spec, model.digest, {k: list(v) for k, v in space.items()}, fold, seed]
    name = digest(about, train.X, *layers, *obs, code_digest(type(model)))
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial):
        values = {k: _suggest(trial, k, choice) for k, choice in space.items()}
        one = replace(trained, settings=trained.settings.but(**values))
        # nothing is predicted: the test rows are none
        fitted = one.fit(train, train[:0], fold=fold)
        trial.set_user_attr("epochs", sum(t.epochs for t in fitted.trainings))
        trial.set_user_attr("seconds", sum(t.seconds for t in fitted.trainings))
        return sum(float(t.history["val"].min()) for t in fitted.trainings) / len(fitted.trainings)

    study = optuna.create_study(
        storage=f"sqlite:///{folder / 'search.sqlite'}", study_name=name, load_if_exists=True,
        direction="minimize",
    )  # fmt: skip
    while len(done := study.get_trials(states=[optuna.trial.TrialState.COMPLETE])) < trials:
        # a sampler that starts from the number of finished trials draws the same after a kill
        study.sampler = optuna.samplers.TPESampler(seed=seed + len(done))
        study.optimize(objective, n_trials=1)
    rows = [{**t.params, "val": t.value, **t.user_attrs} for t in done]
    best = replace(model, settings=model.settings.but(**study.best_params))
    return best, pd.DataFrame(rows)


def _check(name, choice) -> None:
    good = isinstance(choice, list) and len(choice) > 0
    if isinstance(choice, tuple) and len(choice) in (2, 3):
        good = choice[0] < choice[1] and (len(choice) == 2 or choice[2] == "log")
    if not good:
        raise ParameterError(
            f"space['{name}'] = {choice!r}: give (low, high), (low, high, 'log') or a list of choices"
        )


def _suggest(trial, name, choice):
    if isinstance(choice, list):
        return trial.suggest_categorical(name, choice)
    low, high, log = choice[0], choice[1], len(choice) == 3
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high, log=log)
    return trial.suggest_float(name, float(low), float(high), log=log)
