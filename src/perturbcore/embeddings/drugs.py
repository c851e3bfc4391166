"""Embeddings of drugs: fingerprints and descriptors of the molecule, and the genes it acts on."""

import re
from collections.abc import Callable, Collection
from typing import Literal

import numpy as np
import pandas as pd

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.molecules.structures import molecules
from perturbcore.data.molecules.tables import targets_of
from perturbcore.embeddings.base import Embedding, some
from perturbcore.embeddings.registry import Dim, register

STRUCTURE, TARGET = "Molecule structure", "Gene target"
KINDS = ("maccs", "topological", "secfp", "avalon", "erg", "ecfp:2", "ecfp:4", "fcfp:4")
_CIRCULAR = re.compile(r"^(ecfp|fcfp)(?::(\d+))?$")
DIAMETER = 4  # ECFP4 is the name of diameter 4, radius 2 (Rogers and Hahn 2010)
SECFP_RADIUS = 3
# size, lipophilicity, polarity, flexibility, shape, saturation, charge: what a chemist asks first
PHYSICAL = (
    "MolWt", "HeavyAtomCount", "MolLogP", "MolMR", "TPSA", "LabuteASA", "NumHDonors",
    "NumHAcceptors", "NumHeteroatoms", "NumRotatableBonds", "RingCount", "NumAromaticRings",
    "NumAliphaticRings", "FractionCSP3", "NumAtomStereoCenters", "NumAmideBonds", "Kappa1",
    "Kappa2", "Kappa3", "BertzCT", "BalabanJ", "qed", "FormalCharge", "fr_halogen",
)  # fmt: skip
HALVING = 0.5
UNREAD = "have no readable SMILES and no vector"


@register("fingerprint", kind="drugs", modality=STRUCTURE, entity="drug")
def fingerprint(drugs: pd.DataFrame, *, kind: str = "ecfp:4", bits: Dim = 2000):
    """Embed drugs by a fingerprint of their molecule (column `smiles`), salts included.

    `kind`: ``maccs`` (166 keys), ``topological`` (paths), ``secfp``, ``avalon``, ``erg`` (real
    numbers), ``ecfp:<diameter>`` and ``fcfp:<diameter>`` (4 by default); `bits`: width of hashed
    fingerprints. Drugs that cannot be read are left out and counted in ``source``. Durant et al.
    2002 (MACCS); Probst and Reymond 2018 (SECFP); Gedeck et al. 2006 (Avalon); Stiefl et al. 2006
    (ErG); Rogers and Hahn 2010 (ECFP, FCFP). Width 2000: Cole et al. 2026.
    """
    function = _fingerprint(kind.lower(), bits)
    read = molecules(drugs)
    X = np.stack([np.asarray(function(mol), dtype=np.float32) for mol in read.values()])
    return list(read), X, f"{kind} fingerprint, {X.shape[1]} numbers{lost(drugs, read)}"


def _fingerprint(kind: str, bits: int) -> Callable:
    """Return the function from an rdkit molecule to one fingerprint."""
    from rdkit.Avalon import pyAvalonTools
    from rdkit.Chem import MACCSkeys, rdMHFPFingerprint, rdReducedGraphs
    from rdkit.Chem import rdFingerprintGenerator as generators

    if circular := _CIRCULAR.match(kind):
        diameter = int(circular.group(2) or DIAMETER)
        if diameter % 2:
            raise ParameterError(f"fingerprint {kind!r}: the number is a diameter, 0, 2, 4, ...")
        features = generators.GetMorganFeatureAtomInvGen() if kind[0] == "f" else None
        made = generators.GetMorganGenerator(
            radius=diameter // 2, fpSize=bits, atomInvariantsGenerator=features
        )
        return made.GetFingerprintAsNumPy
    if kind not in KINDS:
        raise ParameterError(f"fingerprint {kind!r} is unknown; there are {', '.join(KINDS)}")
    secfp = rdMHFPFingerprint.MHFPEncoder().EncodeSECFPMol
    return {
        "maccs": lambda mol: np.array(MACCSkeys.GenMACCSKeys(mol)),
        "topological": generators.GetRDKitFPGenerator(fpSize=bits).GetFingerprintAsNumPy,
        "secfp": lambda mol: np.array(secfp(mol, radius=SECFP_RADIUS, length=bits)),
        "avalon": lambda mol: np.array(pyAvalonTools.GetAvalonFP(mol, nBits=bits)),
        "erg": rdReducedGraphs.GetErGFingerprint,
    }[kind]


@register("descriptors", kind="drugs", modality=STRUCTURE, entity="drug")
def descriptors(drugs: pd.DataFrame):
    """Embed drugs by the descriptors `PHYSICAL` of rdkit, each as sign(x) log(1 + abs(x))."""
    from rdkit import Chem, rdBase
    from rdkit.Chem import Descriptors

    known = dict(Descriptors.descList) | {"FormalCharge": Chem.GetFormalCharge}
    functions = [known[name] for name in PHYSICAL]
    with rdBase.BlockLogs():
        read = molecules(drugs)
        X = np.array([[float(f(mol)) for f in functions] for mol in read.values()])
    keep = np.isfinite(X).all(axis=0)
    X = np.sign(X[:, keep]) * np.log1p(np.abs(X[:, keep]))
    gaps = "" if keep.all() else f", {int((~keep).sum())} not finite for all"
    return list(read), X, f"{X.shape[1]} descriptors of rdkit{gaps}{lost(drugs, read)}"


def lost(drugs: pd.DataFrame, kept: Collection[str], why: str = UNREAD) -> str:
    """Say how many drugs have no vector and why: unless told, as their SMILES cannot be read."""
    n = len(drugs) - len(kept)
    return f"; {n} of {len(drugs)} drugs {why}" if n else ""


@register("target_encoding", kind="drugs", modality=TARGET, entity="drug")
def target_encoding(drugs: pd.DataFrame, *, weights: Literal["binary", "rank"] = "binary"):
    """Encode drugs by their targets, one column per gene; weights 1, or 1, 1/2, ... (`rank`)."""
    known = {d: genes for d, genes in targets_of(drugs).items() if genes}
    if not known:
        raise InputError(f"none of {len(drugs)} drugs has a target")
    columns = pd.Index(sorted({g for genes in known.values() for g in genes}))
    X = np.zeros((len(known), len(columns)), dtype=np.float32)
    for row, genes in enumerate(known.values()):
        X[row, columns.get_indexer(genes)] = _weights(len(genes), weights == "rank")
    note = lost(drugs, known, "have no vector for want of a target")
    return list(known), X, f"{len(columns)} targets, {weights}{note}"


@register("target_genes", kind="drugs_of", modality=TARGET, entity="drug")
def target_genes(
    genes: Embedding, drugs: pd.DataFrame, *,
    how: Literal["concatenate", "sum", "weight"] = "concatenate", n_targets: Dim = 3,
):  # fmt: skip
    """Embed drugs by the gene embeddings of their first targets, the main one first.

    The first `n_targets` with a vector count: side by side (zeros in free places), added up, or
    added up with weights 1, 1/2, 1/4, ... of their places. Cole et al. 2026 takes three per drug.
    """
    if genes.identifier != "symbol":
        raise InputError(
            f"targets are gene symbols, {genes.name!r} goes by {genes.identifier}: give it "
            "convert_to: symbol"
        )
    known = targets_of(drugs)
    rows = {d: genes.ids.get_indexer(listed) for d, listed in known.items() if listed}
    rows = {d: at for d, at in rows.items() if (at >= 0).any()}
    if not rows:
        every = sorted({g for listed in known.values() for g in listed})
        raise InputError(f"{genes.name!r} has no vector for any target ({some(every)})")
    X = np.zeros((len(rows), n_targets, genes.dim), dtype=np.float32)
    for row, at in enumerate(rows.values()):
        first = np.flatnonzero(at >= 0)[:n_targets]
        weight = _weights(len(at), how == "weight")[first]
        X[row, : len(first)] = weight[:, None] * genes.X[at[first]]
    X = X.reshape(len(rows), -1) if how == "concatenate" else X.sum(axis=1)
    note = lost(drugs, rows, "have no vector for want of such a target")
    return list(rows), X, f"{genes.name} of up to {n_targets} targets, {how}{note}"


def _weights(n: int, falling: bool) -> np.ndarray:
    return (HALVING if falling else 1.0) ** np.arange(n)
