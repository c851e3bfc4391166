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
#     uses: [perturbcore.book.cli]
# ---

# %% [markdown]
# # Add your own, in five minutes
#
# Your embedding, your screen, your predictor, your data set, your chapter: each is added here for real, on small files that
# this page writes to a temporary folder (`mine` in the commands). The cells are simulated, so that the page runs
# anywhere; put your files in their place. The commands were run while the book was built.

# %% tags=["parameters"]
profile: str = "demo"
k: list[int] = [3, 5, 10]
n_components: int = 16
seed: int = 0

# %% tags=["hide-input"]
import perturbcore as pc
from perturbcore.core.console import Console
from perturbcore.report import pages

chapter = pc.open_chapter("add_your_own")
console = Console()
simulation = pc.simulate_screen(n_cell_lines=1, n_perturbations=80, n_genes=300, n_batches=4, n_control_cells=300, seed=seed)
cells = simulation.screen.copy()
cells.obs = cells.obs.rename(columns={"perturbation": "gene", "batch": "lane"}).drop(columns=["is_control", "cell_line"])
cells.uns.clear()
cells.write_h5ad(console.mine / "screen.h5ad")

# %% [markdown]
# ## Your screen
#
# A screen is an `.h5ad` file, cells by genes. Say which columns hold what, which label marks the
# [controls](term-control), and whether the matrix holds raw counts or log1p values. `check` reads the file and says what
# it found; `effects` makes [responses](term-response) with [folds](term-fold) of it; `ceiling` estimates the
# [experimental error](term-experimental-error).

# %% tags=["hide-input"]
columns = "--perturbation gene --batch lane --cell-line-value mine --control control --scale counts"
console.run(f"perturbcore check mine/screen.h5ad {columns}")
console.run(f"perturbcore effects mine/screen.h5ad {columns} --out mine/responses.h5ad")
console.run(f"perturbcore ceiling mine/screen.h5ad {columns} --outer 5 --inner 5 --out mine/ceiling.csv", last=1)

# %% [markdown]
# The same in Python, with the functions behind the commands:

# %% tags=["show-input"]
from perturbcore.data.folds import add_folds

meaning = dict(perturbation="gene", batch="lane", control="control", scale="counts")
meaning |= dict(dataset="mine", cell_line=None, cell_line_value="mine")
screen = pc.read_screen(console.mine / "screen.h5ad", **meaning)
responses = add_folds(pc.effects(screen, progress=False))
print(responses.shape, "perturbations x genes")

# %% [markdown]
# ## Your embedding
#
# One row per gene or drug: its id, then the numbers. `.csv`, `.tsv`, `.parquet`, `.npz` (arrays `ids` and `X`) and `.h5ad`
# are read. Ids must be those of the perturbations ([coverage](term-coverage) says how many match). Here: a table of which
# annotation sets a gene is in.

# %% tags=["show-input"]
import pandas as pd

sets = simulation.knowledge.annotation
genes = sorted({gene for members in sets.values() for gene in members})
belongs = {name: [int(g in m) for g in genes] for name, m in sets.items()}
table = pd.DataFrame(belongs, index=genes)
table.to_csv(console.mine / "annotation.csv")
given = "mine/responses.h5ad mine/annotation.csv --ceiling mine/ceiling.csv"
console.run(f"perturbcore evaluate {given} --out mine/scores.csv", last=1)

# %% [markdown]
# `scores.csv` is the table that every figure of this book is drawn from: one row per metric and [unit](term-unit). In Python,
# an embedding is loaded and scored like this, with a random one beside it:

# %% tags=["show-input"]
from perturbcore.embeddings.controls import random_embedding
from perturbcore.models.simple.knn import KNN

protocol = pc.Protocol(n_components=n_components)
mine = pc.load_embedding(console.mine / "annotation.csv", name="My annotation")
random = random_embedding(list(mine.ids), mine.dim, seed)
quiet = dict(protocol=protocol, progress=False)
scores = pc.evaluate(responses, [mine, random], [KNN(k)], **quiet)

# %% tags=["hide-input"]
from perturbcore.embeddings.coverage import coverage_table

covered = coverage_table([mine], responses)
heads = ["embedding", "dim", "n_covered", "n_perturbations", "coverage"]
pages.show_table(chapter, covered, "coverage", caption="What your embedding covers.", keep=heads)

# %% [markdown]
# ## Your predictor
#
# Any scikit-learn regressor that takes several targets. The grid is tuned in inner folds like that of the others; so is
# what stands beside it.

# %% tags=["show-input"]
from sklearn.kernel_ridge import KernelRidge

from perturbcore.models.simple.base import SklearnPredictor

model = KernelRidge(kernel="rbf")
kernel = SklearnPredictor(model, {"alpha": [0.1, 1.0, 10.0]}, name="kernel ridge")
both = pc.evaluate(responses, [mine, random], [KNN(k), kernel], **quiet)

# %% tags=["hide-input"]
mean = both[both["metric"] == "L2"].groupby(["embedding", "predictor"])["value"].agg(["mean", "std"]).reset_index()
mean["embedding"] = mean["embedding"].replace("", "none")
heads = {"embedding": "Embedding", "predictor": "Predictor", "mean": "L2, mean over folds", "std": "sd"}
order = mean.sort_values("mean")
pages.show_table(chapter, order, "own", caption="Your embedding and predictor, beside floor and ceiling.", keep=heads)

# %% [markdown]
# A method that does more than read one embedding is a {py:class}`perturbcore.score.model.Model`: one file with
# `predict(fold)`, and `fit(fold)` where learning is a step of its own. A fold holds the training responses and the names
# of the test perturbations, nothing else. One line, {py:func}`perturbcore.models.registry.register_model`, gives it a name;
# with `models: [knn, mixed, mine]` in a profile, every chapter that scores embeddings on a task it predicts shows it.

# %% [markdown]
# ## Your data set and your chapter
#
# A profile names data sets and embeddings; `from_files` reads yours, and larger public screens are there by name, such as
# 4,326 knock-downs of LINCS as z-scores: `{name: lincs_knockdown, loader: lincs, options: {values: z, of: knockdown}}`, or
# 2,594 of Replogle et al. as ranked genes: `{name: replogle}`. With this file, `make book PROFILE=mine.yml` is
# the whole book on your data, and `without: [leaderboard]` in it leaves that chapter out. (In code, a data set is one
# file in `src/perturbcore/data/sets` with a function `load` that returns a
# {py:class}`perturbcore.data.sets.base.Dataset`.)

# %% tags=["hide-input"]
console.example("mine.yml", "notebooks/profiles/mine.yml")

# %% [markdown]
# A chapter is one file in `notebooks/`: text, a cell of parameters with their types, and cells that call the package. A
# line `- file: book/chapters/my_chapter` in `_toc.yml` puts it into the book, a `card` in its header on the first page.
# Here it lies in a checkout of its own
# (`PERTURBCORE_ROOT` names it; in yours, leave that out).

# %% tags=["hide-input"]
console.example("my_chapter.py.txt", "notebooks/my_chapter.py")
here = "PERTURBCORE_ROOT=mine/"
console.run(f"{here} perturbcore run my_chapter --profile mine -p k 3,6 --out mine/my_chapter.ipynb")
ranking = pd.read_csv(next((console.mine / "results/mine/runs").glob("my_chapter-*/tables/my_chapter/ranking.csv")))
heads = {"method": "Method", "value": "L2", "low": "95 % low", "high": "high", "gap_closed": "Gap closed"}
pages.show_table(chapter, ranking, "my-chapter", caption="The table of that chapter.", keep=heads)

# %% [markdown]
# ## When something is wrong
#
# Input is checked before any long work, and the message names file, column and value, and the way out: a control label
# that is not there; log values declared as counts; an embedding whose ids are not those of the perturbations; a value
# that is not a number.

# %% tags=["hide-input"]
console.run(f"perturbcore check mine/screen.h5ad {columns.replace('--control control', '--control ctrl')}", fails=True)
cells.X = cells.X.log1p()
cells.write_h5ad(console.mine / "logged.h5ad")
console.run(f"perturbcore check mine/logged.h5ad {columns}", fails=True)
table.set_axis([f"ENSG{i:011d}" for i in range(len(table))]).to_csv(console.mine / "other_ids.csv")
console.run("perturbcore evaluate mine/responses.h5ad mine/other_ids.csv --out mine/x.csv", fails=True)
table.astype(float).replace(1.0, float("nan")).to_csv(console.mine / "holes.csv")
console.run("perturbcore evaluate mine/responses.h5ad mine/holes.csv --out mine/x.csv", fails=True)
