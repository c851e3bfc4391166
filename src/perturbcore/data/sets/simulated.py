"""The simulated screen: cells with known truth, and their estimated effects or labels."""

from perturbcore.data.sets._make import simulated_dataset
from perturbcore.data.sets.base import Dataset
from perturbcore.data.simulate.screen import simulate_screen


def load(
    task: str = "lfc",
    control: str = "global",
    batches: str = "all",
    min_cells: int = 30,
    n_folds: int = 5,
    **options,
) -> Dataset:
    """Simulate a screen and estimate its effects, or label its genes.

    `task`: "lfc", or "deg": labels with batches pooled; `control, batches`: variant of the effect
    (`perturbcore.data.effects`); `min_cells`: of labels (`perturbcore.data.deg`);
    `n_folds`: see `perturbcore.data.folds.assign_folds`; `**options`: of
    `perturbcore.data.simulate.screen.simulate_screen`.
    """
    return simulated_dataset("simulated", simulate_screen, "pooled", locals())
