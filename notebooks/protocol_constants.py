# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Metrics and constants
#
# What the [protocol](../protocol.md) leaves to numbers. Nothing in the tables of this page is typed: formulas stand
# beside the functions they describe, and defaults are read from the signatures, at the moment of this build.

# %% tags=["parameters"]
profile: str = "demo"

# %% tags=["hide-input"]
import perturbcore as pc
from perturbcore.book import about
from perturbcore.report import pages
from perturbcore.report.text import percent
from perturbcore.score import model

chapter = pc.open_chapter("protocol_constants")
metrics = about.metric_table()
chapter.save_table(metrics, "metrics")
count = metrics.groupby("task").size()
pages.say(
    f"There are {count['lfc']} metrics for log fold-changes, {count['deg']} for complete labels and "
    f"{count['pairs']} for partial ones. The first of each list ranks the methods ([as a table](tables/protocol_constants/metrics.csv))."
)

# %% [markdown]
# ## Metrics of log fold-changes
#
# For one perturbation $k$, with measured response $\Delta_k$, predicted response $\hat\Delta_k$ and training mean
# $\bar\Delta$, over $G$ genes; $T_{20}$ are the 20 genes of largest absolute effect, $r$ is Pearson's correlation. A
# score is the mean over the test perturbations of a fold.

# %% tags=["hide-input"]
pages.say(about.metric_markdown(metrics[metrics["task"] == "lfc"]))

# %% [markdown]
# ## Metrics of complete labels
#
# Labels are −1, 0 or 1, predictions a probability of each; $C_g$ are the classes among the test labels of gene $g$.

# %% tags=["hide-input"]
pages.say(about.metric_markdown(metrics[metrics["task"] == "deg"]))

# %% [markdown]
# ## Metrics of partial labels
#
# Over the known labels $y_{kg}$ of the test perturbations of a fold, with predicted scores $s_{kg}$; $n_g^+$ and $n_g^-$
# count the positive and negative labels of gene $g$.

# %% tags=["hide-input"]
pages.say(about.metric_markdown(metrics[metrics["task"] == "pairs"]))

# %% [markdown]
# ## Constants of the evaluation
#
# The defaults of the code. A profile or a chapter may set others: grids and components that a chapter used are among its
# parameters, and all of them are in the [run record](run_record.ipynb).

# %% tags=["hide-input"]
evaluation = about.defaults([
    "perturbcore.data.folds.assign_folds",
    "perturbcore.models.simple.space.Protocol",
    "perturbcore.models.simple.knn.KNN:grid",
    "perturbcore.models.simple.linear.Linear:grid",
    "perturbcore.models.simple.labels.LabelKNN:grid, prior",
    "perturbcore.models.simple.labels.LabelKernel:grid, total, prior",
    "perturbcore.models.simple.deg.DEGLogistic:grid",
    "perturbcore.models.simple.deg.DEGKNN:grid, balance, prior",
])
pages.show_table(chapter, evaluation, "evaluation", caption="Folds, pipeline and grids.")

# %% [markdown]
# ## Constants of effects and ceilings
#
# These are the parameters behind
# [Where paper, code and numbers disagree](protocol-disagreements).

# %% tags=["hide-input"]
choices = about.defaults([
    "perturbcore.data.effects.ba_ate:control, batches, size_factors, min_cells",
    "perturbcore.data.sets.simulated.load:control, batches, n_folds, fold_seed",
    "perturbcore.score.ceiling.ceiling.noise_ceiling:control, batches, n_outer, n_inner, quantiles, seed, resample",
    "perturbcore.score.ceiling.halves.noise_floor:n_splits, min_cells",
    "perturbcore.score.limits.ceiling_scores:quantile",
    "perturbcore.data.deg.deg_labels:variant, test, min_cells, strict, alpha",
    "perturbcore.score.ceiling.deg.deg_ceiling:n_trials, n_outer, n_inner",
    "perturbcore.score.ceiling.label_floor.label_noise_floor:n_draws, n_splits",
])
pages.show_table(chapter, choices, "effects-and-ceilings", caption="Effects and experimental error.")

# %% [markdown]
# ## Constants of the uncertainty

# %% tags=["hide-input"]
doubts = about.defaults([
    "perturbcore.score.uncertainty.mean_ci:confidence, test_ratio",
    "perturbcore.report.paired.PairedScores.rank_table:n_boot, seed",
])
pages.show_table(chapter, doubts, "uncertainty", caption="Intervals and ranks.")
pages.say(f"An embedding competes where it has vectors for at least {percent(model.COVERING)} of the perturbations.")
