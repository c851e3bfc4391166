"""Write the published medians kept in the package, from the downloaded score tables.

    python scripts/write_medians.py

A test checks the file against them.
"""

from importlib.resources import files
from pathlib import Path

import pandas as pd

from perturbcore.data.published.tables import Published, load_published
from perturbcore.report.published.figures import ALL_TAHOE, FIGURES, figure_data

COMMIT = "e5b4caf734fd81b24bee004eb2d55d2f675cd4a2"
HEAD = f"""\
# Published medians over folds per cell line, three decimals (three significant
# digits below 0.1), of the methods the figures show.
# Cole et al. 2026, Foundation Models Improve Perturbation Response Prediction; computed from the
# score tables of genbio-ai/foundation-models-perturbation@{COMMIT} (GenBio AI Community License,
# non-commercial) by `python scripts/write_medians.py`.
"""
# Runs on the full perturbation set that no figure shows, and that a claim turns on.
NOT_IN_A_FIGURE = ("GEARS", "Flow_v1", "Diffusion_Feb2_2026", "Schrodinger_Feb2_2026")
KEYS = ["dataset", "task", "cell_line", "perturbation_set", "method", "metric"]
ABOUT = ["predictor", "embedding", "display", "modality"]


def median_rows(published: Published) -> pd.DataFrame:
    """Medians over folds of everything the figures draw; `published` must be at level "folds".

    A Figure 2 or S3 row is the median rank over all folds and lines, with cell line "4 lines"; a
    cross-context row is the published mean over perturbations.
    """
    frames = []
    for figure, spec in FIGURES.items():
        if not spec.missing:
            rows = figure_data(figure, published).scores
            frames.append(rows.assign(cell_line="4 lines") if spec.kind == "rank" else rows)
    scores = published.scores
    unshown = scores["method"].isin(NOT_IN_A_FIGURE) & (scores["perturbation_set"] == "full")
    frames.append(scores[unshown & (scores["metric"] == "L2")])
    rows = pd.concat(frames, ignore_index=True)
    rank = rows["metric"].str.startswith("rank_")
    line = r"_essential_(K-562|Hep-G2|Jurkat|hTERT-RPE1)_"
    essential = rows["cell_line"] != ALL_TAHOE
    rows["method"] = rows["method"].where(
        ~essential, rows["method"].str.replace(line, "_essential_CELL_LINE_", regex=True)
    )
    # A method that several figures show has its folds once; ranks are pooled over the lines, so
    # that fold 0 is there once per line.
    rows = pd.concat([rows[~rank].drop_duplicates([*KEYS, "fold"]), rows[rank]])
    first = {column: (column, "first") for column in ABOUT}
    out = rows.groupby(KEYS, as_index=False, sort=False).agg(**first, value=("value", "median"))
    out["value"] = out["value"].map(_rounded)
    return out[[*KEYS[:4], *ABOUT, *KEYS[4:], "value"]]


def _rounded(value: float) -> float:
    """Round to three decimals, or to three significant digits where that keeps more (MSE)."""
    return round(value, 3) if abs(value) >= 0.1 else float(f"{value:.3g}")


if __name__ == "__main__":
    target = Path(str(files("perturbcore.data.published"))) / "files" / "cole2026_medians.csv"
    kept = median_rows(load_published(download=True))
    target.write_text(HEAD + kept.to_csv(index=False), encoding="utf-8")
    print(f"{target}: {len(kept)} medians")
