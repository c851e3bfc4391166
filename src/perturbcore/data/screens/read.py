"""Reading screens from files, and putting counts on the log scale."""

from pathlib import Path

import anndata
import h5py
import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.screens.declare import (
    as_labels,
    check_declared,
    check_labels,
    declare_screen,
    validate_screen,
)
from perturbcore.data.screens.values import blocks


def read_screen(path, *, backed: bool = False, validate: bool = True, **declaration) -> AnnData:
    """Read a screen from an ``.h5ad`` file.

    Parameters
    ----------
    backed : bool
        Leave the matrix on disk; every function here then reads it block by block.
    validate : bool
        Check every value.
    **declaration
        Arguments of `declare_screen`. None are needed for a file written from a declared
        screen.

    Raises
    ------
    InputError
        The file is missing, truncated, not AnnData (the message names it), or not as declared.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "mine.h5ad"
    >>> sizes = dict(n_cell_lines=1, n_perturbations=12, n_genes=80, n_control_cells=60)
    >>> pc.simulate_screen(**sizes).screen.write_h5ad(file)
    >>> int(pc.read_screen(file).obs["is_control"].sum())
    60
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of an .h5ad file")
    if not h5py.is_hdf5(path):
        raise InputError(
            f"{path}: not an .h5ad (HDF5) file, or broken; write one with AnnData.write_h5ad"
        )
    try:
        with h5py.File(path) as f:
            lacking = [k for k in ("X", "obs", "var") if k not in f]
        if not lacking:
            adata = anndata.read_h5ad(path, backed="r" if backed else None)
    except Exception as error:
        raise InputError(f"{path}: cannot be read, fetch or write it again ({error})") from error
    if lacking:
        raise InputError(f"{path}: HDF5, but not AnnData (no {', '.join(lacking)})")
    try:
        if declaration:
            return declare_screen(adata, validate=validate, **declaration)
        if "perturbcore" not in adata.uns:
            raise ParameterError(
                "not written from a declared screen: say what its columns mean "
                "(dataset=, scale=, perturbation=, batch=, cell_line=, control=); "
                f"obs has {list(adata.obs.columns)}"
            )
        _plain(adata)
        (validate_screen if validate else check_labels)(adata)
    except InputError as error:
        raise type(error)(f"{path}: {error}") from error
    return adata


def normalise(adata: AnnData) -> AnnData:
    """Scale the counts of each cell to 1e4 and take log1p, without densifying.

    `adata`: a declared screen; a backed one is read block by block, its result is in memory.
    Returns X CSR float32 and scale ``"log1p"``; a screen already on that scale is returned as it
    is. A cell without counts is refused.
    """
    check_declared(adata)
    if str(adata.uns["perturbcore"]["scale"]) == "log1p":
        return adata
    parts = [_log_of_share(b, adata.obs_names[i:j]) for i, j, b in blocks(adata)]
    out = AnnData(sp.vstack(parts, format="csr"), obs=adata.obs.copy(), var=adata.var.copy())
    out.uns["perturbcore"] = {**dict(adata.uns["perturbcore"]), "scale": "log1p"}
    return out


def _log_of_share(block, cells):
    total = np.asarray(block.sum(1, dtype=np.float64)).ravel()
    if (total <= 0).any():
        raise InputError(
            f"cell {cells[(total <= 0).argmax()]!r} has no counts: drop it, it cannot be normalised"
        )
    data = block.data * np.repeat((1e4 / total).astype(np.float32), np.diff(block.indptr))
    # scipy shares the indices of a block with the screen where it can; the result must not
    log = np.log1p(data).astype(np.float32, copy=False)
    return sp.csr_matrix((log, block.indices.copy(), block.indptr.copy()), shape=block.shape)


def _plain(adata):
    """Undo what the file format did: categories become text, numpy scalars plain values."""
    for name in ("perturbation", "batch", "cell_line"):
        if name in adata.obs:
            adata.obs[name] = as_labels(adata.obs[name], name)
    declared = adata.uns["perturbcore"]
    adata.uns["perturbcore"] = {
        k: bool(v) if k == "simulated" else str(v) for k, v in dict(declared).items()
    }
