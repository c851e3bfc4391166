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
#     after: [embedding_ranking]
#     card:
#       title: "Can the functions of a gene's response be predicted?"
#       figure: scores
#       alt: "Small version of the box plots of macro F1 of functions by embedding"
# ---

# %% [markdown]
# # Can the functions of a gene's response be predicted?
#
# A list of a thousand log fold-changes is not what a biologist asks for. Hasanaj et al.
# {cite}`hasanaj2025` asked for less: *which functions* does a perturbation touch? The genes that respond are
# tested for [over-representation](term-over-representation) of gene sets; the sets that are found are the labels of the
# perturbation, and a logistic regression predicts them from the embedding of the perturbed gene. They found that
# the embeddings which predict expression best also predict functions best.
#
# There is a trap in this. An embedding that was made of Gene Ontology is asked for Gene Ontology terms. Where the
# perturbed gene is among its own responding genes, or where one shared gene is enough for a label, its own annotation
# *is* the label. This chapter shows the published recipe, and beside it what is left of each score when such labels
# are taken away.

# %% tags=["parameters"]
profile: str = "demo"
dataset: str = "simulated_functions"
ways: dict = {"As published": {"source": "planted"}}
made_of_sets: list[str] = []
compared: list[str] = ["Annotation", "Interactome"]
unweighted: list[str] = ["Annotation"]
n_components: int = 100
common: bool = False  # only perturbations that all embeddings have
seed: int = 0
n_jobs: int = 2

# %% tags=["hide-input"]
import perturbcore as pc
from perturbcore.report import figures, pages
from perturbcore.report import functions as page

chapter = pc.open_chapter("gene_functions")
study = pc.Study(chapter, n_jobs)

# %% tags=["hide-input"]
options = dict(compared=compared, unweighted=unweighted, n_components=n_components, common=common, seed=seed)
f = page.score_functions(study, dataset, ways, **options)
pages.say(page.setting(f))

# %% [markdown]
# ## The answer

# %% tags=["hide-input"]
pages.say(f.main.answer(f.data.title))
pages.say(page.leak_said(f, made_of_sets))
pages.take_home(chapter, page.one_line(f, made_of_sets))

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Macro F1 over functions of every embedding, labels as published. Box: quartiles and range over five folds; points: folds. Dashed: Train Mean (every function called), best embedding, medians over folds. Download: [figure](figures/gene_functions/scores.svg), [numbers](tables/gene_functions/scores-data.csv).", "name": "fig-gene-functions"}, "image": {"alt": "Box plots of the macro F1 of functions, one row per embedding, with the floor as a dashed line."}}
boxes = figures.box_by_method(f.main.scores, f.main.metric)
pages.show_figure(chapter, boxes, "scores", f.main.scores)

# %% tags=["hide-input"]
pages.show_table(chapter, f.main.ranking(), "ranking", keep=f.main.columns(), bold="with_best",
                 caption="Labels as published. Bold: the best, and what cannot be told apart from it; controls do not compete.")

# %% [markdown]
# The floor knows no gene: a learner that weighs both classes alike and knows nothing calls every function of every
# gene, which gives $2r/(1+r)$ for a function that a share $r$ of the perturbations has. To call by frequency instead
# (*Class frequencies*) gives 0, since every function is rare. The ceiling is the same classifier on the labels
# themselves, compressed. *Logistic, unweighted* is the classifier as the published appendix has it, without class
# weights: it calls rare functions rarely.
#
# ## How much of it is a leak?

# %% tags=["hide-input"]
for metric, name in {"function_f1": "macro F1", "function_auroc": "AUROC"}.items():
    gains = page.gains_by_way(f, metric)
    pages.show_table(chapter, page.wide_gains(gains, compared), f"by-labels-{metric}",
                     caption=f"Gain in {name} over the Train Mean (its score: second column) under each way of labelling, "
                     "with 95 % intervals over folds.")
pages.show_table(chapter, page.facts(f), "facts", keep="ways of labelling",
                 caption="What each way of labelling leaves.")

# %% [markdown]
# - *Target left out*: the perturbed gene does not count among the genes that respond to it.
# - *Two shared genes*: a list must share at least two genes with a set, so that no single gene decides.
# - *Experimental evidence*: annotation by experiment only. Terms that were assigned by sequence similarity, by text or by a
#   curator's inference cannot come back from an embedding that was made of the same.
#
# An embedding that knows the biology should gain under each of them. One that only knows the labels' own table should not.
#
# ## Do embeddings of one kind fail on the same genes?
#
# Each perturbed gene has an error under each embedding. Taken relative to other embeddings, these errors are a profile; if
# embeddings of one modality read the same biology, they are wrong about the same genes.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Error of each perturbed gene (columns) under each embedding (rows) with k nearest neighbours, z-scored within the gene: blue is better than other embeddings, red is worse. After Hasanaj et al. 2025, Fig. 3. Download: [figure](figures/gene_functions/errors.svg), [numbers](tables/gene_functions/errors-data.csv).", "name": "fig-error-profiles"}, "image": {"alt": "Clustered heat map of relative errors, embeddings as rows and perturbed genes as columns, in blue and red."}}
profiles, about = page.error_profiles(study, "embedding_ranking")
if len(profiles):
    drawn = figures.error_clusters(profiles, about["modality"], label="relative error")
    pages.show_figure(chapter, drawn, "errors", profiles.reset_index())

# %% tags=["hide-input"]
pages.say(page.clusters_said(profiles, about.get("modality")))

# %% [markdown]
# ## Beside the paper

# %% tags=["hide-input"]
pages.show_table(chapter, page.beside_published(f), "published",
                 caption="Design and answer of Hasanaj et al., and here. Their scores of functions are only drawn (Fig. 4), and no table of them is public.")

# %% [markdown]
# The paper says *gene set enrichment analysis* of genes that pass a threshold. A list that is already cut has no ranks, and
# labels of 0 and 1 by an adjusted *p* are what over-representation gives, so that is what is done here. Labels that are known
# for some genes only (PerturbQA) must not be used for it: a list of the known ones is no list of what responds.
#
# ## What would change the answer
#
# Longer lists of responding genes: where a list has ten genes, a label rests on one or two of them. Measured rather than
# inferred readouts. Another library of gene sets.
#
# ```bash
# make run CHAPTER=gene_functions ARGS="-p common true"
# ```
