# ---
# jupyter:
#   kernelspec:
#     name: python3
#     display_name: Python 3
#   perturbcore:
#     card:
#       title: "Which claims hold"
#       figure: claims
#       alt: "One row per paper, one point per claim, its colour and shape the verdict."
# ---

# %% [markdown]
# # Which claims hold
#
# Four papers and one code release, their claims in their words and in ours, and for each a stated test: Cole et al.
# {cite:p}`cole2026`, Bendidi et al. {cite:p}`bendidi2024`, Csendes et al. {cite:p}`csendes2025`, Hasanaj et al.
# {cite:p}`hasanaj2025`, and VCHarness. Nothing on this page is typed: verdicts, numbers and reasons are computed from
# the published numbers, on medians over folds (as the figures of Cole et al. do), on means, and fold by fold. Where
# the authors' tables are not at hand, the page shows what was decided on them, with the date.
#
# A claim *holds* if its test is passed in full; it *holds with a qualification* if the direction is right and the
# test is not passed everywhere; it *fails* if the published numbers go against it; and some *cannot be decided*
# from what is public. Both cut-offs stand in each card. That something is better (*superiority*) is asked of every
# line and fold; that something is no better, or as good (*equivalence*), fails only where the corrected interval of
# the difference, or a stated margin, says otherwise. A failed claim says that the published numbers do not bear it
# out as we read it, and why. The tests are ours, and others may be stricter or milder: *sensitivity* says what the
# verdict would be with every cut-off a tenth milder or stricter (a count by one, a cut-off of 0 by a tenth of the
# usual distance from it).
#
# Are you an author, or do you read a claim differently? Open an issue with the form "A claim is wrong"
# (`.github/ISSUE_TEMPLATE/claim.yml` of this project): id of the claim, what is wrong, and the source. The answer
# and any change of a verdict will stand here.

# %% tags=["parameters"]
profile: str = "demo"
download: bool = False  # fetch the authors' tables (14 MB, non-commercial licence) if they are not at hand

# %% tags=["hide-input"]
import perturbcore as pc
from perturbcore.report import figures, pages
from perturbcore.report.published.claims import page
from perturbcore.report.published.claims.audit import audit, counts, with_dated
from perturbcore.report.text import tell

chapter = pc.open_chapter("claims")
published = pc.load_published(download=download)
everything = with_dated(audit(published), published)
table, own = everything[~everything["own"]], everything[everything["own"]]
pages.say(page.summary(table, published))
verdicts = table["verdict"].value_counts()
pages.take_home(chapter, f"Of {len(table)} claims of {table['paper'].nunique()} sources: " + "; ".join(f"{v}: {n}" for v, n in verdicts.items()) + ".")

# %% [markdown]
# ## What the abstracts say

# %% tags=["hide-input"]
pages.say(page.cards(table[table["weight"] == "abstract"]))

# %% [markdown]
# ## Verdicts by paper, by weight and by kind

# %% tags=["hide-input"]
ordered = table.rename(columns={"id": "display"}).sort_values("verdict", key=lambda v: v.map(page.audit.VERDICTS.index), kind="stable")
strip = figures.strips(ordered, row="paper", look="verdict", xlabel="Claims")
chapter.save_figure(strip, "claims", live=True)
pages.say(tell("claims.figure"))
pages.show_table(chapter, counts(table), "counts", caption="Number of claims by verdict.")
pages.show_table(chapter, counts(table, "weight"), "counts-by-weight", caption="The same by where a claim stands.")
pages.show_table(chapter, counts(table, "kind"), "counts-by-kind", caption="The same by what is claimed.")

# %% [markdown]
# ## Claims that fail

# %% tags=["hide-input"]
pages.say(page.cards(table[table["verdict"] == "fails"]))

# %% [markdown]
# ## Every claim
#
# Choose a paper, weight, kind or verdict above the table; an id leads to the card of the claim. The file under the
# table has all of it: quotation, test, both cut-offs, reason, and the same question on medians, means and folds.

# %% tags=["hide-input"]
pages.show_table(chapter, table, "claims", link="claim-",
                 keep=["id", "paper", "claim", "where", "weight", "kind", "verdict", "number", "sensitivity"],
                 caption="Every claim, where it stands, its verdict, the number that decides, and the verdict with other cut-offs.")

# %% [markdown]
# ## Claim by claim: Cole et al. 2026

# %% tags=["hide-input"]
pages.say(page.cards(table[table["paper"] == "Cole et al. 2026"], dropdown=True))

# %% [markdown]
# ## Claim by claim: Bendidi et al. 2024, Csendes et al. 2025, Hasanaj et al. 2025 and VCHarness
#
# The first two are judged from their printed tables ({doc}`all of them <published_results>`), their text and their
# public notebooks. Table 2 of Bendidi et al. and the numbers of Csendes et al. carry no intervals; the appendix
# tables of Bendidi et al. have standard deviations over runs. The numbers of Hasanaj et al. are not public: where the
# tables of Cole et al. ask the same of the same screens, their claims are judged on those. VCHarness publishes the
# scores and notes of a search over models.

# %% tags=["hide-input"]
pages.say(page.cards(table[table["paper"] != "Cole et al. 2026"], dropdown=True))

# %% [markdown]
# ## Observations of ours
#
# Not claims of the papers: what their tables show about the measures that they use.

# %% tags=["hide-input"]
pages.say(page.cards(own, dropdown=True))

# %% [markdown]
# ## What the papers do not report
#
# Which places in a ranking are real? Folds are paired; their training sets overlap, so the interval is that of the
# corrected resampled t-test, adjusted for the number of neighbours. Five folds separate only what differs clearly:
# not distinguishable is not the same as equal.

# %% tags=["hide-input"]
pages.say(page.certainty(published, chapter))

# %% [markdown]
# Figure S14 shows one line for Latent Diffusion and one for Schrödinger Bridge; the tables hold two runs of each.

# %% tags=["hide-input"]
pages.say(page.choice(published, chapter))

# %% [markdown]
# And the tables hold more models than the figures show.

# %% tags=["hide-input"]
pages.say(page.unused(published, chapter))
