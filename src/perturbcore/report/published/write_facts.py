"""Write the published medians kept in the package, from the downloaded score tables.

Run as ``python -m perturbcore.report.published.write_facts``; a test checks the file against the tables.
"""

import argparse
from importlib.resources import files
from pathlib import Path

import pandas as pd

from perturbcore.data.published.tables import Published, load_published
from perturbcore.report.published.figure_specs import ALL_TAHOE, FIGURES
from perturbcore.report.published.figures import figure_data

COMMIT = "e5b4caf734fd81b24bee004eb2d55d2f675cd4a2"
HEAD = f"""\
# Published medians over folds per cell line, three decimals (three significant
# digits below 0.1), of the methods the figures show.
# Cole et al. 2026, Foundation Models Improve Perturbation Response Prediction; computed from the
# score tables of genbio-ai/foundation-models-perturbation@{COMMIT} (GenBio AI Community License,
# non-commercial) by `python -m perturbcore.report.published.write_facts`.
"""
# Runs on the full perturbation set that no figure shows, and that a claim turns on.
NOT_IN_A_FIGURE = ("GEARS", "Flow_v1", "Diffusion_Feb2_2026", "Schrodinger_Feb2_2026")
COLUMNS = [
    "dataset",
    "task",
    "cell_line",
    "perturbation_set",
    "predictor",
    "embedding",
    "display",
    "modality",
    "method",
    "metric",
    "value",
]


def median_rows(published: Published) -> pd.DataFrame:
    """Medians over folds of everything the figures draw.

    Parameters
    ----------
    published : Published
        At level "folds".

    Returns
    -------
    pandas.DataFrame
        Columns `COLUMNS`; a Figure 2 or S3 row is the median rank over all folds and lines, with
        cell line "4 lines"; a cross-context row is the published mean over perturbations.

    Raises
    ------
    ValueError
        If `published` holds medians already.
    """
    if published.level != "folds":
        raise ValueError("medians are written from the full tables; fetch them first")
    frames = []
    for figure, spec in FIGURES.items():
        if spec.missing:
            continue
        rows = figure_data(figure, published).scores
        if spec.kind == "rank":
            rows = rows.assign(cell_line="4 lines")
        frames.append(rows)
    scores = published.scores
    unshown = scores["method"].isin(NOT_IN_A_FIGURE) & (scores["perturbation_set"] == "full")
    frames.append(scores[unshown & (scores["metric"] == "L2")])
    rows = pd.concat(frames, ignore_index=True)
    rows["method"] = [
        m if line == ALL_TAHOE else m.replace(f"_essential_{line}_", "_essential_CELL_LINE_")
        for m, line in zip(rows["method"], rows["cell_line"], strict=True)
    ]
    rank = rows["metric"].str.startswith("rank_")
    rows.loc[rank, "method"] = rows.loc[rank, "method"].str.replace(
        r"_essential_(K-562|Hep-G2|Jurkat|hTERT-RPE1)_", "_essential_CELL_LINE_", regex=True
    )
    keys = ["dataset", "task", "cell_line", "perturbation_set", "method", "metric"]
    # A method that several figures show has its folds once.
    folds = rows.drop_duplicates([*keys, "fold"])
    # Ranks are pooled over the lines, so that fold 0 is there once a line.
    rows = pd.concat([folds[~folds["metric"].str.startswith("rank_")], rows[rank]])
    out = rows.groupby(keys, as_index=False, sort=False).agg(
        predictor=("predictor", "first"),
        embedding=("embedding", "first"),
        display=("display", "first"),
        modality=("modality", "first"),
        value=("value", "median"),
    )
    out["value"] = out["value"].map(_rounded)
    return out[COLUMNS]


def _rounded(value: float) -> float:
    """Round to three decimals, or to three significant digits where that keeps more (MSE)."""
    return round(value, 3) if abs(value) >= 0.1 else float(f"{value:.3g}")


def main(argv: list[str] | None = None) -> None:
    """Write the file; see the module's first line."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = files("perturbcore.report.published").joinpath("data", "cole2026_medians.csv")
    parser.add_argument("--out", type=Path, default=Path(str(default)))
    arguments = parser.parse_args(argv)
    rows = median_rows(load_published(download=True))
    arguments.out.write_text(HEAD + rows.to_csv(index=False), encoding="utf-8")
    print(f"{arguments.out}: {len(rows)} medians")


if __name__ == "__main__":
    main()
