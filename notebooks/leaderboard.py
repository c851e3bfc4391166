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
#       title: "A leaderboard that others made"
#       figure: de
#       alt: "Small version of the leaderboard of PerturbQA"
# ---

# %% [markdown]
# # A leaderboard that others made
#
# Wu et al. {cite}`wu2025` (PerturbQA) put two questions to methods from a small neural network to a
# language model of 70 billion parameters, on the four Essential cell lines: *is this gene
# differentially expressed under that perturbation* (`de`), and if so, *does it go up* (`dir`)? Their
# labels, their split into training and test perturbations and their metric are public. This chapter
# puts plain neighbours in an embedding on exactly that split and metric.
#
# The metric is the area under the ROC curve over the labelled test pairs of one gene, averaged over
# the genes that have both labels; a guess scores 0.5. Our predictors are fitted and tuned on the training
# split alone; the test split was scored several times while methods changed, see the last table. Our values
# carry a 95 % interval over test perturbations (200 bootstrap draws); published values have two decimals
# and no interval: differences of 0.01 mean little.
#
# *Which pairs are labelled, no embedding* is a control that is told which pairs are labelled, those to be predicted included. They
# were chosen partly by the answer, so that it scores high and knows nothing of genes: it is no method and does not compete, see
# the [data cards](data_cards.ipynb).

# %% tags=["parameters"]
profile: str = "demo"
dataset: str = "essential"
k: list[int] = [5, 10, 20, 40, 80]
n_jobs: int = 2

# %% tags=["hide-input"]
import perturbcore as pc
from perturbcore.report import figures, leaderboard, pages

chapter = pc.open_chapter("leaderboard")
study = pc.Study(chapter, n_jobs)
lines = list(leaderboard.LINES.values())

# %% tags=["hide-input"]
scores = leaderboard.ours(study, dataset, knn=k)
control = leaderboard.mask_on_split(study, dataset)
pages.say(leaderboard.verdict(scores))
pages.take_home(chapter, leaderboard.one_line(scores, control))

# %% [markdown]
# ## Does the gene respond?

# %% tags=["hide-input"] mystnb={"figure": {"caption": "PerturbQA, task de: AUROC per gene on the authors' test split, best mean at the top; dashed: a guess. Download: [figure](figures/leaderboard/de.svg), [numbers](tables/leaderboard/de-data.csv).", "name": "fig-board-de"}, "image": {"alt": "Dot plot of the AUROC of each method in each of the four cell lines for the task of telling whether a gene responds."}}
de = leaderboard.with_control(leaderboard.board(scores, "de"), control, "de")
plot = figures.dot_plot(de, lines, name="method", group="origin", xlabel="AUROC per gene")
pages.show_figure(chapter, plot, "de", de)

# %% tags=["hide-input"]
pages.show_table(chapter, de, "de", keep=leaderboard.heads(de), caption="Task de, with 95 % intervals over test perturbations. Floor: Train Mean or a guess, 0.5; ceiling: 1.")

# %% [markdown]
# ## In which direction?

# %% tags=["hide-input"] mystnb={"figure": {"caption": "PerturbQA, task dir: AUROC per gene on the authors' test split, best mean at the top; dashed: a guess. Download: [figure](figures/leaderboard/dir.svg), [numbers](tables/leaderboard/dir-data.csv).", "name": "fig-board-dir"}, "image": {"alt": "Dot plot of the AUROC of each method in each of the four cell lines for the task of telling the direction of a response."}}
direction = leaderboard.with_control(leaderboard.board(scores, "dir"), control, "dir")
plot = figures.dot_plot(direction, lines, name="method", group="origin", xlabel="AUROC per gene")
pages.show_figure(chapter, plot, "dir", direction)

# %% tags=["hide-input"]
pages.show_table(chapter, direction, "dir", keep=leaderboard.heads(direction), caption="Task dir, with 95 % intervals over test perturbations. Floor: a guess, 0.5; ceiling: 1.")

# %% [markdown]
# ## How often was the test split scored?
#
# Every scoring of the authors' test perturbations is logged when it happens, in any chapter and with any
# settings; rescoring adds a row and deletes none. A method that was scored often may owe some of its
# place to that.

# %% tags=["hide-input"]
log = leaderboard.scorings(study.store)
heads = {"method": "Method", "units": "Scorings", "most": "Most for one line and task", "commits": "Versions"}
heads |= {"first": "First (UTC)", "last": "Last (UTC)"}
pages.show_table(chapter, log, "scorings", keep=heads, caption="Scorings of the test split per method, over four lines and two tasks, since this results folder was made; empty where the profile holds no labels.")

# %% [markdown]
# ## What surprised us, and what to beware of
#
# An embedding of a public network and an average over neighbours need seconds on a laptop. The
# comparison is fair in split and metric, not in knowledge: our networks and annotations were made
# in part from the literature that the language models have read, and some of them may have been
# curated after the screens were published. The authors' split is made for each cell line by itself:
# a perturbation may be in training in one line and in test in another, so that only models of one
# line at a time may be scored on it, as is done here.
#
# ```bash
# make run CHAPTER=leaderboard PROFILE=real ARGS="-p k '[10, 20]'"
# ```
