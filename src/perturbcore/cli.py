"""The ``perturbcore`` command: a few verbs for people who don't want to write Python.

Everything heavy is imported inside the verbs, so that help answers at once.
"""

import argparse
import sys
from pathlib import Path

from perturbcore import __version__
from perturbcore.errors import DownloadError, InputError, ParameterError


class _Reported(RuntimeError):
    """A failure whose message is all a user needs."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0 is success, 1 a chapter or book that failed, 2 a wrong input or parameter.
    """
    options = _parser().parse_args(arguments)
    try:
        options.call(options)
    except (InputError, DownloadError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except _Reported as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; what was finished is kept", file=sys.stderr)
        return 130
    return 0


# --- the book --------------------------------------------------------------------------------


def run(options) -> None:
    """Execute one chapter."""
    from perturbcore.chapters import ChapterError, find_chapter, run_aside, run_for_book
    from perturbcore.profiles import load_profile

    chapter, profile = find_chapter(options.chapter), load_profile(options.profile)
    if options.for_book and (options.p or options.out):
        raise ParameterError("--for-book takes its values from the profile: no -p, no --out")
    try:
        if options.for_book:
            target = run_for_book(chapter, profile)
        else:
            target = run_aside(chapter, profile, dict(options.p), options.out)
    except ChapterError as error:
        raise _Reported(error) from None
    print(target)


def notebook(options) -> None:
    """Write chapters as plain notebooks for papermill or Jupyter."""
    import nbformat

    from perturbcore.chapters import find_chapter, find_chapters

    if bool(options.chapter) == options.all:
        raise ParameterError("name a chapter, or give --all")
    chapters = find_chapters() if options.all else [find_chapter(options.chapter)]
    for chapter in chapters:
        path = options.out / f"{chapter.name}.ipynb" if options.all else options.out
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(chapter.notebook, path)
        print(path)


def chapters(options) -> None:
    """List chapters and their parameters."""
    from perturbcore.chapters import find_chapters

    for chapter in find_chapters():
        print(f"{chapter.name}: {chapter.title}")
        for p in chapter.parameters.values():
            print(f"    {p.name}: {p.type} = {p.default!r}" + (f"  # {p.help}" if p.help else ""))


def profiles(options) -> None:
    """List the profiles that come with the project."""
    from perturbcore.profiles import load_profile, profile_names

    for name in profile_names():
        profile = load_profile(name)
        print(f"{name}: {profile.title}" + (" (simulated cells)" if profile.simulated else ""))
        if profile.summary:
            print(f"    {profile.summary.strip()}")


def book(options) -> None:
    """Build the HTML book from executed chapters."""
    from perturbcore.chapters import book as builder
    from perturbcore.profiles import load_profile

    profile = load_profile(options.profile)
    try:
        if options.linkcheck:
            if broken := builder.linkcheck(profile):
                raise _Reported(f"these links do not answer:\n{broken}")
            print("every outside link answers")
        else:
            page = builder.build(profile)
            print(f"seconds a chapter (as they ran last):\n{builder.seconds_table(profile)}")
            print(f"built {page}")
    except builder.BookError as error:
        raise _Reported(error) from None


# --- data and files --------------------------------------------------------------------------


def data(options) -> None:
    """List or fetch the foreign files that a profile needs."""
    from perturbcore import catalogue

    names = list(options.name)
    if options.profile or not names:
        from perturbcore.profiles import load_profile

        profile = load_profile(options.profile or "demo")
        names += [n for n in profile.data if n not in names]
        if not names:
            print(f"profile {profile.name} needs no files from elsewhere")
            return
    if options.action == "fetch":
        for name, path in catalogue.fetch_many(names).items():
            print(f"{name}: {path}")
    else:
        for name, state in catalogue.verify(names).items():
            entry = catalogue.entry(name)
            print(f"{name}: {entry.bytes / 1e6:.1f} MB, {entry.licence}, {state}; "
                  f"{entry.description}")


def check(options) -> None:
    """Validate a screen."""
    screen = _screen(options)
    obs = screen.obs
    lines = ", ".join(sorted(obs["cell_line"].unique()))
    print(f"{options.screen}: {screen.n_obs} cells x {screen.n_vars} genes, "
          f"{obs.loc[~obs['is_control'], 'perturbation'].nunique()} perturbations, "
          f"{int(obs['is_control'].sum())} control cells, {obs['batch'].nunique()} batches, "
          f"cell lines: {lines}")


def effects(options) -> None:
    """Turn a screen into responses with folds."""
    from perturbcore.effects import ba_ate
    from perturbcore.splits import assign_folds

    responses = ba_ate(_screen(options), control=options.control, batches=options.batches)
    folds = assign_folds(responses.obs["perturbation"].unique(), n_folds=options.folds,
                         seed=options.seed)
    responses.obs["fold"] = responses.obs["perturbation"].map(folds).astype(int).to_numpy()
    responses.write_h5ad(options.out)
    print(f"{options.out}: {responses.n_obs} perturbations x {responses.n_vars} genes")


def ceiling(options) -> None:
    """Estimate the experimental error of each perturbation of a screen."""
    from perturbcore.bootstrap import noise_ceiling

    table = noise_ceiling(_screen(options), control=options.control, n_outer=options.outer,
                          n_inner=options.inner, seed=options.seed)
    _write(table, options.out)


def evaluate(options) -> None:
    """Score embeddings on responses."""
    import pandas as pd

    from perturbcore.embeddings import load_embedding
    from perturbcore.evaluate import evaluate as score
    from perturbcore.responses import read_responses

    responses = read_responses(options.responses)
    embeddings = [load_embedding(path) for path in options.embeddings]
    table = pd.read_parquet(options.ceiling) if options.ceiling else None
    scores = score(responses, embeddings, options.predictor or ["knn"], ceiling=table,
                   store=options.store, seed=options.seed, n_jobs=options.jobs)
    _write(scores, options.out)


def _screen(options):
    from perturbcore.screens import read_screen

    if not options.perturbation:
        return read_screen(options.screen, backed=options.backed)
    declared = {"dataset": options.dataset or Path(options.screen).stem, "scale": options.scale,
                "perturbation": options.perturbation, "batch": options.batch,
                "cell_line": options.cell_line, "control": options.control_label,
                "identifier": options.identifier}
    return read_screen(options.screen, backed=options.backed, **declared)


def _write(table, path: Path) -> None:
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    elif path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        raise ParameterError(f"{path}: tables are written as .parquet or .csv")
    print(f"{path}: {len(table)} rows")


# --- the parser ------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="perturbcore", description="From cells to responses, from responses and embeddings "
        "to scores, from scores to a book.")
    parser.add_argument("--version", action="version", version=f"perturbcore {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="VERB", title="verbs")

    def verb(call):
        line = call.__doc__.splitlines()[0]
        new = verbs.add_parser(call.__name__, help=line, description=line)
        new.set_defaults(call=call)
        return new

    v = verb(run)
    v.add_argument("chapter")
    v.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                   help="a parameter; a list as '[5, 10]' or 5,10")
    v.add_argument("--profile", default="demo", help="name, or path of a .yml file")
    v.add_argument("--out", type=Path, help="where to put the executed notebook")
    v.add_argument("--for-book", action="store_true", help=argparse.SUPPRESS)

    v = verb(notebook)
    v.add_argument("chapter", nargs="?")
    v.add_argument("--all", action="store_true", help="every chapter; --out is a folder then")
    v.add_argument("--out", type=Path, required=True)

    verb(chapters)
    verb(profiles)

    v = verb(book)
    v.add_argument("--profile", default="demo")
    v.add_argument("--linkcheck", action="store_true", help="try the outside links instead")

    v = verb(data)
    v.add_argument("action", choices=["list", "fetch"])
    v.add_argument("name", nargs="*", help="catalogue entries")
    v.add_argument("--profile", help="all entries that this profile needs")

    _screen_options(verb(check))

    v = verb(effects)
    _screen_options(v)
    v.add_argument("--out", type=Path, required=True, help="responses, .h5ad")
    v.add_argument("--control", choices=["global", "matched"], default="global")
    v.add_argument("--batches", choices=["with_controls", "all"], default="with_controls")
    v.add_argument("--folds", type=int, default=5)
    v.add_argument("--seed", type=int, default=0)

    v = verb(ceiling)
    _screen_options(v)
    v.add_argument("--out", type=Path, required=True, help=".parquet or .csv")
    v.add_argument("--control", choices=["global", "matched"], default="global")
    v.add_argument("--outer", type=int, default=10, help="draws of batches")
    v.add_argument("--inner", type=int, default=10, help="draws of cells in each")
    v.add_argument("--seed", type=int, default=5050)

    v = verb(evaluate)
    v.add_argument("responses", type=Path, help=".h5ad written by 'perturbcore effects'")
    v.add_argument("embeddings", nargs="+", type=Path, help=".parquet, .csv, .npz or .h5ad")
    v.add_argument("--out", type=Path, required=True, help="scores, .parquet or .csv")
    v.add_argument("--predictor", action="append", help="knn (default), ridge, lasso; repeatable")
    v.add_argument("--ceiling", type=Path, help="table written by 'perturbcore ceiling'")
    v.add_argument("--store", type=Path, help="folder that keeps finished units, to resume")
    v.add_argument("--seed", type=int, default=0)
    v.add_argument("--jobs", type=int, default=1)
    return parser


def _screen_options(verb) -> None:
    verb.add_argument("screen", type=Path, help="cells x genes, .h5ad")
    verb.add_argument("--backed", action="store_true", help="leave the cells on disk")
    group = verb.add_argument_group("where the file was not declared with perturbcore")
    group.add_argument("--perturbation", help="column of the perturbation")
    group.add_argument("--batch", help="column of the batch")
    group.add_argument("--cell-line", help="column of the cell line")
    group.add_argument("--control-label", help="label of control cells")
    group.add_argument("--scale", choices=["counts", "log1p"], help="what X holds")
    group.add_argument("--identifier", default="symbol",
                       choices=["symbol", "ensembl", "entrez", "drug"])
    group.add_argument("--dataset", help="name of the data set; else the file's name")
