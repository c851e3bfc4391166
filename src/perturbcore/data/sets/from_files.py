"""Your own screen of cells, or your own responses, from an .h5ad file."""

import inspect
from pathlib import Path

from perturbcore.core.errors import ParameterError
from perturbcore.data.folds import add_folds, check_leakage
from perturbcore.data.responses import check_responses, read_responses
from perturbcore.data.screens.declare import declare_screen
from perturbcore.data.screens.read import read_screen
from perturbcore.data.sets._effects import responses_of
from perturbcore.data.sets.base import Card, Dataset


def load(
    screen=None,
    responses=None,
    name: str = "mine",
    title: str = "",
    effect_control: str = "global",
    effect_batches: str = "all",
    n_folds: int = 5,
    seed: int = 0,
    backed: bool = False,
    **declared,
) -> Dataset:
    """Load one of your files: a screen, from which effects are computed, or responses.

    Parameters
    ----------
    screen : path, optional
        Cells x genes, `.h5ad`.
    responses : path, optional
        One row a (cell line, perturbation), `.h5ad`; see `perturbcore.data.responses`. Folds are added
        where there is no column `fold`. Give either this or `screen`.
    name, title : str
        Key in the scores table; what a page calls the data set.
    effect_control, effect_batches : str
        Variant of the effect; see `control` and `batches` of `perturbcore.data.effects.ba_ate`.
    n_folds, seed : int
        See `perturbcore.data.folds.assign_folds`; never more folds than perturbations.
    backed : bool
        Whether to leave the cells of the screen on disk.
    **declared
        What the screen's columns and values mean: the options of
        `perturbcore.data.screens.declare.declare_screen`, such as `perturbation`, `batch`, `cell_line`,
        `control` and `scale`. A file written from a declared screen needs none.

    Returns
    -------
    Dataset

    Raises
    ------
    ParameterError
        Not exactly one of `screen` and `responses` is given, or an option is unknown.
    InputError
        The file is not what was declared; the message names file, column and value.
    """
    if (screen is None) == (responses is None):
        raise ParameterError("give either screen=<file.h5ad> or responses=<file.h5ad>")
    if responses is not None:
        return _from_responses(Path(responses), name, title, n_folds, seed, declared)
    known = [p for p in inspect.signature(declare_screen).parameters if p != "adata"]
    unknown = [option for option in declared if option not in known]
    if unknown:
        raise ParameterError(
            f"'{unknown[0]}' is no option of a screen; there are: {', '.join(known)}"
        )
    path = Path(screen)
    if declared:
        declared = {"dataset": name, **declared}
    cells = read_screen(path, backed=backed, **declared)
    cells.uns["perturbcore"]["dataset"] = name
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
        simulated=bool(cells.uns["perturbcore"].get("simulated", False)),
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
