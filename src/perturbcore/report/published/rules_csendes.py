"""Rules on the main claims of Csendes et al. 2025, from its text and public notebooks."""

import pandas as pd

from perturbcore.data.published.facts import facts
from perturbcore.report.published.evidence import (
    UNDECIDED,
    Evidence,
    Finding,
    by_line,
    listed,
    verdict,
)
from perturbcore.report.published.rules import rule


def _delta(source: str | None = "article text") -> pd.DataFrame:
    """Pearson delta: data set x (model, feature)."""
    rows = facts("csendes2025")
    rows = rows[(rows["metric"] == "pearson_delta") & (rows["subgroup"] == "all")]
    if source:
        rows = rows[rows["source"] == source]
    wide = rows.pivot_table(
        index="dataset", columns=["model", "feature"], values="value", sort=False, aggfunc="first"
    )
    wide.columns = [f"{m} {f}".replace(" none", "") for m, f in wide.columns]
    return wide


_TUNED = ["scGPT finetuned", "scFoundation finetuned"]


def _against(a: str, others: list[str], big: float = 0.0) -> Finding:
    table = _delta()
    lead = table[a] - table[others].max(axis=1)
    return Finding(
        verdict(bool((lead > big).all()), bool((lead > 0).all())),
        by_line(lead, "{:+.3f}".format),
        f"{a} minus the better of {listed(others)} in Pearson delta: "
        f"{by_line(lead, '{:+.3f}'.format)}. One seed "
        "and no intervals are given.",
        means=by_line(lead, "{:+.3f}".format),
    )


@rule("csendes_train_mean")
def csendes_train_mean(ev: Evidence) -> Finding:
    """Train Mean against scGPT and scFoundation; a lead below 0.01 is a qualification."""
    return _against("Train Mean", _TUNED, 0.01)


@rule("csendes_rf_go")
def csendes_rf_go(ev: Evidence) -> Finding:
    """Random forest on GO against the foundation models; a large lead is 0.05."""
    return _against("RF GO", _TUNED, 0.05)


@rule("csendes_rf_scgpt")
def csendes_rf_scgpt(ev: Evidence) -> Finding:
    """Forest on scGPT embeddings between fine-tuned scGPT and the forest on GO."""
    table = _delta()
    up, down = table["RF scGPT"] - table["scGPT finetuned"], table["RF GO"] - table["RF scGPT"]
    return Finding(
        verdict(bool((up > 0).all() and (down > 0).all()), bool((up > 0).all())),
        f"above scGPT on {int((up > 0).sum())} of 4, below GO on {int((down > 0).sum())} of 4",
        f"RF on scGPT embeddings minus fine-tuned scGPT: {by_line(up, '{:+.3f}'.format)}; RF on GO "
        "minus RF on "
        f"scGPT embeddings: {by_line(down, '{:+.3f}'.format)}.",
    )


@rule("csendes_scelmo")
def csendes_scelmo(ev: Evidence) -> Finding:
    """Forests on text embeddings and on GO; similar means within 0.05."""
    table = _delta()
    change = table["RF scELMO"] - table["RF GO"]
    return Finding(
        verdict(bool((change.abs() <= 0.05).all()), int((change.abs() <= 0.05).sum()) >= 3),
        by_line(change, "{:+.3f}".format),
        f"RF on scELMO minus RF on GO: {by_line(change, '{:+.3f}'.format)}; on "
        f"{int((change > 0).sum())} of 4 data "
        "sets the text embedding is ahead, so GO is not best throughout.",
    )


@rule("csendes_other_models")
def csendes_other_models(ev: Evidence) -> Finding:
    """Elastic net and kNN above the foundation models and below the forests."""
    text, notebook = _delta(), _delta("bulk_models notebook")
    tuned = text[_TUNED].max(axis=1)
    others = [c for c in notebook if c.startswith(("EN ", "kNN "))]
    above = notebook[others].gt(tuned, axis=0)
    forest = pd.DataFrame(
        {c: notebook["RF " + c.split(" ", 1)[1]] for c in others}, index=notebook.index
    )
    below = notebook[others].lt(forest)
    low = [f"{c} ({d})" for d in above.index for c in others if not above.loc[d, c]]
    return Finding(
        verdict(bool(above.all().all() and below.all().all()), above.to_numpy().mean() > 0.5),
        f"above the tuned models in {int(above.sum().sum())}, below the forest in "
        f"{int(below.sum().sum())} of {above.size}",
        f"Of {above.size} elastic nets and kNN models in the notebooks, {int(above.sum().sum())} are "
        "above both "
        f"foundation models (not so: {listed(low)}) and {int(below.sum().sum())} below the forest with "
        "the same "
        "features.",
    )


@rule("csendes_raw_pearson")
def csendes_raw_pearson(ev: Evidence) -> Finding:
    """Raw Pearson correlation of all models above 0.95."""
    rows = facts("csendes2025")
    rows = rows[(rows["metric"] == "pearson") & (rows["subgroup"] == "all")]
    return Finding(
        verdict(bool((rows["value"] > 0.95).all())),
        f"{rows['value'].min():.3f} to {rows['value'].max():.3f}",
        f"The {len(rows)} raw correlations in the notebooks run from {rows['value'].min():.3f} to "
        f"{rows['value'].max():.3f}; Train Mean and scFoundation are only in the supplement.",
    )


@rule("csendes_diversity")
def csendes_diversity(ev: Evidence) -> Finding:
    """Similarity of perturbations against the lead of the best forest over Train Mean."""
    rows = facts("csendes2025")
    similar = rows[rows["metric"] == "median_pairwise_pearson"].set_index("dataset")["value"]
    table = _delta()
    forests = [c for c in table if c.startswith("RF ")]
    lead = table[forests].max(axis=1) - table["Train Mean"]
    rho = lead.corr(similar.reindex(lead.index), method="spearman")
    ordered = bool(
        (similar.reindex(lead.sort_values(ascending=False).index).diff().dropna() > 0).all()
    )
    return Finding(
        verdict(rho < 0 and ordered, rho < 0),
        f"Spearman {rho:.2f} over {len(lead)} data sets",
        f"Lead of the best forest over Train Mean: {by_line(lead, '{:.3f}'.format)}; median "
        "correlation of "
        f"perturbations: {by_line(similar, '{:.3f}'.format)}. With {len(lead)} points the trend is a "
        "suggestion.",
    )


@rule("csendes_top20")
def csendes_top20(ev: Evidence) -> Finding:
    """Train Mean on the top 20 genes is only in the supplement."""
    return Finding(
        UNDECIDED,
        "",
        "The values of Train Mean on the top 20 differentially expressed genes are in a supplementary "
        "table and in "
        "none of the public notebooks, so the comparison with scGPT cannot be repeated.",
    )


@rule("csendes_subgroups")
def csendes_subgroups(ev: Evidence) -> Finding:
    """Train Mean and the GO forest against scGPT in the four Norman subgroups."""
    rows = facts("csendes2025")
    rows = rows[(rows["dataset"] == "Norman") & (rows["metric"] == "pearson_delta")]
    rows = rows[rows["subgroup"] != "all"]
    wide = rows.pivot(index="subgroup", columns="model", values="value")
    mean_wins = wide["Train Mean"] > wide["scGPT"]
    forest_wins = wide["RF"] > wide["scGPT"]
    return Finding(
        verdict(
            bool(mean_wins.all() and forest_wins.all()), bool(mean_wins.any() or forest_wins.any())
        ),
        f"Train Mean ahead in {int(mean_wins.sum())}, RF with GO in {int(forest_wins.sum())} of "
        f"{len(wide)}",
        f"Train Mean is ahead of scGPT in {listed(mean_wins.index[mean_wins])} and behind in "
        f"{listed(mean_wins.index[~mean_wins])}; RF with GO is ahead in "
        f"{listed(forest_wins.index[forest_wins])}. "
        "Train Mean and RF values are read off a notebook figure (about 0.005).",
    )


@rule("csendes_regulons")
def csendes_regulons(ev: Evidence) -> Finding:
    """Coherence of embeddings within regulons, CollecTRI."""
    rows = facts("csendes2025")
    value = rows[rows["metric"] == "coherence_delta"].set_index("model")["value"]
    return Finding(
        verdict(
            value["scGPT"] > value["scELMO"] and value.idxmax() == "GO",
            value["scGPT"] > value["scELMO"],
        ),
        by_line(value, "{:.3f}".format),
        "Coherence above shuffled genes, read off a notebook figure: "
        f"{by_line(value, '{:.3f}'.format)}. The other "
        "two databases are not in the public notebooks as numbers.",
    )
