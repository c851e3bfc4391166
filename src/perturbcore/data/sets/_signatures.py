"""Drug signatures that are only ranked genes: reading, matching with drug tables, signed top-k labels."""

import re
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.folds import assign_folds
from perturbcore.data.responses import make_responses
from perturbcore.data.sets._rstrings import read_string_lists
from perturbcore.data.sets.base import Card, Dataset

RANK_NOTES = (
    "A signature is a ranking of genes by log fold-change times -log10 of the adjusted p-value; the "
    "values themselves are not in the files. Genes whose adjusted p-value is 1 lie in the middle in "
    "arbitrary order, so only the ends are used: the top k genes are labelled 1, the bottom k -1, all "
    "others 0.",
    "Every drug gets k genes up and k down, also one that does nothing: its labels are then noise. No "
    "count of differentially expressed genes and no effect size can be had from rankings.",
    "No cells, no replicates: the experimental error of these labels cannot be estimated.",
)
SALTS = (
    "hydrochloride dihydrochloride hydrobromide mesylate dimesylate maleate acetate diacetate sulfate "
    "disulfate citrate tosylate sodium potassium chloride hydrate dihydrate monohydrate hemihydrate "
    "phosphate fumarate tartrate isethionate hcl 2hcl"
).split()


class Signatures:
    """Ranked genes of the drugs of one cell line.

    Attributes
    ----------
    ranked : dict of str to object array
        Drug -> genes, most up-regulated first.
    n_up : dict of str to int
        Drug -> length of its list of significantly up-regulated genes (100 at most).
    """

    def __init__(self, ranked: Mapping, n_up: Mapping):
        self.ranked, self.n_up = dict(ranked), dict(n_up)


def read_signatures(path, name: str) -> Signatures:
    """Read one file of ranked signatures.

    Raises
    ------
    InputError
        The file is damaged, or is not drug -> (`up`, `up_full`).
    """
    found = read_string_lists(path, name)
    if not isinstance(found, dict) or not found:
        raise InputError(
            f"{path}: object '{name}' is not a list of drugs; is this another version?"
        )
    for drug, parts in found.items():
        for part in ("up", "up_full"):
            if not isinstance(parts, dict) or not isinstance(parts.get(part), np.ndarray):
                raise InputError(
                    f"{path}: drug '{drug}' has no genes '{part}'; is this another version?"
                )
    return Signatures(
        {d: p["up_full"] for d, p in found.items()}, {d: len(p["up"]) for d, p in found.items()}
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
    """Find drugs in a table by name.

    Parameters
    ----------
    names : iterable of str
    table : DataFrame
        Indexed by drug.
    aliases : mapping, optional
        Name -> name in the table.

    Returns
    -------
    DataFrame
        Indexed by name: `in_table` (or missing) and `how`: "name"; "alias"; "spelling", equal but for
        case and punctuation; "beginning", the only name of the table that begins so (at least eight
        letters: a name cut short); "" where none was found.
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
    """Genes that every signature of every line ranks once, sorted; and how many are ranked twice."""
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
    """Label the first k of `genes` in a ranking 1, the last k -1, all others 0.

    Parameters
    ----------
    ranked : array of str
        All genes of the signature, most up-regulated first; each of `genes` once.
    genes : pandas.Index
    k : int

    Returns
    -------
    int8 array, (len(genes),)
    """
    order = genes.get_indexer(np.asarray(ranked, dtype=object))
    order = order[order >= 0]
    label = np.zeros(len(genes), dtype=np.int8)
    label[order[:k]] = 1
    label[order[-k:]] = -1
    return label


def check_k(k, n_genes: int | None = None) -> None:
    """Refuse a k that labels nothing, or so many genes that both ends meet."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise ParameterError(f"k={k!r}: give a whole number of at least 1")
    if n_genes is not None and 2 * k >= n_genes:
        raise ParameterError(
            f"k={k}: the signatures share {n_genes} genes, so that k must be below {(n_genes + 1) // 2}"
        )


def chosen_lines(lines, known: Mapping[str, str]) -> list[str]:
    """Return the lines asked for, or refuse an unknown one."""
    lines = list(known) if lines is None else [lines] if isinstance(lines, str) else list(lines)
    unknown = [line for line in lines if line not in known]
    if unknown or not lines:
        what = f"no cell line '{unknown[0]}'" if unknown else "lines is empty"
        raise ParameterError(f"{what}; there are: {', '.join(known)}")
    return lines


def signature_dataset(
    name: str,
    title: str,
    lines: Mapping[str, Signatures],
    table: pd.DataFrame,
    *,
    k: int,
    min_labels: int,
    unmatched: str,
    n_folds: int,
    seed: int,
    shared_wells: bool,
    sources: tuple,
    citations: tuple,
    notes: tuple,
    aliases: Mapping[str, str] | None = None,
) -> Dataset:
    """Make a data set of signed top-k labels from ranked signatures.

    Parameters
    ----------
    lines : mapping
        Cell line -> its signatures.
    table : DataFrame
        Drug table: `smiles`, `targets`, `mechanism`.
    k : int
        Genes labelled at each end.
    min_labels : int
        Keep the genes that are labelled (1 or -1) in at least so many signatures, of all lines
        together: one that never is has nothing to predict.
    unmatched : {"drop", "keep"}
        What becomes of drugs that the table does not have: a kept one has no embedding.
    shared_wells : bool
        Whether the lines were measured together in one well, which the responses then declare
        (``uns["perturbcore"]["shared_wells"]``).

    Returns
    -------
    Dataset
        ``extras``: "drugs" (indexed by perturbation; `in_table`, `how` and `parent` beside the
        columns of the table), "unmatched" (tuple of names).
    """
    check_k(k)
    if (
        isinstance(min_labels, bool)
        or not isinstance(min_labels, int | np.integer)
        or min_labels < 0
    ):
        raise ParameterError(f"min_labels={min_labels!r}: give a whole number of at least 0")
    if unmatched not in ("drop", "keep"):
        raise ParameterError(f"unmatched={unmatched!r}: choose 'drop' or 'keep'")
    everyone = sorted({d for s in lines.values() for d in s.ranked})
    card = Card()
    lengths = [len(r) for s in lines.values() for r in s.ranked.values()]
    n_rows = sum(len(s.ranked) for s in lines.values())
    note = f"{n_rows} signatures in {len(lines)} cell lines, {min(lengths):,} to {max(lengths):,} genes each"
    card.step("files", perturbations=len(everyone), note=note)
    matched = match_drugs(everyone, table, aliases)
    lost = tuple(matched.index[matched["how"] == ""])
    how = matched["how"].value_counts()
    said = ", ".join(
        f"{how[h]} by {h}" for h in ("name", "spelling", "beginning", "alias") if h in how
    )
    kept = [d for d in everyone if unmatched == "keep" or d not in lost]
    if not kept:
        raise InputError(
            f"{name}: none of {len(everyone)} drugs is in the drug table, such as '{everyone[0]}'"
        )
    gone = (
        f"; not found, {unmatched == 'drop' and 'dropped' or 'kept'}: {', '.join(lost)}"
        if lost
        else ""
    )
    card.step("drug table", perturbations=len(kept), note=f"found {said}{gone}")
    genes, n_twice = common_genes(lines, kept)
    check_k(k, len(genes))
    drugs = _drugs(matched.loc[kept], table)
    responses = _responses(name, lines, kept, genes, k)
    often = (responses.layers["deg"] != 0).sum(axis=0) >= min_labels
    if not often.any():
        most = int((responses.layers["deg"] != 0).sum(axis=0).max())
        raise ParameterError(f"min_labels={min_labels}: no gene is labelled more than {most} times")
    responses = responses[:, often].copy()
    responses.uns["perturbcore"].update(k=int(k), shared_wells=bool(shared_wells))
    # salts of one drug are near copies of each other: they lie in one fold
    n_folds = min(n_folds, drugs["parent"].nunique())
    folds = assign_folds(drugs["parent"], n_folds, seed)
    responses.obs["fold"] = folds.loc[drugs.loc[responses.obs["perturbation"], "parent"]].to_numpy()
    note = f"genes that all signatures rank; {n_twice} of them dropped: a name there twice"
    card.step("common genes", perturbations=len(kept), genes=len(genes), note=note)
    card.step(
        "responses",
        perturbations=len(kept),
        genes=responses.n_vars,
        note=f"{responses.n_obs} rows of drug and line, {k} genes up and {k} down in each; genes labelled at "
        f"least {min_labels} times",
    )
    return Dataset(
        name=name,
        title=title,
        task="deg",
        responses=responses,
        card=card.frame(),
        sources=sources,
        citations=citations,
        notes=(*RANK_NOTES, _weak(responses, k), *notes),
        extras=MappingProxyType({"drugs": drugs, "unmatched": lost}),
    )


def _responses(name, lines, kept, genes, k) -> AnnData:
    index = pd.Index(genes, dtype=object)
    rows, labels = [], []
    for line, signatures in lines.items():
        for drug in kept:
            if drug in signatures.ranked:
                labels.append(top_k_labels(signatures.ranked[drug], index, k))
                rows.append((drug, line, signatures.n_up[drug]))
    obs = pd.DataFrame(rows, columns=["perturbation", "cell_line", "n_up"])
    return make_responses(np.stack(labels), obs, genes, dataset=name, task="deg", identifier="drug")


def _drugs(matched: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    drugs = table.reindex(matched["in_table"])[["smiles", "targets", "mechanism"]].fillna("")
    drugs.index = matched.index
    drugs.index.name = "perturbation"
    names = matched["in_table"].where(matched["how"] != "", matched.index.to_series())
    return drugs.assign(
        in_table=matched["in_table"], how=matched["how"], parent=[parent(n) for n in names]
    )


def _weak(responses: AnnData, k: int) -> str:
    few = (responses.obs["n_up"] < min(k, 100)).to_numpy()
    return (
        f"Of {responses.n_obs} signatures, {few.sum()} ({few.mean():.0%}) have fewer than {min(k, 100)} "
        "significantly up-regulated genes by the file's own list: part of their labels is noise."
    )
