"""Drug signatures of Sci-Plex 3 and Tahoe-100M as ranked genes (sigrecon): signed top-k labels."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral

import joblib
import numpy as np
import pandas as pd

from perturbcore.core.errors import ParameterError, check_choice
from perturbcore.data.catalogue import fetch
from perturbcore.data.folds import assign_folds, parent
from perturbcore.data.molecules.tables import sciplex_drugs, tahoe_drugs
from perturbcore.data.read import read_r
from perturbcore.data.responses import make_responses
from perturbcore.data.sets.base import Card, Dataset, constants_of, make_dataset


def load(
    source: str = "sciplex",
    lines=None,
    k: int = 50,
    min_labels: int = 1,
    n_folds: int = 5,
    seed: int = 0,
) -> Dataset:
    """Load labels of drug signatures: `k` genes at each end of a ranking; folds are by drug."""
    name = f"{check_choice('source', source, ('sciplex', 'tahoe', 'op3'))}_signatures"
    about = constants_of(name)
    known = about["lines"]
    for option, value, least in (("k", k, 1), ("min_labels", min_labels, 0)):
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise ParameterError(f"{option}={value!r}: give a whole number of at least {least}")
    lines = list(known) if lines is None else [lines] if isinstance(lines, str) else list(lines)
    files = {line: f"sigrecon/{known[check_choice('cell line', line, known)]}" for line in lines}
    # most of the time is that of unpacking, which runs side by side
    read = joblib.Parallel(2, prefer="threads")(
        joblib.delayed(read_signatures)(fetch(file), known[line]) for line, file in files.items()
    )
    signatures = dict(zip(files, read, strict=True))
    drugs = tahoe_drugs()
    if source == "sciplex":
        # its own table names target classes: genes are those of the other, by the name before "("
        targets = {spelled(name): targets for name, targets in drugs["targets"].items()}
        drugs = sciplex_drugs()
        drugs["targets"] = [targets.get(spelled(n.split(" (")[0]), "") for n in drugs.index]
    how = dict(k=k, min_labels=min_labels, n_folds=n_folds, seed=seed)
    how |= {option: about[option] for option in ("aliases", "shared_wells")}
    return signature_dataset(name, signatures, drugs, files=tuple(files.values()), **how)


def signature_dataset(
    name: str, lines: Mapping[str, dict], table: pd.DataFrame, *, k: int, min_labels: int,
    n_folds: int, seed: int, shared_wells: bool, aliases: Mapping[str, str],
    files: tuple[str, ...] = (),
) -> Dataset:  # fmt: skip
    """Make the data set of `load` from signatures (`read_signatures`) and a drug table."""
    card = Card()
    drugs = _drugs(lines, table, aliases, card)
    genes, n_twice = common_genes(lines, drugs.index)
    if 2 * k >= len(genes):
        raise ParameterError(
            f"k={k}: the signatures share {len(genes)} genes, so that k must be below "
            f"{(len(genes) + 1) // 2}"
        )
    index, kept = pd.Index(genes, dtype=object), drugs.index
    here = [(d, line, *of[d]) for line, of in lines.items() for d in kept if d in of]
    labels = [top_k_labels(ranked, index, k) for *_, ranked, _ in here]
    rows = [(d, line, n_up) for d, line, _, n_up in here]
    obs = pd.DataFrame(rows, columns=["perturbation", "cell_line", "n_up"])
    what = dict(dataset=name, task="deg", identifier="drug")
    responses = make_responses(np.stack(labels), obs, genes, **what)
    times = (responses.layers["deg"] != 0).sum(axis=0)
    if not (times >= min_labels).any():
        raise ParameterError(f"min_labels={min_labels}: genes have at most {times.max()} labels")
    responses = responses[:, times >= min_labels].copy()
    responses.uns["perturbcore"].update(k=int(k), shared_wells=bool(shared_wells))
    # salts of one drug are near copies of each other: they lie in one fold
    n_folds = min(n_folds, drugs["parent"].nunique())
    folds = assign_folds(drugs["parent"], n_folds, seed, identifier="drug")
    responses.obs["fold"] = folds.loc[drugs.loc[responses.obs["perturbation"], "parent"]].to_numpy()
    note = f"genes that all signatures rank; {n_twice} of them dropped: a name there twice"
    card.step("common genes", perturbations=len(drugs), genes=len(genes), note=note)
    rows = f"{responses.n_obs} rows of drug and line, {k} genes up and {k} down in each"
    card.responses(responses, f"{rows}; genes labelled at least {min_labels} times")
    few = (responses.obs["n_up"] < min(k, 100)).to_numpy()
    weak = (
        f"Of {responses.n_obs} signatures, {few.sum()} ({few.mean():.0%}) have fewer than "
        f"{min(k, 100)} significantly up-regulated genes by the file's own list: part of their "
        "labels is noise."
    )
    data = make_dataset(responses, card, notes=(weak,), extras={"drugs": drugs})
    return replace(data, sources=(*files, *data.sources))


def read_signatures(path, name: str) -> dict[str, tuple[np.ndarray, int]]:
    """Read a cell line's signatures: per drug its genes, most up-regulated first, and `n_up`."""
    full = {
        drug: (parts["up_full"], len(parts["up"])) for drug, parts in read_r(path, name).items()
    }
    return {drug: (genes[pd.notna(genes)], n_up) for drug, (genes, n_up) in full.items()}


def spelled(name: str) -> str:
    """Reduce a drug's name to its letters and digits."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def match_drugs(names, table: pd.DataFrame, aliases: Mapping[str, str]) -> pd.DataFrame:
    """Find drugs in a table by name, alias, spelling, or as the only name that begins so."""
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


def common_genes(lines: Mapping[str, dict], drugs) -> tuple[list[str], int]:
    """List the genes that every signature ranks once, and count those ranked twice."""
    counts = [Counter(of[d][0].tolist()) for of in lines.values() for d in of if d in drugs]
    shared = set.intersection(*map(set, counts)) if counts else set()
    once = [gene for gene in sorted(shared) if all(c[gene] == 1 for c in counts)]
    return once, len(shared) - len(once)


def top_k_labels(ranked, genes: pd.Index, k: int) -> np.ndarray:
    """Label the first k of `genes` in a ranking 1, the last k -1, all others 0 (int8)."""
    order = genes.get_indexer(np.asarray(ranked, dtype=object))
    order = order[order >= 0]
    label = np.zeros(len(genes), dtype=np.int8)
    label[order[:k]] = 1
    label[order[-k:]] = -1
    return label


def _drugs(lines, table: pd.DataFrame, aliases, card: Card) -> pd.DataFrame:
    """Return the drugs that the table has, with its columns."""
    everyone = sorted({d for of in lines.values() for d in of})
    lengths = [len(ranked) for of in lines.values() for ranked, _ in of.values()]
    size = f"{min(lengths):,} to {max(lengths):,} genes each"
    note = f"{len(lengths)} signatures in {len(lines)} cell lines, {size}"
    card.step("files", perturbations=len(everyone), note=note)
    matched = match_drugs(everyone, table, aliases)
    lost = list(matched.index[matched["how"] == ""])
    matched = matched.drop(index=lost).rename_axis("perturbation")
    how = matched["how"].value_counts()
    kinds = ("name", "spelling", "beginning", "alias")
    note = "found " + ", ".join(f"{how[h]} by {h}" for h in kinds if h in how)
    note += f"; not found, dropped: {', '.join(lost)}" if lost else ""
    card.step("drug table", perturbations=len(matched), note=note)
    drugs = table.reindex(matched["in_table"])[["smiles", "targets", "mechanism"]].fillna("")
    parents = [parent(name) for name in matched["in_table"]]
    return drugs.set_index(matched.index).assign(parent=parents)
