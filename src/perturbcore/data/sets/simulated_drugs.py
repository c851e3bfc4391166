"""A simulated chemical screen on plates: real compounds, known truth."""

from perturbcore.data.sets._make import simulated_dataset
from perturbcore.data.sets.base import Dataset
from perturbcore.data.simulate.chemistry import simulate_drug_screen


def load(
    task: str = "lfc",
    control: str = "matched",
    batches: str = "all",
    min_cells: int = 20,
    test: str = "welch",
    n_folds: int = 5,
    fold_seed: int = 0,
    **options,
) -> Dataset:
    """Simulate a chemical screen and estimate effects or labels at its response dose.

    `task`: "lfc": plate-matched effects (`perturbcore.data.effects.ba_ate`); "deg": tests on
    each plate and a majority vote of the plates (`perturbcore.data.deg.deg_labels`);
    `min_cells`: for labels, a drug and the vehicle need more than so many cells on a plate;
    folds are by drug, the same in all lines; `**options`: handed to
    `perturbcore.data.simulate.chemistry.simulate_drug_screen`; the rest as in
    `perturbcore.data.sets.simulated`.

    Returns ``screen``: cells at the response dose, and vehicle. ``extras``: "drugs" (DataFrame
    indexed by perturbation: smiles, targets, mechanism, inert), "simulation" (the
    `SimulatedScreen` with truth, network and cells at all doses).

    Cole et al. 2026, Methods 4.1.2 (matched effects, one dose), 4.2.2 (labels by plate and vote).
    """
    return simulated_dataset("simulated_drugs", simulate_drug_screen, "per_batch", locals())
