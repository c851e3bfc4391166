# ---
# jupyter:
#   kernelspec:
#     name: python3
#     display_name: Python 3
#   perturbcore:
#     card:
#       title: "What the paper found"
#       figure: models
#       alt: "One row per data set and task, one point per published model: how much better than the Train Mean it is."
#       text: "Every figure of Cole et al. {cite}`cole2026` that can be drawn from public numbers, drawn anew."
# ---

# %% [markdown]
# # What the paper found
#
# Cole et al. {cite:p}`cole2026` publish, fold by fold, the scores of the models behind their figures. This
# chapter redraws every figure that those tables allow: the same methods in the same order, the same reference
# lines, the same way of averaging; the numbers are theirs, in every profile of this book. It is the yardstick for the other chapters, and the ground on which
# {doc}`the audit of the claims <claims>` stands.
#
# How to read a panel: a row is a method, a point is a fold, the box spans the quartiles. Train Mean is the floor
# (predict the mean response of the training perturbations); the experimental error is an upper quantile of what
# resampling the same cells does to the measured effect. The closer to the experimental error, the less is left to
# explain; good methods may pass it.

# %% tags=["parameters"]
profile: str = "demo"
download: bool = False  # fetch the authors' tables (14 MB, non-commercial licence) if they are not at hand

# %% tags=["hide-input"]
import perturbcore as pc
from perturbcore.report import figures, pages
from perturbcore.report.published import draw
from perturbcore.report.text import tell

chapter = pc.open_chapter("published_results")
published = pc.load_published(download=download)
pages.say(f":::{{note}}\n{published.note}\n:::")
models = chapter.save_table(draw.every_model(published), "models")
strip = figures.strips(models, x="gain", row="data", look="modality", spread=0.3, xlabel="better than Train Mean by, %")
chapter.save_figure(strip, "models", live=True)
pages.say(tell("published.models", n=len(models)))

# %% [markdown]
# ## Which embeddings predict best (Figures 1 and 2)
#
# Knock-downs of about 2,000 genes in each of four cell lines (Essential), log fold-change, kNN on each embedding.

# %% tags=["hide-input"]
draw.present(chapter, published, "1", "2")

# %% [markdown]
# ## Fine-tuning (Figure 4) and fusion (Figure 5)
#
# Figure 4 is drawn in the order of the paper, which groups methods by model.

# %% tags=["hide-input"]
draw.present(chapter, published, "4", "5")

# %% [markdown]
# ## A small screen, and lasso instead of kNN (Figures S1 to S3)
#
# Norman (S1): 105 over-expressed genes in one line; the same methods.

# %% tags=["hide-input"]
draw.present(chapter, published, "S1", "S2", "S3")

# %% [markdown]
# ## Which genes change: the DEG task (Figures S4, S7 and S10)
#
# Each gene goes down, stays or goes up; macro F1 over genes. Train Mean here always names the most frequent class.
# The Tahoe values are averaged over 45 lines within a fold.

# %% tags=["hide-input"]
draw.present(chapter, published, "S4", "S7", "S10")

# %% [markdown]
# ## Small molecules, log fold-change (Figures S5, S6, S8 and S9)
#
# Sciplex, and Tahoe where its two tables are at hand. The published experimental error of two lines of Sciplex lies
# above Train Mean and No Change, because it was computed on differently normalised data; there it is no ceiling.

# %% tags=["hide-input"]
draw.present(chapter, published, "S5", "S6", "S8", "S9")

# %% [markdown]
# ## Do other metrics agree (Figure S11)

# %% tags=["hide-input"]
draw.present(chapter, published, "S11")

# %% [markdown]
# ## Unseen cell lines: the comparison with STATE (Figures S12 and S13)

# %% tags=["hide-input"]
draw.present(chapter, published, "S12", "S13")

# %% [markdown]
# ## Generative models (Figure S14)
#
# Scored on an older, smaller set of perturbations with other folds: these numbers must not be compared with those of
# Figure 1. {doc}`The audit <claims>` says what the tables hold for the full set.

# %% tags=["hide-input"]
draw.present(chapter, published, "S14")

# %% [markdown]
# ## Printed tables of two other papers
#
# {doc}`The audit <claims>` judges Bendidi et al. {cite:p}`bendidi2024` and Csendes et al. {cite:p}`csendes2025` from
# these numbers, as printed. Table 2 of Bendidi et al. has the best of four post-processings of each model; its
# Tables 3 to 10 have all four, mean and standard deviation over five runs.

# %% tags=["hide-input"]
for number in range(2, 11):
    pages.show_table(chapter, draw.bendidi_table(number), f"bendidi2024-table-{number}", caption=f"Bendidi et al. 2024, Table {number}, as printed.")
pages.show_table(chapter, draw.csendes_table(), "csendes2025-pearson-delta",
                 caption="Csendes et al. 2025, Pearson delta, from the text and the authors' notebooks.")

# %% [markdown]
# ## What cannot be drawn
#
# Three figures need more than the tables used here; the authors publish what Figures S5 and S6 take.

# %% tags=["hide-input"]
pages.show_table(chapter, draw.not_drawn(published), "not-drawn", caption="Figures that take more than these tables.")
