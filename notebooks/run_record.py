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
#     after: all
# ---

# %% [markdown]
# # Run record
#
# What computed this book: which chapters, for how long, from which state of the code, on what machine, with which
# parameters. It runs after all other chapters. Every score in `scores.parquet` carries version, commit, device and time
# of its own, since scores of an earlier run are kept where nothing they depend on has changed.

# %% tags=["parameters"]
profile: str = "demo"

# %% tags=["hide-input"]
import perturbcore as pc
from perturbcore.book import about
from perturbcore.core.provenance import record
from perturbcore.report import figures, pages

chapter = pc.open_chapter("run_record")

# %% [markdown]
# ## Chapters
#
# Seconds are those of the last run of the chapter, the start of its kernel included; a chapter whose inputs have not
# changed is not run again. A plus behind a commit: files had changes that were not committed.

# %% tags=["hide-input"]
runs = about.run_table(chapter.profile)
runs = runs[runs["chapter"] != chapter.name]  # a record of itself would be that of its last run
pages.say(f"{len(runs)} chapters, {runs['seconds'].sum():.0f} seconds, one after the other.")
heads = {"title": "Chapter", "seconds": "Seconds", "started": "Started (UTC)", "commit": "Commit"}
heads["parameters"] = "Parameters"
pages.show_table(chapter, runs, "chapters", caption="Chapters of this book.", digits=1, keep=heads)

# %% [markdown]
# ## Machine and versions

# %% tags=["hide-input"]
machine = about.machine_table(record())
pages.show_table(chapter, machine, "machine", caption="The machine, and the packages that matter most.")

# %% [markdown]
# All packages are pinned in `constraints.txt`.
#
# ## Parameters of the profile
#
# What is not set here has the default of the chapter (its parameters stand in its first code cell, and in the table of
# chapters above) or of the package ([metrics and constants](protocol_constants.ipynb)).

# %% tags=["hide-input"]
settings = about.profile_table(chapter.profile)
pages.say(f"Profile `{chapter.profile.name}`: {chapter.profile.title}. {chapter.profile.summary}")
pages.show_table(chapter, settings, "profile", caption="Data sets, embeddings and parameters of chapters.")

# %% [markdown]
# ## Speed beside what one would use instead
#
# Same input, same answer (the last column says how far apart the two are), seconds of each. *Ratio* is how many times
# longer the other takes. `make gpu-report` trains networks at published sizes in bfloat16 on a GPU, and beside it
# in float32 on the CPU: examples per second, memory and the loss that both reach. Where there is no GPU its rows say so.

# %% tags=["hide-input"]
measured = about.benchmark_rows()
pages.say(about.measured_said(measured))
pages.show_table(chapter, about.benchmark_table(measured), "benchmarks", caption="Benchmarks.", digits=2,
                 keep=about.HEADINGS["benchmarks"])

# %% [markdown]
# What bounds them on two cores: effects read each stored value twice, once to check it and once to add it, and both
# cores are then busy with reading and adding. The models of Figure 1 spend their time in products of matrices, principal
# components and sorting, and in passing over the predictions of all genes, candidate by candidate and metric by metric.
# Nested neighbours on one fold spend four fifths in one product, in double precision, of all responses with each other,
# which an evaluation needs once for all folds and embeddings. A bootstrap spends its time in making a stream of random
# numbers for each perturbation and trial, so that no number depends on the order of work, and in products of weights and
# cells, in double precision. Labels of genes spend half in adding up cells, and a quarter in tails of the t distribution
# and in sorting them. The classifier spends its time in passes over all genes, nearly half of it in products of matrices;
# where perturbations are few, another quarter goes to what its optimiser remembers of earlier steps.
#
# ## How cost grows with cells
#
# Effects of screens of growing size, 2,000 genes, left on disk, in one process. A flat line on the left: twice the
# cells, twice the time. On the right, what grows is what is known of each cell, never its counts.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Seconds per million cells, and peak memory, of effects by the number of cells. Download: [figure](figures/run_record/growth.svg), [numbers](tables/run_record/growth-data.csv).", "name": "fig-cost-by-cells"}, "image": {"alt": "Two line plots over the number of cells: seconds per million cells, and peak memory in megabytes."}}
grown = about.growth(measured)
plot = figures.curves(grown, "millions", "value", "work", panel="panel", xlabel="million cells", ylabel=" ", sharey=False)
pages.show_figure(chapter, plot, "growth", grown)

# %% [markdown]
# What follows for [many machines](../machines.md), by rule of three from the largest size measured: 100 million cells (the
# size of Tahoe-100M) on 16 machines with four processes each. Reading and computing overlap; the longer one counts.

# %% tags=["hide-input"]
costs = about.cluster_costs(measured)
pages.say(about.growth_said(measured))
pages.show_table(chapter, costs, "costs", caption="Effects of 100 million cells on 16 machines, extrapolated.",
                 digits=1, keep=about.HEADINGS["costs"])
