# ---
# jupyter:
#   kernelspec:
#     name: python3
#     display_name: Python 3
#   perturbcore:
#     after: []
# ---

# %% [markdown]
# # Which claims hold
#
# Three papers, their claims in our words, and for each a stated test: Cole et al. {cite:p}`cole2026`, Bendidi et al. {cite:p}`bendidi2024` and Csendes et al.
# {cite:p}`csendes2025`. Nothing on this page is typed: verdicts, numbers and reasons come from the published
# numbers, on medians over folds (as the figures of Cole et al. do), on means, and fold by fold.
#
# A claim *holds* if its test is passed in full; it *holds with a qualification* if the direction is right and the
# test is not passed everywhere; it *fails* if the published numbers go against it; and some *cannot be decided*
# from what is public. A failed claim says that the published numbers do not bear it out as we read it, and why; the
# sentence beside it says how much hangs on it. The tests are ours, and others may be stricter or milder.

# %% tags=["parameters"]
profile: str = "demo"
download: bool = False  # fetch the authors' tables (14 MB, non-commercial licence) if they are not at hand

# %%
from IPython.display import Markdown

from perturbcore.chapters import open_chapter
from perturbcore.published import audit, counts, load_published
from perturbcore.published.claims_page import cards, summary

chapter = open_chapter("claims")
published = load_published(download=download)
table = audit(published)
Markdown(summary(table, published))

# %% [markdown]
# ## Verdicts by paper

# %%
chapter.save_table(counts(table).reset_index(), "counts")

# %% [markdown]
# ## Claims that fail
#
# First what does not hold, with its number.

# %%
Markdown(cards(table[table["verdict"] == "fails"]))

# %% [markdown]
# ## Every claim
#
# [Download as CSV](tables/claims/claims.csv): claim, place, test, verdict, number, reason, and the same question on
# medians, means and folds.

# %%
shown = chapter.save_table(table, "claims")
shown[["id", "claim", "where", "verdict", "number"]]

# %% [markdown]
# ## Claim by claim: Cole et al. 2026

# %%
Markdown(cards(table[table["paper"] == "Cole et al. 2026"], dropdown=True))

# %% [markdown]
# ## Claim by claim: Bendidi et al. 2024 and Csendes et al. 2025
#
# Judged from their printed tables, their text and their public notebooks; neither reports intervals for the values
# compared here.

# %%
Markdown(cards(table[table["paper"] != "Cole et al. 2026"], dropdown=True))

# %% [markdown]
# ## What the papers do not report
#
# Which places in a ranking are real? Folds are paired; their training sets overlap, so the interval is that of the
# corrected resampled t-test, adjusted for the number of neighbours. Five folds separate only what differs clearly:
# not distinguishable is not the same as equal.

# %%
from perturbcore.published.claims_page import certainty, choice, unused

Markdown(certainty(published, chapter))

# %% [markdown]
# Figure S14 shows one line for Latent Diffusion and one for Schrödinger Bridge; the tables hold two runs of each.

# %%
Markdown(choice(published, chapter))

# %% [markdown]
# And the tables hold more models than the figures show.

# %%
Markdown(unused(published, chapter))
