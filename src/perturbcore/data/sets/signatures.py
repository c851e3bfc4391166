"""Drug signatures of Sci-Plex 3 and Tahoe-100M as ranked genes (sigrecon): signed top-k labels."""

import pandas as pd

from perturbcore.core.errors import ParameterError
from perturbcore.data.catalogue import fetch
from perturbcore.data.molecules.tables import sciplex_drugs, tahoe_drugs
from perturbcore.data.sets._signatures import (
    check_k,
    read_signatures,
    signature_dataset,
    spelled,
)
from perturbcore.data.sets.base import Dataset, card_of, check_choice


def load(
    source: str = "sciplex",
    lines=None,
    k: int = 50,
    min_labels: int = 1,
    n_folds: int = 5,
    seed: int = 0,
) -> Dataset:
    """Load signed top-k labels of drug signatures.

    `source`: sci-Plex 3 (A549, K562, MCF7; genes are Ensembl ids) or Tahoe-100M (ten cell
    lines; symbols); `lines`: cell lines; all by default; `k`: genes labelled at each end of a
    ranking; `min_labels`: keep only genes labelled in at least so many signatures, of all lines
    together; `n_folds, seed`: folds are by drug, salts of a drug together, the same in all
    lines.

    Returns task "deg"; see `perturbcore.data.sets._signatures.signature_dataset`. obs `n_up`:
    significantly up-regulated genes by the file's own list, 100 at most.

    Srivatsan et al. 2020; Zhang et al. 2025.
    """
    name = f"{check_choice('source', source, ('sciplex', 'tahoe'))}_signatures"
    about = card_of(name)
    known = about.pop("lines")
    check_k(k)
    lines = list(known) if lines is None else [lines] if isinstance(lines, str) else list(lines)
    if unknown := [line for line in lines if line not in known]:
        raise ParameterError(f"no cell line '{unknown[0]}'; there are: {', '.join(known)}")
    files = {line: f"sigrecon/{known[line]}" for line in lines}
    signatures = {
        line: read_signatures(fetch(file, progress=False), known[line])
        for line, file in files.items()
    }
    drugs = tahoe_drugs()
    if source == "sciplex":
        drugs = with_targets(sciplex_drugs(), drugs)
    about["sources"] = (*files.values(), *about["sources"])
    options = dict(k=k, min_labels=min_labels, n_folds=n_folds, seed=seed)
    return signature_dataset(name, signatures, drugs, **options, **about)


def with_targets(compounds: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Fill target genes from another drug table, by the name before the brackets."""
    known = {spelled(name): targets for name, targets in other["targets"].items()}
    targets = [known.get(spelled(name.split(" (")[0]), "") for name in compounds.index]
    return compounds.assign(targets=targets)
