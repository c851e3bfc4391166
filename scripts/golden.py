"""Freeze the scores of a build, and hold another build against them.

    git worktree add ../before <commit>            # the commit to be frozen
    make -C ../before book                          # and PROFILE=real
    python scripts/golden.py freeze ../before/results/demo golden-demo.csv
    python scripts/golden.py compare results/demo golden-demo.csv

A unit is a chapter, data set, task, cell line, fold, embedding, predictor, seed and metric. Exit
status 1 where a value differs by more than the tolerance, or a unit is missing.
"""

import argparse
import json
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pandas as pd

UNIT = ["scope", "task", "cell_line", "fold", "embedding", "predictor", "seed", "metric"]


def read(folder: Path) -> pd.DataFrame:
    """Every unit that a chapter of the book claims, from ``scores.sqlite``."""
    store = sqlite3.connect(f"file:{folder / 'scores.sqlite'}?mode=ro", uri=True)
    query = (
        "SELECT m.scope, u.about, u.metrics FROM members m JOIN units u ON u.key = m.key "
        "WHERE m.scope NOT LIKE 'aside/%'"
    )
    rows = []
    for scope, about, metrics in store.execute(query):
        unit = {k: v for k, v in json.loads(about).items() if k in UNIT}
        rows += [
            {"scope": scope, **unit, "metric": m, "value": v}
            for m, v in json.loads(metrics).items()
        ]
    return pd.DataFrame(rows, columns=[*UNIT, "value"]).sort_values(UNIT, ignore_index=True)


def compare(here: pd.DataFrame, golden: pd.DataFrame, tolerance: float) -> int:
    """Print what differs, chapter by chapter; return how many units do or are missing."""
    golden = golden[golden["scope"].isin(here["scope"])]
    both = golden.merge(here, on=UNIT, how="left", suffixes=("_golden", ""), indicator=True)
    missing = (both["_merge"] == "left_only").to_numpy()
    a, b = both["value_golden"].to_numpy(float), both["value"].to_numpy(float)
    far = ~missing & ~(
        np.isclose(a, b, rtol=tolerance, atol=tolerance) | (np.isnan(a) & np.isnan(b))
    )
    both = both.assign(missing=missing, differs=far, by=np.abs(a - b))
    summary = both.groupby("scope").agg(
        units=("value", "size"),
        missing=("missing", "sum"),
        differs=("differs", "sum"),
        most=("by", "max"),
    )
    print(summary.to_string())
    columns = [*UNIT, "value_golden", "value"]
    if len(bad := both[missing | far]):
        print(bad[columns].head(20).to_string())
    return len(bad)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["freeze", "compare"])
    parser.add_argument("results", type=Path, help="folder of a profile's results")
    parser.add_argument("golden", type=Path, help="CSV file")
    parser.add_argument("--tolerance", type=float, default=1e-6)
    options = parser.parse_args()
    if options.what == "freeze":
        read(options.results).to_csv(options.golden, index=False)
        return 0
    golden = pd.read_csv(options.golden, keep_default_na=False, na_values=["NaN"])
    golden["value"] = pd.to_numeric(golden["value"], errors="coerce")
    return int(compare(read(options.results), golden, options.tolerance) > 0)


if __name__ == "__main__":
    sys.exit(main())
