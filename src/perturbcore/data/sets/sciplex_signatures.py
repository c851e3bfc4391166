"""Sci-Plex 3 drug signatures of three cell lines as ranked genes (sigrecon)."""

import pandas as pd

from perturbcore.data.catalogue import fetch
from perturbcore.data.sets._signatures import (
    check_k,
    chosen_lines,
    read_signatures,
    signature_dataset,
    spelled,
)
from perturbcore.data.sets.base import Dataset

LINES = {"A549": "sciplex.a549", "K562": "sciplex.k562", "MCF7": "sciplex.mcf7"}
# what the file makes of "(+)-JQ1"
ALIASES = {"g(+)-JQ1": "(+)-JQ1"}
NOTES = (
    "23 of the 188 compounds are in these files, chosen by their authors, most of them inhibitors of "
    "histone deacetylases: a fold has four or five drugs to predict and 18 to learn from, and a class "
    "that holds most of the drugs is easily predicted by its own mean.",
    "The compound table names target classes, not genes; genes are those of the Tahoe-100M drug table "
    "where it has the compound.",
    "The repository of the compound table states no licence; the licence statements of the repository "
    "of the signatures conflict (MIT in one file, the text of GPL-3 in another).",
)


def load(
    lines=None,
    k: int = 50,
    min_labels: int = 1,
    unmatched: str = "drop",
    n_folds: int = 5,
    seed: int = 0,
    paths=None,
    samples=None,
    properties=None,
    targets=None,
) -> Dataset:
    """Load signed top-k labels of Sci-Plex 3 drug signatures.

    Parameters
    ----------
    lines : sequence of str, optional
        Cell lines, out of "A549", "K562" and "MCF7"; all by default.
    k : int
        Genes labelled at each end of a ranking.
    min_labels : int
        Keep only genes labelled in at least so many signatures, of all lines together.
    unmatched : {"drop", "keep"}
        What becomes of drugs that the compound table does not have.
    n_folds, seed : int
        Folds are by drug, the same in all lines.
    paths : mapping, optional
        Cell line -> another copy of its file; the catalogue's otherwise.
    samples, properties, targets : path, optional
        Other copies of the sample table, the compound table and the Tahoe-100M drug table.

    Returns
    -------
    Dataset
        Task "deg"; see `perturbcore.data.sets._signatures.signature_dataset`. Genes are Ensembl ids.

    Raises
    ------
    ParameterError
        An unknown line, or a k that the common genes do not allow.
    InputError
        A file is damaged.

    References
    ----------
    Srivatsan et al. 2020.
    """
    from perturbcore.data.molecules.tables import sciplex_drugs, tahoe_drugs

    check_k(k)
    lines, paths = chosen_lines(lines, LINES), dict(paths or {})
    found = {}
    for line in lines:
        path = paths.get(line) or fetch(f"sigrecon/{LINES[line]}", progress=False)
        found[line] = read_signatures(path, LINES[line])
    table = with_targets(sciplex_drugs(samples, properties), tahoe_drugs(targets))
    return signature_dataset(
        "sciplex_signatures",
        "Sci-Plex 3 signatures (top and bottom genes)",
        found,
        table,
        k=k,
        min_labels=min_labels,
        unmatched=unmatched,
        n_folds=n_folds,
        seed=seed,
        shared_wells=False,
        sources=(
            *(f"sigrecon/{LINES[line]}" for line in lines),
            "sciplex_samples",
            "sciplex_drugs",
            "tahoe_drug_metadata",
        ),
        citations=("srivatsan2020", "zhang2025"),
        notes=NOTES,
        aliases=ALIASES,
    )


def with_targets(compounds: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Fill target genes from another drug table, by the name before the brackets."""
    known = {spelled(name): targets for name, targets in other["targets"].items()}
    found = [known.get(spelled(name.split(" (")[0]), "") for name in compounds.index]
    return compounds.assign(targets=found)
