"""A simulated chemical screen on plates: real compounds, known truth."""

import inspect
from types import MappingProxyType

from perturbcore.core.errors import ParameterError
from perturbcore.data.sets._effects import labels_of, responses_of
from perturbcore.data.sets.base import Card, Dataset

TASKS = ("lfc", "deg")
NOTES = (
    "These cells are simulated. The compounds, their structures and their targets are real; affinities, "
    "networks, effects and cells are not, and nothing about the compounds follows from them.",
    "A drug acts only through its listed targets, so descriptions of targets have an advantage here "
    "that they need not have in real cells.",
    "Most drugs do little and an inert share does nothing, as in real screens.",
)


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

    Parameters
    ----------
    task : {"lfc", "deg"}
        "lfc": plate-matched effects (:func:`perturbcore.data.effects.ba_ate`); "deg": tests on each plate
        and a majority vote of the plates (:func:`perturbcore.data.deg.labels.deg_labels`).
    control, batches : str
        Variant of the effect.
    min_cells, test
        For labels: a drug and the vehicle need more than so many cells on a plate; which t-test.
    n_folds, fold_seed : int
        Folds are by drug, the same in all lines; see `perturbcore.data.folds.assign_folds`.
    **options
        Handed to `perturbcore.data.simulate.chemistry.simulate_drug_screen`, such as its sizes and `seed`.

    Returns
    -------
    Dataset
        ``screen``: cells at the response dose, and vehicle. ``extras``: "drugs" (DataFrame indexed by
        perturbation: smiles, targets, mechanism, inert), "simulation" (the `SimulatedDrugScreen` with
        truth, network and cells at all doses).

    Raises
    ------
    ParameterError
        An option is unknown or out of its range.

    References
    ----------
    Cole et al. 2026, Methods 4.1.2 (matched effects, one dose), 4.2.2 (labels by plate and vote).
    """
    from perturbcore.data.simulate.chemistry import simulate_drug_screen

    if task not in TASKS:
        raise ParameterError(f"task={task!r}: choose one of: {', '.join(TASKS)}")
    known = list(inspect.signature(simulate_drug_screen).parameters)
    unknown = [o for o in options if o not in known]
    if unknown:
        raise ParameterError(
            f"simulate_drug_screen has no parameter '{unknown[0]}'; it has: {', '.join(known)}"
        )
    simulation = simulate_drug_screen(**options)
    card = Card()
    screen = simulation.screen
    dose = simulation.parameters["response_dose"]
    n_vehicle = int(screen.obs["is_control"].sum())
    card.step_of("simulated", screen, note=f"all doses; {n_vehicle:,} vehicle cells")
    screen = screen[(screen.obs["is_control"] | (screen.obs["dose"] == dose)).to_numpy()].copy()
    card.step_of(f"dose {dose:g} µM", screen, note="the dose of the responses, and vehicle")
    if task == "lfc":
        responses = responses_of(
            screen, control=control, batches=batches, n_folds=n_folds, seed=fold_seed
        )
        note = (
            "plate-matched differences of means"
            if control == "matched"
            else "one control for all plates"
        )
    else:
        how = dict(
            variant="per_batch", min_cells=min_cells, test=test, n_folds=n_folds, seed=fold_seed
        )
        responses = labels_of(screen, dataset="simulated_drugs_deg", **how)
        share = (responses.layers["deg"] != 0).mean()
        note = f"rows with more than {min_cells} cells on a plate; {share:.1%} of labels are not 0"
    card.step(
        "responses",
        cells=int(responses.obs["n_cells"].sum()),
        perturbations=responses.obs["perturbation"].nunique(),
        genes=responses.n_vars,
        note=f"{responses.n_obs} rows of drug and line: {note}",
    )
    return Dataset(
        name="simulated_drugs" if task == "lfc" else "simulated_drugs_deg",
        title=f"Simulated drugs ({'effects' if task == 'lfc' else 'labels'})",
        task=task,
        screen=screen,
        responses=responses,
        card=card.frame(),
        notes=NOTES,
        simulated=True,
        extras=MappingProxyType({"simulation": simulation, "drugs": simulation.drugs}),
    )
