"""The public door of the simulation: a screen with known truth."""

from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import ParameterError
from perturbcore.core.files import read_yaml
from perturbcore.data.simulate.knowledge import Knowledge, make_knowledge
from perturbcore.data.simulate.model import (
    as_screen,
    draw_batches,
    draw_cells,
    draw_design,
    expected_effects,
    make_model,
    truth_of,
)

_BOUNDS = read_yaml(Path(__file__).with_name("bounds.yml"))


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
    model = make_model(knowledge, SimpleNamespace(**parameters), s_model)
    shift, control_share, perturbed_share = draw_batches(model, n_batches, s_batch)
    design = draw_design(model, control_share, perturbed_share, s_design)
    counts = draw_cells(model, design, shift, s_cells)
    cells = design[design["perturbation"] >= 0].groupby(["line", "perturbation"])["batch"]
    measured = cells.agg(n_cells="size", n_batches="nunique")
    about = {"strength": model.strength.ravel(), "near_null": model.near_null.ravel()}
    about |= {c: measured[c].to_numpy() for c in measured}
    truth = truth_of(model, expected_effects(model, shift), "simulated", "symbol", about)
    screen = as_screen(model, design, counts, "simulated")
    return SimulatedScreen(screen, truth, knowledge, parameters)


def refuse(p: dict, name: str, why: str) -> None:
    """Raise the error that names a parameter, its value and what is wanted."""
    raise ParameterError(f"{name}={p[name]!r}: {why}")


def is_whole(value) -> bool:
    """Whether a value is a whole number."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, Real) and not isinstance(value, bool) and bool(np.isfinite(value))


def check_parameters(p: dict) -> None:
    """Refuse sizes that no experiment can have; the message names the parameter."""
    kinds = {"whole": ("a whole number", is_whole), "number": ("a number", is_number)}
    for kind, (what, right) in kinds.items():
        for name, (low, high) in _BOUNDS[kind].items():
            if name in p and not (right(p[name]) and low <= p[name] <= high):
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
