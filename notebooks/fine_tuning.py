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
#       title: "Does fine-tuning beat kNN on the same vectors?"
#       figure: gains
#       alt: "Small version of the gains over frozen neighbours with their intervals"
# ---

# %% [markdown]
# # Does adapting a representation beat kNN on it frozen?
#
# Foundation models are rarely used as they come: one trains them a little further on the task at hand.
# Cole et al. {cite}`cole2026` did so with two of their best models, a transformer of expression
# (AIDO.Cell, 3 million weights) and a graph network of interactions (STRING GNN). It is hard to do well:
# a screen has a few thousand perturbations, a network has millions of weights, and what it learnt
# before is easily overwritten. The fair opponent is the same representation left alone, with kNN on it.
#
# Here a graph network is pretrained to predict the links of an interaction graph, and a small
# transformer to fill in masked genes of control cells; a language model, where one is at hand, comes as it
# was trained on texts at large. Each is then used frozen and fine-tuned, on the same folds.

# %% tags=["parameters"]
profile: str = "demo"
datasets: list[str] = ["simulated"]
graphs: list[str] = ["Interactome GNN"]
frozen: list[str] = ["Interactome", "Interactome wavelets", "Interactome node2vec"]
graph: dict = {"lrs": [0.003, 0.001], "batch_sizes": [32], "epochs": 10, "patience": 2}
links: str = ""
pretraining: dict = {}
texts: list[str] = []
text: dict = {"lrs": [0.001], "batch_sizes": [32], "epochs": 4, "patience": 1}
with_cells: bool = True
cells: dict = {"max_cells": 1000, "dim": 32, "layers": 1, "latents": 16, "pretraining_epochs": 6, "pretraining_lr": 0.01, "rank": 4, "hidden": [64], "lrs": [0.003], "epochs": 6, "epochs_ko": 3, "batch_size": 32, "n_cells": 4, "n_eval": 32, "asked": 64}
k: list[int] = [5, 10, 20, 40]
k_few: list[int] = []
n_components: int = 50
n_outer: int = 10
n_inner: int = 10
seed: int = 0
n_jobs: int = 2

# %% tags=["hide-input"]
import perturbcore as pc
from perturbcore.report import figures, pages
from perturbcore.report import finetuning as page
from perturbcore.report.finetuning import run_fine_tuning
from perturbcore.report.published.draw import present

chapter = pc.open_chapter("fine_tuning")
study = pc.Study(chapter, n_jobs)

# %% [markdown]
# ## Data and methods
#
# **Graph network.** Learned vectors of the genes pass through graph convolutions {cite}`kipf2017`, and the
# dot product of two genes is trained to tell a link from a random pair. A tenth of the links is held out and takes no
# part in passing messages. *Frozen*: the output vectors are an embedding like any other. *Fine-tuned*
# (Cole et al., Eq. 17-18): a linear head turns the vector of a gene into the response, and head and
# network are trained on the responses. *Frozen + linear*: only the head is.
#
# **Transformer.** *Indexing* (Eq. 13-14): the vector of the target gene, averaged over control cells,
# goes through a head. *In-silico KO* (Eq. 15-16): the target gene is set to zero in the average control
# cell, and a head reads every gene. Both train low-rank adapters of the encoder. *Frozen + MLP*: only
# the head is trained.
#
# **Language model.** The description of a gene passes through a text encoder trained at large, and the
# mean over its tokens through a linear head. *LoRA + linear*: low-rank adapters {cite}`hu2022lora` in the last layers are
# trained with the head; *frozen + linear*: only the head is.
#
# Learning rate and epoch are chosen on training perturbations that are set aside; the test
# perturbations are seen once. The [protocol](../protocol.md) has the constants.

# %% tags=["hide-input"]
options = dict(frozen=frozen, graphs=graphs, graph=graph, links=links, pretraining=pretraining, texts=texts, text=text,
               k=k, k_few=k_few, n_components=n_components, n_outer=n_outer, n_inner=n_inner, seed=seed,
               cells=cells if with_cells else None)
runs = [run_fine_tuning(study, name, **options) for name in datasets]
pages.say(page.setting(runs))
pages.show_table(chapter, page.networks(runs), "networks", keep="networks", digits=0,
                 caption="What the networks learnt before any response was seen.")
pages.show_leaks(chapter, study.leaks(*datasets))

# %% [markdown]
# ## The answer

# %% tags=["hide-input"]
pages.say("\n\n".join(page.answer(run) for run in runs))
adapted = [page.gains(run).query("adapted").sort_values("gain", ascending=False) for run in runs]
verdicts = [r.comparison.verdict_said(r.data.title, g) for r, g in zip(runs, adapted, strict=True)]
pages.take_home(chapter, page.one_line(runs), *verdicts)

# %% [markdown]
# ## What each use gains over kNN on the same representation

# %% tags=["hide-input"] mystnb={"figure": {"caption": "One panel per data set. Gain over k nearest neighbours on the same representation left frozen, mean over cell lines, with the 95 % interval over folds. Filled: something was trained by gradient steps on responses; open: another predictor on the frozen vectors. Right of the dashed line is better. Download: [figure](figures/fine_tuning/gains.svg), [numbers](tables/fine_tuning/gains-data.csv).", "name": "fig-gains"}, "image": {"alt": "For each use of each representation, the gain in score over kNN on the same representation with its 95 percent interval, best at the top; a dashed line marks no gain."}}
gains = page.joined(runs)
pages.show_figure(chapter, page.gain_figure(runs), "gains", gains)

# %% tags=["hide-input"]
if len(gains):
    pages.show_table(chapter, gains, "gains", keep="fine-tuning", bold="beats",
                     caption="Every use of a representation against kNN on it frozen. Bold: shown to be better.")
    pages.say("\n\n".join(page.surprises(run) for run in runs))

# %% [markdown]
# The interval is over folds and allows for their overlapping training sets (Nadeau and Bengio); *p* is
# adjusted for the uses of a representation (Holm). With so few folds only large differences can be told
# apart: an interval that holds zero is no evidence that two uses are equal.
#
# ## All methods, with floor and ceiling

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Score of every representation, frozen and adapted, one panel per cell line of the first data set. Box: quartiles and range over folds; points: folds. Dashed lines: Train Mean, the best method and, where it was measured, the experimental error. Best at the top. Download: [figure](figures/fine_tuning/scores.svg), [numbers](tables/fine_tuning/scores-data.csv).", "name": "fig-finetuned"}, "image": {"alt": "Box plots of the score of each representation, frozen and adapted, in each cell line, sorted from best at the top to worst at the bottom, with Train Mean and ceiling."}}
first = runs[0].comparison
boxes = figures.box_by_method(first.scores, first.metric)
pages.show_figure(chapter, boxes, "scores", first.scores)

# %% tags=["hide-input"]
for run in runs:
    pages.show_table(chapter, run.comparison.ranking(), f"ranking-{run.data.name}", keep="fine-tuned ranking",
                     bold="with_best",
                     caption=f"{run.data.title}. Bold: the best, and what cannot be told apart from it. Seconds leave "
                             "out pretraining.")

# %% [markdown]
# **How to read it.** Compare a fine-tuned network with the same one frozen, not with the Train Mean. The
# embeddings *wavelets* and *node2vec* are other ways to turn the same graph into vectors, without any
# network: if they do as well, the pretraining was not what mattered. The wavelets {cite}`hammond2011`
# follow the idea of WaveGC {cite}`liu2024wavegc`, but nothing in them is trained; node2vec
# {cite}`grover2016` walks the graph, and its skip-gram is solved by factorisation {cite}`levy2014`.
#
# ## What the paper found
#
# Cole et al., Fig. 4: K-562, log fold-changes. Their graph has scores and ten times more links, their
# transformer was pretrained on fifty million cells, and they tune over a wider grid.

# %% tags=["hide-input"]
present(chapter, pc.load_published(), "4")

# %% [markdown]
# ## What would change the answer
#
# More perturbations to adapt on, a larger network, another learning rate or head, a screen whose
# responses the graph does not know. The published grid of the graph network is
# `{"lrs": [1e-3, 1e-4, 1e-5], "batch_sizes": [16, 32, 64]}`:
#
# ```bash
# make run CHAPTER=fine_tuning ARGS="-p graph '{\"lrs\": [0.001, 0.0001, 0.00001], \"batch_sizes\": [16, 32, 64]}'"
# ```
#
# Parameters: `datasets`, `graphs` (embeddings of builder `gnn` to fine-tune), `frozen`, `graph` and
# `cells` (options of both fine-tunings; `checkpoint` in `cells` loads an encoder from elsewhere),
# `texts` and `text` (embeddings of builder `language_model` to fine-tune, and options), `links` and `pretraining` (a file of links in the authors' folder, and how to pretrain on it),
# `with_cells`, `k`, `k_few` (data of fewer than 100 perturbations per line), `n_components`, `n_outer`, `n_inner`, `seed`, `n_jobs`.
