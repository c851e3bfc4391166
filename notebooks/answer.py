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
#     after: [embedding_ranking, noise_ceiling, low_signal, fine_tuning, small_molecules, fusion, generative_decoders, chemical_deg, leaderboard, claims]
# ---

# %% [markdown]
# # The answer, computed
#
# The sentences of the first page and the numbers behind them, from the scores of this build.

# %% tags=["parameters"]
profile: str = "demo"
chapters: list[str] = [
    "embedding_ranking", "noise_ceiling", "low_signal", "fine_tuning", "small_molecules", "fusion",
    "generative_decoders", "chemical_deg", "leaderboard", "claims",
]

# %% tags=["hide-input"]
from myst_nb import glue

from perturbcore.book.inside import open_chapter
from perturbcore.book.study import Study
from perturbcore.core import provenance
from perturbcore.report import figures, pages, sentences, summary
from perturbcore.score.metrics.registry import metric

chapter = open_chapter("answer")
study = Study(chapter)
scores = study.claimed("embedding_ranking")
main = summary.primary_metric(scores)
told = summary.headline(scores)

# %% [markdown]
# ## The question
#
# Which representation of a gene or drug lets us predict how cells respond to perturbing it?
#
# ## The answer in three sentences

# %% tags=["hide-input"]
fused = summary.best_fusion(told, study.claimed("fusion"), main)
three = sentences.three_sentences(told, main, chapter.profile, fused)
for number, sentence in enumerate(three, 1):
    glue(f"answer{number}", sentence, display=False)
pages.say("\n".join(f"{n}. {s}" for n, s in enumerate(three, 1)))

# %% tags=["hide-input"]
for name, line in pages.taken_home(chapter, chapters).items():
    glue(name, line, display=False)
run = provenance.record()
built = f"{run['started'][:10]}, commit {run['commit'][:10] or 'unknown'}, {run['cpu']}, {run['cores']} cores"
glue("built", built, display=False)
glue("profile_title", chapter.profile.title, display=False)
glue("profile_summary", chapter.profile.summary, display=False)

# %% [markdown]
# ## The picture

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Mean score of every embedding over all cell lines with its 95 % interval (over folds). Dashed lines: Train Mean (floor) and ceiling. Best at the bottom. Download: [figure](figures/answer/ranking.svg), [numbers](tables/answer/ranking-data.csv).", "name": "fig-answer"}, "image": {"alt": "One row an embedding: its mean score with a 95 % interval, coloured by modality, between the floor (Train Mean) and the ceiling."}}
table = summary.ranking_table(scores)
plot = figures.interval_plot(table, label=metric(main).label)
pages.show_figure(chapter, plot, "ranking", table)

# %% tags=["hide-input"]
pages.show_table(chapter, table, "ranking", keep=summary.RANKING_COLUMNS, bold="with_best",
                 caption="Bold: the best, and what cannot be told apart from it.")
