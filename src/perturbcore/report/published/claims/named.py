"""What a few claims need and no relation expresses: one function for each."""

from types import SimpleNamespace

import pandas as pd

from perturbcore.data.published.facts import facts
from perturbcore.report.published.claims.pairs import Evidence
from perturbcore.report.published.claims.relations import wide_facts

# Controls among the query samples over all of them (Bendidi et al. 2024, appendix on the splits):
# what a classifier gets that always answers "control".
CONTROL_SHARE = {"Replogle2022": 22_428 / 424_942, "L1000": 25_691 / 100_153}
RANDOM_ROWS = "Rand. Labels"


def model_counts(on: Evidence) -> SimpleNamespace | None:
    """Distinct models in the public score tables, counted in three ways; None on medians."""
    if on.published.level == "medians":
        return None
    scores = on.published.scores
    scores = scores[scores["predictor"] != "experimental_error"]
    keys = ["dataset", "task", "perturbation_set"]
    return SimpleNamespace(
        names=len(scores.drop_duplicates([*keys, "method"])),
        once=len(scores.drop_duplicates([*keys, "predictor", "embedding", "display"])),
        fits=len(scores.drop_duplicates([*keys, "method", "cell_line"])),
    )


def modality_share(on: Evidence, *, figure: str) -> SimpleNamespace:
    """Share of the variance between embeddings that lies between modalities, per line."""
    data = on.fig(figure)
    names = data.select("single")
    modality = data.modality[names]

    def between(table: pd.DataFrame | None) -> pd.Series | None:
        if table is None:
            return None
        centred = table[names].T - table[names].T.mean()
        fitted = centred.groupby(modality).transform("mean")
        return (fitted**2).sum() / (centred**2).sum()

    return SimpleNamespace(
        value=between(data.medians()),
        means=between(data.means()),
        n=len(names),
        chance=(modality.nunique() - 1) / (len(names) - 1),
    )


def drawn_runs(on: Evidence) -> SimpleNamespace:
    """Points of Figure S14 that come from another run than the legend says."""
    rows = on.published.scores
    rows = rows[(rows["perturbation_set"] == "older") & (rows["metric"] == "L2")]
    rows = rows.set_index(["method", "cell_line", "fold"])["value"]
    folds = on.fig("S14").folds()
    assert folds is not None, "asked only where single folds are at hand"
    parts, other, total = [], 0, 0
    for display, run in (("Latent Diffusion", "Diffusion"), ("Schrödinger Bridge", "Schrodinger")):
        drawn = folds[f"{display} (PCA 50)"].dropna()
        lines = (drawn != rows[f"{run}_R2"].reindex(drawn.index)).groupby("cell_line").sum()
        each = ", ".join(f"{line} {n}" for line, n in lines.items())
        parts.append(f"{display} {lines.sum()} of {len(drawn)} ({each})")
        other, total = other + int(lines.sum()), total + len(drawn)
    here = folds.loc["K-562", "Latent Diffusion (PCA 50)"].notna().sum()
    return SimpleNamespace(
        parts="; ".join(parts), other=other, total=total, share=other / total, k562=here
    )


def embedding_sizes(on: Evidence, *, said: dict[str, int]) -> SimpleNamespace:
    """Sizes in the names of the scored embedding files against those the paper states."""
    methods = facts("cole2026_methods")
    methods = methods[methods["section"] == "essential_lfc"].set_index("display")["method"]
    size = methods.str.extract(r"\(D=(\d+)\)$")[0]
    off = {name: int(size[name]) for name, n in said.items() if int(size[name]) != n}
    effect = None
    if on.published.level == "folds":
        rows = on.published.scores
        rows = rows[(rows["metric"] == "L2") & (rows["predictor"] == "knn")]
        rows = rows[rows["embedding"] == "GenotypeVAE_(D=128)"]
        other = rows[rows["dataset"] == "essential"].groupby("cell_line")["value"].median()
        effect = on.fig("1").medians()["GenotypeVAE"] - other
    return SimpleNamespace(
        off=pd.Series(off),
        each=[f"{name}, {n} dimensions against {said[name]}" for name, n in off.items()],
        n=len(said),
        agree=len(said) - len(off),
        effect=effect,
    )


def deg_prior(on: Evidence) -> SimpleNamespace:
    """Compare published Train Mean rows of the DEG task (`prior`) with the most frequent class."""
    rows = on.published.scores
    rows = rows[(rows["task"] == "deg") & (rows["metric"] == "f1_score")]
    wide = rows.pivot_table(
        index=["dataset", "cell_line", "fold"], columns="method", values="value", aggfunc="first"
    )
    both = wide[["prior", "most_frequent"]].dropna()
    return SimpleNamespace(same=int((both["prior"] == both["most_frequent"]).sum()), n=len(both))


def table2_agreement(on: Evidence) -> SimpleNamespace:
    """Every value of Table 2 of Bendidi et al. 2024 beside the best of Tables 3 to 10.

    Batch integration is left out: its normaliser is not printed.
    """
    appendix = facts("bendidi2024_tables3_10")
    appendix["best"] = appendix["mean"] * appendix["unit"].map({"percent": 0.01}).fillna(1.0)
    best = appendix.groupby(["dataset", "model", "metric"], as_index=False)["best"].max()
    table = facts("bendidi2024_table2").query("metric != 'ilisi_norm'")
    table = table.merge(best, on=["dataset", "model", "metric"], how="inner")
    difference = (table["value"] - table["best"]).abs()
    table["rounded"] = difference <= 0.0005 + 1e-9
    table["close"] = difference <= 0.001 + 1e-9
    off = table[~table["close"]]
    return SimpleNamespace(
        n=len(table),
        rounded=int(table["rounded"].sum()),
        close=int(table["close"].sum()),
        near=table["close"].mean(),
        off=[f"{r.dataset} {r.metric} {r.model}".replace("2022", "") for r in off.itertuples()],
    )


def selection_gain(on: Evidence) -> SimpleNamespace:
    """Measure what choosing the best of four post-processings on the reported score gains."""
    wide = facts("bendidi2024_tables3_10").pivot_table(
        index=["dataset", "model", "metric"], columns="postprocessing", values="mean"
    )
    wide = wide.dropna().drop(index=RANDOM_ROWS, level="model", errors="ignore")
    gain = wide.max(axis=1) / wide["raw"] - 1
    by = gain.groupby("model").median()
    several = wide.idxmax(axis=1).groupby("model").nunique() > 1
    return SimpleNamespace(
        gain=gain.median(),
        several=int(several.sum()),
        n=len(several),
        high=by.max(),
        low=by.min(),
        most=by.idxmax(),
        least=by.idxmin(),
    )


def top1_share(on: Evidence) -> SimpleNamespace:
    """Compare printed kNN top-1 accuracies with the share of controls, in percentage points."""
    rows = facts("bendidi2024_tables3_10")
    rows = rows[(rows["metric"] == "knn_top1") & (rows["model"] != RANDOM_ROWS)]
    lift = rows["mean"] - 100 * rows["dataset"].map(CONTROL_SHARE)
    top = rows.loc[lift.idxmax()]
    return SimpleNamespace(
        near=int((lift.abs() <= 0.1).sum()),
        n=len(rows),
        share=(lift.abs() <= 0.1).mean(),
        control=pd.Series(CONTROL_SHARE).rename({"Replogle2022": "Replogle"}),
        high=lift.max(),
        model=top["model"],
        dataset=top["dataset"].replace("2022", ""),
    )


def other_models(on: Evidence) -> SimpleNamespace:
    """Elastic nets and kNN of Csendes et al. 2025 against the tuned models and the forests."""
    rows = {"metric": "pearson_delta", "subgroup": "all"}
    how = {"unit": ["dataset"], "method": ["model", "feature"]}
    text = wide_facts("csendes2025", rows | {"source": "article text"}, **how)
    book = wide_facts("csendes2025", rows | {"source": "bulk_models notebook"}, **how)
    tuned = text[["scGPT finetuned", "scFoundation finetuned"]].max(axis=1)
    names = [c for c in book if c.startswith(("EN ", "kNN "))]
    above = book[names].gt(tuned, axis=0)
    forest = pd.DataFrame({c: book["RF " + c.split(" ", 1)[1]] for c in names}, index=book.index)
    return SimpleNamespace(
        above=int(above.to_numpy().sum()),
        below=int(book[names].lt(forest).to_numpy().sum()),
        n=above.size,
        not_above=[f"{c} ({d})" for d in above.index for c in names if not above.loc[d, c]],
    )


def diversity(on: Evidence, *, lead: str, similar: str) -> SimpleNamespace:
    """Whether data sets whose perturbations are less alike separate models better."""
    leads, alike = on.values[lead].value, on.values[similar].value
    ordered = alike.reindex(leads.sort_values(ascending=False).index).diff().dropna() > 0
    return SimpleNamespace(
        rho=leads.corr(alike.reindex(leads.index), method="spearman"),
        ordered=bool(ordered.all()),
        n=len(leads),
    )
