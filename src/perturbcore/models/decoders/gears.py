"""GEARS as a competitor: what a run of it predicted, read from a file and scored like any model."""

from pathlib import Path

import numpy as np
import pandas as pd

from perturbcore.core.digest import digest
from perturbcore.core.errors import InputError, LeakError
from perturbcore.core.tables import check_table
from perturbcore.data.read import read_table
from perturbcore.score.model import Fold, Model, Prediction


class GearsPredictions(Model):
    """Predictions of GEARS, read from a file (Roohani et al. 2024, Nature Biotechnology 42).

    `path`: a table (``.csv``, ``.tsv`` or ``.parquet``) with columns `perturbation`, `fold`,
    optionally `cell_line`, then one per gene. A row is the log fold-change predicted for a
    perturbation by a run that was trained without the perturbations of that fold.
    """

    name, modality, predictor, spec = "GEARS", "Advanced", "gears", {}

    def __init__(self, path: Path | str):
        self.path = Path(path)
        table = read_table(self.path)
        needs = "it needs perturbation, fold and one column per gene"
        check_table(table, ("perturbation", "fold"), path, way_out=needs)
        labels = [c for c in ("perturbation", "fold", "cell_line") if c in table]
        self.labels = table[labels].astype({c: int if c == "fold" else str for c in labels})
        values = table.drop(columns=labels).apply(pd.to_numeric, errors="coerce")
        self.values = values.astype(np.float32)
        bad = np.argwhere(~np.isfinite(self.values.to_numpy()))
        if len(bad):
            name, gene = self.labels["perturbation"][bad[0, 0]], self.values.columns[bad[0, 1]]
            raise InputError(f"{path}: the prediction of '{name}' for {gene} is not finite")
        twice = self.labels["perturbation"][self.labels.drop(columns="fold").duplicated()]
        if len(twice):
            raise InputError(f"{path}: '{twice.iloc[0]}' is there twice; keep one row")

    @property
    def digest(self) -> str:
        """Content of the file."""
        return digest(self.labels, self.values)

    def predict(self, fold: Fold) -> Prediction:
        """Look the test perturbations up; one that GEARS could not predict gets the Train Mean.

        A `LeakError` says that one was predicted for another fold, so that its cells may have been
        trained on.
        """
        genes, names = fold.test.var_names, fold.test_ids
        lost = [g for g in genes if g not in self.values]
        if lost:
            few = f"no prediction for {len(lost)} genes, such as {lost[:3]}"
            raise InputError(f"{self.path}: {few}")
        rows = self.labels[self.labels["perturbation"].isin(names)]
        if "cell_line" in rows:
            rows = rows[rows["cell_line"].isin(fold.cell_lines)]
        for row in rows[rows["fold"] != fold.number].itertuples():
            raise LeakError(
                f"{self.path}: '{row.perturbation}' is in fold {fold.number} here, predicted in "
                f"fold {row.fold}: its cells may have been trained on; run GEARS with these folds"
            )
        if rows.empty:
            raise InputError(f"{self.path}: no prediction for perturbations of fold {fold.number}")
        values = fold.task.floor(fold.truth, len(names))
        at = names.get_indexer(rows["perturbation"])
        values[at] = self.values.loc[rows.index, list(genes)].to_numpy()
        return Prediction(values, chosen="read from a file", coverage=len(rows) / len(names))
