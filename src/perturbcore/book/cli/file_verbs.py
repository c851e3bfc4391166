"""Verbs about a user's own files, from a screen to a ranking, and about the authors' data.

Everything heavy is imported inside the verbs, or by the front door, so that help answers at once.
"""

from pathlib import Path

import perturbcore as pc
from perturbcore.core.errors import ParameterError

DECLARED = (
    "perturbation batch cell_line control control_column batch_value cell_line_value scale "
    "identifier unmatched dataset layer cells"
)


def data(options) -> None:
    """List or fetch the foreign files that a profile needs.

    perturbcore data fetch --profile real
    """
    from perturbcore.data import catalogue
    from perturbcore.data.authors.layout import REPOSITORY, data_root

    names = list(options.name)
    if options.profile or not names:
        profile = pc.load_profile(options.profile or "demo")
        names += [n for n in profile.data if n not in names]
        if not names:
            print(f"profile {profile.name} needs no files from elsewhere")
            return
    # not in the catalogue: its files have no pinned address and checksum that we could know
    authors, names = REPOSITORY in names, [n for n in names if n != REPOSITORY]
    if authors and options.action == "list":
        state = "there" if data_root().is_dir() else "missing"
        print(f"{REPOSITORY}: the authors' preprocessed data, {state} at {data_root()}")
    if options.action == "fetch":
        for name, path in (catalogue.fetch_many(names) if names else {}).items():
            print(f"{name}: {path}")
        if authors:
            from perturbcore.data.authors.layout import fetch_authors_data

            print(f"{REPOSITORY}: {fetch_authors_data()}")
    elif names:
        for name, state in catalogue.verify(names).items():
            entry = catalogue.entry(name)
            size = f"{entry.bytes / 1e6:.1f} MB"
            print(f"{name}: {size}, {entry.licence}, {state}; {entry.description}")


def check(options) -> None:
    """Validate a screen.

    perturbcore check screen.h5ad --perturbation gene --batch lane --control ctrl --scale counts
    """
    screen = _screen(options)
    obs = screen.obs
    lines = ", ".join(sorted(obs["cell_line"].unique()))
    print(
        f"{options.screen}: {screen.n_obs} cells x {screen.n_vars} genes, "
        f"{obs.loc[~obs['is_control'], 'perturbation'].nunique()} perturbations, "
        f"{int(obs['is_control'].sum())} control cells, {obs['batch'].nunique()} batches, "
        f"cell lines: {lines}"
    )


def effects(options) -> None:
    """Turn a screen into responses with folds.

    perturbcore effects screen.h5ad --control ctrl --scale counts --out responses.h5ad
    """
    from perturbcore.core.files import save_table
    from perturbcore.data.effects import not_estimable_said
    from perturbcore.data.folds import add_folds
    from perturbcore.data.identifiers import gene_aliases

    aliases = gene_aliases() if options.gene_table else None
    how = dict(control=options.controls, batches=options.batches, min_cells=options.min_cells)
    responses = pc.effects(_screen(options), **how)
    same = dict(aliases=aliases, doubles=options.doubles)
    add_folds(responses, options.folds, options.seed, **same)
    for line in responses.uns["perturbcore"].get("merged", ()):
        print(f"one perturbation, in one fold: {line}")
    save_table(responses, options.out)
    print(f"{options.out}: {responses.n_obs} perturbations x {responses.n_vars} genes")
    print(not_estimable_said(responses))


def ceiling(options) -> None:
    """Estimate the experimental error of each perturbation of a screen.

    perturbcore ceiling screen.h5ad --control ctrl --scale counts --out ceiling.parquet
    """
    from perturbcore.core.files import save_table

    trials = dict(n_outer=options.outer, n_inner=options.inner, seed=options.seed)
    table = pc.ceiling(_screen(options), control=options.controls, **trials)
    table["value"] = table["value"].where(table["n_cells"] >= options.min_cells)
    save_table(table, options.out)
    print(f"{options.out}: {len(table)} rows")


def evaluate(options) -> None:
    """Score embeddings on responses.

    perturbcore evaluate responses.h5ad mine.csv --ceiling ceiling.parquet --out scores.csv
    """
    import pandas as pd

    from perturbcore.book.rank import Ranking, printed
    from perturbcore.embeddings.coverage import coverage_table
    from perturbcore.score.limits import ceiling_scores
    from perturbcore.score.store import ScoreStore, save_scores

    _check_jobs(options)
    data = pc.load_dataset("from_files", responses=options.responses, name=options.responses.stem)
    responses = data.responses
    identifier = responses.uns["perturbcore"]["identifier"]
    embeddings = [pc.load_embedding(path, identifier=identifier) for path in options.embeddings]
    given = [_read_ceiling(options.ceiling)] if options.ceiling else []
    reached = [ceiling_scores(table, responses) for table in given]
    how = dict(store=ScoreStore(options.store or ":memory:"), seed=options.seed)
    names = options.predictor or ["knn"]
    scores = pc.evaluate(responses, embeddings, names, n_jobs=options.jobs, **how)
    scores = pd.concat([scores, *reached], ignore_index=True)
    save_scores(scores, options.out)
    print(printed(Ranking(data, scores, coverage_table(embeddings, responses))))
    print(f"{options.out}: {len(scores)} rows")


def rank(options) -> None:
    """Rank embeddings on your screen: from cells, log fold-changes or labels to a report.

    perturbcore rank lfc.csv --kind lfc --embeddings STRING "GO BP" my_vectors.csv --out report
    """
    import shlex
    import sys

    from perturbcore.book.rank import named_embeddings, printed, write_report
    from perturbcore.book.rank import rank as ranked
    from perturbcore.core.files import check_output

    _check_jobs(options)
    page, paths = options.out / "index.html", [Path(p) for p in options.embeddings]
    check_output(page, (".html",), [options.files, paths], force=options.force)
    own = dict(name=options.dataset or options.files[0].stem, n_folds=options.folds)
    own |= dict(title=", ".join(p.name for p in options.files), seed=options.seed)
    if options.kind == "cells":
        if len(options.files) > 1:
            raise ParameterError("--kind cells: give one file or folder")
        how = dict(backed=options.backed, min_cells=options.min_cells, **_declared(options))
        how["effect_control"] = options.controls
        data = pc.load_dataset("from_files", screen=options.files[0], **own, **how)
    else:
        said = {n: v for n in ("identifier", "cell_line_value") if (v := getattr(options, n))}
        data = pc.load_dataset(
            "from_files", responses=options.files, kind=options.kind, **own, **said
        )
    embeddings, left_out = named_embeddings(options.embeddings, data, options.profile)
    ranking = ranked(
        data, embeddings, way=options.predictor, trials=(options.outer, options.inner),
        seed=options.seed, n_jobs=options.jobs, store=options.store, left_out=left_out,
    )  # fmt: skip
    print(printed(ranking))
    command = shlex.join(["perturbcore", *sys.argv[1:]])
    print(f"\n{write_report(ranking, options.out, command)}")


def _check_jobs(options) -> None:
    if options.jobs < 1:
        raise ParameterError(f"--jobs {options.jobs}: give the number of threads, at least 1")


def _declared(options) -> dict:
    """Collect what the options say of a screen; nothing where the file was declared before."""
    declared = {n: v for n in DECLARED.split() if (v := getattr(options, n)) is not None}
    if set(declared) - {"layer", "cells"} and "scale" not in declared:
        raise ParameterError("say what X holds: --scale counts or --scale log1p")
    return {k: v for k, v in declared.items() if k != "dataset"}


def score(options) -> None:
    """Score predicted cells (cell-eval's layout) against measured ones.

    perturbcore score predicted.h5ad measured.h5ad --perturbation target --control non-targeting
    --out scores.csv
    """
    from perturbcore.core.files import save_table
    from perturbcore.data.read import read_h5ad

    how = dict(perturbation=options.perturbation, cell_line=options.cell_line)
    columns = [c for c in how.values() if c]
    predicted, reference = (read_h5ad(p, columns) for p in (options.predicted, options.reference))
    table = pc.score_cells(
        predicted, reference, control=options.control, n_splits=options.splits, seed=options.seed,
        **how,
    )  # fmt: skip
    save_table(table, options.out)
    print(table.round(3).to_string(index=False))


def _screen(options):
    declared = _declared(options)
    if set(declared) - {"layer", "cells"}:
        declared["dataset"] = options.dataset or options.screen.stem
    return pc.read_screen(options.screen, backed=options.backed, names=False, **declared)


def _read_ceiling(path: Path):
    import pandas as pd

    from perturbcore.data.read import check_table, read_table

    table = read_table(path)
    columns = "perturbation cell_line quantile metric value".split()
    check_table(table, columns, path, way_out="it is no table that 'perturbcore ceiling' wrote")
    for name in {"fold", "n_cells", "quantile", "value"}.intersection(table):
        table[name] = pd.to_numeric(table[name], errors="coerce")  # empty: too few cells
    return table


def responses(options) -> None:
    """Turn raw cells in the documented layout into responses in the documented layout."""
    from perturbcore.core.files import save_table
    from perturbcore.data.authors.read import add_stored_folds, effects_of_raw, labels_of_raw

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


def paper(options) -> None:
    """Make files in the authors' layout (Cole et al. 2026) from raw cells (see 'paper --help')."""
