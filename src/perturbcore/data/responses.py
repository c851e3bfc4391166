"""The border between cells and scores: a row per perturbation and cell line, checked when read."""

from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.core.errors import InputError, check_name
from perturbcore.data.read import check_table, filled, read_h5ad

# what responses take over from the screen, or the responses, that they are made of
TAKEN = ("dataset", "identifier", "simulated")
# layers that the responses of each task have; `perturbcore.score.task.register_task` adds to it
LAYERS: dict[str, tuple[str, ...]] = {
    "lfc": (),
    "deg": ("deg",),
    "deg_pairs": ("deg", "observed"),
    "dir_pairs": ("deg", "observed"),
    "functions": (),
}


def make_responses(
    X,
    obs: pd.DataFrame,
    genes,
    *,
    dataset: str,
    task: str = "lfc",
    identifier: str = "symbol",
    observed=None,
    simulated: bool = False,
) -> AnnData:
    """Assemble and check a responses table; see `check_responses` for the contract.

    `X` (rows, genes): log fold-changes, or labels in {-1, 0, 1}; `observed`: which are known.
    """
    obs = obs.copy()
    for column in ("perturbation", "cell_line"):
        obs[column] = obs[column].astype(str)
    obs.index = (obs["cell_line"] + "|" + obs["perturbation"]).to_numpy()
    var = pd.DataFrame(index=pd.Index(genes, dtype=str))
    out = AnnData(np.asarray(X, dtype=np.float32), obs=obs, var=var)
    if "deg" in LAYERS.get(task, ()):
        out.layers["deg"] = np.asarray(X).astype(np.int8)
    if observed is not None:
        out.layers["observed"] = np.asarray(observed, dtype=bool)
        out.X = out.X * out.layers["observed"]
    about = {"dataset": str(dataset), "task": task, "identifier": str(identifier)}
    out.uns["perturbcore"] = about | {"simulated": bool(simulated)}
    check_responses(out, folds="fold" in obs)
    return out


def check_responses(responses: AnnData, *, folds: bool = True, source: str = "responses") -> None:
    """Check the contract of a responses table; `source`: what messages call it.

    Rows = (cell line, perturbation); ``obs``: `perturbation`, `cell_line`, `fold`; ``layers``: see
    `LAYERS`; ``uns["perturbcore"]``: `dataset`, `task`, `identifier`, `simulated`.
    """
    columns = ["perturbation", "cell_line", "fold"] if folds else ["perturbation", "cell_line"]
    check_table(
        responses.obs,
        {column: filled() for column in columns},
        f"{source}: obs",
        unique=["cell_line", "perturbation"],
        way_out="rename yours, or make folds with perturbcore.data.folds.add_folds",
    )
    about = responses.uns.get("perturbcore")
    if not isinstance(about, dict) or "task" not in about:
        raise InputError(
            f"{source}: uns['perturbcore'] does not say what X holds; declare it with "
            "perturbcore.data.responses.make_responses(..., dataset=..., task='lfc')"
        )
    task = about["task"]
    if task not in LAYERS:
        raise InputError(f"{source}: task '{task}' is unknown; it is one of {', '.join(LAYERS)}")
    if responses.n_obs == 0 or responses.n_vars == 0:
        raise InputError(f"{source}: it has {responses.n_obs} rows and {responses.n_vars} genes")
    for line in responses.obs["cell_line"].astype(str).unique():
        check_name(line, f"{source}: cell line")
    if len(twice := responses.var_names[responses.var_names.duplicated()]):
        raise InputError(f"{source}: gene '{twice[0]}' is there twice; make var_names unique")
    X = responses.X.data if sp.issparse(responses.X) else responses.X
    if not np.isfinite(X).all():
        bad = np.argwhere(~np.isfinite(dense(responses.X)))[0]
        raise InputError(
            f"{source}: X has NaN or infinity at row '{responses.obs_names[bad[0]]}', "
            f"gene '{responses.var_names[bad[1]]}'; drop that row or gene"
        )
    if "deg" in LAYERS[task]:
        _check_labels(responses, task, source)


def _check_labels(responses: AnnData, task: str, source: str) -> None:
    if "deg" not in responses.layers:
        raise InputError(f"{source}: task '{task}' needs layers['deg'] with labels -1, 0, 1")
    values = dense(responses.layers["deg"])
    wrong = (values != -1) & (values != 0) & (values != 1)
    if wrong.any():
        bad = values[wrong][0]
        raise InputError(f"{source}: layers['deg'] has the value {bad}; labels are -1, 0, 1")
    if "observed" in LAYERS[task] and "observed" not in responses.layers:
        raise InputError(
            f"{source}: task '{task}' needs layers['observed']: which labels are known. "
            "If all are, declare task 'deg'"
        )


def dense(X) -> np.ndarray:
    """Return a sparse or dense matrix as a dense one."""
    return X.toarray() if sp.issparse(X) else np.asarray(X)


def read_responses(path) -> AnnData:
    """Read a responses table from `.h5ad` and check it.

    A file that is not there, is not h5ad, or breaks the contract is refused.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "mine.h5ad"
    >>> sizes = dict(n_cell_lines=1, n_perturbations=12, n_genes=80, n_control_cells=60)
    >>> pc.load_dataset("simulated", **sizes).responses.write_h5ad(file)
    >>> pc.read_responses(file).shape
    (12, 80)
    """
    if not Path(path).exists():
        raise InputError(f"{path}: no such file; 'perturbcore effects' makes one from a screen")
    responses = read_h5ad(path)
    check_responses(responses, folds=False, source=str(path))
    return responses


def rows_of(responses: AnnData, cell_line: str) -> AnnData:
    """Return the rows of one cell line (a view)."""
    rows = (responses.obs["cell_line"] == cell_line).to_numpy()
    if not rows.any():
        lines = ", ".join(map(str, responses.obs["cell_line"].unique()))
        raise InputError(f"no cell line '{cell_line}' in these responses; there are: {lines}")
    return responses[rows]


def cell_lines(responses: AnnData) -> list[str]:
    """Return the cell lines in their order of first appearance."""
    return [str(c) for c in pd.unique(responses.obs["cell_line"].astype(str))]
