"""What each figure of Cole et al. 2026 shows."""

from dataclasses import dataclass

from perturbcore.data.published.names import LINES

ALL_TAHOE = "mean of 45 lines"
METRICS = ("L2", "MSE", "MAE", "Spearman", "Pearson")


@dataclass(frozen=True)
class FigureSpec:
    """What one published figure shows."""

    kind: str
    title: str
    dataset: str = "essential"
    task: str = "lfc"
    section: str = ""
    head: str = "knn"
    panels: tuple[str, ...] = ()
    metric: str = "L2"
    perturbation_set: str = "full"
    missing: str = ""

    @property
    def rank_metric(self) -> str:
        """Name of the metric of a rank plot: kNN and lasso rows are ranked separately."""
        return f"rank_{self.metric}_{self.head}"

    @property
    def lower_is_better(self) -> bool:
        """Whether smaller values of the metric are better."""
        return self.metric in ("L2", "MSE", "MAE", "mae")


_ESSENTIAL = LINES["essential"]
_TAHOE_LFC = (
    "The score table of this figure (results/scores/tahoe_lfc.csv) and its experimental-error "
    "table are not in the authors' public repository at the pinned commit, so the figure cannot "
    "be redrawn."
)

FIGURES: dict[str, FigureSpec] = {
    "1": FigureSpec("box", "Essential, LFC, kNN", section="essential_lfc", panels=_ESSENTIAL),
    "2": FigureSpec(
        "rank", "Essential, LFC, kNN: ranks", section="essential_lfc", panels=_ESSENTIAL
    ),
    "3": FigureSpec(
        "none",
        "Similarity of the embeddings (CCA)",
        missing="The figure compares the embeddings themselves, which are not among the published "
        "tables; it needs the embedding files of the authors' data set.",
    ),
    "4": FigureSpec(
        "box", "Essential, LFC, K-562: fine-tuning", section="fine_tuning", panels=("K-562",)
    ),
    "5": FigureSpec("box", "Essential, LFC: fusion", section="fusion", panels=_ESSENTIAL),
    "S1": FigureSpec(
        "box", "Norman, LFC, kNN", dataset="norman", section="norman_lfc", panels=("K-562",)
    ),
    "S2": FigureSpec(
        "box", "Essential, LFC, lasso", section="essential_lfc", head="lasso", panels=_ESSENTIAL
    ),
    "S3": FigureSpec(
        "rank",
        "Essential, LFC, lasso: ranks",
        section="essential_lfc",
        head="lasso",
        panels=_ESSENTIAL,
    ),
    "S4": FigureSpec(
        "box",
        "Essential, DEG",
        task="deg",
        section="essential_deg",
        panels=_ESSENTIAL,
        metric="f1_score",
    ),
    "S5": FigureSpec("none", "Tahoe, LFC, kNN", dataset="tahoe", missing=_TAHOE_LFC),
    "S6": FigureSpec("none", "Tahoe, LFC, lasso", dataset="tahoe", missing=_TAHOE_LFC),
    "S7": FigureSpec(
        "box",
        "Tahoe, DEG",
        dataset="tahoe",
        task="deg",
        section="tahoe_deg",
        panels=(ALL_TAHOE,),
        metric="f1_score",
    ),
    "S8": FigureSpec(
        "box",
        "Sciplex, LFC, kNN",
        dataset="sciplex",
        section="sciplex_lfc",
        panels=LINES["sciplex"],
    ),
    "S9": FigureSpec(
        "box",
        "Sciplex, LFC, lasso",
        dataset="sciplex",
        section="sciplex_lfc",
        head="lasso",
        panels=LINES["sciplex"],
    ),
    "S10": FigureSpec(
        "box",
        "Sciplex, DEG",
        dataset="sciplex",
        task="deg",
        section="sciplex_deg",
        panels=LINES["sciplex"],
        metric="f1_score",
    ),
    "S11": FigureSpec(
        "scatter",
        "Essential, LFC, kNN, K-562: L2 against the other metrics",
        section="essential_lfc",
        panels=("MSE", "MAE", "Spearman", "Pearson"),
    ),
    "S12": FigureSpec(
        "bars",
        "Essential: unseen cell lines",
        task="cross_context",
        panels=("discrimination_score_l1", "overlap_at_N", "mae"),
        perturbation_set="cross-context",
    ),
    "S13": FigureSpec(
        "bars",
        "Tahoe: unseen cell lines",
        dataset="tahoe",
        task="cross_context",
        panels=("discrimination_score_l1", "overlap_at_N", "mae"),
        perturbation_set="cross-context",
    ),
    "S14": FigureSpec(
        "box",
        "Essential (older set), LFC: generative models",
        section="advanced_methods",
        panels=_ESSENTIAL,
        perturbation_set="older",
    ),
}
