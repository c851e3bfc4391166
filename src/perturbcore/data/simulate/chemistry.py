"""A simulated chemical screen: real compounds, whose effects follow their targets.

Affinity and dose.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.data.simulate.cells import CONTROL, as_screen, draw_batches, draw_cells
from perturbcore.data.simulate.chemistry_model import (
    check_compounds,
    check_drug_parameters,
    make_drug_model,
    place_targets,
)
from perturbcore.data.simulate.knowledge import make_knowledge
from perturbcore.data.simulate.screen import SimulatedScreen
from perturbcore.data.simulate.truth import expected_effects, truth_of


@dataclass(frozen=True)
class SimulatedDrugScreen(SimulatedScreen):
    """A simulated chemical experiment: `perturbation` is the drug, `batch` the plate.

    `screen.obs` also has `dose` in micromolar (0 for vehicle); `true_effects` are at the
    response dose.

    `drugs`: indexed by drug: the columns of `compounds` and `inert`; `affinity`: one row per
    (drug, target): `drug`, `target`, `pkd` (-log10 of molar Kd), `weight` (occupancy at the
    response dose).
    """

    drugs: pd.DataFrame
    affinity: pd.DataFrame


def simulate_drug_screen(
    compounds: pd.DataFrame | None = None,
    *,
    n_drugs: int | None = None,
    n_cell_lines: int = 3,
    n_genes: int = 500,
    n_plates: int = 6,
    plates_per_drug: int = 3,
    cells_per_plate: tuple = (12, 42),
    vehicle_cells: tuple = (40, 90),
    doses: tuple = (0.1, 1.0, 10.0),
    response_dose: float = 10.0,
    other_dose_cells: float = 0.1,
    n_modules: int = 24,
    inert_fraction: float = 0.3,
    effect_size: float = 0.45,
    stress_size: float = 0.25,
    line_specificity: float = 0.35,
    batch_effect: float = 0.3,
    dispersion: float = 0.15,
    dropout: float = 0.1,
    library_size: float = 3000.0,
    seed: int = 0,
    progress: bool = False,
) -> SimulatedDrugScreen:
    """Simulate a chemical screen on plates whose truth is known.

    A drug does to a cell what inhibiting its targets does: each target's effect travels through
    an interaction network (as in :func:`perturbcore.data.simulate.screen.simulate_screen`),
    weighted by how much of the target the drug occupies at its dose, dose / (dose + Kd).
    Targets of one mechanism lie in one module of the network. Affinity and efficacy are drawn a
    drug with long tails, so that most drugs do little; an inert share does nothing at any dose
    (not taken up). Targets that a line does not express do little there. Compounds are real, so
    that their structures say something about their targets; cells and effects are not.

    `compounds`: indexed by name, columns `smiles`, `targets` (symbols, ";"-separated),
    `mechanism`; default `perturbcore.data.molecules.tables.builtin_compounds()`; `n_drugs`:
    draw only so many of the compounds; `n_plates, plates_per_drug`: plates in each line, and on
    how many of them a drug is (replicates); `cells_per_plate, vehicle_cells` (int, int):
    smallest and largest number of cells of a drug at the response dose, and of vehicle, on a
    plate; `doses`: micromolar; `response_dose`: one of `doses`: that of the responses;
    `other_dose_cells`: cells at each other dose, as a share of those at the response dose; 0
    measures none; `effect_size, stress_size, line_specificity, batch_effect, dispersion,
    dropout, library_size`: see :func:`perturbcore.data.simulate.screen.simulate_screen`; sizes
    are those of a drug of efficacy 1 that occupies its target wholly; `seed`: Equal seeds give
    identical cells.
    """
    parameters = {k: v for k, v in locals().items() if k not in ("progress", "compounds")}
    if compounds is None:
        from perturbcore.data.molecules.tables import builtin_compounds

        compounds = builtin_compounds()
    check_compounds(compounds)
    check_drug_parameters(parameters, len(compounds))
    s_pick, s_know, s_model, s_batch, s_design, s_cells = np.random.SeedSequence([911, seed]).spawn(
        6
    )
    if n_drugs is not None:
        at = np.random.default_rng(s_pick).choice(len(compounds), n_drugs, replace=False)
        compounds = compounds.iloc[np.sort(at)]
    knowledge = make_knowledge(n_genes, n_modules, s_know)
    knowledge = place_targets(knowledge, compounds, s_know)
    model, affinity, inert = make_drug_model(
        knowledge, compounds, s_model, doses=doses, response_dose=response_dose,
        inert_fraction=inert_fraction, n_cell_lines=n_cell_lines, effect_size=effect_size,
        stress_size=stress_size, line_specificity=line_specificity, batch_effect=batch_effect,
        dispersion=dispersion, dropout=dropout, library_size=library_size,
    )  # fmt: skip
    drugs = compounds.assign(inert=inert)
    drugs.index.name = "perturbation"
    batches = draw_batches(model, n_plates, s_batch)
    design = draw_plates(
        len(doses), list(doses).index(response_dose), len(compounds), n_cell_lines, n_plates,
        plates_per_drug, cells_per_plate, vehicle_cells, other_dose_cells, s_design,
    )  # fmt: skip
    counts = draw_cells(model, design, batches["shift"], s_cells, progress)
    at_dose = list(doses).index(response_dose) * len(compounds) + np.arange(len(compounds))
    return SimulatedDrugScreen(
        _screen(model, design, counts, list(compounds.index), doses),
        _truth(model, batches, at_dose, compounds.index, inert),
        knowledge,
        parameters,
        model,
        batches,
        drugs=drugs,
        affinity=affinity,
    )


def draw_plates(
    n_doses, response_dose, n_drugs, n_lines, n_plates, plates_per_drug, cells, vehicle, other, seed
) -> pd.DataFrame:
    """Draw one row a cell: codes of line, perturbation (dose x drug, -1 for vehicle) and plate.

    Every drug lies on the same plates in all lines, as in pooled or parallel plate layouts, and all
    its doses lie on them; every plate has vehicle cells.
    """
    layout, *lines = seed.spawn(1 + n_lines)
    rng = np.random.default_rng(layout)
    on = np.argsort(rng.random((n_drugs, n_plates)), axis=1)[:, :plates_per_drug]
    frames = []
    for line, stream in enumerate(lines):
        rng = np.random.default_rng(stream)
        full = rng.integers(cells[0], cells[1] + 1, (n_drugs, plates_per_drug))
        code, plate, size = [], [], []
        for dose in range(n_doses):
            n = full if dose == response_dose else rng.binomial(full, other)
            code.append(np.repeat(dose * n_drugs + np.arange(n_drugs), plates_per_drug))
            plate.append(on.ravel())
            size.append(n.ravel())
        code.append(np.full(n_plates, -1))
        plate.append(np.arange(n_plates))
        size.append(rng.integers(vehicle[0], vehicle[1] + 1, n_plates))
        size = np.concatenate(size)
        frame = pd.DataFrame(
            {
                "line": line,
                "perturbation": np.repeat(np.concatenate(code), size),
                "batch": np.repeat(np.concatenate(plate), size),
            }
        )
        frames.append(frame.iloc[rng.permutation(len(frame))])
    return pd.concat(frames, ignore_index=True)


def _screen(model, design, counts, drugs, doses) -> AnnData:
    screen = as_screen(model, design, counts, "simulated_drugs")
    code = design["perturbation"].to_numpy()
    names = np.array([*drugs, CONTROL], dtype=object)
    screen.obs["perturbation"] = names[np.where(code < 0, len(drugs), code % len(drugs))]
    amount = np.array([*doses, 0.0])
    screen.obs["dose"] = amount[np.where(code < 0, len(doses), code // len(drugs))]
    screen.obs["batch"] = screen.obs["batch"].str.replace("batch", "plate")
    screen.uns["perturbcore"]["identifier"] = "drug"
    return screen


def _truth(model, batches, at_dose, drugs, inert) -> AnnData:
    chosen = replace(model, perturbations=list(drugs), effects=model.effects[:, at_dose])
    size = np.sqrt((chosen.effects.astype(float) ** 2).mean(-1))
    about = {"efficacy": size.ravel(), "inert": np.tile(inert, len(model.cell_lines))}
    effects = expected_effects(chosen, batches["shift"])
    return truth_of(chosen, effects, "simulated_drugs", "drug", about)
