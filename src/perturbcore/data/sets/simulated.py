"""The simulated screen: cells with known truth, and their estimated effects or labels."""

from perturbcore.data.sets._make import simulated_dataset
from perturbcore.data.sets.base import Dataset
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
        `perturbcore.data.deg.deg_labels`.
    control, batches : str
        Variant of the effect; see `perturbcore.data.effects.ba_ate`.
    min_cells, test
        For labels: a perturbation needs more than so many cells; which t-test.
    n_folds, fold_seed : int
        See `perturbcore.data.folds.assign_folds`.
    **options
        Handed to `perturbcore.data.simulate.screen.simulate_screen`, such as its sizes and `seed`.

    Returns ``extras["simulation"]``: the `SimulatedScreen` with its truth.
    """
    how = dict(control=control, batches=batches, min_cells=min_cells, test=test)
    how |= dict(task=task, variant="pooled", n_folds=n_folds, fold_seed=fold_seed)
    return simulated_dataset("simulated", simulate_screen, options, **how)
