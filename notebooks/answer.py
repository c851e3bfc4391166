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
#     after: [embedding_ranking, fusion, foundation_models, noise_ceiling, low_signal, small_molecules]
# ---

# %% [markdown]
# # The answer, computed
#
# The sentences of the first page and the numbers behind them, from the scores of this build.

# %% tags=["parameters"]
profile: str = "demo"

# %% tags=["hide-input"]
from myst_nb import glue

import perturbcore as pc
from perturbcore.core import provenance
from perturbcore.report import noise, pages
from perturbcore.report.comparison import Comparison, three_sentences
from perturbcore.report.published.claims.page import answer_of

chapter = pc.open_chapter("answer")
study = pc.Study(chapter)
scores = study.claimed("embedding_ranking", "low_signal", "small_molecules")
data = study.dataset(scores["dataset"].iloc[0])
ranked = Comparison(scores, predictor="knn")

# %% [markdown]
# ## The answer in three sentences

# %% tags=["hide-input"]
fusions = study.claimed("fusion")
fused = None if fusions is None else Comparison(fusions)
added = answer_of(chapter.profile.results, "foundation_models")
three = three_sentences(ranked, simulated=data.simulated, fused=fused, added=added)
for number, sentence in enumerate(three, 1):
    glue(f"answer{number}", sentence, display=False)
pages.say("\n".join(f"{n}. {s}" for n, s in enumerate(three, 1)))
pages.say(noise.trust_said(study.truth(), data))

# %% tags=["hide-input"]
run = provenance.record()
built = f"{run['started'][:10]}, commit {run['commit'][:10] or 'unknown'}, {run['cpu']}, {run['cores']} cores"
glue("built", built, display=False)
glue("profile_title", chapter.profile.title, display=False)
glue("profile_summary", chapter.profile.summary, display=False)

# %% [markdown]
# ## The picture

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Mean score of every embedding over all cell lines with its 95 % interval (over folds). Dashed lines: Train Mean (floor) and ceiling. Best at the top. Point at an embedding for its numbers. Download: [figure](figures/answer/ranking.svg), [numbers](tables/answer/ranking-data.csv).", "name": "fig-answer"}, "image": {"alt": "One row per embedding: its mean score with a 95 % interval, coloured by modality, between the floor (Train Mean) and the ceiling."}}
table = ranked.ranking()
pages.show_figure(chapter, ranked.figure(), "ranking", table, live=True)

# %% tags=["hide-input"]
pages.show_table(chapter, table, "ranking", keep=ranked.columns(), bold="with_best",
                 caption="Bold: the best embedding, and those that cannot be told apart from it; controls do not compete.")
pages.say("\n\n".join([ranked.rest_said(), *ranked.caveats()]))
