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
#   perturbcore:
#     card:
#       title: "How good can a prediction be?"
#       figure: calibration
#       alt: "Small version of the curves of error against cells per perturbation"
# ---

# %% [markdown]
# # How good can a prediction be?
#
# A response is measured on some tens of cells. Measured again, it would come out differently. No
# prediction can be asked to be nearer to a measurement than a second measurement would be. That
# distance is the [experimental error](term-experimental-error). Cole et al. {cite}`cole2026` estimate
# it by a bootstrap: draw batches with replacement, in each drawn batch draw cells with replacement,
# compute the effect again, and take the 0.9 quantile of its distance to the original. This chapter
# computes it for the data of this build, and asks what the papers could not: **is it right?**

# %% tags=["parameters"]
profile: str = "demo"
dataset: str = "simulated"
sizes: list[int] = [10, 20, 50, 100]
n_outer: int = 10
n_inner: int = 10
quantile: float = 0.9
seed: int = 5050
n_jobs: int = 2

# %% tags=["hide-input"]
import perturbcore as pc
from perturbcore.report import figures, noise, pages

chapter = pc.open_chapter("noise_ceiling")
study = pc.Study(chapter, n_jobs)

# %% [markdown]
# ## Data and methods

# %% tags=["hide-input"]
data = study.dataset(dataset)
ceiling = study.ceiling(dataset, n_outer=n_outer, n_inner=n_inner)
each = noise.by_line(ceiling, data.responses, quantile)
pages.show_table(chapter, data.card, "data", caption=f"{data.title}: what is in it, step by step.")
pages.say(" ".join(data.notes))

# %% [markdown]
# ## The experimental error of each perturbation

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Experimental error (0.9 quantile of the bootstrap, L2) of each perturbation against its number of cells, one panel per cell line; line: running median. Download: [figure](figures/noise_ceiling/error-by-cells.svg), [numbers](tables/noise_ceiling/error-by-cells-data.csv).", "name": "fig-noise-cells"}, "image": {"alt": "Scatter plots of the experimental error of each perturbation against its number of cells: the error falls as cells grow."}}
points = figures.points_by_amount(each, "n_cells", "value", "cell_line", xlabel="cells of the perturbation",
                                  ylabel="experimental error (L2)")
pages.show_figure(chapter, points, "error-by-cells", each)

# %% tags=["hide-input"]
summary = noise.line_summary(each)
heads = {"cell_line": "Cell line", "perturbations": "Perturbations", "median_cells": "Median cells", "error_mean": "Mean error",
         "error_median": "Median error", "effect_median": "Median effect", "share_above_error": "Share above their error"}
pages.show_table(chapter, summary, "by-line", keep=heads, caption="Experimental error and size of the effects, by cell line. "
                 "Floor: an effect of 0 (No Change). Ceiling: the experimental error.")
pages.take_home(chapter, noise.above_said(ceiling, data.responses, quantile))

# %% [markdown]
# ## Is the estimate right?
#
# Cells are left out at random until each perturbation has the same small number, and the error is
# estimated anew. On simulated cells the truth is known, and the true error of each subsample is
# drawn beside its estimates. On real cells only the estimates can be compared.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Median error of an effect (L2) against the cells per perturbation: the published bootstrap, a bootstrap of batches only, the noise floor from disjoint halves of batches and, on simulated cells, the true error. Line: median over perturbations; band: quartiles. Download: [figure](figures/noise_ceiling/calibration.svg), [numbers](tables/noise_ceiling/calibration-data.csv).", "name": "fig-noise-truth"}, "image": {"alt": "Curves of the estimated error against the number of cells per perturbation for two bootstrap estimates, for the noise floor, and the true error where it is known; all fall with more cells."}}
curve = noise.curves_by_cells(data, sizes, n_outer=n_outer, n_inner=n_inner, seed=seed, n_jobs=n_jobs)
plot = figures.curves(curve, "cells", "value", "estimate", low="low", high="high", panel="cell_line",
                      xlabel="cells per perturbation", ylabel="median error (L2)")
pages.show_figure(chapter, plot, "calibration", curve)

# %% tags=["hide-input"]
pages.show_table(chapter, curve, "calibration", digits=2, caption="The numbers of the figure; n: perturbations "
                 "with at least the largest number of cells.")

# %% [markdown]
# ## Three ceilings against the truth
#
# Three lines are called a ceiling in this field, and they are not the same. The **published bootstrap** resamples one
# experiment. A **repeated experiment** has noise of its own: it lies $\sqrt 2$ times as far from this one as the truth
# does. The **noise floor** is what the true effects would score against the measured ones, and the ceiling of the shares
# of the gap in this book. The last two come from two disjoint halves of the batches, perturbed and control cells alike,
# that share no cell and no draw: half the distance of their effects is the expected error of the whole (for correlations,
# the Spearman-Brown formula). Here all three are computed on small simulated screens, where the truth is known.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Three ceilings (L2), each divided by the true error of the effects, against the cells per perturbation; panels: control and size of the batch effects (natural-log rate) of simulated screens. 1: the truth; a repeated experiment is expected at 1.41. Download: [figure](figures/noise_ceiling/truth.svg), [numbers](tables/noise_ceiling/truth-data.csv).", "name": "fig-three-ceilings"}, "image": {"alt": "Six panels, for two kinds of control and three sizes of batch effects: the noise floor stays at 1 and a repeated experiment at 1.41 whatever the number of cells, while the published bootstrap rises with cells, and far more so under global control and strong batch effects."}}
truth = study.truth()
plot = figures.curves(noise.truth_panels(truth), "cells", "ratio", "estimate", panel="case",
                      xlabel="cells per perturbation", ylabel="ceiling / true error")
pages.show_figure(chapter, plot, "truth", truth)

# %% tags=["hide-input"]
pages.say(noise.causes_said(truth))
pages.say(noise.trust_said(truth, data))
pages.show_table(chapter, truth, "truth", digits=2, caption="The numbers of the figure; of its own: ratio to what "
                 "the estimate is of, which for a repeated experiment lies farther away than the truth.")

# %% [markdown]
# **Why the published estimate is too large, for two reasons.** *Cells are drawn twice.* Drawing batches already
# carries the noise of the cells in them; drawing the cells again inside adds it a second time. The
# variance of the sample is $\frac{s^2}{n}\left(\frac{B-1}{B} + \frac{m-1}{m}\right)$ for $B$ batches of
# $m$ cells: up to twice the true one, so that this makes the L2 error up to $\sqrt 2$ times too large. With few
# cells per batch the two terms make up for each other, and with one cell nothing is left: fewer than 10 cells are not
# estimable here. *Shared shifts no longer cancel.* With one control for all
# batches, perturbed and control cells are drawn from batches independently: what a batch does to both alike
# cancels in the effect, but not between a batch drawn for one and another drawn for the other. This grows with the
# batch effects and with the cells, and goes beyond $\sqrt 2$; controls matched within the batch do not have it.
#
# ## Which metrics can tell anything here?
#
# A metric is of use on a screen only where a repeated experiment clearly beats a prediction that
# knows nothing of the perturbation. The cells of each perturbation are halved at random: one half
# is the truth, the other a *technical duplicate* (with half of the cells, both are noisier than the whole). Where does the duplicate lie between the Train
# Mean (0) and a perfect prediction (1)? That is the
# [dynamic range fraction](term-dynamic-range-fraction) {cite}`miller2025`. Near 0, differences
# between methods by that metric are noise.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Dynamic range fraction of each metric on each screen, mean over perturbations and cell lines. 0: a repeated experiment is no better than the Train Mean; 1: it is perfect. Download: [figure](figures/noise_ceiling/metric-ranges.svg), [numbers](tables/noise_ceiling/metric-ranges-data.csv).", "name": "fig-metric-ranges"}, "image": {"alt": "Heat map of the dynamic range fraction: one row per screen, one column per metric, each cell with its number."}}
ranges = noise.metric_ranges(study, seed=seed)
wide = noise.ranges_wide(ranges)
pages.show_figure(chapter, figures.heat_map(wide, "dynamic range fraction"), "metric-ranges", ranges)

# %% tags=["hide-input"]
pages.say(noise.ranges_said(ranges))
pages.show_table(chapter, ranges, "metric-ranges", digits=2, caption="Each metric on each screen: dynamic range fraction (mean, "
                 "median) and share of the perturbations for which the technical duplicate beats the Train Mean.")

# %% [markdown]
# ## What would change the answer
#
# Another quantile, more trials, a matched instead of a global control. To run this chapter with
# other parameters:
#
# ```bash
# make run CHAPTER=noise_ceiling ARGS="-p quantile 0.5 -p sizes '[10, 40]'"
# ```
