"""What simulated drugs do: occupancy of targets, and the targets' effects in the network."""

from dataclasses import replace

import numpy as np
import pandas as pd

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.simulate.checks import check_parameters, is_number, is_whole, refuse
from perturbcore.data.simulate.knowledge import Knowledge
from perturbcore.data.simulate.model import Model, make_model

COLUMNS = ("smiles", "targets", "mechanism")


def check_compounds(compounds: pd.DataFrame) -> None:
    """Refuse a compound table that a screen cannot be made of; the message names the row."""
    missing = [c for c in COLUMNS if c not in compounds]
    if missing:
        raise InputError(
            f"compounds: no column '{missing[0]}' (there are: "
            f"{', '.join(map(str, compounds.columns))})"
        )
    if compounds.index.has_duplicates:
        name = compounds.index[compounds.index.duplicated()][0]
        raise InputError(f"compounds: '{name}' is there twice; give each compound one row")


def check_drug_parameters(p: dict, n_compounds: int) -> None:
    """Refuse sizes that no chemical screen can have; the message names the parameter."""
    check_parameters(p)
    n = p["n_drugs"]
    if n is not None and not (is_whole(n) and 1 <= n <= n_compounds):
        refuse(
            p, "n_drugs", f"give a whole number from 1 to {n_compounds}, the number of compounds"
        )
    doses = list(p["doses"]) if isinstance(p["doses"], tuple | list) else []
    if not doses or len(set(doses)) < len(doses) or not all(is_number(d) and d > 0 for d in doses):
        refuse(p, "doses", "give distinct doses above 0")
    if p["response_dose"] not in doses:
        refuse(p, "response_dose", f"choose one of doses={doses}")


def targets_of(compounds: pd.DataFrame) -> pd.Series:
    """Return the list of target symbols of each compound; empty where none is known."""
    lists = compounds["targets"].fillna("").astype(str).str.split(";")
    return lists.map(lambda names: list(dict.fromkeys(n.strip() for n in names if n.strip())))


def place_targets(knowledge: Knowledge, compounds: pd.DataFrame, seed) -> Knowledge:
    """Give genes the names of the compounds' targets, targets of one mechanism in one module."""
    # a child of its own: the seed has already served make_knowledge
    rng = np.random.default_rng(np.random.SeedSequence([*seed.generate_state(2), 17]))
    home: dict = {}
    names = targets_of(compounds)
    for mechanism, targets in zip(compounds["mechanism"].astype(str), names, strict=True):
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
    network = knowledge.network.assign(
        source=knowledge.network["source"].map(new), target=knowledge.network["target"].map(new)
    )
    texts = {
        new[g]: text.replace(f"{g}:", f"{new[g]}:", 1) for g, text in knowledge.descriptions.items()
    }
    return replace(
        knowledge,
        genes=[new[g] for g in knowledge.genes],
        network=network,
        annotation={term: [new[g] for g in genes] for term, genes in knowledge.annotation.items()},
        descriptions=texts,
        sequences={new[g]: s for g, s in knowledge.sequences.items()},
    )


def make_drug_model(
    knowledge: Knowledge,
    compounds: pd.DataFrame,
    seed,
    *,
    doses,
    response_dose,
    inert_fraction,
    **options,
) -> tuple[Model, pd.DataFrame, np.ndarray]:
    """Draw the truth of a chemical experiment.

    Returns perturbations are all drugs at the first dose, then at the second, and so on; drug,
    target, pkd, weight (occupancy of the target at the response dose, 0 to 1).
    """
    s_model, s_drug = seed.spawn(2)
    n_genes = len(knowledge.genes)
    # the effect of every gene: a drug's is a sum over its targets
    genetic = make_model(knowledge, s_model, n_perturbations=n_genes, null_fraction=0.0, **options)
    single = genetic.effects.copy()
    own = np.arange(n_genes)
    # an inhibited protein keeps its transcript
    single[:, own, own] = 0.0
    rng = np.random.default_rng(s_drug)
    n_drugs = len(compounds)
    inert = np.zeros(n_drugs, dtype=bool)
    inert[rng.permutation(n_drugs)[: int(round(inert_fraction * n_drugs))]] = True
    efficacy = np.where(inert, 0.0, np.clip(rng.lognormal(-1.0, 0.8, n_drugs), 0.03, 1.6))
    position = {g: i for i, g in enumerate(knowledge.genes)}
    rows, effects = [], np.zeros((len(single), len(doses), n_drugs, n_genes), dtype=np.float32)
    for d, (drug, targets) in enumerate(targets_of(compounds).items()):
        # a drug without a known target has one that nobody knows
        for rank, target in enumerate(targets or [knowledge.genes[rng.integers(n_genes)]]):
            # further targets are bound less tightly than the first
            pkd = float(rng.normal(6.6 - 0.5 * min(rank, 2), 0.7))
            kd = 10.0 ** (6.0 - pkd)
            rows.append((drug, target, pkd, response_dose / (response_dose + kd)))
            for i, dose in enumerate(doses):
                share = efficacy[d] * dose / (dose + kd) / np.sqrt(max(1, len(targets)))
                effects[:, i, d] += share * single[:, position[target]]
    affinity = pd.DataFrame(rows, columns=["drug", "target", "pkd", "weight"])
    np.clip(effects, -3.0, 3.0, out=effects)
    strength = np.sqrt((effects.astype(float) ** 2).mean(-1)).reshape(len(single), -1)
    model = replace(
        genetic,
        perturbations=[f"{drug}@{dose:g}" for dose in doses for drug in compounds.index],
        effects=effects.reshape(len(single), -1, n_genes),
        strength=strength,
        near_null=np.tile(inert, (len(single), len(doses))),
    )
    return model, affinity, inert
