"""The simulated screen: cells with known truth, and their estimated effects or labels."""

from types import MappingProxyType

from perturbcore.data.sets._make import labels_of, responses_of
from perturbcore.data.sets.base import Card, Dataset, card_of, check_choice, check_options
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

    Raises
    ------
    ParameterError
        An option is unknown or out of its range.
    """
    check_choice("task", task, ("lfc", "deg"))
    check_options("simulate_screen", simulate_screen, options)
    simulation = simulate_screen(**options)
    screen = simulation.screen
    card = Card()
    lines, controls = screen.obs["cell_line"].nunique(), int(screen.obs["is_control"].sum())
    card.step_of("simulated", screen, note=f"{lines} cell lines; {controls:,} control cells")
    folds = dict(n_folds=n_folds, seed=fold_seed)
    labelled = task == "deg"
    name = "simulated_deg" if labelled else "simulated"
    if labelled:
        how = dict(variant="pooled", min_cells=min_cells, test=test)
        responses = labels_of(screen, dataset=name, **how, **folds)
        card.step(
            "labels",
            perturbations=responses.obs["perturbation"].nunique(),
            genes=responses.n_vars,
            note=f"{responses.n_obs} rows with more than {min_cells} cells; "
            f"{(responses.layers['deg'] != 0).mean():.1%} of labels are not 0",
        )
    else:
        responses = responses_of(screen, control=control, batches=batches, **folds)
    about = card_of("simulated")
    return Dataset(
        name=name,
        title=about["title"] + (" (labels)" if labelled else ""),
        task=task,
        screen=screen,
        responses=responses,
        card=card.frame(),
        notes=about["notes"],
        simulated=True,
        extras=MappingProxyType({"simulation": simulation}),
    )
