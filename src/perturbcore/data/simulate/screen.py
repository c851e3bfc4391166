"""The public door of the simulation: a screen with known truth, and replicates of it."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import ParameterError
from perturbcore.data.simulate.cells import as_screen, draw_batches, draw_cells, draw_design
from perturbcore.data.simulate.checks import check_parameters
from perturbcore.data.simulate.knowledge import Knowledge, make_knowledge
from perturbcore.data.simulate.model import Model, make_model
from perturbcore.data.simulate.truth import expected_effects, truth_of


@dataclass(frozen=True)
class SimulatedScreen:
    """A simulated experiment and everything that is true or known about it.

    `screen`: counts with the columns every screen has (`perturbation`, `batch`, `cell_line`,
    `is_control`); the control label is ``"control"``; `true_effects` (cell_line, perturbation):
    the expected BA-ATE (see :func:`perturbcore.data.simulate.truth.expected_effects`); obs also
    has `strength` and `near_null` (genes), or `efficacy` and `inert` (drugs); `knowledge`: what
    databases say of the genes, and the hidden modules behind it; `parameters`: what the
    simulation was called with.
    """

    screen: AnnData
    true_effects: AnnData
    knowledge: Knowledge
    parameters: dict
    model: Model = field(repr=False)
    batches: dict = field(repr=False)

    @property
    def network(self) -> pd.DataFrame:
        """Reported undirected interactions: `source`, `target`, `weight`."""
        return self.knowledge.network

    @property
    def annotation(self) -> dict[str, list[str]]:
        """Pathway-like gene sets."""
        return self.knowledge.annotation

    @property
    def descriptions(self) -> dict[str, str]:
        """A short text per gene."""
        return self.knowledge.descriptions

    @property
    def sequences(self) -> dict[str, str]:
        """An amino-acid sequence per gene."""
        return self.knowledge.sequences

    @property
    def modules(self) -> pd.Series:
        """The hidden module of each gene."""
        return pd.Series(self.knowledge.modules, index=self.knowledge.genes, name="module")

    @property
    def families(self) -> pd.Series:
        """The hidden sequence family of each gene."""
        return pd.Series(self.knowledge.families, index=self.knowledge.genes, name="family")

    @property
    def true_network(self) -> pd.DataFrame:
        """The interactions that effects travel along, each once: `source`, `target`."""
        names = np.array(self.knowledge.genes)
        a, b = np.nonzero(np.triu(self.knowledge.interactions.toarray()))
        return pd.DataFrame({"source": names[a], "target": names[b]})


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
    progress: bool = False,
) -> SimulatedScreen:
    """Simulate a perturbation screen whose truth is known.

    A perturbed gene sends its effect through an interaction network (random walk with restart);
    every gene it reaches moves the programme of its module and its own targets. All perturbations
    also set off one shared stress programme in proportion to their strength, and each lowers its
    own gene. A share of the perturbations does next to nothing. Counts are negative binomial with
    a library size a cell, gene-wise dropout, cell-to-cell programmes and batch shifts; batches
    hold unequal shares of control and perturbed cells, so that a difference of pooled means is
    biased. Reported knowledge (network, annotation, texts, sequences) is an imperfect view of the
    same modules.

    Parameters
    ----------
    n_cell_lines, n_perturbations, n_genes : int
        Perturbations are genes; all lines get the same ones.
    n_batches : int
        Batches in each cell line; their labels repeat from line to line.
    cells_per_perturbation : (int, int)
        Smallest and largest number of cells a perturbation has in a line (uniform in between).
    n_control_cells : int
        Control cells in each line, at least one a batch.
    n_modules : int
    null_fraction : float in [0, 1]
        Share of perturbations that do next to nothing (they still lower their own gene).
    effect_size, stress_size : float
        Root mean square over genes of the specific and the shared part of the effect of a
        perturbation of strength 1, natural-log rate.
    line_specificity : float in [0, 1]
        0: lines respond alike; 1: nothing is shared.
    batch_effect : float
        Size of batch shifts, natural-log rate.
    dispersion : float
        Negative-binomial dispersion: variance = mean + dispersion * mean**2.
    dropout : float in [0, 1)
        Chance that the rarest gene's count is lost whole; falls linearly with expression rank.
    library_size : float
        Median count a cell.
    seed : int
        Equal seeds give identical cells.
    progress : bool
        Show a progress bar.

    Returns
    -------
    SimulatedScreen

    Raises
    ------
    ParameterError
        If a size is out of range; the message names the parameter.
    """
    parameters = {k: v for k, v in locals().items() if k != "progress"}
    check_parameters(parameters)
    root = np.random.SeedSequence(seed)
    s_know, s_model, s_batch, s_design, s_cells = root.spawn(5)
    knowledge = make_knowledge(n_genes, n_modules, s_know)
    model = make_model(
        knowledge, s_model, n_cell_lines=n_cell_lines, n_perturbations=n_perturbations,
        null_fraction=null_fraction, effect_size=effect_size, stress_size=stress_size,
        line_specificity=line_specificity, batch_effect=batch_effect, dispersion=dispersion,
        dropout=dropout, library_size=library_size,
    )  # fmt: skip
    batches = draw_batches(model, n_batches, s_batch)
    design = draw_design(
        model, batches, model.cell_lines, model.perturbations, cells_per_perturbation,
        n_control_cells, s_design,
    )  # fmt: skip
    counts = draw_cells(model, design, batches["shift"], s_cells, progress)
    return SimulatedScreen(
        as_screen(model, design, counts, "simulated"),
        _true_effects(model, batches, design),
        knowledge,
        parameters,
        model,
        batches,
    )


def replicate_screen(
    simulated: SimulatedScreen,
    *,
    seed: int,
    perturbations: list | None = None,
    cell_lines: list | None = None,
    cells_per_perturbation: int | tuple | None = None,
    n_control_cells: int | None = None,
    new_batches: bool = True,
) -> AnnData:
    """Repeat a simulated experiment: the same truth, other cells.

    `seed`: Equal seeds give identical cells; differs from the seed of the simulation in effect
    even where the numbers are equal; `perturbations, cell_lines`: restrict the replicate to
    these; default all; `cells_per_perturbation` (int, int): an exact number, or a range;
    default as simulated; `n_control_cells`: in each line; default as simulated; `new_batches`:
    whether the replicate has batch shifts of its own, as another experiment would, or is
    measured in the batches of the first.

    Returns a screen.
    """
    model, parameters = simulated.model, simulated.parameters
    cells = parameters["cells_per_perturbation"]
    cells = cells if cells_per_perturbation is None else cells_per_perturbation
    cells = (cells, cells) if np.isscalar(cells) else tuple(cells)
    controls = parameters["n_control_cells"] if n_control_cells is None else n_control_cells
    check_parameters(
        {**parameters, "cells_per_perturbation": cells, "n_control_cells": controls, "seed": seed}
    )
    chosen = {}
    for name, given, known in (
        ("perturbations", perturbations, model.perturbations),
        ("cell_lines", cell_lines, model.cell_lines),
    ):
        chosen[name] = list(known) if given is None else list(dict.fromkeys(given))
        unknown = [v for v in chosen[name] if v not in set(known)]
        if unknown or not chosen[name]:
            raise ParameterError(
                f"{name}={unknown[:5] if unknown else []} is not in the simulation; "
                f"choose from {known[:5]} ... ({len(known)} in all)"
            )
    # the first word keeps replicate streams apart from those of simulate_screen
    s_batch, s_design, s_cells = np.random.SeedSequence([7261, parameters["seed"], seed]).spawn(3)
    n_batches = parameters["n_batches"]
    batches = draw_batches(model, n_batches, s_batch) if new_batches else simulated.batches
    design = draw_design(
        model, batches, chosen["cell_lines"], chosen["perturbations"], cells, controls, s_design
    )
    counts = draw_cells(model, design, batches["shift"], s_cells)
    return as_screen(model, design, counts, "simulated replicate")


def _true_effects(model, batches, design) -> AnnData:
    index = pd.MultiIndex.from_product(
        [range(len(model.cell_lines)), range(len(model.perturbations))]
    )
    cells = design[design["perturbation"] >= 0].groupby(["line", "perturbation"])["batch"]
    counts = cells.agg(n_cells="size", n_batches="nunique").reindex(index)
    about = {"strength": model.strength.ravel(), "near_null": model.near_null.ravel()}
    about |= {c: counts[c].to_numpy() for c in counts}
    return truth_of(model, expected_effects(model, batches["shift"]), "simulated", "symbol", about)
