"""Your own screen of cells, or your own responses, from files."""

from pathlib import Path

from perturbcore.core.errors import ParameterError
from perturbcore.data.effects.ba_ate import MIN_CELLS
from perturbcore.data.folds import check_leakage
from perturbcore.data.identifiers import check_names, gene_aliases
from perturbcore.data.own import read_own
from perturbcore.data.responses import check_responses, read_responses
from perturbcore.data.screens.declare import declare_screen, read_screen
from perturbcore.data.sets._make import controls_said, folded, responses_of
from perturbcore.data.sets.base import Card, Dataset, check_options, make_dataset


def load(
    screen=None,
    responses=None,
    layer: str | None = None,
    cells=None,
    kind: str = "",
    name: str = "mine",
    title: str = "",
    effect_control: str = "global",
    effect_batches: str = "all",
    min_cells: int = MIN_CELLS,
    n_folds: int = 5,
    seed: int = 0,
    backed: bool = False,
    doubles: str = "apart",
    gene_table: bool = False,
    **declared,
) -> Dataset:
    """Load one of your files: a screen, from which effects are computed, or responses.

    `screen`: cells x genes, `.h5ad` or a 10x folder, with `layer`, `cells`, `backed` and
    `**declared` of `perturbcore.data.screens.declare.read_screen`; `responses`: `.h5ad`, or with a
    `kind` tables of `perturbcore.data.own.read_own`; folds are added where there are none;
    `effect_control, effect_batches, min_cells`: of `perturbcore.data.effects.ba_ate`; `doubles,
    gene_table`: which names share a fold, see `perturbcore.data.identity.same_perturbation`.
    """
    if (screen is None) == (responses is None):
        raise ParameterError("give either screen=<file.h5ad> or responses=<file.h5ad>")
    card, read = Card(), None
    same = dict(doubles=doubles, aliases=gene_aliases() if gene_table else None)
    given = screen if responses is None else responses
    paths = [Path(p) for p in (given if isinstance(given, list | tuple) else [given])]
    path, files = paths[0], ", ".join(p.name for p in paths)
    notes = [f"Read from {files}."]
    if responses is None:
        check_options("a screen", declare_screen, declared)
        declared = {"dataset": name, **declared} if declared else {}
        read = read_screen(path, backed=backed, layer=layer, cells=cells, **declared)
        read.uns["perturbcore"]["dataset"] = name
        card.step_of("screen", read, note=f"{path.name}; {controls_said(read)}")
        how = dict(control=effect_control, batches=effect_batches, min_cells=min_cells, same=same)
        table = responses_of(read, **how, n_folds=n_folds, seed=seed)
        note = f"{table.n_obs:,} rows; cells are those of the perturbations"
        card.responses(table, note, cells=int(table.obs["n_cells"].sum()))
    else:
        known = {"identifier", "cell_line_value"} if kind else set()
        if wrong := [o for o in declared if o not in known]:
            raise ParameterError(f"option '{wrong[0]}' is for a screen, not for responses")
        if kind:
            line = declared.pop("cell_line_value", None)
            table, said = read_own(paths, kind, cell_line=line, dataset=name, **declared)
            notes += [said] if said else []
        else:
            table = read_responses(path)
            identifier = table.uns["perturbcore"].get("identifier", "symbol")
            check_names(table.obs["perturbation"], identifier, str(path), strict=False)
        folds = "of the file" if "fold" in table.obs else "made here"
        if "fold" not in table.obs:
            folded(table, n_folds, seed, **same)
        check_responses(table, source=str(path))
        check_leakage(table)
        table.uns["perturbcore"] = {**table.uns["perturbcore"], "dataset": name}
        card.responses(table, f"{files}; {table.n_obs:,} rows; folds {folds}")
    notes += table.uns["perturbcore"].get("merged", ())
    return make_dataset(table, card, about={"title": title or name}, notes=notes, screen=read)
