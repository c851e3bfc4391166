"""Which groups of cells are tested against which controls, worked out from labels alone."""

import numpy as np
import pandas as pd

from perturbcore.core.errors import InputError, ParameterError

VARIANTS = ("pooled", "per_batch")
# running sums of one pass; where groups x genes is more, the screen is read once for each part
MAX_SUM_BYTES = 2_000_000_000


class Comparisons:
    """Groups of cells, and the comparisons of them that are made.

    `groups`: one row a group of cells: `cell_line`, `place` (its cell line, or cell line and
    batch), `perturbation`, `control`, `n` cells, and `row` of the result (-1: not tested);
    `rows`: obs of the result; `n_too_few`: perturbations (of a cell line) left out because they
    have too few cells.
    """

    def __init__(self, groups, rows, group_of_cell, n_too_few):
        self.groups, self.rows = groups, rows
        self.group_of_cell = group_of_cell
        self.n_too_few = n_too_few

    def comparisons(self):
        """Yield (control group, treated groups) of each place where something is tested."""
        for _, part in self.groups[self.groups["used"]].groupby("place", sort=True):
            control = part["control"].to_numpy()
            yield part.index[control][0], part.index[~control].to_numpy()

    def parts(self, row_bytes: int):
        """Group the comparisons so that their running sums stay within MAX_SUM_BYTES."""
        room = max(2, int(MAX_SUM_BYTES // row_bytes))
        part, used = [], 0
        for control, treated in self.comparisons():
            done = 0
            while done < len(treated):
                if used + 2 > room:
                    yield part
                    part, used = [], 0
                take = treated[done : done + room - used - 1]
                part.append((control, take))
                used, done = used + 1 + len(take), done + len(take)
        if part:
            yield part

    def codes(self, part) -> tuple[np.ndarray, int]:
        """Return the row of the running sums for each cell (-1: none), and the number of rows."""
        members = np.concatenate([[control, *treated] for control, treated in part])
        local = np.full(len(self.groups), -1)
        local[members] = np.arange(len(members))
        return local[self.group_of_cell], len(members)


def plan_tests(obs, variant, min_cells, strict, count_by=None) -> Comparisons:
    """Choose the groups of cells to test; see :func:`perturbcore.data.deg.labels.deg_labels`."""
    if variant not in VARIANTS:
        raise ParameterError(f"variant={variant!r}: choose one of {list(VARIANTS)}")
    if isinstance(min_cells, bool) or not isinstance(min_cells, int | np.integer) or min_cells < 0:
        raise ParameterError(f"min_cells={min_cells!r}: give a whole number of at least 0")
    if count_by is not None and count_by not in obs:
        raise InputError(f"count_by={count_by!r} not in obs; choose among {list(obs.columns)}")
    keys = obs[["cell_line", "perturbation"]].astype(str).reset_index(drop=True)
    keys["control"] = obs["is_control"].to_numpy(dtype=bool)
    keys["place"] = keys["cell_line"]
    batch = obs["batch"].astype(str).to_numpy()
    if variant == "per_batch":
        keys["place"] = pd.factorize(
            pd.MultiIndex.from_arrays([keys["cell_line"], batch]), sort=True
        )[0]
    keys.loc[keys["control"], "perturbation"] = ""
    keys["counted"] = (
        keys["perturbation"] if count_by is None else obs[count_by].astype(str).to_numpy()
    )
    if count_by is not None:
        keys.loc[keys["control"], "counted"] = ""
        n_counted = (
            keys.groupby(["place", "control", "counted"])["place"].transform("size").to_numpy()
        )
    by = ["cell_line", "place", "control", "perturbation"]
    found = keys.groupby(by, sort=True)
    group_of_cell = found.ngroup().to_numpy()
    groups = found.size().rename("n").reset_index()
    counted = groups["n"].to_numpy()
    if count_by is not None:
        counted = np.zeros(len(groups), dtype=int)
        np.maximum.at(counted, group_of_cell, n_counted)
    enough = (counted > min_cells if strict else counted >= min_cells) & (
        groups["n"].to_numpy() > 1
    )
    control = groups["control"].to_numpy()
    served = groups["place"].isin(groups.loc[control & enough, "place"]).to_numpy()
    wanted = f"{'more than' if strict else 'at least'} {min_cells}"
    for line, part in groups.groupby("cell_line"):
        if not served[part.index].any():
            most = int(part.loc[part["control"], "n"].max()) if part["control"].any() else 0
            where = "" if variant == "pooled" else " in any one batch"
            raise InputError(
                f"cell_line {line!r} has {most} control cells{where} at most, {wanted} are needed: "
                "lower min_cells, leave the line out, or declare its controls"
            )
    tested = enough & served & ~control
    if not tested.any():
        raise InputError(
            f"no perturbation has {wanted} cells (the largest has {int(counted[~control].max())}): "
            "lower min_cells"
        )
    treated = groups[tested]
    rows = treated.groupby(["cell_line", "perturbation"], sort=True)
    groups["row"] = -1
    groups.loc[tested, "row"] = rows.ngroup()
    busy = groups["place"].isin(treated["place"]).to_numpy()
    groups["used"] = tested | (control & enough & busy)
    table = rows["n"].agg(n_cells="sum", n_batches="size").reset_index()
    if variant == "pooled":
        row = groups["row"].to_numpy()[group_of_cell]
        pairs = pd.DataFrame({"row": row, "batch": batch})[row >= 0].drop_duplicates()
        table["n_batches"] = np.bincount(pairs["row"], minlength=len(table))
    n_all = len(groups.loc[~control, ["cell_line", "perturbation"]].drop_duplicates())
    return Comparisons(groups, table, group_of_cell, n_all - len(table))
