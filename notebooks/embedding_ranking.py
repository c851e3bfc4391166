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
#       title: "Which embedding predicts the response?"
#       figure: ranking
#       alt: "Small version of the box plots of scores by embedding"
# ---

# %% [markdown]
# # Which embedding predicts the response?
#
# Knock a gene down, and thousands of others move. Can we say **how a cell will respond to a
# perturbation that nobody has tried in it**, from what is known about the perturbed gene? An
# *embedding* is that knowledge as a vector: a place in a network of interactions, a protein
# sequence, a text. If two genes with near vectors cause near responses, then the response of a new
# gene can be read off its neighbours. Cole et al. {cite}`cole2026` asked which kind of knowledge does
# this best. This chapter asks the same of the data of this build.
#
# It is hard for two reasons. Most perturbations do little or do the *same*: a stressed cell looks
# stressed, whatever stressed it, so that the mean of all training responses
# ([Train Mean](term-train-mean)) is hard to beat. And responses are measured with noise, so that no
# prediction can be perfect: the [noise floor](term-noise-floor) says what the true effects would score.

# %% tags=["parameters"]
profile: str = "demo"
dataset: str = "simulated"
k: list[int] = [20, 40, 60, 80, 100]
alpha: list[float] = [0.001, 0.01, 0.1, 1.0]
n_components: int = 100
n_outer: int = 10
n_inner: int = 10
cca_components: int = 10
stand_ins: dict = {"Interactome GNN": "Interactome node2vec"}
seed: int = 0
n_jobs: int = 2

# %% tags=["hide-input"]
import perturbcore as pc
from perturbcore.embeddings.linalg import cca_matrix
from perturbcore.report import comparison, figures, foundation, pages
from perturbcore.report.published.draw import present

chapter = pc.open_chapter("embedding_ranking")
study = pc.Study(chapter, n_jobs)

# %% [markdown]
# ## Data and methods
#
# Perturbations are split into folds, the same perturbation in the same fold in every cell
# line. For each fold and embedding: standardise, reduce by PCA, predict the held-out perturbations
# from their nearest training perturbations, with the number of neighbours k chosen on inner folds.
# A held-out perturbation without an embedding gets the Train Mean. The
# [protocol](../protocol.md) has every constant.

# %% tags=["hide-input"]
data = study.dataset(dataset)
built = study.embeddings(dataset, seed=seed)
limit = study.ceiling(dataset, n_outer=n_outer, n_inner=n_inner)
protocol = study.protocol(n_components=n_components)
models = study.models(data.task, knn=k, lasso=alpha)
scores = study.evaluate(dataset, models, protocol=protocol, embeddings=built, ceiling=limit, seed=seed)
pages.show_table(chapter, data.card, "data", caption=f"{data.title}: what is in it, step by step.")
pages.show_coverage(chapter, study.coverage(dataset), caption="Share of the perturbations that each embedding has a vector for.")
pages.show_leaks(chapter, study.leaks(dataset))

# %% [markdown]
# ## The answer

# %% tags=["hide-input"]
nearest = comparison.Comparison(scores, predictor="knn")
pages.say(nearest.answer(data.title))
pages.take_home(chapter, nearest.one_line(), nearest.verdict_said(data.title))
pages.show_table(chapter, nearest.ranking(), "ranking", keep=nearest.columns(), bold="with_best",
                 caption="All cell lines, k nearest neighbours. Bold: the best embedding, and those that cannot be told "
                 "apart from it; controls do not compete. Gap closed: (score - Train Mean) / (ceiling - Train Mean).")
pages.show_table(chapter, nearest.neighbours(), "neighbours", keep="neighbours",
                 caption="Each embedding against the next in the ranking, over all cell lines.")
pages.show_table(chapter, nearest.table("gap_closed"), "gap-closed",
                 caption="Share of the way from Train Mean (0) to the ceiling (1), of means over folds.")

# %% [markdown]
# The interval is over folds and allows for their overlapping training sets (Nadeau and Bengio);
# *p* compares with the best embedding and with the Train Mean, fold by fold, adjusted for the number of
# embeddings (Holm). With so few folds, only large differences can be told apart: a missing difference is
# not evidence of equality. A perturbation without a vector gets the Train Mean: where *coverage* is low,
# a score near the Train Mean says little about the embedding.
#
# ## Scores by embedding

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Score of every embedding with k nearest neighbours, one panel per cell line. Box: quartiles and range over folds; points: folds. Dashed lines: Train Mean (grey), the best embedding (its colour) and, where it was measured, the experimental error (orange), all medians over folds. Best at the top. Download: [figure](figures/embedding_ranking/ranking.svg), [numbers](tables/embedding_ranking/ranking-data.csv).", "name": "fig-ranking"}, "image": {"alt": "Box plots of the prediction score of each embedding in each cell line, sorted from best at the top to worst at the bottom, with dashed lines for Train Mean, the best embedding and the experimental error."}}
boxes = figures.box_by_method(nearest.scores, nearest.metric)
pages.show_figure(chapter, boxes, "ranking", nearest.scores, live=True)

# %% [markdown]
# **How to read it.** Distance from the grey line is what an embedding adds to the Train Mean.
# An embedding at the grey line carries no usable information about these responses, like the random
# one. *Idealized* embeddings are computed from the responses themselves, those to be predicted
# included: a ceiling for any embedding.

# %% [markdown]
# ## Ranks
#
# Within each cell line and fold, embeddings are ranked by score. A ranking that holds across lines
# and folds is more convincing than one mean.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Ranks of the embeddings over all cell lines and folds (kNN). Box: quartiles; points: single folds; black bar: mean rank with its 95 % bootstrap interval. Download: [figure](figures/embedding_ranking/ranks.svg), [numbers](tables/embedding_ranking/ranks-data.csv).", "name": "fig-ranks"}, "image": {"alt": "For each embedding, the distribution of its rank over cell lines and folds, with the interval of the mean rank; embeddings sorted from the best median rank at the top to the worst at the bottom."}}
placed = nearest.rank_table()
plot = figures.rank_plot(nearest.ranks(), placed, label=f"Rank of {nearest.label} (1 is best)")
pages.show_figure(chapter, plot, "ranks", placed)

# %% [markdown]
# ## Is training worth it?
#
# A network that is trained on the links or annotations of genes (graph networks; WaveGC {cite}`liu2024wavegc`; GenotypeVAE
# {cite}`yu2025`) can be held against a plain way of turning the same data into vectors: walks, or a factorisation.
# No response takes part in the training.

# %% tags=["hide-input"]
trained = foundation.stand_ins_table(nearest, stand_ins)
if len(trained):
    pages.show_table(chapter, trained, "trained", keep="trained",
                     caption="Trained embeddings against untrained ones of the same data, over all cell lines.")

# %% [markdown]
# ## Which embeddings say the same?
#
# Canonical correlation asks how well one embedding can be predicted from another, gene by gene
# (R² on the first principal components, over the perturbations all of them have). The estimate of
# scikit-learn that the paper uses scales unrelated embeddings so that their R² falls below zero: read
# the order, not the sign; the shuffled embedding shows what nothing in common looks like.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Similarity of embeddings: R² of predicting one from another by canonical correlation analysis, after Cole et al., Fig. 3. Names carry the colour of their modality; order by average-linkage clustering. Download: [figure](figures/embedding_ranking/similarity.svg), [numbers](tables/embedding_ranking/similarity-data.csv).", "name": "fig-cca"}, "image": {"alt": "Clustered heat map of the pairwise similarity of embeddings."}}
line = study.dataset(dataset).responses.obs["cell_line"].iloc[0]
here = [e for e in built if e.cell_line in (None, line)]
similarity = cca_matrix(here, cca_components, cell_line=line)
heat = figures.similarity_map(similarity, {e.name: e.modality for e in here}, label="R² (CCA)")
pages.show_figure(chapter, heat, "similarity", similarity.reset_index())

# %% [markdown]
# ## Does the predictor matter?
#
# The same embeddings through the second predictor of the profile. If the ranking changed with the
# predictor, it would say little about the embeddings.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The same as the first figure with the second predictor (lasso for log fold-changes, a cosine kernel for labels). Download: [figure](figures/embedding_ranking/ranking-second.svg), [numbers](tables/embedding_ranking/ranking-second-data.csv).", "name": "fig-second"}, "image": {"alt": "Box plots of the prediction score of each embedding in each cell line with the second predictor."}}
second = comparison.Comparison(scores, predictor=models[1].name)
other = figures.box_by_method(second.scores, second.metric)
pages.show_figure(chapter, other, "ranking-second", second.scores)

# %% tags=["hide-input"]
pages.say(comparison.predictor_agreement(scores, second.metric, "knn", models[1].name))
shown = {"method": "Method", "median_rank": "Median rank", "mean_rank": "Mean rank", "low": "95 % low", "high": "high"}
pages.show_table(chapter, second.rank_table(), "ranks-second", keep=shown,
                 caption="Ranks with the second predictor: median, mean and its 95 % bootstrap interval.")

# %% [markdown]
# ## Does the metric matter?

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The main metric against the others, one point per cell line, fold and embedding (controls left out); the title gives Spearman's rank correlation. Download: [figure](figures/embedding_ranking/metrics.svg), [numbers](tables/embedding_ranking/metrics-data.csv).", "name": "fig-metrics"}, "image": {"alt": "Scatter plots of the main metric against each other metric, one point per cell line, fold and embedding."}}
embeddings_only = scores[(scores["predictor"] == "knn") & ~scores["modality"].str.endswith("control")]
others = [m for m in scores["metric"].unique() if m != nearest.metric]
agreement = figures.metric_scatter(embeddings_only, nearest.metric, others)
pages.show_figure(chapter, agreement, "metrics", embeddings_only)

# %% [markdown]
# ## What the paper found
#
# Cole et al., Fig. 1: the four Essential cell lines, log fold-changes, the authors' own numbers. What
# differs here: the screen or the labels, the embeddings (built in this book from public sources), the
# folds, and on labels the score.

# %% tags=["hide-input"]
present(chapter, pc.load_published(), "1")

# %% [markdown]
# ## What would change the answer
#
# Other folds (`seed` of the profile's data set), other k or number of components, a screen with more
# cells or more perturbations, an embedding that is not here yet: [add your own](add_your_own).
# To run this chapter with other parameters:
#
# ```bash
# make run CHAPTER=embedding_ranking ARGS="-p k '[5, 10]' -p n_components 20"
# ```
#
# Parameters: `dataset`, `k`, `alpha` (second predictor, where it is lasso), `n_components`, `n_outer`
# and `n_inner` (noise ceiling), `cca_components`, `stand_ins` (trained embedding: one of the same data
# that is not trained), `seed`, `n_jobs`.
