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
#     after: [low_signal]
#     uses: [perturbcore.book.cli]
# ---

# %% [markdown]
# # Run one chapter
#
# Every chapter is a notebook with parameters. It can be run with other values in three ways: by Make, by the
# `perturbcore` command, by plain papermill. All three were run for this page while the book was built, on a screen so
# small that each takes seconds; what stands below a command is what it printed. `mine` is a folder of your own (here: a
# temporary one). A run with other values keeps its tables, figures and scores in a folder of its own, which its page
# names. None of this touches the book.

# %% tags=["parameters"]
profile: str = "demo"
k: list[int] = [3, 6]
n_components: int = 16

# %% tags=["hide-input"]
import pandas as pd

import perturbcore as pc
from perturbcore.core.console import Console
from perturbcore.report import pages

chapter = pc.open_chapter("run_one_chapter")
console = Console()
results = console.mine / "results/tiny"

# %% [markdown]
# ## What there is
#
# Chapters, and the name, type and default of each parameter:

# %% tags=["hide-input"]
console.run("perturbcore chapters")

# %% [markdown]
# ## A profile of your own
#
# A profile is the one file that holds the parameters of a whole run: data sets, embeddings and, under `chapters`, the
# values that differ from a chapter's defaults. This one is a simulated screen of one cell line.

# %% tags=["hide-input"]
console.example("tiny.yml", "tiny.yml")

# %% [markdown]
# The whole book on it would be `make book PROFILE=mine/tiny.yml`. Here, one chapter, with the numbers of neighbours
# and of principal components given on the command line.
#
# ## One: Make
#
# `make run` sets the environment up if need be, and says where the executed notebook is (without `--out`: in the
# folder of the run).

# %% tags=["hide-input"]
values = f"-p k '{k}' -p n_components {n_components}"
given = f'ARGS="{values} --out mine/one.ipynb"'
console.run(f"make run CHAPTER=low_signal PROFILE=mine/tiny.yml {given}")
shown = next(results.glob("runs/low_signal-*/tables/low_signal/ranking.csv"))
first = pd.read_csv(shown)

# %% [markdown]
# ## Two: the `perturbcore` command
#
# The same without Make, once the environment is active. The units of the first run are found in the score store and not
# computed again.

# %% tags=["hide-input"]
console.run(f"perturbcore run low_signal --profile mine/tiny.yml {values} --out mine/two.ipynb")
second = pd.read_csv(shown)

# %% [markdown]
# ## Three: papermill
#
# `perturbcore notebook` (or `make notebooks`, for all) writes the plain `.ipynb`. Any tool that runs notebooks can take
# it from there; Jupyter opens it too. papermill reads the `chapters` section of no profile: what a profile sets there must
# be given by `-p`.

# %% tags=["hide-input"]
console.run("perturbcore notebook low_signal --out mine/plain.ipynb")
plain = "papermill --no-progress-bar mine/plain.ipynb mine/three.ipynb"
console.run(f"{plain} -p profile mine/tiny.yml {values}")
third = pd.read_csv(shown)

# %% tags=["hide-input"]
same = first.equals(second) and second.equals(third)
pages.say(f"The three show the same table: {pages.number(same)}.")
heads = {"method": "Method", "modality": "Modality", "value": "L2", "low": "95 % low", "high": "high"}
pages.show_table(chapter, third, "ranking", caption="Ranking on the tiny screen (simulated).", keep=heads)

# %% [markdown]
# ## What is refused
#
# A name that does not exist, with the names that do:

# %% tags=["hide-input"]
console.run("perturbcore run low_signal --profile mine/tiny.yml -p neighbours 5", fails=True)

# %% [markdown]
# A value of the wrong type, a chapter or a profile that does not exist:

# %% tags=["hide-input"]
console.run("perturbcore run low_signal --profile mine/tiny.yml -p k many", fails=True)
console.run("perturbcore run low_signl", fails=True)
console.run("perturbcore run low_signal --profile mine/huge.yml", fails=True)

# %% [markdown]
# papermill itself takes any name and any type. The chapter checks them all the same, in its first cell, before any work:

# %% tags=["hide-input"]
console.run(f"{plain} -p profile mine/tiny.yml -p neighbours 5", fails=True, last=1)

# %% [markdown]
# ## Where results are
#
# | place | what |
# |---|---|
# | `results/<profile>/scores.parquet` | all scores of the book, one row per metric of a unit |
# | `results/<profile>/tables/<chapter>/` | each table of a chapter as CSV |
# | `results/<profile>/figures/<chapter>/` | each figure as SVG |
# | `results/<profile>/runs/<chapter>-<digest>/` | the same of one run with other values: its `scores.parquet`, `tables`, `figures`, answer, executed notebook and the record of the run |
#
# `PERTURBCORE_RESULTS` names another place than `results`. A profile of another name has a folder of its own.
