"""The public door of the simulation: a screen with known truth."""

from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import ParameterError
from perturbcore.core.files import read_yaml
from perturbcore.data.molecules.tables import builtin_compounds, targets_of
from perturbcore.data.simulate import model as sim
from perturbcore.data.simulate.knowledge import Knowledge, make_knowledge

_BOUNDS = read_yaml(Path(__file__).with_name("bounds.yml"))
# of the chemical screen: doses (micromolar), that of the responses, and how many cells the others
# have as a share; smallest and largest number of cells of a drug, and of vehicle, on a plate
DOSES, RESPONSE_DOSE, OTHER_DOSE_SHARE = (0.1, 1.0, 10.0), 10.0, 0.1
PLATE_CELLS, VEHICLE_CELLS = (12, 42), (40, 90)


@dataclass(frozen=True)
class SimulatedScreen:
    """A simulated experiment; `true_effects` are the expected BA-ATE, `knowledge` what is known."""

    screen: AnnData
    true_effects: AnnData
    knowledge: Knowledge
    parameters: dict
    drugs: pd.DataFrame | None = None


def simulate_screen(
    *,
    n_cell_lines: int = 3,
    n_perturbations: int = 300,
    n_genes: int = 1000,
    n_batches: int = 12,
    cells_per_perturbation: tuple = (10, 120),
    n_control_cells: int = 1500,
    n_modules: int = 25,
    null_fraction: float = 1 / 3,
    effect_size: float = 0.45,
    stress_size: float = 0.45,
    line_specificity: float = 0.45,
    batch_effect: float = 0.3,
    dispersion: float = 0.15,
    dropout: float = 0.1,
    library_size: float = 3500.0,
    seed: int = 0,
) -> SimulatedScreen:
    """Simulate a perturbation screen whose truth is known.

    A perturbed gene sends its effect through an interaction network (random walk with restart);
    every gene it reaches moves the programme of its module and its own targets. All perturbations
    also set off one shared stress programme, and each lowers its own gene. Counts are negative
    binomial with cell-to-cell programmes; batches are shifted and hold unequal shares of control
    and perturbed cells. Reported knowledge is an imperfect view of the same modules.

    `n_cell_lines, n_perturbations, n_genes`: perturbations are genes; all lines get the same ones;
    `n_batches`: in each cell line; their labels repeat from line to line; `cells_per_perturbation`
    (int, int): smallest and largest number of cells a perturbation has in a line (uniform in
    between); `n_control_cells`: in each line, at least one per batch; `n_modules`: programmes of
    genes that move together; `null_fraction` in [0, 1]: share of perturbations that do next to
    nothing (they still lower their own gene); `effect_size, stress_size`: root mean square over
    genes of the specific and the shared part of the effect of a perturbation of strength 1,
    natural-log rate; `line_specificity` in [0, 1]: 0: lines respond alike; 1: nothing is shared;
    `batch_effect`: size of batch shifts, natural-log rate; `dispersion`: negative-binomial,
    variance = mean + dispersion * mean**2; `dropout` in [0, 1): chance that the rarest gene's count
    is lost whole; falls linearly with expression rank; `library_size`: median count per cell;
    `seed`: equal seeds give identical cells. A size out of range is refused (`ParameterError`).

    Examples
    --------
    >>> sizes = dict(n_cell_lines=1, n_perturbations=12, n_genes=80, n_control_cells=60)
    >>> simulation = pc.simulate_screen(**sizes)
    >>> simulation.screen.n_vars, simulation.true_effects.shape
    (80, (12, 80))
    """
    parameters = dict(locals())
    check_parameters(parameters)
    s_know, s_model, s_batch, s_design, s_cells = np.random.SeedSequence(seed).spawn(5)
    knowledge = make_knowledge(n_genes, n_modules, s_know)
    model = sim.make_model(knowledge, SimpleNamespace(**parameters), s_model)
    shift, control_share, perturbed_share = sim.draw_batches(model, n_batches, s_batch)
    design = sim.draw_design(model, control_share, perturbed_share, s_design)
    counts = sim.draw_cells(model, design, shift, s_cells)
    about = {"near_null": model.near_null.ravel()}
    truth = sim.truth_of(model, sim.expected_effects(model, shift), "simulated", "symbol", about)
    screen = sim.as_screen(model, design, counts, "simulated")
    return SimulatedScreen(screen, truth, knowledge, parameters)


def refuse(p: dict, name: str, why: str) -> None:
    """Raise the error that names a parameter, its value and what is wanted."""
    raise ParameterError(f"{name}={p[name]!r}: {why}")


def is_whole(value) -> bool:
    """Whether a value is a whole number."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_parameters(p: dict) -> None:
    """Refuse sizes that no experiment can have; the message names the parameter."""
    for kind, what in {"whole": "a whole number", "number": "a number"}.items():
        for name, (low, high) in _BOUNDS[kind].items():
            value = p.get(name, low)
            number = isinstance(value, Real) and not isinstance(value, bool) and np.isfinite(value)
            right = is_whole(value) if kind == "whole" else number
            if not (right and low <= value <= high):
                upto = "" if high == np.inf else f" and at most {high:g}"
                refuse(p, name, f"give {what} of at least {low:g}{upto}")
    for name, other in _BOUNDS["at_most"].items():
        if name in p and p[name] > p[other]:
            refuse(p, name, f"cannot exceed {other}={p[other]}")
    for name, other in _BOUNDS["at_least"].items():
        if name in p and p[name] < p[other]:
            refuse(p, name, f"each of {other}={p[other]} needs one")
    for name in p.keys() & set(_BOUNDS["pair"]):
        pair = p[name]
        good = isinstance(pair, tuple | list) and len(pair) == 2 and all(map(is_whole, pair))
        if not good or not 1 <= pair[0] <= pair[1]:
            refuse(p, name, "give (smallest, largest) with 1 <= smallest <= largest")


def simulate_drug_screen(
    *,
    n_drugs: int | None = None,
    n_cell_lines: int = 3,
    n_genes: int = 500,
    n_plates: int = 6,
    plates_per_drug: int = 3,
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
) -> SimulatedScreen:
    """Simulate a chemical screen on plates whose truth is known.

    A drug does to a cell what lowering its targets does (as in
    :func:`perturbcore.data.simulate.screen.simulate_screen`), weighted by how much of a target it
    occupies at its dose, dose / (dose + Kd); targets of one mechanism lie in one module. Compounds
    are real, so that structures say something about targets; cells and effects are not.

    Responses are those of 10 micromolar; a tenth as many cells get 1 and 0.1 micromolar. A plate
    has 12 to 42 cells of a drug at the response dose, and 40 to 90 of vehicle.

    `n_drugs`: draw only so many of the built-in compounds; `n_cell_lines, n_genes, n_modules`:
    sizes; `inert_fraction`: share of drugs that do nothing at any dose; `n_plates,
    plates_per_drug`: plates in each line, and on how many of them a drug is (replicates);
    `effect_size, stress_size, line_specificity, batch_effect, dispersion, dropout, library_size`:
    see `perturbcore.data.simulate.screen.simulate_screen`; sizes are those of a drug of efficacy 1
    that occupies its target wholly; `seed`: equal seeds give identical cells.
    """
    parameters = dict(locals())
    compounds = builtin_compounds()
    check_parameters(parameters)
    if n_drugs is not None and not (is_whole(n_drugs) and 1 <= n_drugs <= len(compounds)):
        most = f"a whole number from 1 to {len(compounds)}, the number of compounds"
        refuse(parameters, "n_drugs", f"give {most}")
    root = np.random.SeedSequence([911, seed])
    s_pick, s_know, s_model, s_batch, s_design, s_cells = root.spawn(6)
    if n_drugs is not None:
        at = np.random.default_rng(s_pick).choice(len(compounds), n_drugs, replace=False)
        compounds = compounds.iloc[np.sort(at)]
    knowledge = _place_targets(make_knowledge(n_genes, n_modules, s_know), compounds, s_know)
    settings = SimpleNamespace(**parameters)
    model, inert = _drug_model(knowledge, compounds, settings, s_model)
    shift, *_ = sim.draw_batches(model, n_plates, s_batch)
    design = _draw_plates(len(compounds), settings, s_design)
    counts = sim.draw_cells(model, design, shift, s_cells)
    drugs = compounds.assign(inert=inert).rename_axis("perturbation")
    names = list(drugs.index)
    # the truth is that of the response dose
    first = DOSES.index(RESPONSE_DOSE) * len(names)
    of_dose = model.effects[:, first : first + len(names)]
    chosen = replace(model, perturbations=names, effects=of_dose)
    about = {"inert": np.tile(inert, n_cell_lines)}
    effects = sim.expected_effects(chosen, shift)
    truth = sim.truth_of(chosen, effects, "simulated_drugs", "drug", about)
    screen = _screen(model, design, counts, names)
    return SimulatedScreen(screen, truth, knowledge, parameters, drugs)


def _place_targets(knowledge: Knowledge, compounds: pd.DataFrame, seed) -> Knowledge:
    """Give genes the names of the compounds' targets, targets of one mechanism in one module."""
    # a child of its own: the seed has already served make_knowledge
    rng = np.random.default_rng(np.random.SeedSequence([*seed.generate_state(2), 17]))
    home: dict = {}
    mechanisms = compounds["mechanism"].astype(str)
    for mechanism, targets in zip(mechanisms, targets_of(compounds).values(), strict=True):
        for target in targets:
            home.setdefault(target, mechanism)
    if len(home) > len(knowledge.genes):
        raise ParameterError(
            f"n_genes={len(knowledge.genes)}: the compounds have {len(home)} targets; give more "
            "genes"
        )
    n_modules = knowledge.modules.max() + 1
    module_of = {m: int(rng.integers(n_modules)) for m in dict.fromkeys(home.values())}
    free = [list(rng.permutation(np.flatnonzero(knowledge.modules == m))) for m in range(n_modules)]
    new = dict(zip(knowledge.genes, knowledge.genes, strict=True))
    for target, mechanism in home.items():
        module = module_of[mechanism]
        # a full module overflows into the next one
        while not free[module]:
            module = (module + 1) % n_modules
        new[knowledge.genes[free[module].pop()]] = target
    ends = knowledge.network[["source", "target"]].apply(lambda names: names.map(new))
    texts = knowledge.descriptions.items()
    return replace(
        knowledge,
        genes=[new[g] for g in knowledge.genes],
        network=knowledge.network.assign(**ends),
        annotation={term: [new[g] for g in genes] for term, genes in knowledge.annotation.items()},
        descriptions={new[g]: text.replace(f"{g}:", f"{new[g]}:", 1) for g, text in texts},
        sequences={new[g]: s for g, s in knowledge.sequences.items()},
    )


def _drug_model(knowledge, compounds, settings, seed) -> tuple[sim.Model, np.ndarray]:
    """Draw the truth of drugs, at the first dose, then the second and so on; and who is inert."""
    s_model, s_drug = seed.spawn(2)
    n_genes, n_drugs = len(knowledge.genes), len(compounds)
    # the effect of every gene: a drug's is a sum over its targets
    every = vars(settings) | {"n_perturbations": n_genes, "null_fraction": 0.0}
    genetic = sim.make_model(knowledge, SimpleNamespace(**every), s_model)
    single = genetic.effects.copy()
    own = np.arange(n_genes)
    # an inhibited protein keeps its transcript
    single[:, own, own] = 0.0
    rng = np.random.default_rng(s_drug)
    inert = np.zeros(n_drugs, dtype=bool)
    inert[rng.permutation(n_drugs)[: int(round(settings.inert_fraction * n_drugs))]] = True
    efficacy = np.where(inert, 0.0, np.clip(rng.lognormal(-1.0, 0.8, n_drugs), 0.03, 1.6))
    position = {g: i for i, g in enumerate(knowledge.genes)}
    effects = np.zeros((len(single), len(DOSES), n_drugs, n_genes), dtype=np.float32)
    for d, targets in enumerate(targets_of(compounds).values()):
        # a drug without a known target has one that nobody knows
        for rank, target in enumerate(targets or [knowledge.genes[rng.integers(n_genes)]]):
            # -log10 of molar Kd; further targets are bound less tightly than the first
            kd = 10.0 ** (6.0 - float(rng.normal(6.6 - 0.5 * min(rank, 2), 0.7)))
            for i, dose in enumerate(DOSES):
                share = efficacy[d] * dose / (dose + kd) / np.sqrt(max(1, len(targets)))
                effects[:, i, d] += share * single[:, position[target]]
    np.clip(effects, -3.0, 3.0, out=effects)
    names = [f"{drug}@{dose:g}" for dose in DOSES for drug in compounds.index]
    effects = effects.reshape(len(single), -1, n_genes)
    return replace(genetic, perturbations=names, effects=effects), inert


def _draw_plates(n_drugs: int, settings, seed) -> pd.DataFrame:
    """Draw one row per cell; a drug, with all its doses, lies on the same plates in all lines."""
    layout, *lines = seed.spawn(1 + settings.n_cell_lines)
    n_plates, per_drug = settings.n_plates, settings.plates_per_drug
    (few, many), (least, most), n_doses = PLATE_CELLS, VEHICLE_CELLS, len(DOSES)
    on = np.argsort(np.random.default_rng(layout).random((n_drugs, n_plates)), axis=1)[:, :per_drug]
    code = np.repeat(np.arange(n_doses * n_drugs), per_drug)
    code = np.concatenate([code, np.full(n_plates, -1)])
    plate = np.concatenate([np.tile(on.ravel(), n_doses), np.arange(n_plates)])
    frames = []
    for line, stream in enumerate(lines):
        rng = np.random.default_rng(stream)
        full = rng.integers(few, many + 1, (n_drugs, per_drug))
        size = [
            full if dose == RESPONSE_DOSE else rng.binomial(full, OTHER_DOSE_SHARE)
            for dose in DOSES
        ]
        size = np.concatenate([*map(np.ravel, size), rng.integers(least, most + 1, n_plates)])
        codes = {"perturbation": np.repeat(code, size), "batch": np.repeat(plate, size)}
        frame = pd.DataFrame({"line": line, **codes})
        frames.append(frame.iloc[rng.permutation(len(frame))])
    return pd.concat(frames, ignore_index=True)


def _screen(model, design, counts, drugs) -> AnnData:
    screen = sim.as_screen(model, design, counts, "simulated_drugs")
    dose, drug = np.divmod(design["perturbation"].to_numpy(), len(drugs))
    # vehicle is the last of either
    names, amount = np.array([*drugs, sim.CONTROL], dtype=object), np.array([*DOSES, 0.0])
    screen.obs["perturbation"] = names[np.where(dose < 0, len(drugs), drug)]
    screen.obs["dose"] = amount[np.where(dose < 0, len(DOSES), dose)]
    screen.obs["batch"] = screen.obs["batch"].str.replace("batch", "plate")
    screen.uns["perturbcore"].update(identifier="drug", dose=RESPONSE_DOSE)
    return screen
