"""Which names mean one perturbation: found before folds are made, so none is its own test."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache

import numpy as np
import pandas as pd
import scipy.sparse as sp

from perturbcore.core.errors import check_choice

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
