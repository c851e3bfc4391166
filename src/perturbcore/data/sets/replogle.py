"""Essential knock-downs of Replogle et al. 2022 as ranked genes (sigrecon)."""

import numpy as np
import pandas as pd
from scipy.special import ndtri

from perturbcore.core.errors import InputError, check_choice
from perturbcore.data.catalogue import fetch
from perturbcore.data.responses import make_responses
from perturbcore.data.sets._make import folded
from perturbcore.data.sets.base import Card, Dataset, make_dataset
from perturbcore.data.sets.signatures import common_genes, read_signatures

LINES = {"K562": "perturbseq.k562", "RPE1": "perturbseq.rpe1"}


def load(
    lines: tuple[str, ...] = tuple(LINES), min_genes: int = 4000, n_folds: int = 5, seed: int = 0
) -> Dataset:
    """Load how far each knock-down moves each gene among the others, as normal scores of ranks.

    The files rank genes by log fold-change times minus the logarithm of the adjusted p-value; the
    one most up is the largest score. `min_genes`: genes that a signature must rank; those that all
    such signatures rank once are used.
    """
    card, signatures = Card(), {}
    for line in lines:
        name = LINES[check_choice("cell line", line, tuple(LINES))]
        signatures[line] = read_signatures(fetch(f"sigrecon/{name}"), name)
    lengths = [len(ranked) for of in signatures.values() for ranked, _ in of.values()]
    note = f"{len(lengths)} signatures of {min(lengths):,} to {max(lengths):,} genes"
    card.step("files", perturbations=len(set().union(*signatures.values())), note=note)
    long = {
        line: {p: s for p, s in of.items() if len(s[0]) >= min_genes}
        for line, of in signatures.items()
    }
    rows = [(p, line, long[line][p][0]) for line in long for p in sorted(long[line])]
    genes, n_twice = common_genes(long, {p for p, *_ in rows})
    if len(genes) < 2:
        raise InputError(
            f"min_genes={min_genes}: {len(rows)} signatures rank so many (the longest "
            f"{max(lengths):,}), and share {len(genes)} genes: choose another"
        )
    obs = pd.DataFrame([row[:2] for row in rows], columns=["perturbation", "cell_line"])
    # normal scores of the genes by their order in a ranking: the first is largest
    falling = -ndtri((np.arange(len(genes)) + 0.5) / len(genes)).astype(np.float32)
    place = np.stack([pd.Index(ranked).get_indexer(genes) for *_, ranked in rows])
    values = falling[place.argsort(axis=1).argsort(axis=1)]
    made = make_responses(values, obs, genes, dataset="replogle", task="lfc")
    folded(made, n_folds, seed)
    said = f"{len(rows)} signatures that rank at least {min_genes:,} genes, and the genes that all"
    card.responses(made, f"{said} of them rank; {n_twice} dropped: a name there twice")
    return make_dataset(made, card, sources=tuple(f"sigrecon/{LINES[line]}" for line in lines))
