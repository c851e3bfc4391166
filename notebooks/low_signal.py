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
#       title: "A screen where little can be learnt"
#       figure: ranking
#       alt: "Small version of the box plots of a screen with few perturbations"
# ---

# %% [markdown]
# # A screen where little can be learnt
#
# Not every screen can rank embeddings. With few perturbations, a new one has no near neighbour whose
# response is known, whatever the embedding says. A benchmark that shows only screens where the method
# works teaches the wrong lesson; this chapter shows one where it does not.

# %% tags=["parameters"]
profile: str = "demo"
dataset: str = "simulated_few"
k: list[int] = [5, 10, 20, 40]
alpha: list[float] = [0.001, 0.01, 0.1, 1.0]
n_components: int = 30
n_outer: int = 10
n_inner: int = 10
seed: int = 0
n_jobs: int = 2

# %% tags=["hide-input"]
import perturbcore as pc
from perturbcore.report import figures, pages
from perturbcore.report.comparison import Comparison

chapter = pc.open_chapter("low_signal")
study = pc.Study(chapter, n_jobs)

# %% tags=["hide-input"]
data = study.dataset(dataset)
limit = study.ceiling(dataset, n_outer=n_outer, n_inner=n_inner)
models = study.models(data.task, knn=k, lasso=alpha)
scores = study.evaluate(dataset, models, protocol=study.protocol(n_components=n_components), ceiling=limit, seed=seed)
pages.show_table(chapter, data.card, "data", caption=f"{data.title}: what is in it, step by step.")
pages.show_coverage(chapter, study.coverage(dataset), caption="Share of the perturbations that each embedding has a vector for.")
pages.show_leaks(chapter, study.leaks(dataset))

# %% [markdown]
# ## The answer

# %% tags=["hide-input"]
nearest = Comparison(scores, predictor="knn")
pages.say(nearest.answer(data.title))
pages.take_home(chapter, nearest.one_line(), nearest.verdict_said(data.title))

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Score of every embedding with k nearest neighbours. Box: quartiles and range over folds; points: folds. Dashed: Train Mean, best embedding, experimental error, medians over folds. Download: [figure](figures/low_signal/ranking.svg), [numbers](tables/low_signal/ranking-data.csv).", "name": "fig-low-signal"}, "image": {"alt": "Box plots of the prediction error of each embedding, most of which lie at or beyond the Train Mean."}}
boxes = figures.box_by_method(nearest.scores, nearest.metric)
pages.show_figure(chapter, boxes, "ranking", nearest.scores)

# %% tags=["hide-input"]
pages.show_table(chapter, nearest.ranking(), "ranking", keep=nearest.columns(), bold="with_best",
                 caption="Bold: the best embedding, and those that cannot be told apart from it; controls do not compete.")
pages.say(nearest.reading())

# %% [markdown]
# Where a response is the mean of a few replicate wells, the bootstrap is too optimistic: resampling
# $n$ wells shows only $(n-1)/n$ of the variance of their mean, and none of what all wells share.
#
# ```bash
# make run CHAPTER=low_signal ARGS="-p k '[3, 5]'"
# ```
