"""The simulated screen: cells with known truth, and their estimated effects."""

from types import MappingProxyType

from perturbcore.datasets._effects import responses_of
from perturbcore.datasets.base import Card, Dataset

NOTES = (
    "These cells are simulated: the true effects, the network and the annotation behind them are "
    "known, and nothing about real cells follows from them.",
)


def load(
    control: str = "global", batches: str = "all", n_folds: int = 5, fold_seed: int = 0, **options
) -> Dataset:
    """Simulate a screen and estimate its effects.

    Parameters
    ----------
    control, batches : str
        Variant of the effect; see `perturbcore.effects.ba_ate`.
    n_folds, fold_seed : int
        See `perturbcore.splits.assign_folds`.
    **options
        Handed to `perturbcore.simulate.simulate_screen`, such as its sizes and `seed`.

    Returns
    -------
    Dataset
        ``extras["simulation"]`` is the `SimulatedScreen` with its truth.

    Raises
    ------
    ParameterError
        An option is unknown or out of its range.
    """
    from perturbcore.simulate import simulate_screen

    _check(simulate_screen, options)
    simulation = simulate_screen(**options)
    screen = simulation.screen
    card = Card()
    lines = screen.obs["cell_line"].nunique()
    card.step_of(
        "simulated",
        screen,
        note=f"{lines} cell lines; {int(screen.obs['is_control'].sum()):,} control cells",
    )
    responses = responses_of(
        screen, control=control, batches=batches, n_folds=n_folds, seed=fold_seed
    )
    return Dataset(
        name="simulated",
        title="Simulated screen",
        task="lfc",
        screen=screen,
        responses=responses,
        card=card.frame(),
        notes=NOTES,
        simulated=True,
        extras=MappingProxyType({"simulation": simulation}),
    )


def _check(function, options) -> None:
    import inspect

    from perturbcore.errors import ParameterError

    known = list(inspect.signature(function).parameters)
    unknown = [o for o in options if o not in known]
    if unknown:
        raise ParameterError(
            f"simulate_screen has no parameter '{unknown[0]}'; it has: {', '.join(known)}"
        )
