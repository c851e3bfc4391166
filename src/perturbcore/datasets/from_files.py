"""Your own screen of cells, or your own responses, from an .h5ad file."""

from pathlib import Path

from perturbcore.datasets._effects import responses_of
from perturbcore.datasets.base import Card, Dataset
from perturbcore.errors import InputError, ParameterError
from perturbcore.responses import check_responses, read_responses
from perturbcore.splits import add_folds, check_leakage


def load(
    screen=None,
    responses=None,
    name: str = "mine",
    title: str = "",
    perturbation: str = "perturbation",
    batch: str = "batch",
    cell_line: str = "cell_line",
    control="control",
    scale: str = "",
    identifier: str = "symbol",
    backed: bool = False,
    effect_control: str = "global",
    effect_batches: str = "all",
    n_folds: int = 5,
    seed: int = 0,
    **declared,
) -> Dataset:
    """Load one of your files: a screen, from which effects are computed, or responses.

    Parameters
    ----------
    screen : path, optional
        Cells x genes, `.h5ad`. `perturbation`, `batch` and `cell_line` name its ``obs`` columns.
    responses : path, optional
        One row a (cell line, perturbation), `.h5ad`; see `perturbcore.responses`. Folds are added
        where there is no column `fold`. Give either this or `screen`.
    name, title : str
        Key in the scores table; what a page calls the data set.
    control : str or list of str
        Label of control cells in column `perturbation`.
    scale : str
        What the screen's ``X`` holds: "counts" or "log1p". It is never guessed.
    identifier : str
        What the perturbation names are: "symbol", "ensembl", "entrez" or "drug".
    backed : bool
        Whether to leave the cells on disk.
    effect_control, effect_batches : str
        Variant of the effect; see `control` and `batches` of `perturbcore.effects.ba_ate`.
    n_folds, seed : int
        See `perturbcore.splits.assign_folds`.
    **declared
        Further options of `perturbcore.screens.read_screen`.

    Returns
    -------
    Dataset

    Raises
    ------
    ParameterError
        Not exactly one of `screen` and `responses` is given, or `scale` is not declared.
    InputError
        The file is not what was declared; the message names the column and value.
    """
    if (screen is None) == (responses is None):
        raise ParameterError("give either screen=<file.h5ad> or responses=<file.h5ad>")
    if responses is not None:
        return _from_responses(Path(responses), name, title, n_folds, seed, declared)
    if not scale:
        raise ParameterError("declare what the screen's X holds: scale='counts' or scale='log1p'")
    from perturbcore.screens import read_screen

    path = Path(screen)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    cells = read_screen(
        path,
        backed=backed,
        dataset=name,
        perturbation=perturbation,
        batch=batch,
        cell_line=cell_line,
        control=control,
        scale=scale,
        identifier=identifier,
        **declared,
    )
    card = Card()
    note = f"{path.name}; {int(cells.obs['is_control'].sum()):,} control cells"
    card.step_of("screen", cells, note=note)
    table = responses_of(
        cells, control=effect_control, batches=effect_batches, n_folds=n_folds, seed=seed
    )
    card.step(
        "responses",
        cells=int(table.obs["n_cells"].sum()),
        perturbations=table.obs["perturbation"].nunique(),
        genes=table.n_vars,
        note=f"{table.n_obs:,} rows; cells are those of the perturbations",
    )
    return Dataset(
        name=name,
        title=title or name,
        task="lfc",
        screen=cells,
        responses=table,
        card=card.frame(),
        notes=(f"Read from {path.name}.",),
    )


def _from_responses(path: Path, name, title, n_folds, seed, declared) -> Dataset:
    if declared:
        raise ParameterError(f"option '{next(iter(declared))}' is for a screen, not for responses")
    table = read_responses(path)
    given = "fold" in table.obs
    if not given:
        add_folds(table, min(n_folds, table.obs["perturbation"].nunique()), seed)
    check_responses(table, source=str(path))
    check_leakage(table)
    table.uns["perturbcore"] = {**table.uns["perturbcore"], "dataset": name}
    card = Card()
    card.step(
        "responses",
        cells=int(table.obs["n_cells"].sum()) if "n_cells" in table.obs else None,
        perturbations=table.obs["perturbation"].nunique(),
        genes=table.n_vars,
        note=f"{path.name}; {table.n_obs:,} rows; folds {'of the file' if given else 'made here'}",
    )
    return Dataset(
        name=name,
        title=title or name,
        task=table.uns["perturbcore"]["task"],
        responses=table,
        card=card.frame(),
        notes=(f"Read from {path.name}.",),
        simulated=bool(table.uns["perturbcore"].get("simulated", False)),
    )
