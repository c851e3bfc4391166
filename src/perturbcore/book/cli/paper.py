"""Verbs about the authors' data (Cole et al. 2026): from raw cells to their layout.

Everything heavy is imported inside the verbs, so that help answers at once.
"""

from perturbcore.core.errors import ParameterError


def responses(options) -> None:
    """Turn raw cells in the documented layout into responses in the documented layout."""
    from perturbcore.core.files import save_table
    from perturbcore.data.authors.write import add_stored_folds, effects_of_raw, labels_of_raw

    how = dict(dose=options.dose, backed=not options.in_memory)
    if options.task == "deg":
        how |= dict(test=options.test, min_cells=options.min_cells)
    elif options.min_cells is not None:
        raise ParameterError("--min-cells is for --task deg: effects have no minimum")
    else:
        how |= dict(batches=options.batches, totals=options.totals)
    make = labels_of_raw if options.task == "deg" else effects_of_raw
    table = make(options.dataset, options.raw, **how)
    if options.folds:
        add_stored_folds(table, options.dataset, options.folds)
    save_table(table, options.out)
    print(f"{options.out}: {table.n_obs} rows x {table.n_vars} genes")
    if not {"test_split", "fold_0"} & set(table.obs):
        print("without folds, which --folds takes from a file that has them")


def error(options) -> None:
    """Write the experimental error of raw cells in the published columns."""
    from perturbcore.core.files import save_table
    from perturbcore.report.reproduction.benchmark import error_of_raw

    table = error_of_raw(
        options.dataset, options.raw, control=options.controls, totals=options.totals,
        dose=options.dose, n_outer=options.outer, n_inner=options.inner, seed=options.seed,
        cell_line=options.cell_line, backed=not options.in_memory, n_jobs=options.jobs,
        checkpoint=options.checkpoint,
    )  # fmt: skip
    save_table(table, options.out)
    print(f"{options.out}: {table['pert_id'].nunique()} perturbations, {len(table)} rows")


def compare(options) -> None:
    """Run the published benchmark on the authors' data and set it beside the published scores."""
    from perturbcore.core.files import save_table
    from perturbcore.report.reproduction.benchmark import reproduce
    from perturbcore.report.reproduction.compare import agreement, other_data, verdict
    from perturbcore.report.reproduction.compare import compare as side_by_side
    from perturbcore.score.store import ScoreStore

    store = ScoreStore(options.store or ":memory:")
    done = reproduce(
        options.dataset or None, options.root, store=store, n_jobs=options.jobs, seed=options.seed
    )
    for note in done.notes:
        print(note)
    table = side_by_side(done.scores)
    save_table(table, options.out)
    print(agreement(table).to_string(index=False))
    if done.simulated:
        print("the data are simulated: differences from the published scores mean nothing")
    else:
        print(verdict(table, other_data(done, table)))
    print(f"{options.out}: {len(table)} rows")


def fixture(options) -> None:
    """Write the authors' layout, small, from simulated cells (for developers and tests)."""
    from perturbcore.report.reproduction.fixture import write_fixture

    root = write_fixture(options.folder, seed=options.seed, tasks=options.task or ("lfc",))
    print(f"{root}: simulated; use it with PERTURBCORE_PAPER_DATA={root}")


def paper(options) -> None:
    """Read, make and compare the authors' data of Cole et al. 2026 (see 'paper --help')."""
