"""Simple predictors on prior knowledge, asked for expression profiles of new perturbations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

from perturbcore.data.contexts import add_control_profiles, control_profiles, controls_of
from perturbcore.data.folds import gears_split, single_genes
from perturbcore.data.published.tables import facts
from perturbcore.data.responses import cell_lines, rows_of
from perturbcore.embeddings.base import Embedding
from perturbcore.models.registry import build_models
from perturbcore.models.simple import Predictor, predictor
from perturbcore.report import figures
from perturbcore.report.comparison import Comparison
from perturbcore.report.figures.methods import interval_plot
from perturbcore.report.functions import gene_sets
from perturbcore.report.text import HEADINGS, tell
from perturbcore.score.model import NEGATIVE
from perturbcore.score.profiles import coherence, heterogeneity, profile_metrics, reference_of
from perturbcore.score.task import task_of

TASK = task_of("expression")
FEATURE_DIM = 256  # principal components of a feature table, over all its genes, as published
ENOUGH = 30  # test perturbations of a split below which methods are not ranked
CODES = "One-hot codes"
PLAIN = ("bilinear", "additive")  # predictors of models that need no features
SUBGROUPS = ("unseen_single", "combo_seen0", "combo_seen1", "combo_seen2")


@dataclass(frozen=True, eq=False)
class PriorScores:
    """Scores of one data set over several splits by gene.

    `responses`: what is predicted; `subgroup`: perturbation -> its subgroup, per split; `scores`:
    tidy, the number of the split as `fold`; `main`: their comparison.
    """

    study: Any
    data: Any
    responses: AnnData
    subgroup: list[pd.Series]
    scores: pd.DataFrame

    @cached_property
    def main(self) -> Comparison:
        """Methods by the correlation of predicted and measured changes."""
        return Comparison(self.scores, needs_ceiling=False)

    @property
    def asked(self) -> float:
        """Mean number of test perturbations of a split and line."""
        return float(self.main.scores["n_test"].mean())

    @cached_property
    def on_features(self) -> pd.DataFrame:
        """Competitors that learn from a feature table, as `Comparison.methods`."""
        methods = self.main.methods.loc[self.main.competitors]
        return methods[~methods["predictor"].isin(PLAIN)]

    @property
    def units(self) -> pd.DataFrame:
        """The scored units, one row each."""
        return self.main.scores.drop_duplicates("key")


def predictors(names: Sequence[str], grids: Mapping[str, Sequence]) -> list[Predictor]:
    """Make predictors with published candidates, or `grids`; tuned by the correlation."""
    known = {"knn": [1, 2, 5], **grids}
    return [predictor(n, TASK, **({"grid": known[n]} if n in known else {})) for n in names]


def features(
    study, dataset: str, names: Sequence[str], seed: int = 0, codes: bool = True
) -> list[Embedding]:
    """Build feature tables as published, and one-hot `codes`: the vectors of two genes are added.

    Each is reduced to `FEATURE_DIM` principal components over all its genes, centred and unscaled.
    """
    asked = study.dataset(dataset).responses.obs["perturbation"].astype(str).unique()
    genes = sorted({gene for name in asked for gene in single_genes(name)})
    tables = study.embeddings(dataset, only=names, seed=seed)
    floor = [Embedding(CODES, NEGATIVE, pd.Index(genes), np.eye(len(genes)))] if codes else []
    return [_combined(e, sorted(asked)) for e in [*tables, *floor]]


def _combined(e: Embedding, names: Sequence[str]) -> Embedding:
    X = e.X
    if e.dim > FEATURE_DIM < len(e):
        X = PCA(FEATURE_DIM, random_state=0).fit_transform(X)
    at = {name: e.ids.get_indexer(single_genes(name)) for name in names}
    there = {n: X[a].sum(axis=0) for n, a in at.items() if len(a) and (a >= 0).all()}
    own = e.ids.get_indexer(names)
    there |= {n: X[i] for n, i in zip(names, own, strict=True) if i >= 0}
    ids, rows = pd.Index(list(there)), np.array(list(there.values()))
    return Embedding(e.name, e.modality, ids, rows, e.identifier, e.cell_line, e.source)


def score_prior(
    study,
    dataset: str,
    tables: Sequence[Embedding],
    ways: Sequence[Predictor],
    *,
    splits: Sequence[int],
    n_genes: int = 0,
    limit: pd.DataFrame | None = None,
) -> PriorScores:
    """Score every predictor on every feature table, and two models without any, split by split.

    `splits`: seeds of `perturbcore.data.folds.gears_split`; `n_genes`: only those most expressed
    in control cells (0: all); `limit`: ceiling of the data set.
    """
    data, parts = study.dataset(dataset), []
    whole, protocol = laid_out(data, n_genes), study.protocol(n_components=0)
    names = whole.obs["perturbation"].astype(str)
    grouped = [gears_split(names, split) for split in splits]
    trained = [set(group.index[group == "train"]) for group in grouped]
    tables = [
        e for e in tables if min(len(t & set(e.ids)) for t in trained) >= protocol.inner_folds
    ]
    plain = ["bilinear"] if control_profiles(whole.var).shape[1] else []
    plain += ["additive"] if any(len(single_genes(n)) > 1 for n in names) else []
    for number, (split, group) in enumerate(zip(splits, grouped, strict=True)):
        here = whole.copy()
        here.obs["fold"] = np.where(group[names].to_numpy() == "train", -1, 0)
        scores = study.evaluate(
            dataset, ways, models=build_models(plain, TASK, tables), embeddings=tables,
            responses=here, part=f"split {split}", protocol=protocol,
            ceiling=limit, controls=("train_mean", "no_change"),
        )  # fmt: skip
        parts.append(scores.assign(fold=number, dataset=dataset))
    return PriorScores(study, data, whole, grouped, pd.concat(parts, ignore_index=True))


def laid_out(data: Any, n_genes: int = 0) -> AnnData:
    """Log fold-changes of a data set as expression to be predicted, with its control cells."""
    out = AnnData(data.responses.X.copy(), obs=data.responses.obs.copy())
    out.var_names = data.responses.var_names
    out.uns["perturbcore"] = dict(data.responses.uns["perturbcore"]) | {"task": TASK.name}
    if (controls := controls_of(data)) is not None:
        add_control_profiles(out, controls)
        level = control_profiles(out.var).mean(axis=1)
        if 0 < n_genes < out.n_vars:
            out = out[:, level.nlargest(n_genes).index].copy()
    return out


def metrics_table(f: PriorScores) -> pd.DataFrame | None:
    """Every published metric by method, mean over splits, best first; None without cells."""
    if not f.data.holds("screen"):
        return None
    levels = control_profiles(f.responses.var)
    known = {n: reference_of(f.data.screen, n, levels[n].to_numpy())
             for n in cell_lines(f.responses)}  # fmt: skip
    rows = []
    for (name, split), units in f.units.groupby(["cell_line", "fold"]):
        line = rows_of(f.responses, name)
        names, truth = pd.Index(line.obs["perturbation"].astype(str)), np.asarray(line.X)
        mean = truth[(f.subgroup[split][names] == "train").to_numpy()].mean(axis=0)
        for key, method in zip(units["key"], units["method"], strict=True):
            if kept := f.study.store.kept(key):
                asked = list(kept["perturbation"])
                at = names.get_indexer(asked)
                table = profile_metrics(truth[at], kept["values"], asked, mean, known[name])
                rows.append({"method": method} | table.mean().to_dict())
    wide = pd.DataFrame(rows).groupby("method").mean().sort_values("Pearson Delta", ascending=False)
    return wide.reset_index()


def subgroup_table(f: PriorScores, methods: Sequence[str]) -> pd.DataFrame:
    """Mean correlation of some methods by subgroup, over all splits; n: perturbations asked."""
    units = f.units.set_index("key")[["method", "fold"]]
    each = f.study.store.per_perturbation(units.index, f.main.metric).join(units, on="key")
    where = pd.concat(f.subgroup, keys=range(len(f.subgroup)), names=["fold", "perturbation"])
    each = each.join(where, on=["fold", "perturbation"])
    wide = each.pivot_table(index="method", columns="subgroup", values="value")
    n = each[each["method"] == f.main.floor].groupby("subgroup").size()
    there = [g for g in SUBGROUPS if g in wide]
    wide = wide.loc[[m for m in methods if m in wide.index], there]
    wide.columns = [f"{HEADINGS['subgroups'][g]} (n = {n[g]})" for g in there]
    return wide.rename_axis("method").reset_index()


def shown_methods(f: PriorScores) -> list[str]:
    """Name the best use of each predictor, and the floor."""
    c = f.main
    ways = c.methods.loc[c.competitors].groupby("predictor", sort=False).groups.values()
    best = [c.best_of(list(names)) for names in ways]
    alone = c.methods.index[c.methods["predictor"].isin(PLAIN)]
    return list(dict.fromkeys([*best, *alone, c.floor]))


def scores_figure(f: PriorScores) -> Figure:
    """Draw the best predictor on each feature table, floor and ceiling."""
    table = f.main.ranking()
    first = ~table["embedding"].duplicated() | table["embedding"].eq("")
    return interval_plot(table[first], label=f.main.label, ceiling=f.main.ceiling)


def difficulty(runs: Sequence[PriorScores]) -> pd.DataFrame:
    """How alike responses are, and how far the best forest leads the Train Mean, with published.

    Columns: data, source, perturbations, alike (median correlation of pairs), lead.
    """
    rows = []
    for f in runs:
        c = f.main
        forests = c.methods.index[(c.methods["predictor"] == "forest")
                                  & ~c.methods["modality"].str.endswith("control")]  # fmt: skip
        best = c.best_of(list(forests) or c.competitors)
        for line, units in c.units.groupby(level="cell_line"):
            here = rows_of(f.responses, str(line))
            lead = (units[best] - units[c.floor]).mean()
            alike = heterogeneity(np.asarray(here.X))
            rows.append((f"{f.data.title}, {line}", "here", here.n_obs, alike, lead))
    table = facts("csendes2025")
    alike = table[table["metric"] == "median_pairwise_pearson"].set_index("dataset")["value"]
    delta = table.query("metric == 'pearson_delta' and subgroup == 'all'")
    delta = delta[delta["source"] == "article text"]
    forest = delta[delta["model"] == "RF"].groupby("dataset")["value"].max()
    mean = delta[delta["model"] == "Train Mean"].set_index("dataset")["value"]
    for name in mean.index:
        lead = forest[name] - mean[name]
        rows.append((name, "Csendes et al. 2025", pd.NA, alike[name], lead))
    return pd.DataFrame(rows, columns=list(HEADINGS["difficulty"]))


def difficulty_figure(table: pd.DataFrame) -> Figure:
    """Draw the lead of the best forest over how alike responses are."""
    return figures.named_points(
        table["alike"], table["lead"], list(table["data"]),
        xlabel="median correlation of pairs of responses", ylabel="lead of the best forest (Delta)",
    )  # fmt: skip


def coherence_of(study, dataset: str, sources: Mapping[str, str], names, seed: int) -> pd.DataFrame:
    """Coherence of embeddings on gene sets: `coherence` for each of `sources` (title -> name)."""
    if not sources:
        return pd.DataFrame()
    data, made = study.dataset(dataset), study.embeddings(dataset, only=names, seed=seed)
    parts = {t: coherence(made, gene_sets(data, s), seed=seed + 42) for t, s in sources.items()}
    return pd.concat(parts, names=["library"]).reset_index(level=0)


def coherence_figure(table: pd.DataFrame) -> Figure:
    """Draw the coherence of each embedding in each library, with intervals over sets."""
    named = table.assign(method=table["embedding"] + ", " + table["library"], value=table["gain"])
    return interval_plot(named, label="correlation within sets beyond that of other genes")


# ------------------------------------------------------------------------- what is said


def setting(f: PriorScores) -> str:
    """Say what is asked, of how many perturbations, and whether that can rank methods."""
    n = f.responses.obs["perturbation"].nunique()
    doubles = sum(len(single_genes(p)) > 1 for p in f.responses.obs["perturbation"].unique())
    said = tell("prior.setting", f=f, n=n, doubles=doubles)
    return said if f.asked >= ENOUGH else f"{said} {tell('prior.few', enough=ENOUGH)}"


def codes_said(f: PriorScores) -> str:
    """Compare the best use of one-hot codes, which know no biology, with the best feature."""
    c = f.main
    codes = list(c.methods.index[c.methods["embedding"] == CODES])
    if not codes or f.on_features.empty:
        return ""
    a, best = c.best_of(codes), c.best_of(list(f.on_features.index))
    return tell("prior.codes", a=a, best=best, row=c.between(a, best))


def baselines_said(f: PriorScores) -> str:
    """Say where the two models without features stand."""
    c, said = f.main, []
    for name in ("Bilinear", "Additive"):
        if name in c.means.index:
            row = c.between(name, c.floor)
            said.append(tell("prior.plain", name=name, row=row, share=c.coverage[name]))
    return " ".join(said)


def bug_said(table: pd.DataFrame | None) -> str:
    """Say what leaving target genes out changes, as published and in full."""
    if table is None:
        return tell("prior.no_cells")
    with_target, published, out = (
        table.set_index("method")[f"Delta on top 20, t-test{t}"]
        for t in ("", ", target out as published", ", target out")
    )
    best = with_target.idxmax()
    about = dict(best=best, kept=with_target[best], published=published[best], out=out[best])
    change = (published - out).abs().max()
    raw = table["Pearson"].min(), table["Pearson"].max()
    return tell("prior.bug", change=change, low=raw[0], high=raw[1], **about)


def difficulty_said(table: pd.DataFrame) -> str:
    """Say whether screens whose responses look alike leave less to find."""
    said = []
    for source, part in table.groupby("source", sort=False):
        if len(part) > 2:
            rho = part[["alike", "lead"]].astype(float).corr("spearman").iloc[0, 1]
            said.append(tell("prior.difficulty", source=source, n=len(part), rho=rho))
    return " ".join(said)


def coherence_said(table: pd.DataFrame) -> str:
    """Say whose vectors know that genes of one set belong together."""
    said = []
    for library, part in table.groupby("library", sort=False) if len(table) else ():
        plain = part[~part["modality"].str.endswith("control")]
        above = list(plain.loc[plain["low"] > 0, "embedding"])
        row = plain.iloc[0]
        about = dict(library=library, sets=int(row["sets"]), genes=int(row["genes"]))
        said.append(tell("prior.coherence", row=row, above=above, n=len(plain), **about))
    return "\n\n".join(said) or tell("prior.no_sets")


def verdicts(f: PriorScores) -> list[str]:
    """Verdict on the best method; none where too few are asked to rank methods."""
    return [f.main.verdict_said(f.data.title)] if f.asked >= ENOUGH else []


def one_line(f: PriorScores) -> str:
    """Condense the answer, with what the number of perturbations lets it say."""
    few = f" {tell('prior.few_line', asked=f.asked)}" if f.asked < ENOUGH else ""
    return f"{f.main.one_line()}{few}"
