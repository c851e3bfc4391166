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

SCORE_TABLES = {
    "cole2026/scores/essential_lfc": ("essential", "lfc"),
    "cole2026/scores/advanced_essential_lfc": ("essential", "lfc"),
    "cole2026/scores/norman_lfc": ("norman", "lfc"),
    "cole2026/scores/sciplex_lfc": ("sciplex", "lfc"),
    "cole2026/scores/essential_deg": ("essential", "deg"),
    "cole2026/scores/sciplex_deg": ("sciplex", "deg"),
    "cole2026/scores/tahoe_deg": ("tahoe", "deg"),
}
# Read where they are at hand: Figures S5 and S6 are drawn from them.
TAHOE_LFC = {"cole2026/scores/tahoe_lfc": ("tahoe", "lfc")}
CROSS_TABLES = {
    f"cole2026/cross_context/{dataset}_{metric}_summary": (dataset, metric)
    for dataset in ("essential", "tahoe")
    for metric in ("discrimination_score_l1", "overlap_at_N", "mae")
}
_SEED = "outer_10_inner_10_seed_5050"
CEILING_TABLES = {
    f"cole2026/exp_error/essential_k562_{_SEED}": ("essential", "K-562"),
    f"cole2026/exp_error/essential_hepg2_{_SEED}": ("essential", "Hep-G2"),
    f"cole2026/exp_error/essential_jurkat_{_SEED}": ("essential", "Jurkat"),
    f"cole2026/exp_error/essential_htertrpe1_{_SEED}": ("essential", "hTERT-RPE1"),
    f"cole2026/exp_error/norman_{_SEED}": ("norman", "K-562"),
    "cole2026/exp_error/sciplex_outer_10_inner_20_seed_5050": ("sciplex", None),
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


def read_tables(paths: dict) -> Published:
    """Read the published tables from files.

    `paths` has the path of every name in `TABLES`, and of those in `TAHOE_LFC` that are at hand.
    """
    tables = SCORE_TABLES | {n: v for n, v in TAHOE_LFC.items() if n in paths}
    scores = [
        *(read_scores(paths[n], dataset=d, task=task) for n, (d, task) in tables.items()),
        *(read_cross_context(paths[n], dataset=d, metric=m) for n, (d, m) in CROSS_TABLES.items()),
    ]
    ceilings = [
        read_ceiling(paths[n], dataset=d, cell_line=line) for n, (d, line) in CEILING_TABLES.items()
    ]
    return Published(
        pd.concat(scores, ignore_index=True), pd.concat(ceilings, ignore_index=True), "folds"
    )


def medians() -> Published:
    """Return the published medians over folds kept in the package; needs no file and no network."""
    table = facts("cole2026_medians")
    table = table.assign(
        fold=-1, embedding=table["embedding"].fillna(""), source=source_of("cole2026_medians")
    )
    return Published(table[SCORE_COLUMNS], None, "medians")


def load_published(*, download: bool = False, folder=None) -> Published:
    """Load the published scores of Cole et al. 2026, as complete as they are to be had.

    Parameters
    ----------
    download : bool
        Whether tables that are not at hand may be downloaded (their licence is shown first).
        Without, nothing is asked of the network.
    folder : path, optional
        Cache folder of the catalogue.

    Returns
    -------
    Published
        Level "folds" if every table is at hand, else level "medians".

    Raises
    ------
    DownloadError
        If a download was asked for and failed.
    InputError
        If a table is damaged.
    """
    state = catalogue.verify((*TABLES, *TAHOE_LFC), folder=folder)
    if not download and any(state[name] != "ok" for name in TABLES):
        return medians()
    extra = tuple(name for name in TAHOE_LFC if state[name] == "ok")
    return read_tables(catalogue.fetch_many((*TABLES, *extra), folder=folder, progress=download))
