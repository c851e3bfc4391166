"""Drug signatures that are only ranked genes: reading, matching of drugs, signed top-k labels."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from types import MappingProxyType

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.folds import assign_folds
from perturbcore.data.responses import make_responses
from perturbcore.data.sets._rstrings import read_string_lists
from perturbcore.data.sets.base import Card, Dataset, card_of

SALTS = (
    "hydrochloride dihydrochloride hydrobromide mesylate dimesylate maleate acetate diacetate "
    "sulfate disulfate citrate tosylate sodium potassium chloride hydrate dihydrate monohydrate "
    "hemihydrate phosphate fumarate tartrate isethionate hcl 2hcl"
).split()


@dataclass
class Signatures:
    """Ranked genes of the drugs of one cell line.

    `ranked`: drug -> genes, most up-regulated first; `n_up`: drug -> length of its list of
    significantly up-regulated genes (100 at most).
    """

    ranked: dict
    n_up: dict


def read_signatures(path, name: str) -> Signatures:
    """Read one file of ranked signatures: drug -> (`up`, `up_full`)."""
    drugs = read_string_lists(path, name)
    if not isinstance(drugs, dict) or not drugs:
        raise InputError(
            f"{path}: object '{name}' is not a list of drugs; is this another version?"
        )
    for drug, parts in drugs.items():
        for part in ("up", "up_full"):
            if not isinstance(parts, dict) or not isinstance(parts.get(part), np.ndarray):
                raise InputError(
                    f"{path}: drug '{drug}' has no genes '{part}'; is this another version?"
                )
    return Signatures(
        {d: p["up_full"] for d, p in drugs.items()}, {d: len(p["up"]) for d, p in drugs.items()}
    )


def spelled(name: str) -> str:
    """Reduce a drug's name to its letters and digits."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def parent(name: str) -> str:
    """Reduce a drug's name to that of its active part: salts and waters left out."""
    words = [w for w in re.split(r"[^\w+-]+", name.lower()) if w and w not in SALTS]
    return " ".join(words) or name.lower()


def match_drugs(
    names, table: pd.DataFrame, aliases: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Find drugs in a table (indexed by drug) by name.

    Returns a table indexed by name: `in_table` (or missing) and `how`: "name"; "alias"; "spelling",
    equal but for case and punctuation; "beginning", the only name of the table that begins so (at
    least eight letters: a name cut short); "" where none was found.
    """
    aliases = dict(aliases or {})
    by_spelling: dict[str, list[str]] = {}
    for known in table.index:
        by_spelling.setdefault(spelled(known), []).append(known)
    rows = {}
    for name in names:
        short = spelled(name)
        begins = [k for k in by_spelling if len(short) >= 8 and k.startswith(short)]
        if name in table.index:
            rows[name] = (name, "name")
        elif aliases.get(name) in table.index:
            rows[name] = (aliases[name], "alias")
        elif len(by_spelling.get(short, ())) == 1:
            rows[name] = (by_spelling[short][0], "spelling")
        elif short not in by_spelling and len(begins) == 1 and len(by_spelling[begins[0]]) == 1:
            rows[name] = (by_spelling[begins[0]][0], "beginning")
        else:
            rows[name] = (None, "")
    return pd.DataFrame.from_dict(rows, orient="index", columns=["in_table", "how"])


def common_genes(lines: Mapping[str, Signatures], drugs) -> tuple[list[str], int]:
    """List the genes that every signature ranks once, and count those ranked twice."""
    shared, twice = None, set()
    for signatures in lines.values():
        for drug in set(signatures.ranked) & set(drugs):
            ranked = signatures.ranked[drug].tolist()
            genes = set(ranked)
            if len(genes) < len(ranked):
                twice.update(gene for gene, n in Counter(ranked).items() if n > 1)
            shared = genes if shared is None else shared & genes
    shared = shared or set()
    return sorted(shared - twice), len(shared & twice)


def top_k_labels(ranked, genes: pd.Index, k: int) -> np.ndarray:
    """Label the first k of `genes` in a ranking 1, the last k -1, all others 0 (int8)."""
    order = genes.get_indexer(np.asarray(ranked, dtype=object))
    order = order[order >= 0]
    label = np.zeros(len(genes), dtype=np.int8)
    label[order[:k]] = 1
    label[order[-k:]] = -1
    return label


def check_k(k: int, n_genes: int | None = None) -> None:
    """Refuse a k that labels nothing, or so many genes that both ends meet."""
    _whole("k", k, 1)
    if n_genes is not None and 2 * k >= n_genes:
        raise ParameterError(
            f"k={k}: the signatures share {n_genes} genes, "
            f"so that k must be below {(n_genes + 1) // 2}"
        )


def _whole(name: str, value, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ParameterError(f"{name}={value!r}: give a whole number of at least {least}")


def signature_dataset(
    name: str,
    lines: Mapping[str, Signatures],
    table: pd.DataFrame,
    *,
    k: int,
    min_labels: int,
    n_folds: int,
    seed: int,
    shared_wells: bool,
    aliases: Mapping[str, str] | None = None,
    **about,
) -> Dataset:
    """Make a data set of signed top-k labels from ranked signatures.

    `lines`: cell line -> its signatures; `table`: drug table: `smiles`, `targets`, `mechanism`.
    Drugs that it does not have are dropped and named; `k`: genes labelled at each end;
    `min_labels`: keep the genes that are labelled (1 or -1) in at least so many signatures, of
    all lines together: one that never is has nothing to predict; `shared_wells`: whether the
    lines were measured together in one well, which the responses then declare
    (``uns["perturbcore"]["shared_wells"]``); `**about`: title, sources, citations and notes.

    Returns ``extras``: "drugs" (indexed by perturbation; `in_table`, `how` and `parent` beside
    the columns of the table), "unmatched" (tuple of names).
    """
    check_k(k)
    _whole("min_labels", min_labels, 0)
    card = Card()
    drugs, lost = _drugs(name, lines, table, aliases, card)
    genes, n_twice = common_genes(lines, drugs.index)
    check_k(k, len(genes))
    responses = _responses(name, lines, drugs.index, genes, k)
    times = (responses.layers["deg"] != 0).sum(axis=0)
    if not (times >= min_labels).any():
        raise ParameterError(
            f"min_labels={min_labels}: no gene is labelled more than {int(times.max())} times"
        )
    responses = responses[:, times >= min_labels].copy()
    responses.uns["perturbcore"].update(k=int(k), shared_wells=bool(shared_wells))
    # salts of one drug are near copies of each other: they lie in one fold
    folds = assign_folds(drugs["parent"], min(n_folds, drugs["parent"].nunique()), seed)
    responses.obs["fold"] = folds.loc[drugs.loc[responses.obs["perturbation"], "parent"]].to_numpy()
    note = f"genes that all signatures rank; {n_twice} of them dropped: a name there twice"
    card.step("common genes", perturbations=len(drugs), genes=len(genes), note=note)
    card.responses(
        responses,
        f"{responses.n_obs} rows of drug and line, {k} genes up and {k} down in each; "
        "genes labelled at "
        f"least {min_labels} times",
    )
    about["notes"] = (*card_of("signatures")["notes"], _weak(responses, k), *about["notes"])
    return Dataset(
        name=name,
        task="deg",
        responses=responses,
        card=card.frame(),
        extras=MappingProxyType({"drugs": drugs, "unmatched": lost}),
        **about,
    )


def _drugs(
    name: str, lines, table: pd.DataFrame, aliases, card: Card
) -> tuple[pd.DataFrame, tuple]:
    """Return the drugs that the table has, with its columns, and the names of the others."""
    everyone = sorted({d for s in lines.values() for d in s.ranked})
    lengths = [len(r) for s in lines.values() for r in s.ranked.values()]
    size = f"{min(lengths):,} to {max(lengths):,} genes each"
    note = f"{len(lengths)} signatures in {len(lines)} cell lines, {size}"
    card.step("files", perturbations=len(everyone), note=note)
    matched = match_drugs(everyone, table, aliases)
    lost = tuple(matched.index[matched["how"] == ""])
    matched = matched.drop(index=list(lost)).rename_axis("perturbation")
    if matched.empty:
        raise InputError(
            f"{name}: none of {len(everyone)} drugs is in the drug table, such as '{everyone[0]}'"
        )
    how = matched["how"].value_counts()
    kinds = ("name", "spelling", "beginning", "alias")
    note = "found " + ", ".join(f"{how[h]} by {h}" for h in kinds if h in how)
    note += f"; not found, dropped: {', '.join(lost)}" if lost else ""
    card.step("drug table", perturbations=len(matched), note=note)
    drugs = table.reindex(matched["in_table"])[["smiles", "targets", "mechanism"]].fillna("")
    drugs = drugs.set_index(matched.index).assign(in_table=matched["in_table"], how=matched["how"])
    return drugs.assign(parent=[parent(n) for n in matched["in_table"]]), lost


def _responses(name: str, lines, drugs, genes: list[str], k: int) -> AnnData:
    index = pd.Index(genes, dtype=object)
    rows, labels = [], []
    for line, signatures in lines.items():
        for drug in drugs:
            if drug in signatures.ranked:
                labels.append(top_k_labels(signatures.ranked[drug], index, k))
                rows.append((drug, line, signatures.n_up[drug]))
    obs = pd.DataFrame(rows, columns=["perturbation", "cell_line", "n_up"])
    return make_responses(np.stack(labels), obs, genes, dataset=name, task="deg", identifier="drug")


def _weak(responses: AnnData, k: int) -> str:
    few = (responses.obs["n_up"] < min(k, 100)).to_numpy()
    return (
        f"Of {responses.n_obs} signatures, {few.sum()} ({few.mean():.0%}) have "
        f"fewer than {min(k, 100)} "
        "significantly up-regulated genes by the file's own list: part of their labels is noise."
    )
