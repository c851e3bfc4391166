"""Embeddings of drugs from structure: physico-chemical descriptors."""

import numpy as np
import pandas as pd

from perturbcore.core.errors import ParameterError
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.fingerprints import MODALITY, left_out
from perturbcore.embeddings.registry import register

# size, lipophilicity, polarity, flexibility, shape, saturation, charge: what a chemist asks first
PHYSICAL = (
    "MolWt", "HeavyAtomCount", "MolLogP", "MolMR", "TPSA", "LabuteASA", "NumHDonors", "NumHAcceptors",
    "NumHeteroatoms", "NumRotatableBonds", "RingCount", "NumAromaticRings", "NumAliphaticRings",
    "FractionCSP3", "NumAtomStereoCenters", "NumAmideBonds", "Kappa1", "Kappa2", "Kappa3", "BertzCT",
    "BalabanJ", "qed", "FormalCharge", "NumHalogens",
)  # fmt: skip
SETS = ("physical", "all")


def descriptor_functions(which: str = "physical") -> dict:
    """Return descriptor functions of an rdkit molecule, by name.

    Parameters
    ----------
    which : {"physical", "all"}
        `PHYSICAL`, or every descriptor of rdkit's list.
    """
    from rdkit import Chem
    from rdkit.Chem import Descriptors, rdMolDescriptors

    known = dict(Descriptors.descList)
    if which == "all":
        return known
    if which != "physical":
        raise ParameterError(f"set of descriptors {which!r} is not one of: {', '.join(SETS)}")
    own = {
        "FormalCharge": Chem.GetFormalCharge,
        "NumHalogens": lambda mol: sum(
            a.GetSymbol() in ("F", "Cl", "Br", "I") for a in mol.GetAtoms()
        ),
        "NumAtomStereoCenters": rdMolDescriptors.CalcNumAtomStereoCenters,
        "NumAmideBonds": rdMolDescriptors.CalcNumAmideBonds,
    }
    return {n: own.get(n) or known[n] for n in PHYSICAL}


@register("descriptors", kind="drugs", entity="drug")
def descriptors(
    drugs: pd.DataFrame,
    *,
    name: str,
    modality: str = MODALITY,
    source: str = "drug table",
    which: str = "physical",
    parent: bool = False,
) -> Embedding:
    """Embed drugs by physico-chemical descriptors.

    Counts and areas span orders of magnitude; every descriptor x becomes sign(x) log(1 + abs(x)).

    Parameters
    ----------
    drugs
        Indexed by drug, column `smiles`; those that cannot be read are left out and counted in
        ``source``.
    which
        See `descriptor_functions`; those without a finite value for every drug (partial charges of
        metals) are left out.
    parent
        Whether to take the largest organic fragment, uncharged, instead of the whole salt.
    """
    from rdkit import rdBase

    from perturbcore.data.molecules.structures import molecules

    functions = descriptor_functions(which)
    read = molecules(drugs, parent=parent)
    with rdBase.BlockLogs():
        X = np.array([[float(f(mol)) for f in functions.values()] for mol in read.values()])
    keep = np.isfinite(X).all(axis=0)
    if not keep.any():
        raise ParameterError(f"embedding {name!r}: no descriptor is finite for all drugs")
    X = np.sign(X[:, keep]) * np.log1p(np.abs(X[:, keep]))
    dropped = f", {int((~keep).sum())} not finite for all" if not keep.all() else ""
    text = (
        f"{source}; {int(keep.sum())} descriptors of rdkit{dropped}{', parent molecule' * parent}"
    )
    return Embedding(
        name, modality, pd.Index(list(read)), X, "drug", None, text + left_out(drugs, read)
    )
