"""Write the dated verdicts kept in the package, decided on single folds of the downloaded tables.

    python scripts/write_dated.py

A verdict keeps its date as long as its verdict and its number stay. A test checks the file.
"""

from datetime import date
from importlib.resources import files
from pathlib import Path

import pandas as pd

from perturbcore.data.published.tables import load_published
from perturbcore.report.published.claims.audit import DATED, audit, dated

HEAD = """\
# Verdicts of this project on the claims, with the numbers that decide, computed on single folds of
# genbio-ai/foundation-models-perturbation@e5b4caf734fd81b24bee004eb2d55d2f675cd4a2 and on printed
# tables, by `python scripts/write_dated.py`. No value of a single fold is kept here.
"""


def dated_rows(before: pd.DataFrame) -> pd.DataFrame:
    """Decide every claim on single folds; the date is today's where verdict or number is new."""
    table = audit(load_published(download=True)).set_index("id")[DATED]
    before = before.reindex(table.index)
    same = (before[["verdict", "number"]] == table[["verdict", "number"]]).all(axis=1)
    table.insert(0, "date", before["date"].where(same, date.today().isoformat()))
    return table


if __name__ == "__main__":
    target = Path(str(files("perturbcore.report.published.claims"))) / "dated.csv"
    rows = dated_rows(dated())
    target.write_text(HEAD + rows.to_csv(), encoding="utf-8")
    print(f"{target}: {len(rows)} verdicts")
