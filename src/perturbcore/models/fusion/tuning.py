"""Search of a fusion transformer's settings by optuna, stored, resumable, off unless asked for."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from perturbcore.core.digest import digest
from perturbcore.core.errors import ParameterError
from perturbcore.score.model import Fold

# as published: depth, learning rate, and how the cell line enters
PUBLISHED_SPACE = {
    "layers": {"low": 1, "high": 8},
    "lr": {"low": 1e-5, "high": 1e-3, "log": True},
    "line": ["add", "token"],
}


def check_space(space: Mapping | None) -> dict:
    """Check a search space as a profile writes it; the published one by default.

    A setting has a list of choices, or a mapping with ``low``, ``high`` and perhaps ``log: true``.
    """
    space = dict(space or PUBLISHED_SPACE)
    for name, choice in space.items():
        if isinstance(choice, Mapping):
            good = {"low", "high"} <= set(choice) <= {"low", "high", "log"}
            good = good and choice["low"] < choice["high"]
        else:
            good = isinstance(choice, list) and len(choice) > 0
        if not good:
            raise ParameterError(
                f"space['{name}'] = {choice!r}: give low, high and perhaps log: true, or a list"
            )
    return space


def tune(model, fold: Fold, *, trials: int, folder: Path) -> tuple:
    """Choose settings by the validation loss within the training rows of one fold.

    The settings of `model` (a `TransformerFusion`) are varied within its `space`. `trials` are
    all of them: those found in `folder`, which holds the search (sqlite) and the trainings,
    count, so that a killed search goes on where it was. Returned are the model with the best
    settings, and one row per trial: the settings tried, `val`, `epochs`, `seconds`.

    Cole et al. 2026, 4.9.2 (100 trials of depth, learning rate and style of the cell line);
    Akiba et al. 2019 (optuna).
    """
    import optuna

    space = check_space(model.space)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    base = replace(model, trials=0, space=None)
    trained = replace(
        base, folder=folder / "trainings", settings=base.settings.changed(refit="none")
    )
    # nothing is predicted: the test rows are none
    fold = replace(fold, test=fold.test[:0].copy())
    name = digest(space, trained._key(fold, fold.train.obs))
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial):
        values = {k: _suggest(trial, k, choice) for k, choice in space.items()}
        one = replace(trained, settings=trained.settings.changed(**values))
        trainings = one.fit(fold).trainings
        trial.set_user_attr("epochs", sum(t.epochs for t in trainings))
        trial.set_user_attr("seconds", sum(t.seconds for t in trainings))
        return sum(float(t.history["val"].min()) for t in trainings) / len(trainings)

    study = optuna.create_study(
        storage=f"sqlite:///{folder / 'search.sqlite'}", study_name=name, load_if_exists=True,
        direction="minimize",
    )  # fmt: skip
    while len(done := study.get_trials(states=[optuna.trial.TrialState.COMPLETE])) < trials:
        # a sampler that starts from the number of finished trials draws the same after a kill
        study.sampler = optuna.samplers.TPESampler(seed=model.seed + len(done))
        study.optimize(objective, n_trials=1)
    rows = [{**t.params, "val": t.value, **t.user_attrs} for t in done]
    best = replace(base, settings=base.settings.changed(**study.best_params))
    return best, pd.DataFrame(rows)


def _suggest(trial, name, choice):
    if isinstance(choice, list):
        return trial.suggest_categorical(name, choice)
    low, high = choice["low"], choice["high"]
    whole = isinstance(low, int) and isinstance(high, int)
    suggest = trial.suggest_int if whole else trial.suggest_float
    return suggest(name, low, high, log=bool(choice.get("log")))
