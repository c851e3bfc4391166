"""GEARS as a competitor: what a run of it predicted, read from a file and scored like any model."""

from pathlib import Path

import numpy as np
import pandas as pd

from perturbcore.core.digest import digest
from perturbcore.core.errors import InputError, LeakError
from perturbcore.data.tables import read_table
from perturbcore.score.model import Fold, Model, Prediction


class GearsPredictions(Model):
    """A model that reads saved predictions.

    Parameters
    ----------
    path : path
        A table (``.csv``, ``.tsv`` or ``.parquet``) with columns `perturbation`, `fold`, optionally
        `cell_line`, then one per gene. A row is the log fold-change predicted for a perturbation by
        a run that was trained without the perturbations of that fold.

    Raises
    ------
    InputError
        The file is not there or not as described; a value is not finite; a row is there twice.

    References
    ----------
    Roohani et al. 2024, Nature Biotechnology 42.
    """

    name, modality, predictor, spec = "GEARS", "Advanced", "gears", {}

    def __init__(self, path: Path | str):
        self.path = Path(path)
        table = read_table(self.path)
        lost = [c for c in ("perturbation", "fold") if c not in table]
        if lost:
            raise InputError(
                f"{path}: no column '{lost[0]}'; it needs perturbation, fold and one column per "
                "gene"
            )
        labels = [c for c in ("perturbation", "fold", "cell_line") if c in table]
        genes = table.columns.drop(labels)
        self.labels = table[labels].astype({c: int if c == "fold" else str for c in labels})
        self.values = table[genes].apply(pd.to_numeric, errors="coerce").astype(np.float32)
        bad = np.argwhere(~np.isfinite(self.values.to_numpy()))
        if len(bad):
            row, gene = bad[0]
            raise InputError(
                f"{path}: the prediction of '{self.labels['perturbation'][row]}' for "
                f"{genes[gene]} is "
                "not finite"
            )
        twice = self.labels["perturbation"][self.labels.drop(columns="fold").duplicated()]
        if len(twice):
            raise InputError(f"{path}: '{twice.iloc[0]}' is there twice; keep one row")

    @property
    def digest(self) -> str:
        """Content of the file."""
        return digest(self.labels, self.values)

    def predict(self, fold: Fold) -> Prediction:
        """Look the test perturbations up; one that GEARS could not predict gets the Train Mean.

        Raises
        ------
        LeakError
            A test perturbation was predicted for another fold: GEARS may have been trained on its
            cells.
        InputError
            A gene is not in the file, or it has no prediction for this fold.
        """
        lost = [g for g in fold.test.var_names if g not in self.values]
        if lost:
            raise InputError(
                f"{self.path}: no prediction for {len(lost)} genes, such as {lost[:3]}"
            )
        rows = self.labels[self.labels["perturbation"].isin(fold.test_ids)]
        if "cell_line" in rows:
            rows = rows[rows["cell_line"].isin(fold.cell_lines)]
        elsewhere = rows[rows["fold"] != fold.number]
        if len(elsewhere):
            row = elsewhere.iloc[0]
            raise LeakError(
                f"{self.path}: '{row['perturbation']}' is in fold {fold.number} here and was "
                "predicted in "
                f"fold {row['fold']}: its cells may have been trained on; run GEARS with these "
                "folds"
            )
        if rows.empty:
            raise InputError(f"{self.path}: no prediction for perturbations of fold {fold.number}")
        names = fold.test_ids
        values = fold.task.floor(fold.truth, len(names))
        at = names.get_indexer(rows["perturbation"])
        values[at] = self.values.loc[rows.index, list(fold.test.var_names)].to_numpy()
        return Prediction(values, chosen="read from a file", coverage=len(rows) / len(names))
