"""Predicted expression profiles scored as Csendes et al. 2025 and Ahlmann-Eltze et al. 2025 do."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData

from perturbcore.core.errors import InputError
from perturbcore.data.folds import single_genes
from perturbcore.score.metrics.regression import l2, pearson, pearson_delta

TESTS = {"t-test": "t-test", "Wilcoxon": "wilcoxon"}
TOP, EXPRESSED = 20, 1000  # genes of the two published metrics
TARGETS = ("kept", "out as published", "out")


@dataclass(frozen=True, eq=False)
class Reference:
    """The cells of one line behind expression profiles.

    `genes`: g measured genes; `level`: (g,) mean log expression of control cells; `order`: name of
    a test -> perturbations x g, genes by how differentially they are expressed (column numbers).
    """

    genes: pd.Index
    level: np.ndarray
    order: dict[str, pd.DataFrame]

    def top(self, test: str, names: Sequence[str], targets: str = "kept") -> np.ndarray:
        """Return the `TOP` differentially expressed genes of each perturbation (n, 20).

        `targets`: perturbed genes are "kept", left "out", or "out as published", where those of
        combinations stay, because the published code looks for a gene called ``A+B``.
        """
        found = []
        for name in names:
            genes, own = self.order[test].loc[name].to_numpy(), []
            if targets == "out" or (targets != "kept" and "+" not in name):
                own = self.genes.get_indexer(single_genes(name))
            found.append(genes[~np.isin(genes, own)][:TOP])
        return np.array(found)


def reference_of(screen: AnnData, line: str, level: np.ndarray) -> Reference:
    """Rank the genes of each perturbation of a cell line by both tests against all its controls.

    By the size of the score, as GEARS has it; `level`: mean log expression of its control cells.
    """
    here = screen[(screen.obs["cell_line"].astype(str) == line).to_numpy()]
    cells = AnnData(here.X.astype(np.float32), obs=here.obs[[]], var=here.var[[]])
    if screen.uns["perturbcore"]["scale"] == "counts":
        sc.pp.normalize_total(cells, target_sum=1e4)
        sc.pp.log1p(cells)
    name = here.obs["perturbation"].astype(str)
    name = name.mask(here.obs["is_control"].to_numpy(), "control")
    size = name.value_counts()
    cells.obs["perturbation"] = pd.Categorical(name)
    asked = [n for n in sorted(set(name) - {"control"}) if size[n] > 1]
    if not asked or size.get("control", 0) < 2:
        raise InputError(f"cell line '{line}' has no two cells of a perturbation and of control")
    order = {}
    for title, method in TESTS.items():
        with warnings.catch_warnings():  # scanpy adds column by column to its table
            warnings.simplefilter("ignore", pd.errors.PerformanceWarning)
            sc.tl.rank_genes_groups(
                cells, "perturbation", groups=asked, reference="control", method=method,
                rankby_abs=True,
            )  # fmt: skip
        names = pd.DataFrame(cells.uns["rank_genes_groups"]["names"])
        order[title] = names[asked].T.apply(lambda row: cells.var_names.get_indexer(row),
                                            axis=1, result_type="expand")  # fmt: skip
    return Reference(cells.var_names, level, order)


def profile_metrics(
    truth: np.ndarray,
    said: np.ndarray,
    names: Sequence[str],
    train_mean: np.ndarray,
    reference: Reference,
) -> pd.DataFrame:
    """Score n predicted log fold-changes (n, g) of one line: one row per perturbation.

    Columns: "Pearson" of expression, "Pearson Delta" of the change against control; the latter on
    the 20 most differentially expressed genes by each test (`Reference.top`); "beyond the mean" of
    training responses; "L2, 1,000 genes": over those most expressed in control cells.
    """
    level = reference.level.astype(said.dtype)
    out = {"Pearson": pearson(truth + level, said + level), "Pearson Delta": pearson(truth, said)}
    for test, targets in (
        ("t-test", "kept"), ("Wilcoxon", "kept"), *(("t-test", t) for t in TARGETS[1:])
    ):  # fmt: skip
        top = reference.top(test, names, targets)
        where = "" if targets == "kept" else f", target {targets}"
        parts = (np.take_along_axis(x, top, axis=1) for x in (truth, said))
        out[f"Delta on top 20, {test}{where}"] = pearson(*parts)
    out["beyond the mean"] = pearson_delta(truth, said, train_mean)
    most = np.argsort(-level, kind="stable")[:EXPRESSED]
    out[f"L2, {len(most):,} genes"] = l2(truth[:, most], said[:, most])
    return pd.DataFrame(out, index=pd.Index(names, name="perturbation"))


def heterogeneity(responses: np.ndarray) -> float:
    """Median correlation of pairs of responses (n, g): high where perturbations look alike."""
    r = np.corrcoef(responses)
    return float(np.median(r[np.tril_indices(len(r), -1)]))


def coherence(
    embeddings: Sequence,
    sets: Mapping[str, Sequence[str]],
    *,
    least: int = 5,
    n_boot: int = 2000,
    seed: int = 42,
) -> pd.DataFrame:
    """How much more alike vectors of genes of one set are than under a derangement of the genes.

    Per set of at least `least` genes that all embeddings have: mean correlation over its pairs,
    with true vectors and with vectors of other genes. Returns a row per embedding: embedding,
    modality, real, null, gain (mean over sets of the difference) with its 95 % bootstrap interval
    over sets (low, high), sets, genes.
    """
    ids = [set(e.ids) for e in embeddings]
    genes = pd.Index(sorted(set.intersection(*ids) & {g for s in sets.values() for g in s}))
    at = [np.unique(genes.get_indexer(list(s))) for s in sets.values()]
    at = [a[a >= 0] for a in at]
    at = [a for a in at if len(a) >= least]
    rows = []
    for e in embeddings if at else ():
        X = e.X[e.ids.get_indexer(genes)].astype(float)
        X = X - X.mean(axis=1, keepdims=True)
        length = np.linalg.norm(X, axis=1, keepdims=True)
        Z = np.divide(X, length, out=np.zeros_like(X), where=length > 0)
        rng = np.random.default_rng(seed)
        other = rng.permutation(len(genes))
        while len(genes) > 1 and (other == np.arange(len(genes))).any():
            other = rng.permutation(len(genes))  # none at its own place
        real = np.array([_alike(Z[a]) for a in at])
        null = np.array([_alike(Z[other[a]]) for a in at])
        draws = (real - null)[rng.integers(len(at), size=(n_boot, len(at)))].mean(axis=1)
        low, high = np.quantile(draws, [0.025, 0.975])
        gain = real.mean() - null.mean()
        about = (e.name, e.modality, real.mean(), null.mean(), gain, low, high, len(at), len(genes))
        rows.append(about)
    columns = "embedding modality real null gain low high sets genes".split()
    return pd.DataFrame(rows, columns=columns).sort_values("gain", ascending=False)


def _alike(Z: np.ndarray) -> float:
    """Mean product over the pairs of rows."""
    n, total = len(Z), Z.sum(axis=0)
    return float((total @ total - (Z**2).sum()) / (n * (n - 1)))
