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
#       title: "What do other cells tell of new ones?"
#       figure: board
#       alt: "Small version of the scores of methods in cell lines that were held out"
# ---

# %% [markdown]
# # New contexts: known perturbations in cells that were never perturbed
#
# A screen in one cell line is expensive; a screen in every line, and every patient, is out of reach. So the
# question that users ask most is not what an unseen gene does in a known line, but what a *known*
# perturbation does in an *unseen* line. Cole et al. {cite}`cole2026` ask it in Figures S12 and S13, the Virtual
# Cell Challenge {cite}`vcc2026` asks nothing else.
#
# It has a trap. The mean response of all lines is a good guess, and a line's own mean response a better one:
# a model that has learnt nothing of the line can look good. Here every method stands between two
# yardsticks, as in the challenge: 0 is the mean response of the line, 1 is a repeated experiment.

# %% tags=["parameters"]
profile: str = "demo"
dataset: str = "simulated_lines"
also: list[str] = []  # further data sets with several lines
beside: list[str] = []  # only beside the published table: their lines shared wells
splits: list[str] = ["new_line", "few_known", "both_new"]
embedding: str = "Interactome"  # of the network and the line kernel; "" for none
n_known: int = 5
n_splits: int = 3
targets: int = 2
seed: int = 0
n_jobs: int = 2

# %% tags=["hide-input"]
import perturbcore as pc
from perturbcore.report import contexts, pages
from perturbcore.report.comparison import Comparison
from perturbcore.report.published.draw import present

chapter = pc.open_chapter("cross_context")
study = pc.Study(chapter, n_jobs)

# %% [markdown]
# ## Data and methods
#
# Each line is held out in turn: a method sees its control cells and all other lines. Three questions: nothing of the
# line is known ([zero-shot](term-context)); a few of its perturbations are (few-shot); the perturbation is new as well.
# Methods are tuned by holding out one *training* line after the other. Effects are those of the other
# chapters (log fold-changes, [BA-ATE](term-ba-ate)).

# %% tags=["hide-input"]
data = study.dataset(dataset)
built = study.embeddings(dataset, only=[embedding], seed=seed)[:1] if embedding else []
limit = study.ceiling(dataset, n_outer=3, n_inner=3)
how = dict(n_known=n_known, limit=limit, seed=seed)
found = {s: contexts.score_contexts(study, dataset, s, embeddings=built, **how) for s in splits}
compared = {s: Comparison(scores, needs_ceiling=limit is not None) for s, scores in found.items()}
pages.show_table(chapter, data.card, "data", caption=f"{data.title}: what is in it, step by step.")

# %% [markdown]
# ## The answer

# %% tags=["hide-input"]
first = compared[splits[0]]
counts = contexts.can_rank(data) and data.holds("screen") and data.screen.uns["perturbcore"]["scale"] == "counts"
cells = contexts.score_as_cells(study, dataset, found[splits[0]], n_splits=n_splits, seed=seed) if counts else None
board = contexts.board_of(cells)
pages.say(contexts.answer(first, data, splits[0]))
pages.take_home(chapter, contexts.one_line(first, data, board), *contexts.verdicts(first, data, board))

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Methods in held-out lines, means and 95 % intervals over lines. Where counts of enough perturbations are at hand: mean of the six metrics of the challenge, 0 the mean response of the line, 1 a repeated experiment. Else: error of the effects. Download: [figure](figures/cross_context/board.svg), [numbers](tables/cross_context/board-data.csv).", "name": "fig-contexts"}, "image": {"alt": "Dot plot of methods that predict a held-out cell line, with intervals, between the mean response of the line and a repeated experiment."}}
shown = board or first
pages.show_figure(chapter, shown.figure(), "board", shown.ranking())

# %% [markdown]
# **How to read it.** The *Train Mean* is the mean over all perturbations of all other lines; the [context mean](term-context-mean) the mean of
# the line's known perturbations, and with none known its control. The interval is over lines: with a handful of
# lines it is wide, and it should be. Predicted effects become cells by moving control cells of the line, in the
# same way for every method.

# %% tags=["hide-input"]
pages.show_table(chapter, contexts.metrics_table(cells), "metrics",
                 caption="Metrics of cells, means over held-out lines, best first; the yardsticks among them.")
for split, c in compared.items():
    pages.show_table(chapter, c.ranking(), f"ranking-{split}", keep=c.columns(), bold="with_best",
                     caption=f"Effects, where {contexts.SAID[split]}. Bold: the best, and what cannot be told apart from it.")

# %% tags=["hide-input"]
for split in splits[1:]:
    pages.say(contexts.answer(compared[split], data, split))
pages.say(contexts.embedding_said(first))

# %% [markdown]
# ## Which part of an effect is found?
#
# In simulated cells the truth is known: each effect has a part that all lines share and one of the line alone. What is
# planted is found or not; nothing follows for real cells.

# %% tags=["hide-input"]
parts = contexts.parts_found(data, built, targets=targets, n_known=n_known, seed=seed)
pages.say(contexts.parts_said(parts))

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Share of the true effect that each method finds as lines are added: of the part that all lines share (1: all of it), and of the part of the line alone. Download: [figure](figures/cross_context/parts.svg), [numbers](tables/cross_context/parts-data.csv).", "name": "fig-context-parts"}, "image": {"alt": "Curves over the number of other lines, one per method: the shared part of the effects is found, the line's own part hardly."}}
contexts.show_parts(chapter, parts)

# %% [markdown]
# ## What real data can carry
#
# Transfer from line to line can only be scored where lines were treated apart, and ranked only where many
# perturbations were measured in several of them. What is at hand publicly falls short of that:
#
# - **Glioblastoma**: one drug in several patients; it shows how well patients foretell one another.
# - **McFaline-Figueroa**, glioma lines: too few targets to rank methods.
# - **Sci-Plex 3** as signatures: rankings of genes without sizes of effects; not used.
# - **PerturbQA**: never from line to line, since its pairs were chosen so that lines agree.
# - **Tahoe-100M** and **OP3**: never, since the lines shared each well, and with it what went wrong there.

# %% tags=["hide-input"]
for name in also:
    how["limit"] = study.ceiling(name, n_outer=3, n_inner=3)
    c = Comparison(contexts.score_contexts(study, name, splits[0], embeddings=[], **how), needs_ceiling=False)
    pages.say(contexts.answer(c, study.dataset(name), splits[0]))
    pages.show_table(chapter, c.ranking(), f"ranking-{name}", keep=c.columns(),
                     caption=f"{study.dataset(name).title}: effects in held-out lines.")

# %% [markdown]
# ## What the paper found
#
# The means over held-out lines of Cole et al.; STATE was trained by them. In Tahoe all lines lay together in each well:
# what happened to a well looks like transfer between lines. Where their data are at hand, such lines are scored
# beside the published table, and nowhere else.

# %% tags=["hide-input"]
published = pc.load_published()
pages.say(contexts.embedding_said(None, published))
present(chapter, published, "S12", "S13")
for name in beside:
    c = Comparison(contexts.score_contexts(study, name, splits[0], embeddings=[], **how | {"limit": None}), needs_ceiling=False)
    pages.show_table(chapter, c.ranking(), f"beside-{name}", keep=c.columns(),
                     caption=f"{study.dataset(name).title}: effects in held-out lines that shared wells. No transfer is shown by it.")

# %% [markdown]
# ## Score your own predictions
#
# Cells that another program predicted, such as STATE, are scored by one command. Both files hold raw counts,
# a column of perturbations and the control cells, as `cell-eval` has them:
#
# ```bash
# perturbcore score predicted.h5ad measured.h5ad --perturbation target --control non-targeting --out scores.csv
# ```
#
# In a profile, `models: [{name: saved, path: predicted.h5ad, title: STATE}]` puts the same file beside the other
# methods of this chapter.
#
# ```bash
# make run CHAPTER=cross_context ARGS="-p n_known 10 -p splits '[few_known]'"
# ```
#
# Parameters: `dataset`, `also`, `splits`, `embedding`, `n_known`, `n_splits` (of the repeated experiment), `targets` (lines of
# the curves), `seed`, `n_jobs`.
