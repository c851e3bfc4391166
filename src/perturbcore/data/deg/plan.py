"""Which groups of cells are tested against which controls, worked out from labels alone."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from perturbcore.core.errors import InputError, ParameterError

VARIANTS = ("pooled", "per_batch")


@dataclass(frozen=True)
class Comparisons:
    """Groups of cells, and what is tested.

    `groups`: one row per group of cells: `cell_line`, `place` (its cell line, or cell line and
    batch), `perturbation`, `control`, `n` cells, `used`, and `row` of the result (-1: not tested).
    `rows`: obs of the result. `n_too_few`: perturbations (of a cell line) left out because they
    have too few cells.
    """

    groups: pd.DataFrame
    rows: pd.DataFrame
    group_of_cell: np.ndarray
    n_too_few: int

    def blocks(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the control group and the treated ones of each place where something is tested."""
        places = self.groups[self.groups["used"]].groupby("place", sort=True)
        control = [(part.index, part["control"].to_numpy()) for _, part in places]
        return [(index[c].to_numpy(), index[~c].to_numpy()) for index, c in control]


def plan_tests(obs: pd.DataFrame, variant: str, min_cells: int, strict: bool) -> Comparisons:
    """Choose the groups of cells to test; see :func:`perturbcore.data.deg.labels.deg_labels`."""
    if variant not in VARIANTS:
        raise ParameterError(f"variant={variant!r}: choose one of {list(VARIANTS)}")
    if isinstance(min_cells, bool) or not isinstance(min_cells, int | np.integer) or min_cells < 0:
        raise ParameterError(f"min_cells={min_cells!r}: give a whole number of at least 0")
    keys = obs[["cell_line", "perturbation", "batch"]].astype(str).reset_index(drop=True)
    keys["control"] = obs["is_control"].to_numpy(dtype=bool)
    keys.loc[keys["control"], "perturbation"] = ""
    keys["place"] = keys["cell_line"]
    if variant == "per_batch":
        keys["place"] = keys.groupby(["cell_line", "batch"], sort=True).ngroup()
    found = keys.groupby(["cell_line", "place", "control", "perturbation"], sort=True)
    group_of_cell = found.ngroup().to_numpy()
    groups = found.size().rename("n").reset_index()
    n, control = groups["n"].to_numpy(), groups["control"].to_numpy()
    # one cell has no variance
    enough = (n > min_cells if strict else n >= min_cells) & (n > 1)
    served = groups["place"].isin(groups.loc[control & enough, "place"]).to_numpy()
    wanted = f"{'more than' if strict else 'at least'} {min_cells}"
    for line, part in groups.groupby("cell_line"):
        if not served[part.index].any():
            most = part.loc[part["control"], "n"].max() if part["control"].any() else 0
            where = "" if variant == "pooled" else " in any one batch"
            raise InputError(
                f"cell_line {line!r} has {most} control cells{where} at most, {wanted} are needed: "
                "lower min_cells, leave the line out, or declare its controls"
            )
    tested = enough & served & ~control
    if not tested.any():
        raise InputError(
            f"no perturbation has {wanted} cells (the largest has {n[~control].max()}): lower "
            "min_cells"
        )
    rows = groups[tested].groupby(["cell_line", "perturbation"], sort=True)
    groups["row"] = rows.ngroup().reindex(groups.index, fill_value=-1)
    busy = groups["place"].isin(groups.loc[tested, "place"]).to_numpy()
    groups["used"] = tested | (control & enough & busy)
    table = rows["n"].agg(n_cells="sum", n_batches="size").reset_index()
    if variant == "pooled":
        row = groups["row"].to_numpy()[group_of_cell]
        table["n_batches"] = keys["batch"][row >= 0].groupby(row[row >= 0]).nunique().to_numpy()
    n_all = len(groups.loc[~control, ["cell_line", "perturbation"]].drop_duplicates())
    return Comparisons(groups, table, group_of_cell, n_all - len(table))
