"""A simulated chemical screen on plates: real compounds, known truth."""

from types import MappingProxyType

from perturbcore.data.sets._make import labels_of, responses_of
from perturbcore.data.sets.base import Card, Dataset, card_of, check_choice, check_options
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
    each plate and a majority vote of the plates (`perturbcore.data.deg.labels.deg_labels`);
    `control, batches`: variant of the effect; `min_cells, test`: for labels: a drug and the
    vehicle need more than so many cells on a plate; which t-test; `n_folds, fold_seed`: folds
    are by drug, the same in all lines; see `perturbcore.data.folds.assign_folds`; `**options`:
    handed to `perturbcore.data.simulate.chemistry.simulate_drug_screen`, such as its sizes and
    `seed`.

    Returns ``screen``: cells at the response dose, and vehicle. ``extras``: "drugs" (DataFrame
    indexed by perturbation: smiles, targets, mechanism, inert), "simulation" (the
    `SimulatedDrugScreen` with truth, network and cells at all doses).

    Cole et al. 2026, Methods 4.1.2 (matched effects, one dose), 4.2.2 (labels by plate and
    vote).
    """
    check_choice("task", task, ("lfc", "deg"))
    check_options("simulate_drug_screen", simulate_drug_screen, options)
    simulation = simulate_drug_screen(**options)
    card = Card()
    screen = simulation.screen
    dose = simulation.parameters["response_dose"]
    vehicle = screen.obs["is_control"]
    card.step_of("simulated", screen, note=f"all doses; {int(vehicle.sum()):,} vehicle cells")
    screen = screen[(vehicle | (screen.obs["dose"] == dose)).to_numpy()].copy()
    card.step_of(f"dose {dose:g} µM", screen, note="the dose of the responses, and vehicle")
    folds = dict(n_folds=n_folds, seed=fold_seed)
    name = "simulated_drugs" if task == "lfc" else "simulated_drugs_deg"
    if task == "lfc":
        responses = responses_of(screen, control=control, batches=batches, **folds)
        matched = "plate-matched differences of means"
        note = matched if control == "matched" else "one control for all plates"
    else:
        how = dict(variant="per_batch", min_cells=min_cells, test=test)
        responses = labels_of(screen, dataset=name, **how, **folds)
        share = (responses.layers["deg"] != 0).mean()
        note = f"rows with more than {min_cells} cells on a plate; {share:.1%} of labels are not 0"
    card.responses(responses, f"{responses.n_obs} rows of drug and line: {note}")
    about = card_of("simulated_drugs")
    return Dataset(
        name=name,
        title=f"{about['title']} ({'effects' if task == 'lfc' else 'labels'})",
        task=task,
        screen=screen,
        responses=responses,
        card=card.frame(),
        notes=about["notes"],
        simulated=True,
        extras=MappingProxyType({"simulation": simulation, "drugs": simulation.drugs}),
    )
