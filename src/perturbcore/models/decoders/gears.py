"""GEARS as a competitor: what a run of it predicted, read from a file and scored like any model."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.core.digest import digest
from perturbcore.core.errors import InputError, LeakError, ParameterError
from perturbcore.score.joint import Prediction


class GearsPredictions:
    """A model for `evaluate_joint` that reads saved predictions.

    Parameters
    ----------
    path : path
        ``.csv``: columns `perturbation`, `fold`, optionally `cell_line`, then one a gene. ``.h5ad``: the
        same in obs, genes in var_names. ``.npz``: arrays `X` (n, g), `perturbation`, `fold`, `genes` and
        optionally `cell_line`. A row is the log fold-change predicted for a perturbation by a run that
        was trained without the perturbations of that fold.
    name, modality, predictor : str
        Columns of the scores.

    Raises
    ------
    InputError
        The file is not there or not as described; a value is not finite; a row is there twice.

    References
    ----------
    Roohani et al. 2024, Nature Biotechnology 42.
    """

    joint, spec = False, {}

    def __init__(
        self, path, *, name: str = "GEARS", modality: str = "Advanced", predictor: str = "gears"
    ):
        self.path = Path(path)
        self.name, self.modality, self.predictor = name, modality, predictor
        self.table, self.genes = read_predictions(self.path)

    @property
    def digest(self) -> str:
        """Content of the file."""
        return digest(self.table)

    def fit_predict(self, train: AnnData, test: AnnData, *, fold: int) -> Prediction:
        """Look the test perturbations up; one that GEARS could not predict gets the Train Mean.

        Raises
        ------
        LeakError
            A test perturbation was predicted for another fold: GEARS may have been trained on its cells.
        InputError
            A gene is not in the file, or it has no prediction for this fold.
        """
        lost = [g for g in test.var_names if g not in self.genes]
        if lost:
            raise InputError(
                f"{self.path}: no prediction for {len(lost)} genes, such as {lost[:3]}"
            )
        table = self.table
        if "cell_line" in table:
            table = table[table["cell_line"].isin(test.obs["cell_line"].astype(str))]
        names = list(test.obs["perturbation"].astype(str))
        elsewhere = table[table["perturbation"].isin(names) & (table["fold"] != fold)]
        if len(elsewhere):
            row = elsewhere.iloc[0]
            raise LeakError(
                f"{self.path}: '{row['perturbation']}' is in fold {fold} here and was predicted in fold "
                f"{row['fold']}: its cells may have been trained on; run GEARS with these folds"
            )
        rows = table[table["fold"] == fold].set_index("perturbation")
        known = [p for p in names if p in rows.index]
        if not known:
            raise InputError(f"{self.path}: no prediction for the perturbations of fold {fold}")
        mean = np.asarray(train.X, dtype=np.float64).mean(axis=0)
        values = np.tile(mean.astype(np.float32), (len(names), 1))
        values[np.isin(names, known)] = rows.loc[known, list(test.var_names)].to_numpy(
            dtype=np.float32
        )
        return Prediction(values, chosen="read from a file", coverage=len(known) / len(names))


def read_predictions(path) -> tuple[pd.DataFrame, list[str]]:
    """Read and check a file of predictions; see `GearsPredictions` for its layout.

    Returns
    -------
    table : DataFrame
        `perturbation` (str), `fold` (int), `cell_line` where there is one, then one column a gene.
    genes : list of str
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file of predictions")
    try:
        table = _read(path)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not a readable file of predictions ({error})") from error
    lost = [c for c in ("perturbation", "fold") if c not in table]
    if lost:
        raise InputError(
            f"{path}: no column '{lost[0]}'; it needs perturbation, fold and one column a gene"
        )
    labels = [c for c in ("perturbation", "fold", "cell_line") if c in table]
    genes = [c for c in table.columns if c not in labels]
    try:
        table = table.astype({**dict.fromkeys(genes, np.float32), "fold": int})
    except ValueError as error:
        raise InputError(
            f"{path}: a column is not numeric ({error}); only genes may follow the labels"
        ) from error
    for c in ("perturbation", "cell_line"):
        if c in table:
            table[c] = table[c].astype(str)
    bad = ~np.isfinite(table[genes].to_numpy())
    if bad.any():
        row, gene = np.argwhere(bad)[0]
        raise InputError(
            f"{path}: the prediction of '{table['perturbation'][row]}' for {genes[gene]} is not finite"
        )
    twice = table.duplicated([c for c in labels if c != "fold"])
    if twice.any():
        raise InputError(
            f"{path}: '{table['perturbation'][twice].iloc[0]}' is there twice; keep one row"
        )
    return table, genes


def _read(path: Path) -> pd.DataFrame:
    if path.suffix == ".csv":
        return pd.read_csv(path, dtype={"perturbation": str, "cell_line": str})
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            table = pd.DataFrame(file["X"], columns=file["genes"].astype(str))
            for c in ("cell_line", "fold", "perturbation"):
                if c in file:
                    table.insert(0, c, file[c])
        return table
    if path.suffix == ".h5ad":
        adata = ad.read_h5ad(path)
        X = adata.X.toarray() if sp.issparse(adata.X) else np.asarray(adata.X)
        table = pd.DataFrame(X, columns=adata.var_names.astype(str))
        for c in ("cell_line", "fold", "perturbation"):
            if c in adata.obs:
                table.insert(0, c, adata.obs[c].to_numpy())
        return table
    raise ParameterError(f"{path}: predictions are read from .csv, .npz or .h5ad")
