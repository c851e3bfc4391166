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
# What the [protocol](../protocol.md) leaves to numbers. No formula of this page is typed: each stands in the code, beside
# the function that it describes.

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
# ## Constants
#
# The defaults of the code stand in its signatures. A profile or a chapter may set others: grids and components that a
# chapter used are among its parameters, and all of them are in the [run record](run_record.ipynb).
#
# | What | Where |
# |---|---|
# | Folds | {py:func}`perturbcore.data.folds.assign_folds` |
# | Components, inner folds | {py:class}`perturbcore.models.simple.space.Protocol` |
# | Grids of log fold-changes | {py:class}`perturbcore.models.simple.knn.KNN`, {py:class}`perturbcore.models.simple.linear.Linear` |
# | Grids of partial labels | {py:class}`perturbcore.models.simple.labels.LabelKNN`, {py:class}`perturbcore.models.simple.labels.LabelKernel` |
# | Grids of complete labels | {py:class}`perturbcore.models.simple.deg.DEGLogistic`, {py:class}`perturbcore.models.simple.deg.DEGKNN` |
# | Effects, labels | {py:func}`perturbcore.data.effects.ba_ate`, {py:func}`perturbcore.data.deg.deg_labels` |
# | Experimental error | {py:func}`perturbcore.score.ceiling.ceiling.noise_ceiling`, {py:func}`perturbcore.score.ceiling.deg.deg_ceiling`, {py:func}`perturbcore.score.limits.ceiling_scores` |
# | Noise floor | {py:func}`perturbcore.score.ceiling.halves.noise_floor`, {py:func}`perturbcore.score.ceiling.label_floor.label_noise_floor` |
# | Intervals, ranks | {py:func}`perturbcore.score.uncertainty.t_statistics`, {py:meth}`perturbcore.report.paired.PairedScores.rank_table` |

# %% tags=["hide-input"]
pages.say(f"An embedding competes where it has vectors for at least {percent(model.COVERING)} of the perturbations.")
