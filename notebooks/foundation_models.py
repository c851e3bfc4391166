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
#       title: "Do foundation models add anything?"
#       figure: gain
#       alt: "Small version of what each foundation model adds to all other knowledge"
# ---

# %% [markdown]
# # Do foundation models add anything?
#
# Networks of interactions, gene sets and expression are knowledge that people collected for this very
# purpose. A foundation model was trained at large on something else: on texts, or on the sequences of proteins. Cole
# et al. {cite}`cole2026` report that such models improve the prediction of responses. Here the question is put in
# the way that is hardest to please: what does a model add to *all that is known without it*, under the same
# predictor, on the same folds? And is it the model that helps, or the text or sequence that it reads? A plain count of
# the words or residues of the same text or sequence, its *control*, tells the two apart.

# %% tags=["parameters"]
profile: str = "demo"
dataset: str = "simulated"
foundation: list[str] = ["Description", "Sequence"]
controls: dict = {}
network: str = "Interactome"
k: list[int] = [5, 10, 20, 40]
n_components: int = 50
inner_folds: int = 5
seed: int = 0
n_jobs: int = 2

# %% tags=["hide-input"]
import perturbcore as pc
from perturbcore.report import figures, pages
from perturbcore.report import foundation as page
from perturbcore.report.fusion.page import by_line_text

chapter = pc.open_chapter("foundation_models")
study = pc.Study(chapter, n_jobs)

# %% [markdown]
# ## Data and methods
#
# - **Language model**: the summary that NCBI Gene gives of a gene, read by a sentence model
#   (all-MiniLM-L6-v2 {cite}`reimers2019,wang2020`, mean over tokens), which is the recipe of GenePT {cite}`chen2024` with
#   an open model; and by static token vectors (wordllama {cite}`miller2024`), where a word has one vector whatever
#   stands beside it. Control: counts of words and pairs of words in the same summaries.
# - **Protein model**: UniRep {cite}`alley2019,krause2016`, with 64 and with 256 units, mean over the residues of a gene's proteins.
#   Control: counts of three residues in a row in the same sequences.
# - **All knowledge**: every other source of the profile but negative controls.
# - **Predictor**: the kernel method of the [chapter on fusion](fusion) that suits the task, the mixed model for labels and multi-kernel
#   ridge for log fold-changes. How much a source counts is learnt on training perturbations, so that a useless one is
#   turned down.
#
# These are small, and old for what they are. Larger models (ESM-2, ProtT5, embeddings of GPT) are read by the same
# builders from a folder: `model: path/to/folder`.

# %% tags=["hide-input"]
options = dict(k=k, n_components=n_components, inner_folds=inner_folds, seed=seed)
f = page.score_foundation(study, dataset, foundation=foundation, controls=controls, **options)
pages.say(page.setting(f))
pages.show_coverage(chapter, study.coverage(dataset), caption="Share of the perturbations that each source has a vector for.")
pages.show_leaks(chapter, study.leaks(dataset))

# %% [markdown]
# ## The answer

# %% tags=["hide-input"]
pages.say(page.answer(f))
pages.take_home(chapter, page.one_line(f), f.every.verdict_said(f.data.title, f.gains))

# %% tags=["hide-input"] mystnb={"figure": {"caption": "What each model, and each plain count, adds to all other knowledge under the same predictor, in every cell line (grey) and over all (blue), with 95 % intervals over folds. Right of zero is better. Download: [figure](figures/foundation_models/gain.svg), [numbers](tables/foundation_models/gain-data.csv).", "name": "fig-foundation-gain"}, "image": {"alt": "Dot plot with intervals: what each foundation model and each control adds to all other knowledge, one row per addition, one small marker per cell line and a large one for all, with a line at zero."}}
label = f"Gain over all knowledge ({f.every.label})"
gain = figures.gain_plot(f.lines, f.gains, reference=page.BASE, label=label)
pages.show_figure(chapter, gain, "gain", f.lines)

# %% tags=["hide-input"]
pages.show_table(chapter, f.gains, "gains", keep="gains",
                 caption="All knowledge and one more source, against all knowledge. Interval over folds.")
pages.show_table(chapter, by_line_text(f.lines, f.gains, page.BASE), "by-line",
                 caption="Line by line: the score, and its gain over all knowledge (95 % interval over folds).")

# %% [markdown]
# A positive gain is better, whatever the score. The interval allows for the overlap of training sets (Nadeau and Bengio); *p* is adjusted for the number of
# comparisons (Holm): *tie* means that so many comparisons would show such a difference by chance.
#
# ## Each alone, against a plain count of the same

# %% tags=["hide-input"]
if len(f.alone):
    pages.show_table(chapter, f.alone, "alone", keep="alone",
                     caption="One source alone by nearest neighbours and by the predictor of the fusion, against the plain count of "
                     "the same text or sequence under the same predictor.")
pages.show_table(chapter, f.every.ranking(), "ranking", keep="ranking", bold="with_best",
                 caption="All of them, with floor and ceiling. Bold: the best, and what cannot be told apart from it.")

# %% [markdown]
# ## Do they help where little is known?
#
# A gene that nobody has studied has no edges and no gene sets, but it has a sequence. There a foundation model
# should be worth most. Each perturbation is scored by itself (of labels: the share of its comparisons with other
# perturbations of the fold, gene by gene, that are ranked rightly), and perturbations are grouped by what is known of them.

# %% tags=["hide-input"]
groups = page.by_knowledge(f, network)
chapter.save_table(groups, "by-knowledge-data")
pages.say(page.knowledge_said(f, groups))
heads = {"group": "Genes", "n": "Perturbations", "base": page.BASE, **{name: name for name in f.added}}
pages.show_table(chapter, page.knowledge_table(groups), "by-knowledge", keep=heads,
                 caption="Mean score of the perturbations of each group with all knowledge, and what each source adds to it (95 % "
                 "interval over folds).")

# %% [markdown]
# A summary is itself knowledge: it is short, or missing, where little is known, so that a model of
# texts cannot be expected to know more of an unstudied gene than its summary says.
#
# ## What would change the answer
#
# Larger models, texts that say more than a summary does, models of cells, a screen of genes that are less studied than essential
# ones are. To try a model of your own, put its folder into the profile:
#
# ```yaml
# embeddings:
#   - {name: ESM-2, builder: protein_model, source: human_sequences, model: path/to/esm2, genes: perturbed, optional: true}
# ```
#
# ```bash
# make run CHAPTER=foundation_models PROFILE=my.yml ARGS="-p foundation '[ESM-2]'"
# ```
