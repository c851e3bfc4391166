"""The simulated screen: cells with known truth, and their estimated effects or labels."""

from types import MappingProxyType

from perturbcore.core.errors import ParameterError
from perturbcore.data.sets._effects import labels_of, responses_of
from perturbcore.data.sets.base import Card, Dataset

NOTES = (
    "These cells are simulated: the true effects, the network and the annotation behind them are "
    "known, and nothing about real cells follows from them.",
)


def load(
    task: str = "lfc",
    control: str = "global",
    batches: str = "all",
    min_cells: int = 30,
    test: str = "welch",
    n_folds: int = 5,
    fold_seed: int = 0,
    **options,
) -> Dataset:
    """Simulate a screen and estimate its effects, or label its genes.

    Parameters
    ----------
    task : {"lfc", "deg"}
        "deg": labels of differential expression, batches pooled (:func:`perturbcore.data.deg.labels.deg_labels`).
    control, batches : str
        Variant of the effect; see `perturbcore.data.effects.ba_ate`.
    min_cells, test
        For labels: a perturbation needs more than so many cells; which t-test.
    n_folds, fold_seed : int
        See `perturbcore.data.folds.assign_folds`.
    **options
        Handed to `perturbcore.data.simulate.screen.simulate_screen`, such as its sizes and `seed`.

    Returns
    -------
    Dataset
        ``extras["simulation"]`` is the `SimulatedScreen` with its truth.

    Raises
    ------
    ParameterError
        An option is unknown or out of its range.
    """
    from perturbcore.data.simulate.screen import simulate_screen

    if task not in ("lfc", "deg"):
        raise ParameterError(f"task={task!r}: choose 'lfc' or 'deg'")
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
    if task == "deg":
        how = dict(
            variant="pooled", min_cells=min_cells, test=test, n_folds=n_folds, seed=fold_seed
        )
        responses = labels_of(screen, dataset="simulated_deg", **how)
        card.step(
            "labels",
            perturbations=responses.obs["perturbation"].nunique(),
            genes=responses.n_vars,
            note=f"{responses.n_obs} rows with more than {min_cells} cells; "
            f"{(responses.layers['deg'] != 0).mean():.1%} of labels are not 0",
        )
    else:
        responses = responses_of(
            screen, control=control, batches=batches, n_folds=n_folds, seed=fold_seed
        )
    return Dataset(
        name="simulated" if task == "lfc" else "simulated_deg",
        title="Simulated screen" if task == "lfc" else "Simulated screen (labels)",
        task=task,
        screen=screen,
        responses=responses,
        card=card.frame(),
        notes=NOTES,
        simulated=True,
        extras=MappingProxyType({"simulation": simulation}),
    )


def _check(function, options) -> None:
    import inspect

    known = list(inspect.signature(function).parameters)
    unknown = [o for o in options if o not in known]
    if unknown:
        raise ParameterError(
            f"simulate_screen has no parameter '{unknown[0]}'; it has: {', '.join(known)}"
        )
