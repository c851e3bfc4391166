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
#       title: "Do many embeddings together beat the best one?"
#       figure: gain
#       alt: "Small version of the gain of each fusion over the best single embedding"
# ---

# %% [markdown]
# # Do many embeddings together beat the best one?
#
# A network of interactions, a list of pathways, a sentence from a database and an expression profile say
# different things of a gene. If they complement each other, a model that reads all of them should predict
# better than the best of them. Cole et al. {cite}`cole2026` fused 29 embeddings by attention and report
# their best results with it. A transformer is not the only way to do so, and it is the dearest: this
# chapter sets it beside plain ones.

# %% tags=["parameters"]
profile: str = "demo"
dataset: str = "simulated"
transformers: dict = {"Simple fusion": {"preset": "lfc_simple"}, "Full fusion": {"preset": "lfc_full"}}
leaderboard_transformers: dict = {}
sets: dict = {}  # name -> sources that every predictor also gets alone
set_transformers: list[str] = []  # transformers that do, too: each set is a training per fold
k: list[int] = [5, 10, 20, 40]
n_components: int = 50
inner_folds: int = 5
greedy_folds: list[int] = [0]
folds_looked_at: list[int] = []  # in which settings were chosen
n_outer: int = 10
n_inner: int = 10
seed: int = 0
n_jobs: int = 2

# %% tags=["hide-input"]
import perturbcore as pc
from perturbcore.models.fusion.choice import kept_ablation
from perturbcore.report import figures, leaderboard, pages
from perturbcore.report.fusion import page
from perturbcore.report.fusion.scores import score_fusions
from perturbcore.report.published.draw import present

chapter = pc.open_chapter("fusion")
study = pc.Study(chapter, n_jobs)

# %% [markdown]
# ## Data and methods
#
# Every fusion sees the same sources, each standardised and reduced by PCA on the training perturbations,
# and the same folds; a perturbation is in the same fold in every line. What is tuned is tuned on inner
# folds of the training part.
#
# - **Concatenation + PCA**, then kNN; **Averaged kNN**: one kNN per source, predictions averaged;
#   **Stacking**: models of single sources, weighted by non-negative least squares on
#   inner folds {cite}`breiman1996`.
# - **Multi-kernel ridge** (log fold-changes): one cosine kernel per source; how far the kernels are bent,
#   weights and penalty by exact leave-one-out error {cite}`golub1979`. **Kernel sum smoother** (labels): the known labels of
#   similar perturbations, weighted by a power of the summed kernels, where a source counts by how good it
#   is alone. **Kernel mixed model** (labels): the same kernels in a Gaussian model {cite}`rasmussen2006` of all
#   labelled pairs at once. It tells what is particular to a gene from what a perturbation does to all genes, and what
#   similar perturbations share from what is a perturbation's own; some of the smoother is added.
# - **Transformers**: each source is a token, with attention over those that a gene has. *Simple* and *Full* are the
#   published models; where the profile sets smaller widths or other rates, the parameters show it. For
#   labels known only in part there is no published one; ours adds attention to the known labels of
#   training perturbations.
# - **Fewer sources under the same predictors**: the sets that the profile names, and one source, chosen in
#   each fold on training perturbations (*Best source*). What a fusion gains over it comes from fusing; what it
#   gains over kNN comes from the predictor. Under *any predictor*, source and predictor are both chosen on
#   inner folds. Transformers take part in the sets where the profile says so, and are no candidates for *any
#   predictor*: each inner fold would be a training of its own.

# %% tags=["hide-input"]
options = dict(k=k, n_components=n_components, inner_folds=inner_folds, n_outer=n_outer, n_inner=n_inner, seed=seed)
f = score_fusions(study, dataset, transformers=transformers, sets=sets, set_transformers=set_transformers, **options)
pages.say(page.setting(f))
pages.show_coverage(chapter, study.coverage(dataset), caption="Share of the perturbations that each source has a vector for.")
pages.show_leaks(chapter, study.leaks(dataset))

# %% [markdown]
# ## The answer

# %% tags=["hide-input"]
singles = leaderboard.ours(study, dataset, knn=k) if f.pairs else f.scores.iloc[:0]
fused = leaderboard.fused(study, f, k=k, inner_folds=inner_folds, transformers=leaderboard_transformers)
pages.show_table(chapter, page.cells_text(f), "predictors",
                 caption=f"{f.every.label} of every predictor with fewer and with all sources, with 95 % intervals over folds.")
pages.say(page.answer(f, folds_looked_at))
pages.take_home(chapter, page.one_line(f, leaderboard.record(fused)), f.every.verdict_said(f.data.title, f.gains))

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Fusions, the best single sources, floors and ceilings, one panel per cell line. Box: quartiles and range over folds; points: folds. Dashed lines: Train Mean, the best single source of the line and, where it was measured, the experimental error. Best at the top. Download: [figure](figures/fusion/fusion.svg), [numbers](tables/fusion/fusion-data.csv).", "name": "fig-fusion"}, "image": {"alt": "Box plots of the score of each fusion and of the best single sources in each cell line, sorted from best at the top to worst at the bottom, with Train Mean and ceiling."}}
c = f.shown
boxes = figures.box_by_method(c.scores, c.metric)
pages.show_figure(chapter, boxes, "fusion", c.scores)

# %% [markdown]
# **How to read it.** A row of the table is a predictor, a column what it is given. Down a column one reads what a
# predictor adds, along a row what fusing adds. A fusion is held against the best single source under the *same*
# predictor, and under *any* predictor, not against the Train Mean; source and predictor are chosen in each fold
# on training perturbations. Several encodings of one network are not several sources of knowledge.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "What each fusion gains over the best single source, in every cell line (grey) and over all (blue), with 95 % intervals over folds. Right of zero is better. Download: [figure](figures/fusion/gain.svg), [numbers](tables/fusion/gain-data.csv).", "name": "fig-fusion-gain"}, "image": {"alt": "Dot plot with intervals: the gain of each fusion over the best single source, one row per fusion, one small marker per cell line and a large one for all, with a line at zero."}}
label = f"Gain over the best single source ({c.label})"
gain = figures.gain_plot(f.lines, f.gains, reference=f.best_single, label=label)
pages.show_figure(chapter, gain, "gain", f.lines)

# %% tags=["hide-input"]
pages.show_table(chapter, f.gains, "gains", keep="gains",
                 caption="Each fusion against the best single source under any predictor, chosen in training; all cell lines.")
pages.show_table(chapter, f.parts, "parts", keep="parts",
                 caption="What each predictor adds to one source, and what all sources add to fewer (p adjusted over the table).")
pages.show_table(chapter, page.by_line_text(f.lines, f.gains, f.best_single), "by-line",
                 caption="Line by line: the score, and its gain over the best single source (95 % interval over folds).")
pages.show_table(chapter, c.ranking(), "ranking", keep="ranking", bold="with_best",
                 caption="With floor and ceiling. Bold: the best, and what cannot be told apart from it.")

# %% [markdown]
# The interval allows for the overlap of training sets (Nadeau and Bengio); *p* is adjusted for the number of
# comparisons (Holm): *tie* means that so many comparisons would show such a difference by chance.
#
# ## What fusion learnt, and what each source adds

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Score of the summed kernels (equal weights) against the number of sources; in each line, the next source is the one that helps most on training perturbations. Blue: the mean of the cell lines. Download: [figure](figures/fusion/growth.svg), [numbers](tables/fusion/growth-data.csv).", "name": "fig-growth"}, "image": {"alt": "Line plot of the prediction score against the number of fused sources, one line per cell line and their mean."}}
ablation = kept_ablation(study.profile.results / "ablations", f.data.responses, f.sources, greedy_folds=greedy_folds,
                         n_components=n_components, inner_folds=inner_folds)
curve = page.growth(ablation)
if len(curve):
    pages.show_figure(chapter, page.growth_figure(curve, c.label), "growth", curve)

# %% tags=["hide-input"]
alone = page.ablation_table(ablation, c.higher_is_better)
pages.say(page.growth_said(f, curve, alone))
pages.show_table(chapter, alone, "ablation", keep="ablation",
                 caption="Summed kernels with one source alone, with all but it, and with all.")
pages.show_table(chapter, page.learnt(f), "weights",
                 caption="Share of each source in the fusions that weigh them (attention, for transformers).")

# %% [markdown]
# ## On a split and metric that others made
#
# The [leaderboard](leaderboard.ipynb) of Wu et al. {cite}`wu2025`: the authors' own test perturbations. Every fusion
# is fitted and tuned on the training split alone. The test split was scored several times while methods changed
# (see below), so that these values are flattered a little.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "PerturbQA, task de: AUROC per gene on the authors' test split; fusions, the best single sources and the published methods. Dashed: a guess. Download: [figure](figures/fusion/board.svg), [numbers](tables/fusion/board-data.csv).", "name": "fig-fusion-board"}, "image": {"alt": "Dot plot of the AUROC of fusions, single sources and published methods in four cell lines on the authors' test split."}}
screens = list(leaderboard.LINES.values())
de = leaderboard.combined(singles, fused, "de")
pages.show_figure(chapter, figures.dot_plot(de, screens, name="method", group="origin", xlabel="AUROC per gene"), "board", de)

# %% tags=["hide-input"]
pages.say(leaderboard.verdict(fused, singles))
direction = leaderboard.combined(singles, fused, "dir")
pages.show_table(chapter, de, "board-de", keep=leaderboard.heads(de), caption="Task de. Floor: a guess, 0.5; ceiling: 1.")
pages.show_table(chapter, direction, "board-dir", keep=leaderboard.heads(direction), caption="Task dir. Floor: a guess, 0.5.")

# %% [markdown]
# What was tried before: about 220 settings of smoothers and mixed models, all compared on inner folds of
# the authors' training split. Two variances of the mixed model and three shares of the smoother were left
# to choose from. That the smoother should have a share was asked after the authors' test split had been
# scored without it, and decided on inner folds. The settings of the transformer for labels were chosen with
# one fold of these four screens in view, whose labels are the same experiments as the authors' test split:
# its score here is flattered a little. The folds above overlap with what all were designed on. It is
# trained with one seed; on `dir`, where labels are few, another `seed` among its settings moves it by more than the
# distance between neighbours of the table (`members` averages several trainings).
#
# ## What the paper found

# %% tags=["hide-input"]
present(chapter, pc.load_published(), "5")

# %% [markdown]
# ## What would change the answer
#
# More epochs and members for the transformers, sources that say something new, other screens. `trials` lets a
# transformer search its settings in each fold, on training perturbations alone {cite}`akiba2019`; `space` says which
# (depth, learning rate and style of the cell line as published, by default). A search and a training go on
# where they were killed, and a finished one is not repeated.
#
# ```bash
# make run CHAPTER=fusion ARGS="-p seed 1 -p transformers '{\"Simple fusion\": {\"preset\": \"lfc_simple\"}}'"
# make run CHAPTER=fusion ARGS="-p transformers '{\"Simple fusion\": {\"preset\": \"lfc_simple\", \"trials\": 20}}'"
# ```
