"""Folds are data: made from names that mean one perturbation once, stored, checked for leaks."""

import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.core.errors import InputError, LeakError, ParameterError, check_choice

SALTS = (
    "hydrochloride dihydrochloride hydrobromide mesylate dimesylate maleate acetate diacetate "
    "sulfate disulfate citrate tosylate sodium potassium chloride hydrate dihydrate monohydrate "
    "hemihydrate phosphate fumarate tartrate isethionate hcl 2hcl"
).split()
CONTROLS = frozenset(
    "ctrl control controls negctrl negativecontrol nt ntc nontargeting nontargetingcontrol "
    "safetargeting scramble scrambled mock untreated unperturbed vehicle dmso".split()
)
DOUBLES = ("apart", "together")
# a stem with more numbers behind it than this is a numbering (P_1, P_2, ...), not a few guides
MOST_GUIDES = 20
# no gene symbol has an underscore before a number; NKX2-1 and H2AC4 are genes of their own
_GUIDE = re.compile(r"([ _.:#-]+(sg|grna|sgrna|guide)[ _.:#-]*\d+|[_#]\d+)$")
# nor is the number of AZD-8055 a dose: one has a unit, or an underscore or @ before it
_DOSE = re.compile(r"([\s_@,(\[-]+\d+([.,]\d+)?\s*([nuμm]?m|[nuμm]?g/ml)[)\]]*|[_@]\d+([.,]\d+)?)$")
_VERSION = re.compile(r"^(ens[a-z]*\d{11})\.\d+$")
_PLUS = re.compile(r"(?<!\()\+(?!\))")  # not that of (+)-JQ1


def same_perturbation(
    names: Iterable[str],
    identifier: str = "symbol",
    *,
    aliases: Mapping[str, str] | None = None,
    smiles: Mapping[str, str] | None = None,
    doubles: str = "apart",
) -> pd.Series:
    """Find the names that mean one perturbation: the first of them in sorted order, by name.

    Case, blanks, the order in ``A+B``, ``A+ctrl``, versions of Ensembl ids, and numbers of guides
    tell no genes apart; salts, doses and spelling no drugs. `aliases`: today's name of an older
    one; `smiles`: of drugs; `doubles`: "together" makes one of combinations that share a gene.
    """
    check_choice("doubles", doubles, DOUBLES)
    names = sorted(set(map(str, names)))
    parts = parts_of(names, identifier, aliases)
    marks = {name: {"+".join(found)} for name, found in parts.items()}
    if doubles == "together":
        marks = {name: {*marks[name], *found} for name, found in parts.items()}
    if smiles is not None:
        for name in names:
            if structure := _structure(str(smiles.get(name, "") or "")):
                marks[name].add(f"structure {structure}")
    return _joined(names, marks)


def parts_of(
    names: Iterable[str], identifier: str = "symbol", aliases: Mapping[str, str] | None = None
) -> dict[str, list[str]]:
    """Return the genes or drugs behind each name, sorted, in one spelling, controls left out."""
    names, drug = list(names), identifier == "drug"
    split = {name: [p.strip() for p in _PLUS.split(_plain(name))] for name in names}
    ending = _DOSE if drug else _GUIDE
    stems = {p: ending.sub("", p) or p for found in split.values() for p in found}
    many = Counter(stems.values())
    today = {_plain(old): _plain(new) for old, new in (aliases or {}).items()}

    def one(part: str) -> str:
        stem = stems[part] if many[stems[part]] <= MOST_GUIDES else part
        if drug:
            return _letters(parent(re.sub(r"[-_](?=[^\W\d_]+$)", " ", stem)), "+") or stem
        stem = _VERSION.sub(r"\1", stem)
        return today.get(stem, stem)

    out = {}
    for name, found in split.items():
        own = sorted({one(p) for p in found if p and not is_control(p)})
        out[name] = own or [_letters(_plain(name)) or name]
    return out


def is_control(name: str) -> bool:
    """Whether a name is one that control cells usually bear, with or without a number."""
    return _letters(_GUIDE.sub("", _plain(name))) in CONTROLS


def merged(same: pd.Series) -> list[str]:
    """Write one line per perturbation that has several names; `same`: of `same_perturbation`."""
    groups = same.groupby(same.to_numpy()).groups.values()
    return [" = ".join(map(repr, names)) for names in groups if len(names) > 1]


def parent(name: str) -> str:
    """Reduce a drug's name to that of its active part: salts and waters left out."""
    words = [w for w in re.split(r"[^\w+-]+", name.lower()) if w and w not in SALTS]
    return " ".join(words) or name.lower()


def _plain(name: str) -> str:
    """Fold case and width, and drop what cannot be seen."""
    text = unicodedata.normalize("NFKC", str(name))
    return "".join(c for c in text if unicodedata.category(c) != "Cf").strip().casefold()


def _letters(text: str, more: str = "") -> str:
    return "".join(c for c in text if c.isalnum() or c in more)


@cache
def _structure(smiles: str) -> str:
    from perturbcore.data.molecules.structures import canonical, parse

    return canonical(smiles, parent=True) if parse(smiles)[0] is not None else ""


def _joined(names: list[str], marks: Mapping[str, set[str]]) -> pd.Series:
    """Give names that share a mark, directly or through others, the first name among them."""
    pairs = [(i, mark) for i, name in enumerate(names) for mark in marks[name]]
    rows = np.array([i for i, _ in pairs], dtype=int)
    columns = pd.factorize(np.array([m for _, m in pairs], dtype=object))[0]
    size = len(names) + len(pairs)
    graph = sp.coo_matrix((np.ones(len(pairs)), (rows, len(names) + columns)), (size, size))
    label = pd.Series(sp.csgraph.connected_components(graph, directed=False)[1][: len(names)])
    first = label.map(dict(zip(label[::-1], names[::-1], strict=True)))
    return pd.Series(first.to_numpy(dtype=object), pd.Index(names, dtype=object), name="same")


def assign_folds(
    perturbations,
    n_folds: int = 5,
    seed: int = 0,
    *,
    identifier: str = "symbol",
    aliases: Mapping[str, str] | None = None,
    smiles: Mapping[str, str] | None = None,
    doubles: str = "apart",
) -> pd.Series:
    """Assign each perturbation to one fold, whatever the order or number of its rows.

    The distinct perturbations are sorted, permuted with `seed` and cut into `n_folds` nearly equal
    parts, so that one measured in several cell lines lies in the same fold in all of them. Names
    that mean one perturbation share its fold, see `perturbcore.data.folds.same_perturbation`.

    `perturbations`: names, repeats are allowed; `n_folds`: at least 2; `seed`: of the permutation;
    `identifier`: what names are, "symbol", "ensembl", "entrez" or "drug"; `aliases`: today's name
    of an older one; `smiles`: structures by drug; `doubles`: whether combinations that share a gene
    lie "apart" (as published) or "together".

    Returns the fold (0 .. n_folds - 1), indexed by the sorted distinct perturbation.

    Examples
    --------
    >>> pc.assign_folds(["TP53", "MYC", "KRAS", "GATA1", "MYC"], n_folds=2).value_counts().tolist()
    [2, 2]
    """
    names = pd.Index(perturbations)
    if names.hasnans:
        raise InputError("a perturbation name is missing (NaN): name or drop those rows")
    how = dict(aliases=aliases, smiles=smiles, doubles=doubles)
    same = same_perturbation(names.astype(str), identifier, **how)
    names = pd.Index(sorted(set(same)), dtype=object)
    if n_folds < 2 or n_folds > len(names):
        raise ParameterError(f"n_folds={n_folds}: give 2 to {len(names)}, the perturbations")
    folds = np.empty(len(names), dtype=int)
    order = np.random.default_rng(seed).permutation(len(names))
    for fold, part in enumerate(np.array_split(order, n_folds)):
        folds[part] = fold
    return same.map(pd.Series(folds, index=names)).rename("fold")


def add_folds(responses: AnnData, n_folds: int = 5, seed: int = 0, **how: Any) -> AnnData:
    """Write ``obs["fold"]`` of `responses` in place and return it; see `assign_folds`."""
    obs, about = responses.obs, responses.uns.get("perturbcore", {})
    names = obs["perturbation"].astype(str)
    how = {"identifier": about.get("identifier", "symbol"), **how}
    if "smiles" in obs:
        how.setdefault("smiles", dict(zip(names, obs["smiles"].astype(str), strict=True)))
    obs["fold"] = assign_folds(obs["perturbation"], n_folds, seed, **how).loc[names].to_numpy()
    if twice := merged(same_perturbation(names, **how)):
        about["merged"] = twice
    return responses


def single_genes(name: str) -> list[str]:
    """Return the genes of a single (``A``, ``A+ctrl``) or combined perturbation (``A+B``)."""
    return [part for part in map(str.strip, name.split("+")) if part and not is_control(part)]


def gears_split(perturbations, seed: int = 1, share: float = 0.75) -> pd.Series:
    """Split perturbations by gene: the "simulation" split of GEARS (Roohani et al. 2023).

    A `share` of the perturbed genes is drawn, then a `share` of the combinations of two drawn
    genes: these and the drawn singles are "train". Asked are "unseen_single", and combinations of
    which no, one or both genes were drawn ("combo_seen0" to "combo_seen2"). Draws are those of
    GEARS for the same names and seed. Returns the subgroup by name.
    """
    names = sorted({str(p) for p in perturbations})
    parts = {name: single_genes(name) for name in names}
    genes = np.unique([gene for found in parts.values() for gene in found])
    drawn = set(np.random.RandomState(seed).choice(genes, int(len(genes) * share), replace=False))
    group = {}
    for name, found in parts.items():
        seen = sum(gene in drawn for gene in found)
        single = "train" if seen else "unseen_single"
        group[name] = single if len(found) == 1 else f"combo_seen{seen}"
    both = np.array([name for name in names if group[name] == "combo_seen2"])
    kept = np.random.RandomState(seed).choice(both, int(len(both) * share), replace=False)
    return pd.Series(group | dict.fromkeys(kept, "train"), name="subgroup")


def check_leakage(responses: AnnData, *, joint: bool = False, across: bool = False) -> None:
    """Refuse folds by which a test perturbation would be seen in training.

    `joint`: one model is trained over all lines; `across`: asked is what another line tells.
    """
    obs, shared = responses.obs, responses.uns.get("perturbcore", {}).get("shared_wells")
    if across and shared:
        raise LeakError(
            f"the cell lines of '{responses.uns['perturbcore'].get('dataset', 'these data')}' were "
            "together in each well, so that one line tells of another what the well did to both: "
            "transfer between them cannot be scored; use lines that were treated apart"
        )
    if obs["fold"].isna().any():
        row = obs.index[obs["fold"].isna()][0]
        raise InputError(f"column 'fold' is empty in row '{row}': give every row a fold")
    within = obs.groupby(["cell_line", "perturbation"], observed=True)["fold"].nunique()
    if (within > 1).any():
        line, name = within.index[within > 1][0]
        raise LeakError(
            f"perturbation '{name}' is in {within.max()} folds of cell line '{line}' (column "
            "'fold'): it would be tested on itself; keep all its rows in one fold (add_folds does)"
        )
    if across:
        return
    _check_names(responses)
    moved = obs.groupby("perturbation", observed=True)["fold"].nunique()
    moved = moved[moved > 1]
    if len(moved):
        what = (
            f"{len(moved)} perturbations are in different folds in different cell lines, "
            f"for example '{moved.index[0]}' (column 'fold')"
        )
        if shared:
            raise LeakError(
                f"{what}, but these lines share wells, so that a drug agrees with itself "
                "across lines even where it is inert; use add_folds"
            )
        if joint:
            raise LeakError(f"{what}: a joint model would see them in training; use add_folds")
        warnings.warn(
            f"{what}: harmless for one model per line, a leak for joint models", stacklevel=2
        )


def _check_names(responses: AnnData) -> None:
    """Refuse folds that part two names of one perturbation."""
    about, names = responses.uns.get("perturbcore", {}), responses.obs["perturbation"].astype(str)
    if about.get("published_split"):
        return
    fold = pd.Series(responses.obs["fold"].to_numpy(), names.to_numpy()).groupby(level=0).first()
    same = same_perturbation(fold.index, about.get("identifier", "symbol"))
    for line in merged(same[fold.groupby(same).transform("nunique") > 1]):
        raise LeakError(
            f"{line}: one perturbation by its names, but in different folds (column 'fold'); drop "
            "the column, so that folds are made anew, or rename what is not the same"
        )


def check_disjoint(train, test) -> None:
    """Raise `LeakError` where a test perturbation is also among the training ones."""
    both = pd.Index(train).intersection(pd.Index(test))
    if len(both):
        raise LeakError(
            f"{len(both)} test perturbations are also in training, for example '{both[0]}': "
            "make the folds again with assign_folds"
        )
