"""Relations on rows of the score tables, and on numbers as the papers print them."""

from collections.abc import Sequence
from types import SimpleNamespace

import pandas as pd

from perturbcore.data.published.tables import facts
from perturbcore.report.published.claims.relations import Evidence
from perturbcore.report.published.figures import RUNS

# Controls among the query samples over all of them (Bendidi et al. 2024, appendix on the splits):
# what a classifier gets that always answers "control".
CONTROL_SHARE = {"Replogle2022": 22_428 / 424_942, "L1000": 25_691 / 100_153}
RANDOM_ROWS = "Rand. Labels"


def _long_facts(table: str, rows: dict, **labels: Sequence[str]) -> pd.DataFrame:
    """Rows of a table of printed numbers, with joined columns as labels."""
    long = facts(table).replace({"Replogle2022": "Replogle"})
    for column, wanted in rows.items():
        long = long[long[column].isin(wanted if isinstance(wanted, list) else [wanted])]
    for name, columns in labels.items():
        joined = long[list(columns)].astype(str).agg(" ".join, axis=1)
        long = long.assign(**{name: joined.str.replace(" none", "")})
    return long


def _wide_facts(
    table: str, rows: dict, unit: list[str], method: Sequence[str] = ("model",)
) -> pd.DataFrame:
    """Arrange printed numbers: one row per unit, one column per method."""
    long = _long_facts(table, rows, _unit=unit, _method=method)
    wide = long.pivot_table("value", "_unit", "_method", sort=False, aggfunc="first")
    return wide.rename_axis(index=None, columns=None)


def lead(on: Evidence, *, methods: list[str], references: list[str], **table) -> SimpleNamespace:
    """Best of some methods minus best of some references, row by row of a printed table."""
    wide = _wide_facts(**table)
    value = (wide[methods].max(axis=1) - wide[references].max(axis=1)).round(10)
    signs = {"ahead": value > 0, "tied": value == 0, "behind": value < 0}
    return SimpleNamespace(value=value, **{k: list(value.index[v]) for k, v in signs.items()})


def standing(on: Evidence, *, methods: list[str], **table) -> SimpleNamespace:
    """First places (ties counted) and mean rank of methods over the rows of a printed table."""
    wide = _wide_facts(**table)[methods]
    firsts = wide.eq(wide.max(axis=1), axis=0).sum()
    rank = wide.rank(axis=1, ascending=False).mean().sort_values()
    places = pd.Series(range(1, len(rank) + 1), rank.index)
    return SimpleNamespace(firsts=firsts, most=firsts.max(), rank=rank, place=places, n=len(wide))


def printed(on: Evidence, *, table: str, rows: dict, unit: list[str]) -> SimpleNamespace:
    """Numbers as a paper prints them: one value per unit."""
    value = _long_facts(table, rows, _unit=unit).set_index("_unit")["value"]
    return SimpleNamespace(value=value, low=value.min(), high=value.max(), best=value.idxmax())


def change(on: Evidence, *, table: str, rows: dict, method: str, reference: str) -> SimpleNamespace:
    """Relative improvement of a method on a reference per data set and metric; MAE is an error."""
    wide = _wide_facts(table, rows, ["dataset", "metric"], ["method"])
    value = wide[method] / wide[reference] - 1
    return SimpleNamespace(value=value.where(~value.index.str.endswith("mae"), -value))


def read_off(on: Evidence | None, *, figure: str) -> SimpleNamespace:
    """Share of the gap that the best embedding closes in a figure read off by eye (Tahoe)."""
    table = facts("cole2026_tahoe_lfc_read_off").set_index(["figure", "display_name"])
    value = table.loc[figure, "L2_median"]
    name = next(name for name in value.index if "best by median" in name)
    best, floor = value[name], value["Train Mean"]
    share = (floor - best) / (floor - value["Experimental Error"])
    return SimpleNamespace(name=name, best=best, floor=floor, share=share)


def searched(on: Evidence, *, figure: str) -> SimpleNamespace:
    """Macro F1 of the models that VCHarness searched, beside the best single embedding per line."""
    table, data = facts("vcharness_search").set_index("cell_line"), on.fig(figure)
    single = data.medians()[data.select("single")].max(axis=1)
    lead, ahead = table["best"] - single, int((table["median"] > single).sum())
    return SimpleNamespace(**table, single=single, lead=lead, ahead=ahead)


def model_counts(on: Evidence) -> SimpleNamespace | None:
    """Distinct models in the public score tables, counted in three ways; None on medians."""
    if on.published.level == "medians":
        return None
    scores = on.published.scores
    scores = scores[scores["predictor"] != "experimental_error"]
    ways = {
        "names": ["method"],
        "once": ["predictor", "embedding", "display"],
        "fits": ["method", "cell_line"],
    }
    keys = ["dataset", "task", "perturbation_set"]
    found = {name: len(scores.drop_duplicates(keys + more)) for name, more in ways.items()}
    return SimpleNamespace(**found)


def screen(on: Evidence, *, dataset: str) -> SimpleNamespace | None:
    """Perturbations and batches of a data set in its experimental-error tables; None on medians."""
    table = on.published.ceilings
    if table is None:
        return None
    table = table[table["dataset"] == dataset].drop_duplicates(["cell_line", "perturbation"])
    batches = table["n_batches"]
    return SimpleNamespace(
        perturbations=table.groupby("cell_line").size(),
        batches=table.groupby("cell_line")["n_batches"].max(),
        most=batches.max(),
        pairs=int(batches.sum()),
        least=int(table.groupby("perturbation")["n_batches"].max().sum()),
    )


def drawn_runs(on: Evidence) -> SimpleNamespace:
    """Points of Figure S14 that come from another run than the legend says."""
    rows = on.published.scores
    rows = rows[(rows["perturbation_set"] == "older") & (rows["metric"] == "L2")]
    rows = rows.set_index(["method", "cell_line", "fold"])["value"]
    folds = on.fig("S14").folds()
    assert folds is not None, "asked only where single folds are at hand"
    parts, other, total = [], 0, 0
    for display, run in RUNS.items():
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
    each = [f"{name}, {n} dimensions against {said[name]}" for name, n in off.items()]
    n, agree = len(said), len(said) - len(off)
    return SimpleNamespace(off=pd.Series(off), each=each, n=n, agree=agree, effect=effect)


def deg_prior(on: Evidence) -> SimpleNamespace:
    """Compare published Train Mean rows of the DEG task (`prior`) with the most frequent class."""
    rows = on.published.scores
    rows = rows[(rows["task"] == "deg") & (rows["metric"] == "f1_score")]
    keys = ["dataset", "cell_line", "fold"]
    wide = rows.pivot_table("value", keys, "method", aggfunc="first")
    both = wide[["prior", "most_frequent"]].dropna()
    return SimpleNamespace(same=int((both["prior"] == both["most_frequent"]).sum()), n=len(both))


def table2_agreement(on: Evidence | None) -> SimpleNamespace:
    """Every value of Table 2 of Bendidi et al. 2024 beside the best of Tables 3 to 10."""
    keys = ["dataset", "model", "metric"]
    appendix = facts("bendidi2024_tables3_10")
    appendix["best"] = appendix["mean"] * appendix["unit"].map({"percent": 0.01}).fillna(1.0)
    best = appendix.groupby(keys, as_index=False)["best"].max()
    table = facts("bendidi2024_table2").query("metric != 'ilisi_norm'").merge(best, on=keys)
    difference = (table["value"] - table["best"]).abs()
    rounded, close = (difference <= limit + 1e-9 for limit in (0.0005, 0.001))
    off = table[~close]
    return SimpleNamespace(
        n=len(table),
        rounded=int(rounded.sum()),
        close=int(close.sum()),
        near=close.mean(),
        off=[f"{r.dataset} {r.metric} {r.model}".replace("2022", "") for r in off.itertuples()],
    )


def selection_gain(on: Evidence) -> SimpleNamespace:
    """Measure what choosing the best of four post-processings on the reported score gains."""
    keys = ["dataset", "model", "metric"]
    wide = facts("bendidi2024_tables3_10").pivot_table("mean", keys, "postprocessing")
    wide = wide.dropna().drop(index=RANDOM_ROWS, level="model", errors="ignore")
    gain = wide.max(axis=1) / wide["raw"] - 1
    by = gain.groupby("model").median()
    several = wide.idxmax(axis=1).groupby("model").nunique() > 1
    ends = dict(high=by.max(), low=by.min(), most=by.idxmax(), least=by.idxmin())
    return SimpleNamespace(gain=gain.median(), several=int(several.sum()), n=len(several), **ends)


def top1_share(on: Evidence) -> SimpleNamespace:
    """Compare printed kNN top-1 accuracies with the share of controls, in percentage points."""
    rows = facts("bendidi2024_tables3_10")
    rows = rows[(rows["metric"] == "knn_top1") & (rows["model"] != RANDOM_ROWS)]
    lift = rows["mean"] - 100 * rows["dataset"].map(CONTROL_SHARE)
    top, near = rows.loc[lift.idxmax()], lift.abs() <= 0.1
    return SimpleNamespace(
        near=int(near.sum()),
        n=len(rows),
        share=near.mean(),
        control=pd.Series(CONTROL_SHARE).rename({"Replogle2022": "Replogle"}),
        high=lift.max(),
        model=top["model"],
        dataset=top["dataset"].replace("2022", ""),
    )


def other_models(on: Evidence) -> SimpleNamespace:
    """Elastic nets and kNN of Csendes et al. 2025 against the tuned models and the forests."""
    rows = {"metric": "pearson_delta", "subgroup": "all"}
    text, book = (
        _wide_facts("csendes2025", rows | {"source": source}, ["dataset"], ["model", "feature"])
        for source in ("article text", "bulk_models notebook")
    )
    tuned = text[["scGPT finetuned", "scFoundation finetuned"]].max(axis=1)
    names = [c for c in book if c.startswith(("EN ", "kNN "))]
    above = book[names].gt(tuned, axis=0)
    forest = book[["RF " + c.split(" ", 1)[1] for c in names]].set_axis(names, axis=1)
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
    rho = leads.corr(alike.reindex(leads.index), method="spearman")
    return SimpleNamespace(rho=rho, ordered=bool(ordered.all()), n=len(leads))
