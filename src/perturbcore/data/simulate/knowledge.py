"""What is known about the simulated genes: interactions, pathways, text and sequences."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from perturbcore.core.files import read_yaml

_WORDS = read_yaml(Path(__file__).with_name("knowledge.yml"))
_THEMES = list(_WORDS["themes"].items())
_NOISE_WORDS = _WORDS["noise_words"].split()
_RESIDUES = pd.Series(_WORDS["residues"])


@dataclass(frozen=True)
class Knowledge:
    """What a database could hold about the simulated genes, and the truth behind it."""

    genes: list
    modules: np.ndarray
    interactions: sp.csr_matrix
    network: pd.DataFrame
    annotation: dict
    descriptions: dict
    sequences: dict


def make_knowledge(n_genes: int, n_modules: int, seed: np.random.SeedSequence) -> Knowledge:
    """Draw genes with modules, interactions, annotation sets, texts and sequences."""
    rngs = list(map(np.random.default_rng, seed.spawn(6)))
    width = max(4, len(str(n_genes)))
    genes = [f"G{i + 1:0{width}d}" for i in range(n_genes)]
    share = rngs[0].dirichlet(np.full(n_modules, 6.0))
    # every module has a member, whatever the sizes
    rest = rngs[0].choice(n_modules, n_genes - n_modules, p=share)
    modules = rngs[0].permutation(np.r_[np.arange(n_modules), rest])
    pairs = _true_interactions(modules, n_modules, rngs[1])
    matrix = sp.coo_matrix((np.ones(len(pairs)), pairs.T), shape=(n_genes, n_genes))
    matrix = (matrix + matrix.T).tocsr()
    matrix.data[:] = 1.0
    network = _reported_network(pairs, genes, rngs[2])
    annotation, of_module = _annotation(modules, n_modules, genes, rngs[3])
    descriptions = _descriptions(genes, annotation, of_module, rngs[4])
    sequences = _sequences(modules, n_modules, genes, rngs[5])
    return Knowledge(genes, modules, matrix, network, annotation, descriptions, sequences)


def _true_interactions(modules, n_modules, rng, within=8.0, across=1.5):
    """Degree-corrected block model: dense inside modules, sparse between related modules."""
    n = len(modules)
    propensity = rng.pareto(3.0, n) + 0.3
    pairs = []
    for m in range(n_modules):
        members = np.flatnonzero(modules == m)
        if len(members) < 2:
            continue
        p = propensity[members] / propensity[members].sum()
        k = int(within * len(members) / 2)
        pairs.append(members[rng.choice(len(members), (2, k), p=p)].T)
    partner = np.roll(np.arange(n_modules), 1)
    source = rng.choice(n, int(across * n / 2) + 1, p=propensity / propensity.sum())
    target = rng.choice(n, len(source), p=propensity / propensity.sum())
    for i in np.flatnonzero(rng.random(len(source)) < 0.5):
        near = np.flatnonzero(modules == partner[modules[source[i]]])
        target[i] = rng.choice(near)
    pairs.append(np.column_stack([source, target]))
    # a ring keeps the graph in one piece: no gene is out of reach of the network
    order = np.argsort(modules, kind="stable")
    pairs.append(np.column_stack([order, np.roll(order, 1)]))
    pairs = np.sort(np.concatenate(pairs), axis=1)
    return np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)


def _reported_network(pairs, genes, rng, missing=0.2, false=0.15):
    n = len(genes)
    kept = pairs[rng.random(len(pairs)) >= missing]
    spurious = rng.integers(0, n, (int(false * len(pairs)), 2))
    spurious = np.sort(spurious[spurious[:, 0] != spurious[:, 1]], axis=1)
    both = np.concatenate([kept, spurious])
    weight = np.concatenate([rng.beta(6, 2, len(kept)), rng.beta(3, 4, len(spurious))])
    names = np.array(genes)
    frame = pd.DataFrame(names[both], columns=["source", "target"])
    frame["weight"] = weight.round(3) + 1e-3
    return frame.drop_duplicates(["source", "target"]).reset_index(drop=True)


def _theme(m: int) -> tuple:
    title, words = _THEMES[m % len(_THEMES)]
    cycle = m // len(_THEMES)
    if not cycle:
        return title, words.split()
    # more modules than themes: the same process in another place, told apart by its own word
    return f"{title} {cycle + 1}", [*words.split(), f"type{cycle + 1}"]


def _annotation(modules, n_modules, genes, rng, miss=0.35, extra=0.25):
    """Pathway-like sets that overlap modules imperfectly, and some unrelated to them."""
    n = len(genes)
    sets, of_module = {}, {}

    def add(title, members, m):
        found = members[rng.random(len(members)) >= miss]
        wrong = rng.integers(0, n, rng.binomial(len(members), extra))
        chosen = np.unique(np.concatenate([found, wrong]))
        if len(chosen) >= 2:
            term = f"SIM:{len(sets) + 1:04d} {title}"
            sets[term] = [genes[i] for i in chosen]
            of_module[term] = m

    for m in range(n_modules):
        members = np.flatnonzero(modules == m)
        title = _theme(m)[0]
        add(title, members, m)
        add(f"regulation of {title}", members[rng.random(len(members)) < 0.5], m)
        if m % 2 == 0 and n_modules > 1:
            both = np.flatnonzero((modules == m) | (modules == (m + 1) % n_modules))
            add(f"{title} and {_theme((m + 1) % n_modules)[0]}", both, m)
    for k in range(max(2, n_modules // 2)):
        members = rng.choice(n, min(n, max(4, n // 25)), replace=False)
        add(f"tissue marker set {k + 1}", members, None)
    return sets, of_module


def _descriptions(genes, annotation, of_module, rng):
    """One short text per gene: words of its annotated pathways among words that say nothing."""
    terms_of = {g: [] for g in genes}
    for term, members in annotation.items():
        if of_module[term] is not None:
            for g in members:
                terms_of[g].append(term)
    texts = {}
    for g in genes:
        words = list(rng.choice(_NOISE_WORDS, 10))
        for term in terms_of[g][:3]:
            words += list(rng.choice(_theme(of_module[term])[1], 3))
        words += list(rng.choice(_theme(int(rng.integers(len(_THEMES))))[1], 2))
        texts[g] = f"{g}: " + " ".join(rng.permutation(words)) + "."
    return texts


def _sequences(modules, n_modules, genes, rng, aligned=0.6, mutation=0.25):
    """Protein-like sequences, mutated copies of family ancestors; over half follow their module."""
    n = len(genes)
    n_families = max(2, n // 30)
    home = rng.integers(0, n_families, (n_modules, 2))
    follows = rng.random(n) < aligned
    related, other = home[modules, rng.integers(0, 2, n)], rng.integers(0, n_families, n)
    families = np.where(follows, related, other)
    frequency = _RESIDUES.to_numpy() / _RESIDUES.sum()
    ancestors = [rng.choice(20, int(rng.integers(90, 260)), p=frequency) for _ in range(n_families)]
    sequences = {}
    for g, f in zip(genes, families, strict=True):
        residues = ancestors[f].copy()
        hit = rng.random(len(residues)) < mutation * rng.uniform(0.5, 1.4)
        residues[hit] = rng.choice(20, int(hit.sum()), p=frequency)
        start, cut = rng.integers(1, len(residues) - 12), int(rng.integers(0, 10))
        residues = np.delete(residues, slice(start, start + cut))
        sequences[g] = "M" + "".join(_RESIDUES.index[residues])
    return sequences
