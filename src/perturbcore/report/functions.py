"""Which functions of the genes that respond can be predicted, and which error profiles agree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.data.deg import function_labels
from perturbcore.data.identifiers import convert
from perturbcore.embeddings.sources import BuildContext, find_source
from perturbcore.models.simple import OnEmbedding
from perturbcore.models.simple.labels import FunctionLogistic
from perturbcore.report.comparison import Comparison
from perturbcore.report.text import HEADINGS, MISSING, TEXTS, gain_said, listed, tell
from perturbcore.score.task import task_of

PUBLISHED = TEXTS["functions"]["published"]
LEAST_R = 0.1  # a mean correlation of error profiles below this is none


@dataclass(frozen=True, eq=False)
class FunctionScores:
    """Scores of each way of labelling; the first one is as published.

    `data`: the data set; `compared`: embeddings that are scored on all labels; `labels`, `frames`:
    way of labelling -> labels, scores.
    """

    data: Any
    compared: Sequence[str]
    labels: dict[str, AnnData]
    frames: dict[str, pd.DataFrame]

    @property
    def first(self) -> str:
        """The way of labelling as published."""
        return next(iter(self.labels))

    @cached_property
    def main(self) -> Comparison:
        """Scores of the labels as published."""
        return Comparison(self.frames[self.first])


def planted_sets(simulation: Any, share: float = 0.1, wrong: float = 0.3) -> dict[str, list[str]]:
    """Name the genes that the perturbed genes of each hidden module move most: planted functions.

    `share`: of the genes, per set; `wrong`: share of a set that is replaced by other genes.
    """
    true, known = simulation.true_effects, simulation.knowledge
    at = pd.Index(known.genes).get_indexer(true.obs["perturbation"].astype(str))
    size, module = np.abs(np.asarray(true.X, dtype=float)), known.modules[at]
    size /= size.mean(axis=0) + 1e-9
    rng, sets = np.random.default_rng(0), {}
    n = max(int(share * true.n_vars), 5)
    for m in np.unique(module):
        chosen = np.argsort(-size[module == m].mean(axis=0))[:n]
        chosen[rng.random(n) < wrong] = -1
        rest = rng.choice(true.n_vars, (chosen < 0).sum(), replace=False)
        members = np.unique(np.r_[chosen[chosen >= 0], rest])
        sets[f"moved by module {m}"] = list(true.var_names[members])
    return sets


def gene_sets(data: Any, source: str, identifier: str = "symbol") -> dict[str, list[str]]:
    """Read gene sets ("planted", or an entry of the catalogue), in the ids of a data set."""
    if source == "planted":
        return planted_sets(data.extras["simulation"])
    spec = {"name": source, "source": source}
    sets = find_source(spec, "sets", BuildContext(dataset=data)).read()
    own = data.responses.uns["perturbcore"]["identifier"]
    if own == identifier:
        return sets
    ids = pd.unique(np.array([g for genes in sets.values() for g in genes], dtype=object))
    name = convert(ids, identifier, own)["value"].dropna().to_dict()
    return {k: [name[g] for g in genes if g in name] for k, genes in sets.items()}


def score_functions(
    study,
    dataset: str,
    ways: Mapping[str, Mapping],
    *,
    compared: Sequence[str],
    unweighted: Sequence[str] = (),
    n_components: int = 100,
    common: bool = False,
    seed: int = 0,
) -> FunctionScores:
    """Label the perturbations in several ways, and predict the labels from each embedding.

    `ways`: name -> source of the gene sets, its `identifier`, and options of
    `perturbcore.data.deg.function_labels`; the first is as published and is scored for all
    embeddings, the others for those in `compared` (and negative controls); `unweighted`: embeddings
    that also get the classifier without class weights; `common`: keep only perturbations that all
    embeddings have.
    """
    data, made = study.dataset(dataset), study.embeddings(dataset, seed=seed)
    labels, frames = {}, {}
    for number, (way, options) in enumerate(ways.items()):
        options = dict(options)
        sets = gene_sets(data, options.pop("source"), options.pop("identifier", "symbol"))
        labels[way] = function_labels(data.responses, sets, **options)
        used = [e for e in made if not number or e.name in compared or "control" in e.modality]
        protocol, more = study.protocol(n_components=n_components), []
        if not number and unweighted:
            plain = [e for e in made if e.name in unweighted]
            more = [OnEmbedding(e, FunctionLogistic(balanced=False), protocol) for e in plain]
        frames[way] = study.evaluate(
            dataset, [FunctionLogistic()], models=more, embeddings=used, responses=labels[way],
            part=way, common=common, protocol=protocol, seed=seed,
            controls=("train_mean", "prior", "idealized"),
        )  # fmt: skip
    return FunctionScores(data, compared, labels, frames)


def facts(f: FunctionScores) -> pd.DataFrame:
    """Count what each way of labelling leaves: one row per way."""
    rows = []
    for way, labels in f.labels.items():
        on = labels.X > 0
        single = (labels.layers["shared"][on] == 1).mean()
        rows.append((way, len(on), on.any(axis=1).mean(), on.shape[1], on.mean(), single))
    return pd.DataFrame(rows, columns=list(HEADINGS["ways of labelling"]))


def beside_published(f: FunctionScores) -> pd.DataFrame:
    """Put the design and the answer of Hasanaj et al. beside those here."""
    labels, c = f.labels[f.first], f.main
    best, about = c.methods.loc[c.best], f.data.responses.uns["perturbcore"]
    here = {
        "Perturbations": f"{labels.n_obs:,}",
        "Functions (labels)": f"{labels.n_vars:,}",
        "A gene responds if": f"{about['test']} t-test, FDR ≤ {about['alpha']:g}"
        if "test" in about
        else next(iter(f.data.notes), MISSING),
        "A function is a label if": "over-represented at FDR ≤ 0.05, "
        f"in at least {int(labels.X.sum(axis=0).min())} perturbations",
        "Classifier": "the same, class-balanced as their text has it",
        "Best sources": f"{c.best} ({best['modality'].lower()}); "
        f"{len(c.unproven())} of {len(c.competitors)} not shown to beat the floor",
    }
    rows = [(what, said, here[what]) for what, said in PUBLISHED.items()]
    return pd.DataFrame(rows, columns=["What", "Hasanaj et al. 2025", "Here"])


def setting(f: FunctionScores) -> str:
    """Say what the labels are, and how much of them rests on one gene."""
    obs, planted = f.labels[f.first].obs, ""
    if f.data.simulated:
        planted = f" {tell('functions.planted')}"
    return tell(
        "functions.setting", title=f.data.title, row=facts(f).iloc[0], planted=planted,
        responding=obs["n_deg"].median(), own=obs["own"].mean(),
    )  # fmt: skip


def gains_by_way(f: FunctionScores, metric: str = "function_f1") -> pd.DataFrame:
    """Gain of each embedding over the floor under each way of labelling, balanced classifier."""
    parts = []
    for way, scores in f.frames.items():
        c = Comparison(scores[scores["predictor"] != "logistic_unweighted"], metric)
        kept = c.methods["modality"].eq("Negative control") & c.methods["embedding"].ne("")
        kept |= c.methods["embedding"].isin(f.compared)
        table = c.gains(c.floor, methods=list(c.methods.index[kept])).assign(way=way)
        parts.append(table.assign(method=table["embedding"]))
    return pd.concat(parts, ignore_index=True)


def wide_gains(table: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """Lay `gains_by_way` out: ways as rows, methods as columns."""
    text = table.assign(text=[gain_said(r) for _, r in table.iterrows()])
    wide = text.pivot(index="way", columns="method", values="text")
    wide = wide.loc[table["way"].unique(), [m for m in methods if m in wide]]
    floor = table.groupby("way")["reference"].first().map("{:.3f}".format)
    wide.insert(0, "Train Mean", floor)
    return wide.rename_axis(columns=None).reset_index(names="Labels")


def leak_said(f: FunctionScores, made_of_sets: Sequence[str]) -> str:
    """Say what embeddings made of gene sets gain as published, and what of it is left elsewhere."""
    table, ranked, said = gains_by_way(f), gains_by_way(f, "function_auroc"), []
    for name in made_of_sets:
        rows = table[table["embedding"] == name].drop_duplicates("way").set_index("way")
        if f.first not in rows.index:
            continue
        left = [
            f"{way} {gain_said(row)}, {row['verdict']}"
            for way, row in rows.drop(f.first).iterrows()
        ]
        first = rows.loc[f.first]
        said.append(tell("functions.leak", name=name, f=f, first=first, left="; ".join(left)))
    shuffled = table[table["modality"].eq("Negative control") & (table["way"] == f.first)]
    above = list(shuffled.loc[shuffled["verdict"] == "better", "method"])
    beat = f"beat the floor in {listed(above)}" if above else "do not beat the floor"
    said.append(tell("functions.shuffled", names=list(shuffled["method"]), beat=beat))
    kept = ranked[~ranked["modality"].str.endswith("control")]
    best = kept.loc[kept["gain"].idxmax()]
    said.append(tell("functions.auroc", counted=_counted(kept), best=best, way=_in(best["way"])))
    return "\n\n".join(said)


def _in(way: str) -> str:
    """Write the name of a way of labelling within a sentence."""
    return way[0].lower() + way[1:]


def _counted(table: pd.DataFrame) -> str:
    """Count, by way of labelling, the embeddings that are shown to beat the floor."""
    said = []
    for way, rows in table.groupby("way", sort=False):
        n = int((rows["verdict"] == "better").sum())
        said.append(f"{_in(way)} {n} of {len(rows)}")
    return ", ".join(said)


def one_line(f: FunctionScores, made_of_sets: Sequence[str]) -> str:
    """Condense the chapter to one sentence."""
    table = gains_by_way(f)
    table = table[~table["modality"].str.endswith("control")]
    c, best = f.main, f.main.best
    made = c.methods.loc[best, "embedding"] in made_of_sets
    return tell(
        "functions.line", functions=f.labels[f.first].n_vars, best=best, value=c.means[best],
        made=" (itself made of gene sets)" if made else "", floor=c.means[c.floor],
        counted=_counted(table),
    )  # fmt: skip


def error_profiles(study, chapter: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Error of every perturbed gene under each embedding with kNN, from scores a chapter claims.

    z-scored over embeddings within a gene (above zero is worse), first cell line; without genes
    that an embedding lacks, or that all predict alike (Hasanaj et al. 2025, Fig. 3). Returns the
    profiles (embeddings x genes) and the `modality` of each; both empty without scores.
    """
    scores = study.claimed(chapter, required=False)
    if scores is None:
        return pd.DataFrame(), pd.DataFrame()
    task = task_of(str(scores["task"].iloc[0]))
    c = Comparison(scores, task.detail[0], predictor="knn")
    rows = c.scores[c.scores["cell_line"] == c.scores["cell_line"].iloc[0]]
    rows = rows[(rows["embedding"] != "") & (rows["modality"] != "Positive control")]
    each = study.store.per_perturbation(rows["key"], c.metric).astype({"value": float})
    each = each.merge(rows[["key", "embedding"]], on="key")
    wide = each.pivot_table(index="embedding", columns="perturbation", values="value")
    wide = wide.dropna(axis=1)
    wide = wide.loc[:, wide.std(axis=0, ddof=0) > 1e-9]
    profile = -c.sign * (wide - wide.mean()) / wide.std(axis=0, ddof=0)
    about = rows.drop_duplicates("embedding").set_index("embedding")[["modality"]]
    return profile, about.loc[profile.index]


def clusters_said(profile: pd.DataFrame, modality: pd.Series) -> str:
    """Say whether error profiles of one modality agree more than those of different ones.

    Mean correlation of profiles within modalities minus between; p from 2,000 permutations of the
    modalities. Where both mean correlations are below 0.1 in size, neither agrees.
    """
    if profile.empty:
        return tell("functions.no_scores")
    kept = ~modality.str.endswith("control").to_numpy()
    r = np.corrcoef(profile.to_numpy()[kept])
    pairs, kind = np.triu_indices(len(r), 1), modality.to_numpy()[kept]

    def means(kind) -> tuple[float, float]:
        same = kind[pairs[0]] == kind[pairs[1]]
        return r[pairs][same].mean(), r[pairs][~same].mean()

    same = kind[pairs[0]] == kind[pairs[1]]
    if not 0 < same.sum() < len(same):
        return tell("functions.one_modality")
    (within, between), rng = means(kind), np.random.default_rng(0)
    draws = [np.subtract(*means(rng.permutation(kind))) for _ in range(2000)]
    p = (1 + sum(d >= within - between - 1e-12 for d in draws)) / (1 + len(draws))
    about = dict(genes=profile.shape[1], same=within, other=between, p=p)
    about |= dict(n=int(same.sum()), rest=int((~same).sum()))
    if max(abs(within), abs(between)) < LEAST_R:
        return tell("functions.no_clusters", least=LEAST_R, **about)
    agree = "agree more" if p < 0.05 and within > between else "cannot be shown to agree more"
    return tell("functions.clusters", agree=agree, **about)
