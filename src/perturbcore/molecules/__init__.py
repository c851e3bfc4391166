"""Small molecules: tables of drugs, their SMILES checked and canonicalised, a built-in table."""

from perturbcore.molecules.report import molecule_counts, molecule_report, said, to_look_at
from perturbcore.molecules.tables import (
    DRUG_COLUMNS,
    builtin_compounds,
    check_drugs,
    read_drugs,
    sciplex_drugs,
    tahoe_drugs,
    targets_of,
)

__all__ = [
    "DRUG_COLUMNS",
    "check_drugs",
    "builtin_compounds",
    "molecule_counts",
    "molecule_report",
    "read_drugs",
    "said",
    "sciplex_drugs",
    "tahoe_drugs",
    "targets_of",
    "to_look_at",
]
