"""All published scores at once: full tables where they are at hand, else the medians kept here."""

from dataclasses import dataclass

import pandas as pd

from perturbcore.data import catalogue
from perturbcore.data.published.facts import facts, source_of
from perturbcore.data.published.read import (
    SCORE_COLUMNS,
    read_ceiling,
    read_cross_context,
    read_scores,
)

# table -> data set and task
SCORE_TABLES = {
    f"cole2026/scores/{name}": tuple(name.split("_")[-2:])
    for name in ("essential_lfc", "advanced_essential_lfc", "norman_lfc", "sciplex_lfc")
    + ("essential_deg", "sciplex_deg", "tahoe_deg")
}
# Read where they are at hand: Figures S5 and S6 are drawn from them.
TAHOE_LFC = {"cole2026/scores/tahoe_lfc": ("tahoe", "lfc")}
# table -> data set and metric
CROSS_TABLES = {
    f"cole2026/cross_context/{dataset}_{metric}_summary": (dataset, metric)
    for dataset in ("essential", "tahoe")
    for metric in ("discrimination_score_l1", "overlap_at_N", "mae")
}
# table -> data set and cell line (Sciplex has several in one table)
CEILING_TABLES = {
    f"cole2026/exp_error/{name}_seed_5050": about
    for name, about in {
        "essential_k562_outer_10_inner_10": ("essential", "K-562"),
        "essential_hepg2_outer_10_inner_10": ("essential", "Hep-G2"),
        "essential_jurkat_outer_10_inner_10": ("essential", "Jurkat"),
        "essential_htertrpe1_outer_10_inner_10": ("essential", "hTERT-RPE1"),
        "norman_outer_10_inner_10": ("norman", "K-562"),
        "sciplex_outer_10_inner_20": ("sciplex", None),
    }.items()
}
TABLES = (*SCORE_TABLES, *CROSS_TABLES, *CEILING_TABLES)
HOW_TO_GET = (
    "`make data PROFILE=real` downloads the authors' tables (about 16 MB, non-commercial licence, "
    "shown before the download); then rebuild the book"
)


@dataclass(frozen=True)
class Published:
    """The published scores of Cole et al. 2026.

    `scores`: scores schema. At level "medians" the fold is -1 and a value is a median over
    folds; `ceilings`: per-perturbation experimental error; None at level "medians".
    """

    scores: pd.DataFrame
    ceilings: pd.DataFrame | None
    level: str

    @property
    def note(self) -> str:
        """One sentence that says what the numbers are, and how to get the rest."""
        if self.level == "folds":
            return (
                "Drawn from the authors' published score tables, one value per fold "
                "(genbio-ai/foundation-models-perturbation at commit e5b4caf)."
            )
        return (
            "Drawn from the published medians over folds that this project keeps, three decimals "
            f"(the full tables are not on this machine: {HOW_TO_GET})."
        )


def medians() -> Published:
    """Return the published medians over folds kept in the package; needs no file and no network."""
    table = facts("cole2026_medians")
    table = table.assign(
        fold=-1, embedding=table["embedding"].fillna(""), source=source_of("cole2026_medians")
    )
    return Published(table[SCORE_COLUMNS], None, "medians")


def load_published(*, download: bool = False) -> Published:
    """Load the published scores of Cole et al. 2026, as complete as they are to be had.

    `download`: whether tables that are not at hand may be downloaded (their licence is shown
    first). Without, nothing is asked of the network. Returns level "folds" if every table is at
    hand, else level "medians".

    Examples
    --------
    >>> pc.load_published().level in ("folds", "medians")
    True
    """
    state = catalogue.verify((*TABLES, *TAHOE_LFC))
    if not download and any(state[name] != "ok" for name in TABLES):
        return medians()
    tables = SCORE_TABLES | {n: about for n, about in TAHOE_LFC.items() if state[n] == "ok"}
    names = (*tables, *CROSS_TABLES, *CEILING_TABLES)
    path = catalogue.fetch_many(names, progress=download)
    scores = [
        *(read_scores(path[n], dataset=d, task=task) for n, (d, task) in tables.items()),
        *(read_cross_context(path[n], dataset=d, metric=m) for n, (d, m) in CROSS_TABLES.items()),
    ]
    ceilings = [
        read_ceiling(path[n], dataset=d, cell_line=line) for n, (d, line) in CEILING_TABLES.items()
    ]
    return Published(
        pd.concat(scores, ignore_index=True), pd.concat(ceilings, ignore_index=True), "folds"
    )
