"""The simulated screen: cells with known truth, and their estimated effects or labels."""

from perturbcore.data.sets._make import controls_said, simulate, simulated_dataset
from perturbcore.data.sets.base import Card, Dataset
from perturbcore.data.simulate.screen import simulate_screen


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
        "deg": labels of differential expression, batches pooled; see
        `perturbcore.data.deg.labels.deg_labels`.
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
    """
    simulation = simulate(simulate_screen, task, options)
    screen, card = simulation.screen, Card()
    lines = screen.obs["cell_line"].nunique()
    card.step_of("simulated", screen, note=f"{lines} cell lines; {controls_said(screen)}")
    return simulated_dataset(
        "simulated",
        simulation,
        screen,
        card,
        task=task,
        effects=dict(control=control, batches=batches),
        labels=dict(variant="pooled", min_cells=min_cells, test=test),
        folds=(n_folds, fold_seed),
    )
