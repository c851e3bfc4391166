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
#       title: "Which genes will a drug turn up or down?"
#       figure: ranking
#       alt: "Small version of the box plots of F1 by drug embedding"
# ---

# %% [markdown]
# # Which genes does a drug move?
#
# The size of a change is hard to measure; whether a gene goes up, goes down or stays is easier, and often
# enough. Cole et al. {cite}`cole2026` therefore also asked of each gene only that: [differentially
# expressed](term-deg) up, down, or not (Figures S4, S7 and S10). This chapter asks it of drugs, in the data of
# this build, and of genes for comparison: three classes, thousands of genes, and some hundred drugs to learn from.
#
# It is hard in its own way. Most labels are 0, so that a predictor that always says 0 is nearly always right;
# the score must count rare classes as much as the frequent one, and then rewards a predictor for calling rare
# classes at all, right or wrong. And a label is a test that was passed: few cells, few labels.

# %% tags=["parameters"]
profile: str = "demo"
datasets: list[str] = ["simulated_drugs_deg"]
by_line: list[str] = ["simulated_drugs_deg"]  # one panel per cell line, beside the mean
embeddings: list[str] = []  # of drugs; all by default
genes: dict = {"simulated_deg": ["Interactome", "Annotation"]}  # genetic data set -> embeddings; empty: all
k: list[int] = [3, 5, 10, 20]
C: list[float] = [1.0, 1000.0, 100000.0, 10000000.0]
C_of: dict = {}  # C of single data sets
max_iter: int = 100
transformers: dict = {}  # data set -> fusion transformer -> preset and settings
n_components: int = 100
trials: list[int] = [3, 3, 20]  # experimental error: plates, cells within them; pooled labels
seed: int = 0
n_jobs: int = 2

# %% tags=["hide-input"]
import perturbcore as pc
from perturbcore.report import figures, labels, pages
from perturbcore.report.comparison import predictor_agreement
from perturbcore.report.published.draw import present
from perturbcore.score.metrics.registry import metric

chapter = pc.open_chapter("chemical_deg")
study = pc.Study(chapter, n_jobs)
fit = dict(k=k, C=C, C_of=C_of, max_iter=max_iter, n_components=n_components, transformers=transformers, seed=seed)
noise = dict(zip(("n_outer", "n_inner", "n_trials"), trials, strict=True))

# %% [markdown]
# ## Data and methods
#
# Where there are cells, labels are made as published: for each drug and plate a t-test of every gene against the
# vehicle cells *of the same plate*, a false discovery rate of 5 %, and a majority vote of the plates. Where
# there are only ranked genes (Tahoe-100M and Sci-Plex as public signatures), the top and the bottom genes of each
# ranking are labelled, and nothing else can be said. Models are one a cell line; folds are by drug and the same
# in all lines. **Nothing is scored from one line to another**: Tahoe's lines were pooled in each well, so that the
# same drug agrees with itself across lines also where it does nothing.
#
# The classifier is the published one: a linear softmax per gene, class-balanced, fitted by L-BFGS to all genes at
# once, on the principal components of an embedding. Floors are the class frequencies of the training drugs (the
# Train Mean of this task), the most frequent class, no change, and random vectors.
#
# *Fusions* give all embeddings to one transformer over all cell lines; each learns from the training drugs alone and stops by some of
# them. The simple one has the published settings for labels; the full one (gates, sources read back, a deeper head) was published
# for log fold-changes only.

# %% tags=["hide-input"]
parts, absent = labels.evaluate_labels(study, datasets, embeddings=embeddings, **fit, **noise)
pages.say(labels.absent_said(parts, absent))
for name, part in parts.items():
    pages.show_table(chapter, part.data.card, f"data-{name}", caption=f"{part.data.title}: what is in it, step by step.")
    pages.show_table(chapter, labels.label_counts(part), f"labels-{name}", keep="labels",
                     caption=f"{part.title}: labels by cell line.")
pages.show_leaks(chapter, study.leaks(*parts))

# %% [markdown]
# ## The answer

# %% tags=["hide-input"]
for name, part in parts.items():
    pages.say(labels.finding(part.comparison("f1_score"), part.title))
    pages.show_table(chapter, labels.families(part.comparison("f1_score")), f"families-{name}", keep="families",
                     caption=f"{part.title}: embeddings by family, mean over cell lines.")
    pages.say(labels.fused_said(part, transformers.get(name, {})))
verdicts = [p.comparison("f1_score").verdict_said(p.title) for p in parts.values()]
pages.take_home(chapter, labels.one_line(parts, "f1_score"), *verdicts)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Macro F1 of every drug embedding with the logistic classifier. Panels: cell lines, and the mean over the lines within each fold. Box: quartiles and range over folds; points: folds. Dashed lines: Train Mean (grey), the best embedding (its colour) and, where there are cells, noise floor and experimental error (orange), all medians over folds. Best at the top. Download: [figure](figures/chemical_deg/ranking.svg), [numbers](tables/chemical_deg/ranking-data.csv).", "name": "fig-deg"}, "image": {"alt": "Box plots of macro F1 of each drug embedding, one panel per cell line and one for the mean of the lines, sorted from best at the top to worst at the bottom, with dashed lines for Train Mean, the best embedding, the noise floor and the experimental error."}}
everything = labels.panels(parts, by_line)
main = everything[everything["predictor"].isin([labels.MAIN, "transformer"]) | everything["embedding"].eq("")]
boxes = figures.box_by_method(main, "f1_score")
pages.show_figure(chapter, boxes, "ranking", main[main["metric"] == "f1_score"])

# %% [markdown]
# **How to read it.** F1 is averaged over the classes that a gene has among the test drugs, then over genes, so that a
# gene that never moves gives 1 to who says so. *Random* is a floor of its own: whatever it gains or loses
# against the Train Mean is due to calling rare classes, not to knowing drugs. *Idealized* vectors are made of the labels, those
# to be predicted included: the end of the gap. Where there are cells, the *noise floor* is what the true effects would score
# against these labels; it stands beside, since its nearness to the truth is known for effects on such screens, not for labels. Interval and *p* are over folds and allow for overlapping training sets
# (Nadeau and Bengio), adjusted for the number of comparisons (Holm).

# %% tags=["hide-input"]
for name, part in parts.items():
    c = part.comparison("f1_score")
    pages.say(labels.reading(c, part.title))
    ranked = c.ranking()
    ranked["beats_both"] = ranked["method"].isin(labels.beats_floors(c)[0])
    pages.show_table(chapter, ranked, f"ranking-{name}", keep="ranking", bold="with_best",
                     caption=f"{part.title}, all cell lines. Bold: the best, and what cannot be told apart from it.")

# %% [markdown]
# ## Are the labels right, and does the predictor matter?

# %% tags=["hide-input"]
for name, part in parts.items():
    pages.say(labels.truth_said(part))
    pages.say(f"{part.title}. {predictor_agreement(part.scores, 'f1_score', 'knn', labels.MAIN)}")
    pages.show_table(chapter, labels.by_line(part, "f1_score"), f"lines-{name}", keep="labels by line",
                     caption=f"{part.title}: macro F1 by cell line and over them, both predictors.")

# %% [markdown]
# ## The same question for genes
#
# Genes knocked down, or over-expressed, instead of drugs, a few embeddings of genes, the same classifier. Complete labels come from
# cells, all perturbed against all control cells, or from consensus signatures of replicates (LINCS over-expressions
# {cite}`subramanian2017`: the genes that moved significantly, all cell lines taken together). Where only some labels are known (the
# Essential screens of PerturbQA {cite}`wu2025`: differentially expressed or not), each gene's classifier learns from those that are.

# %% tags=["hide-input"]
gene_parts, gone = labels.evaluate_labels(study, list(genes), embeddings=genes, **fit, **noise)
pages.say(labels.absent_said(gene_parts, gone))
for name, part in gene_parts.items():
    c = part.comparison()
    score = c.metric
    pages.show_table(chapter, labels.label_counts(part), f"labels-{name}", keep="labels",
                     caption=f"{part.title}: labels by cell line.")
    pages.say(labels.finding(c, part.title))
    pages.say(labels.fused_said(part, transformers.get(name, {})))
    pages.say(f"{labels.reading(c, part.title)} {labels.truth_said(part)}")
    pages.show_table(chapter, labels.by_line(part, score), f"lines-{name}", keep="labels by line",
                     caption=f"{part.title}: {metric(score).label} by cell line and over them, both predictors.")

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The same for perturbed genes, with the logistic classifier, on data sets with the leading score of the first. Download: [figure](figures/chemical_deg/genes.svg), [numbers](tables/chemical_deg/genes-data.csv).", "name": "fig-deg-genes"}, "image": {"alt": "Box plots of the classification score of a few gene embeddings and floors, one panel per cell line and one for the mean of the lines."}}
shown = labels.panels(gene_parts or parts, genes)
score = next(iter((gene_parts or parts).values())).comparison().metric
shown = shown[shown["predictor"].isin([labels.MAIN, "transformer"]) | shown["embedding"].eq("")]
boxes = figures.box_by_method(shown, score)
pages.show_figure(chapter, boxes, "genes", shown[shown["metric"] == score])

# %% [markdown]
# ## What the paper found
#
# Cole et al., Figures S7 (Tahoe-100M, mean of 45 cell lines), S10 (Sci-Plex) and S4 (the four Essential lines), the
# authors' own numbers. What differs here: fewer drugs, labels from rankings where there are no cells,
# embeddings built in this book.

# %% tags=["hide-input"]
present(chapter, pc.load_published(), "S7", "S10", "S4")

# %% [markdown]
# ## What would change the answer
#
# More drugs that share targets, more cells per drug and plate (labels are tests), a dose at which drugs act.
# With ranked signatures: another k. With another penalty of the classifier, or one tuned inside the folds:
#
# ```bash
# make run CHAPTER=chemical_deg ARGS="-p C '[1, 1000, 100000]' -p max_iter 100"
# ```
#
# Parameters: `datasets`, `by_line`, `embeddings`, `genes`, `k` (kNN), `C` (one value: not tuned,
# as published for Tahoe) and `C_of` (of single data sets), `max_iter`, `n_components`, `trials` (experimental error:
# draws of plates and of cells within them for labels by plate, draws for pooled labels), `seed`, `n_jobs`.
