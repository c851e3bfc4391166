"""Embeddings of drugs from structure: fingerprints of the molecule, by rdkit."""

import re
from collections.abc import Callable

import numpy as np
import pandas as pd

from perturbcore.core.errors import ParameterError
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.linalg import check_dim
from perturbcore.embeddings.registry import register

MODALITY = "Molecule structure"
KINDS = ("maccs", "topological", "secfp", "avalon", "erg", "ecfp:2", "ecfp:4", "fcfp:4")
_CIRCULAR = re.compile(r"^(ecfp|fcfp)(?::(\d+))?$")
# ECFP4 is the name of diameter 4, radius 2 (Rogers and Hahn 2010)
DIAMETER = 4
SECFP_RADIUS = 3


def fingerprint_function(kind: str, bits: int = 2000, counts: bool = False) -> Callable:
    """Return the function from an rdkit molecule to one fingerprint.

    Parameters
    ----------
    kind
        ``maccs`` (166 keys, bit 0 unused), ``topological`` (paths of one to seven bonds, Daylight's
        kind), ``secfp`` (hashed circular SMILES, radius 3), ``avalon``, ``erg`` (reduced graph, real
        numbers), ``ecfp:<diameter>`` and ``fcfp:<diameter>`` (Morgan atoms, or pharmacophoric
        features; without a number the diameter is 4).
    bits
        Width of hashed fingerprints; ``maccs`` (167) and ``erg`` (315) have their own.
    counts
        Count substructures instead of marking their presence; ``topological``, ``ecfp``, ``fcfp``.

    Raises
    ------
    ParameterError
        There is no such fingerprint, or it has no counts.

    References
    ----------
    Durant et al. 2002 (MACCS); Probst and Reymond 2018 (SECFP); Gedeck et al. 2006 (Avalon); Stiefl
    et al. 2006 (ErG); Rogers and Hahn 2010 (ECFP, FCFP). Width 2000: Cole et al. 2026.
    """
    kind = str(kind).lower()
    circular = _CIRCULAR.match(kind)
    if not circular and kind not in KINDS:
        raise ParameterError(f"fingerprint {kind!r} is unknown; there are {', '.join(KINDS)}")
    if counts and not circular and kind != "topological":
        raise ParameterError(f"fingerprint {kind!r} has no counts; topological, ecfp and fcfp have")
    from rdkit.Chem import rdFingerprintGenerator as generators

    if circular:
        diameter = int(circular.group(2) or DIAMETER)
        if diameter % 2:
            raise ParameterError(f"fingerprint {kind!r}: the number is a diameter, 0, 2, 4, ...")
        features = {}
        if circular.group(1) == "fcfp":
            features = {"atomInvariantsGenerator": generators.GetMorganFeatureAtomInvGen()}
        made = generators.GetMorganGenerator(radius=diameter // 2, fpSize=bits, **features)
    elif kind == "topological":
        made = generators.GetRDKitFPGenerator(fpSize=bits)
    else:
        return _fixed(kind, bits)
    return made.GetCountFingerprintAsNumPy if counts else made.GetFingerprintAsNumPy


def _fixed(kind: str, bits: int) -> Callable:
    if kind == "maccs":
        from rdkit.Chem import MACCSkeys

        return lambda mol: np.array(MACCSkeys.GenMACCSKeys(mol))
    if kind == "erg":
        from rdkit.Chem import rdReducedGraphs

        return rdReducedGraphs.GetErGFingerprint
    if kind == "avalon":
        from rdkit.Avalon import pyAvalonTools

        return lambda mol: np.array(pyAvalonTools.GetAvalonFP(mol, nBits=bits))
    from rdkit.Chem import rdMHFPFingerprint

    encoder = rdMHFPFingerprint.MHFPEncoder()
    return lambda mol: np.array(encoder.EncodeSECFPMol(mol, radius=SECFP_RADIUS, length=bits))


@register("fingerprint", kind="drugs", entity="drug")
def fingerprint(
    drugs: pd.DataFrame,
    *,
    name: str,
    modality: str = MODALITY,
    source: str = "drug table",
    kind: str = "ecfp:4",
    bits: int = 2000,
    counts: bool = False,
    parent: bool = False,
) -> Embedding:
    """Embed drugs by a fingerprint of their molecule.

    Parameters
    ----------
    drugs
        Indexed by drug, column `smiles`; those that cannot be read are left out and counted in
        ``source``.
    kind, bits, counts
        See `fingerprint_function`.
    parent
        Whether to take the largest organic fragment, uncharged, instead of the whole salt; the paper
        took the SMILES as they are.
    """
    from perturbcore.data.molecules.structures import molecules

    bits = check_dim(bits, name)
    function = fingerprint_function(kind, bits, counts)
    read = molecules(drugs, parent=parent)
    X = np.stack([np.asarray(function(mol), dtype=np.float32) for mol in read.values()])
    text = f"{source}; {kind} fingerprint, {X.shape[1]} numbers{', parent molecule' * parent}"
    return Embedding(
        name, modality, pd.Index(list(read)), X, "drug", None, text + left_out(drugs, read)
    )


def left_out(drugs: pd.DataFrame, kept) -> str:
    """Say how many drugs have no vector."""
    n = len(drugs) - len(kept)
    return f"; {n} of {len(drugs)} drugs have no readable SMILES and no vector" if n else ""
