"""Tahoe-100M drug signatures of ten cell lines as ranked genes (sigrecon)."""

from perturbcore.data.catalogue import fetch
from perturbcore.data.sets._signatures import (
    check_k,
    chosen_lines,
    read_signatures,
    signature_dataset,
)
from perturbcore.data.sets.base import Dataset

LINES = {
    "A498": "tahoe.a498",
    "HCT15": "tahoe.hct15",
    "HEC-1-A": "tahoe.hec_1_a",
    "LoVo": "tahoe.lovo",
    "MIA PaCa-2": "tahoe.miapaca_2",
    "NCI-H23": "tahoe.nci_h23",
    "Panc 03.27": "tahoe.panc03.27",
    "SNU-1": "tahoe.snu_1",
    "SNU-423": "tahoe.snu_423",
    "SW48": "tahoe.sw48",
}
NOTES = (
    "The cell lines were pooled in each well, so that whatever went wrong in a well is shared by all of "
    "them: one drug agrees with itself between lines also where it is inert. Models here are one a line "
    "and folds hold all lines of a drug together; scoring transfer from line to line on these data would "
    "score the wells.",
    "About a hundred of the 379 drugs, at one dose, are in these files.",
    "The licence statements of the repository conflict (MIT in one file, the text of GPL-3 in another).",
)


def load(
    lines=None,
    k: int = 50,
    min_labels: int = 1,
    unmatched: str = "drop",
    n_folds: int = 5,
    seed: int = 0,
    paths=None,
    drugs=None,
) -> Dataset:
    """Load signed top-k labels of Tahoe-100M drug signatures.

    Parameters
    ----------
    lines : sequence of str, optional
        Cell lines, out of ten; all by default.
    k : int
        Genes labelled at each end of a ranking.
    min_labels : int
        Keep only genes labelled in at least so many signatures, of all lines together.
    unmatched : {"drop", "keep"}
        What becomes of drugs that the drug table does not have.
    n_folds, seed : int
        Folds are by drug, salts of a drug together, the same in all lines.
    paths : mapping, optional
        Cell line -> another copy of its file; the catalogue's otherwise.
    drugs : path, optional
        Another copy of the drug table; the catalogue's otherwise.

    Returns
    -------
    Dataset
        Task "deg"; see `perturbcore.data.sets._signatures.signature_dataset`. obs `n_up`: significantly
        up-regulated genes by the file's own list, 100 at most.

    Raises
    ------
    ParameterError
        An unknown line, or a k that the common genes do not allow.
    InputError
        A file is damaged.

    References
    ----------
    Zhang et al. 2025.
    """
    from perturbcore.data.molecules.tables import tahoe_drugs

    check_k(k)
    lines, paths = chosen_lines(lines, LINES), dict(paths or {})
    found = {}
    for line in lines:
        path = paths.get(line) or fetch(f"sigrecon/{LINES[line]}", progress=False)
        found[line] = read_signatures(path, LINES[line])
    return signature_dataset(
        "tahoe_signatures",
        "Tahoe-100M signatures (top and bottom genes)",
        found,
        tahoe_drugs(drugs),
        k=k,
        min_labels=min_labels,
        unmatched=unmatched,
        n_folds=n_folds,
        seed=seed,
        shared_wells=True,
        sources=(*(f"sigrecon/{LINES[line]}" for line in lines), "tahoe_drug_metadata"),
        citations=("zhang2025",),
        notes=NOTES,
    )
