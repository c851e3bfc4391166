"""GEARS run by its own package on local files only: nothing is downloaded.

The package `cell-gears` 0.1.2 is no longer maintained, and this project does not install it. When it
starts it downloads a table of gene annotation, unless the file is there already: it is given one made
from the annotation of the profile.
"""

import pickle
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.models.decoders.cells import Cells

NEIGHBOURS = 20
LEAST_SIMILARITY = 0.1
LEAST_GENES = 20


def run_gears(
    cells: Cells,
    responses: AnnData,
    annotation: dict,
    folder,
    *,
    cell_line: str,
    fold: int,
    epochs: int = 20,
    hidden_size: int = 64,
    batch_size: int = 32,
    cells_per_perturbation: int | None = None,
    validation: float = 0.15,
    device: str = "cpu",
    seed: int = 0,
) -> tuple[pd.DataFrame, float]:
    """Train GEARS without the perturbations of a fold and predict them; nothing is downloaded.

    Parameters
    ----------
    cells : Cells
    responses : AnnData
        With folds.
    annotation : dict of str to list of str
        Gene sets; genes that share many are neighbours in the graph of perturbations (Jaccard index
        above 0.1, at most 20 a gene). A perturbation in no set cannot be predicted.
    folder : path
        Work files of the package; must not hold another run.
    cell_line : str
    fold : int
    epochs, hidden_size, batch_size
        The defaults of the package.
    cells_per_perturbation : int, optional
        Train on at most that many cells of each perturbation, and of the controls ten times as many.
    validation : float
        Share of training perturbations by which the package chooses an epoch.
    device : str
    seed : int

    Returns
    -------
    predictions : DataFrame
        `perturbation`, `fold`, `cell_line` and one column a gene, to be concatenated over folds and
        written with ``to_csv(path, index=False)``.
    seconds : float
        Of training and predicting.

    Raises
    ------
    ParameterError
        The package is not installed.
    InputError
        The folder is not empty, no perturbation of the fold is annotated, or there are fewer than 20 genes.
    """
    try:
        from gears import GEARS, PertData
    except ImportError as error:
        raise ParameterError(
            "GEARS is not installed: pip install cell-gears==0.1.2 in an environment of its own, or give its "
            "predictions as a file"
        ) from error
    import torch

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise InputError(f"{folder} is not empty: the package would mix this run with an older one")
    if len(cells.genes) < LEAST_GENES:
        raise InputError(
            f"GEARS ranks the {LEAST_GENES} strongest genes; the screen has {len(cells.genes)}"
        )
    obs = responses.obs[responses.obs["cell_line"].astype(str) == cell_line]
    held = obs["fold"].to_numpy().astype(int) == fold
    names = obs["perturbation"].astype(str).to_numpy()
    terms = _terms(annotation)
    test = [p for p in names[held] if p in terms]
    train = [p for p in names[~held] if p in terms]
    if not test:
        raise InputError(
            f"no perturbation of fold {fold} is in the annotation: GEARS cannot predict any"
        )
    adata = _gears_cells(cells, cell_line, train, test, cells_per_perturbation, seed)
    n = max(1, round(validation * len(train)))
    chosen = set(np.random.default_rng([seed, fold]).choice(train, n, replace=False))
    split = {
        "train": ["ctrl", *(f"{p}+ctrl" for p in train if p not in chosen)],
        "val": [f"{p}+ctrl" for p in sorted(chosen)],
    }
    genes = sorted(set(cells.genes) | set(names))
    # the package reads these three with pickle: they are written here, never taken from elsewhere
    for name, value in (
        ("gene2go_all", terms),
        ("genes", genes),
        ("split", {**split, "test": split["val"]}),
    ):
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(value))
    np.random.seed(seed)  # noqa: NPY002 - the package draws from the global generator
    torch.manual_seed(seed)
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = PertData(
            str(folder), gene_set_path=str(folder / "genes.pkl"), default_pert_graph=False
        )
        data.new_data_process("run", adata=adata)
        data.prepare_split(split="custom", seed=seed, split_dict_path=str(folder / "split.pkl"))
        data.get_dataloader(batch_size=batch_size, test_batch_size=batch_size)
        # its constructor indexes cells by a series, which sparse matrices no longer allow; later steps want them
        sparse = data.adata.X
        data.adata.X = sparse.toarray()
        model = GEARS(data, device=device, weight_bias_track=False)
        model.adata.X = sparse
        model.ctrl_adata = model.adata[(model.adata.obs["condition"] == "ctrl").to_numpy()]
        edges, weights = _graph(terms, model.pert_list)
        model.model_initialize(hidden_size=hidden_size, G_go=edges, G_go_weight=weights)
        model.train(epochs=epochs)
        found = model.predict([[p] for p in test])
    seconds = time.perf_counter() - started
    control = cells.X[cells.controls(cell_line)].mean(axis=0, dtype=np.float64)
    values = np.stack([found[p] for p in test]) - np.asarray(control).ravel()
    table = pd.DataFrame(values, columns=list(cells.genes))
    for column, value in (("cell_line", cell_line), ("fold", fold), ("perturbation", test)):
        table.insert(0, column, value)
    return table, seconds


def _terms(annotation: dict) -> dict:
    terms: dict = {}
    for term, genes in annotation.items():
        for gene in genes:
            terms.setdefault(str(gene), set()).add(str(term))
    return terms


def _gears_cells(cells: Cells, line, train, test, limit, seed) -> AnnData:
    rng = np.random.default_rng([seed, 17])
    control = cells.controls(line)
    parts = [control if limit is None else rng.permutation(control)[: 10 * limit]]
    for p in train:
        rows = cells.training(line, [p], test)
        parts.append(rows if limit is None else rng.permutation(rows)[:limit])
    rows = np.concatenate(parts)
    condition = np.where(
        cells.is_control[rows], "ctrl", cells.perturbation[rows].astype(object) + "+ctrl"
    )
    obs = pd.DataFrame({"condition": pd.Categorical(condition), "cell_type": line})
    obs.index = [f"cell{i}" for i in range(len(obs))]
    var = pd.DataFrame({"gene_name": list(cells.genes)}, index=pd.Index(cells.genes, dtype=str))
    return AnnData(cells.X[rows], obs=obs, var=var)


def _graph(terms: dict, names: list):
    """Each perturbation and its most similar ones by the Jaccard index of their terms, itself included."""
    import torch

    known = {t: j for j, t in enumerate(sorted(set().union(*(terms[n] for n in names))))}
    at = [(i, known[t]) for i, n in enumerate(names) for t in terms[n]]
    has = sp.csr_matrix((np.ones(len(at)), np.array(at).T), shape=(len(names), len(known)))
    both = (has @ has.T).toarray()
    size = np.diag(both)
    similarity = both / (size[:, None] + size[None] - both)
    edges, weights = [], []
    for j, column in enumerate(similarity.T):
        near = np.argsort(-column, kind="stable")[: NEIGHBOURS + 1]
        near = near[column[near] > LEAST_SIMILARITY]
        edges += [(i, j) for i in near]
        weights += column[near].tolist()
    return torch.tensor(np.array(edges).T, dtype=torch.long), torch.tensor(
        weights, dtype=torch.float32
    )
