"""From a SMILES to a molecule: what cannot be read, what is a salt, what is left without stereo."""

from rdkit import Chem, rdBase
from rdkit.Chem.MolStandardize import rdMolStandardize

from perturbcore.core.errors import InputError

_CHOOSER = rdMolStandardize.LargestFragmentChooser(preferOrganic=True)
_UNCHARGER = rdMolStandardize.Uncharger()


def parse(smiles: str):
    """Read a SMILES: the rdkit molecule or None, and in the latter case why."""
    text = str(smiles).strip()
    if not text:
        return None, "no SMILES"
    head, _, rest = text.partition(" ")
    # rdkit takes a second word for a title and reads on without a word
    if rest and not rest.lstrip().startswith("|"):
        return None, f"text behind the SMILES ('{rest.strip()}')"
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(text)
        if mol is not None and mol.GetNumAtoms():
            return mol, ""
        raw = Chem.MolFromSmiles(head, sanitize=False)
        if raw is None or not raw.GetNumAtoms():
            return None, "not a SMILES"
        problems = Chem.DetectChemistryProblems(raw)
    return None, problems[0].Message() if problems else "not a possible molecule"


def canonical(smiles: str, *, parent: bool = False, stereo: bool = True) -> str:
    """Write a SMILES in rdkit's canonical form; `parent`: its largest organic fragment alone."""
    mol, problem = parse(smiles)
    if mol is None:
        raise InputError(f"SMILES '{smiles}' cannot be read: {problem}")
    text = Chem.MolToSmiles(parent_of(mol) if parent else mol, isomericSmiles=stereo)
    # rdkit keeps marks of removed stereo in the atom order unless the molecule is read anew
    return text if stereo else Chem.CanonSmiles(text, useChiral=0)


def parent_of(mol):
    """Largest organic fragment of a molecule, uncharged as far as possible."""
    with rdBase.BlockLogs():
        return _UNCHARGER.uncharge(_CHOOSER.choose(mol))


def stereo_count(mol) -> tuple[int, int]:
    """Stereo-centres and -bonds of a molecule: how many are specified, and how many are not."""
    found = Chem.FindPotentialStereo(mol)
    known = sum(s.specified == Chem.StereoSpecified.Specified for s in found)
    return known, len(found) - known


def molecules(drugs) -> dict:
    """Read column `smiles` of a table of drugs: molecule by drug, without those unreadable."""
    read = {drug: parse(smiles)[0] for drug, smiles in drugs["smiles"].items()}
    kept = {drug: mol for drug, mol in read.items() if mol is not None}
    if not kept:
        raise InputError(f"no valid SMILES among {len(read)} (first: '{drugs['smiles'].iloc[0]}')")
    return kept
