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
#       title: "Can a new drug be read off its structure or targets?"
#       figure: ranking
#       alt: "Small version of the box plots of scores by drug embedding"
# ---

# %% [markdown]
# # Small molecules: can the effect of a new drug be read off its structure or its targets?
#
# A gene has one sequence and one place in a network. A drug is a molecule that no cell has met before: it may
# hit one protein, ten, or none. What can be written down of it is its structure (as a
# [SMILES](term-smiles), or as a [fingerprint](term-fingerprint)), the genes it is known to act on, and
# what is said about it. Cole et al. {cite}`cole2026` asked whether any of these predicts the log fold-changes
# that an unseen drug causes, in Sci-Plex 3 {cite}`srivatsan2020` and Tahoe-100M {cite}`zhang2025` (Figures S5, S6,
# S8 and S9); this chapter asks it of the data of this build.
#
# It is harder than for genes, for three reasons. Most drugs do little in most cells, so that there is mostly
# noise to predict. Similar molecules can do different things, and different molecules the same. And there
# are few drugs, so that a new one rarely has a near neighbour among those tried.

# %% tags=["parameters"]
profile: str = "demo"
dataset: str = "simulated_drugs"
also: list[str] = []  # further data sets of drugs
k: list[int] = [20, 40, 60, 80, 100]
alpha: list[float] = [0.001, 0.01, 0.1, 1.0]
n_components: int = 100
n_outer: int = 10
n_inner: int = 20
seed: int = 0
n_jobs: int = 2

# %% tags=["hide-input"]
import perturbcore as pc
from perturbcore.report import drugs, figures, pages
from perturbcore.report.comparison import Comparison, predictor_agreement
from perturbcore.report.published.draw import present

chapter = pc.open_chapter("small_molecules")
study = pc.Study(chapter, n_jobs)

# %% [markdown]
# ## Data and methods
#
# The effect of a drug is the difference of its mean log expression to the vehicle wells *of the same plate*,
# averaged over plates: plates differ, and drugs lie on few of them. The
# [experimental error](term-experimental-error) resamples plates, and cells (or wells) within them, drug and
# vehicle alike. All cell lines share the folds, which are by drug: a drug that is tested has been seen in no line.
# Then, as for genes: standardise, PCA, k nearest neighbours or lasso, tuned on inner folds. A drug without
# a vector gets the Train Mean.

# %% tags=["hide-input"]
data = study.dataset(dataset)
built = study.embeddings(dataset, seed=seed)
limit = study.ceiling(dataset, n_outer=n_outer, n_inner=n_inner)
protocol = study.protocol(n_components=n_components)
models = study.models(data.task, knn=k, lasso=alpha)
scores = study.evaluate(dataset, models, protocol=protocol, embeddings=built, ceiling=limit, seed=seed)
pages.show_table(chapter, data.card, "data", caption=f"{data.title}: what is in it, step by step.")
pages.show_coverage(chapter, study.coverage(dataset), caption="Share of the drugs that each embedding has a vector for.")
pages.show_leaks(chapter, study.leaks(dataset))

# %% [markdown]
# ## How much is there to predict?

# %% tags=["hide-input"]
noise = drugs.noise_table(data, limit)
pages.say(drugs.noise_said(noise))
c = Comparison(scores, "L2", predictor="knn")
pages.say(c.reading())
pages.show_table(chapter, noise, "noise", keep="drug noise", digits=2,
                 caption="Effects beside their experimental error (L2), and correlation of two halves of the plates.")

# %% [markdown]
# ## The answer

# %% tags=["hide-input"]
pages.say(c.answer(data.title))
pages.take_home(chapter, drugs.one_line(c, noise, data), c.verdict_said(data.title))
pages.show_table(chapter, c.ranking(), "ranking", keep=c.columns(), bold="with_best",
                 caption="All cell lines. Bold: the best, and what cannot be told apart from it.")

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Error of every drug embedding with k nearest neighbours, one panel per cell line. Box: quartiles and range over folds; points: folds. Dashed lines: Train Mean (grey), the best embedding (its colour) and, where it was measured, the experimental error (orange), all medians over folds. Best at the top. Download: [figure](figures/small_molecules/ranking.svg), [numbers](tables/small_molecules/ranking-data.csv).", "name": "fig-drugs"}, "image": {"alt": "Box plots of the prediction error of each drug embedding in each cell line, sorted from best at the top to worst at the bottom, with dashed lines for Train Mean, the best embedding and the experimental error."}}
nearest = c.scores
boxes = figures.box_by_method(nearest, "L2")
pages.show_figure(chapter, boxes, "ranking", nearest[nearest["metric"] == "L2"])

# %% [markdown]
# **How to read it.** Distance to the left of the grey line is what an embedding adds to the mean of all training
# drugs. Where boxes of structure, targets, random numbers and shuffled vectors overlap, the data cannot
# rank them. *Idealized* embeddings know the responses themselves: how far they go shows that the predictor
# works, and that it is the knowledge that is missing.
#
# The interval is over folds and allows for their overlapping training sets (Nadeau and Bengio); *p* compares
# with the best, fold by fold, adjusted for the number of comparisons (Holm).

# %% tags=["hide-input"]
pages.show_table(chapter, c.neighbours(), "neighbours", keep="neighbours",
                 caption="Each embedding against the next in the ranking, over all cell lines.")

# %% [markdown]
# ## Does the predictor matter?

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The same with lasso. A lasso that finds nothing sets all weights to zero and predicts the Train Mean: boxes that coincide with it. Download: [figure](figures/small_molecules/ranking-lasso.svg), [numbers](tables/small_molecules/ranking-lasso-data.csv).", "name": "fig-drugs-lasso"}, "image": {"alt": "Box plots of the prediction error of each drug embedding in each cell line with lasso; many coincide with the Train Mean."}}
second = Comparison(scores, "L2", predictor=models[1].name).scores
other = figures.box_by_method(second, "L2")
pages.show_figure(chapter, other, "ranking-lasso", second[second["metric"] == "L2"])

# %% tags=["hide-input"]
pages.say(predictor_agreement(scores, "L2", "knn", models[1].name))
for name in also:
    limit = study.ceiling(name, n_outer=n_outer, n_inner=n_inner)
    more = Comparison(study.evaluate(name, models, protocol=protocol, ceiling=limit, seed=seed), "L2", predictor="knn")
    pages.say(more.answer(study.dataset(name).title))
    pages.show_table(chapter, more.ranking(), f"ranking-{name}", keep=more.columns(), bold="with_best",
                     caption=f"{study.dataset(name).title}, all cell lines, k nearest neighbours.")

# %% [markdown]
# ## The molecules themselves
#
# A name is not a molecule. Tables of drugs mix salts and free bases, leave stereo-chemistry out, and give two names to
# one substance. Each SMILES was read by rdkit and written in its canonical form; what is doubtful is
# listed here and was left as it is.

# %% tags=["hide-input"]
drugs.show_molecules(chapter, data)

# %% [markdown]
# ## What the paper found
#
# Cole et al., Figures S8 and S9: Sci-Plex, k nearest neighbours and lasso, the authors' own numbers. Their
# experimental error was computed on data that were normalised differently from the responses (genes were
# filtered before, not after), so that the two are not on one scale. Figures S5 and S6 (Tahoe-100M) are drawn where
# the two files that they need are at hand; what can be read off their images stands among the [claims](claims.ipynb).

# %% tags=["hide-input"]
present(chapter, pc.load_published(), "S5", "S6", "S8", "S9")

# %% [markdown]
# ## What would change the answer
#
# More drugs that share targets with others; doses at which they act; only drugs whose effect can be told from
# noise. Other k or components, other targets, a language model's vectors of the same molecules
# (`builder: smiles_transformer` with a model folder, or `builder: file` with your own table, `identifier: drug`):
#
# ```bash
# make run CHAPTER=small_molecules ARGS="-p k '[3, 5, 10]' -p n_components 20"
# ```
#
# Parameters: `dataset`, `also`, `k`, `alpha` (lasso), `n_components`, `n_outer` and `n_inner` (experimental error),
# `seed`, `n_jobs`.
