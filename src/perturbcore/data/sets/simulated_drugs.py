"""A simulated chemical screen on plates: real compounds, known truth."""

from perturbcore.data.sets._make import simulated_dataset
from perturbcore.data.sets.base import Dataset
from perturbcore.data.simulate.screen import simulate_drug_screen


def load(
    task: str = "lfc",
    control: str = "matched",
    batches: str = "all",
    min_cells: int = 20,
    n_folds: int = 5,
    **options,
) -> Dataset:
    """Simulate a chemical screen and estimate effects or labels (by vote) at its response dose."""
    return simulated_dataset("simulated_drugs", simulate_drug_screen, "per_batch", locals())
