"""What can be written after ``perturbcore``."""

import argparse
from pathlib import Path

from perturbcore import __version__
from perturbcore.book.cli import book_verbs, file_verbs, paper


def parser() -> argparse.ArgumentParser:
    """Make the parser: each verb's help is the first line of its function."""
    top = argparse.ArgumentParser(
        prog="perturbcore",
        description="From cells to responses, from responses and embeddings "
        "to scores, from scores to a book.",
    )
    top.add_argument("--version", action="version", version=f"perturbcore {__version__}")
    verbs = top.add_subparsers(required=True, metavar="VERB", title="verbs")

    def verb(call):
        line = call.__doc__.splitlines()[0]
        new = verbs.add_parser(call.__name__, help=line, description=line)
        new.set_defaults(call=call)
        return new

    v = verb(book_verbs.run)
    v.add_argument("chapter")
    v.add_argument(
        "-p",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a parameter; a list as '[5, 10]' or 5,10",
    )
    v.add_argument("--profile", default="demo", help="name, or path of a .yml file")
    v.add_argument("--out", type=Path, help="where to put the executed notebook")
    v.add_argument("--for-book", action="store_true", help=argparse.SUPPRESS)
    v.add_argument("--update", action="store_true", help=argparse.SUPPRESS)

    v = verb(book_verbs.notebook)
    v.add_argument("chapter", nargs="?")
    v.add_argument("--all", action="store_true", help="every chapter; --out is a folder then")
    v.add_argument("--out", type=Path, required=True)

    verb(book_verbs.chapters)
    verb(book_verbs.profiles)

    v = verb(book_verbs.rules)
    v.add_argument("--profile", default="demo")

    v = verb(book_verbs.responses)
    v.add_argument("name", nargs="*", help="data sets of the profile; all by default")
    v.add_argument("--profile", default="demo")

    v = verb(book_verbs.book)
    v.add_argument("--profile", default="demo")
    v.add_argument("--linkcheck", action="store_true", help="try the outside links instead")

    v = verb(file_verbs.data)
    v.add_argument("action", choices=["list", "fetch"])
    v.add_argument("name", nargs="*", help="catalogue entries")
    v.add_argument("--profile", help="all entries that this profile needs")

    _screen_options(verb(file_verbs.check))

    v = verb(file_verbs.effects)
    _screen_options(v)
    v.add_argument("--out", type=Path, required=True, help="responses, .h5ad")
    _controls(v)
    v.add_argument("--batches", choices=["with_controls", "all"], default="with_controls")
    v.add_argument("--folds", type=int, default=5)
    v.add_argument("--seed", type=int, default=0)

    v = verb(file_verbs.ceiling)
    _screen_options(v)
    v.add_argument("--out", type=Path, required=True, help=".parquet or .csv")
    _controls(v)
    v.add_argument("--outer", type=int, default=10, help="draws of batches")
    v.add_argument("--inner", type=int, default=10, help="draws of cells in each")
    v.add_argument("--seed", type=int, default=5050)

    v = verb(file_verbs.evaluate)
    v.add_argument("responses", type=Path, help=".h5ad written by 'perturbcore effects'")
    v.add_argument("embeddings", nargs="+", type=Path, help=".parquet, .csv, .npz or .h5ad")
    v.add_argument("--out", type=Path, required=True, help="scores, .parquet or .csv")
    v.add_argument("--predictor", action="append", help="knn (default), ridge, lasso; repeatable")
    v.add_argument("--ceiling", type=Path, help="table written by 'perturbcore ceiling'")
    v.add_argument("--store", type=Path, help="file that keeps finished units, to resume")
    v.add_argument("--seed", type=int, default=0)
    v.add_argument("--jobs", type=int, default=1)

    paper.add_verbs(verb)
    return top


def _controls(verb, default: str | None = "global") -> None:
    said = "of the whole cell line, or of the same batch"
    verb.add_argument("--controls", choices=["global", "matched"], default=default, help=said)


def _screen_options(verb) -> None:
    verb.add_argument("screen", type=Path, help="cells x genes, .h5ad")
    verb.add_argument("--backed", action="store_true", help="leave the cells on disk")
    group = verb.add_argument_group("where the file was not declared with perturbcore")
    group.add_argument("--perturbation", metavar="COLUMN")
    group.add_argument("--batch", metavar="COLUMN")
    group.add_argument("--batch-value", help="the one batch of all cells")
    group.add_argument("--cell-line", metavar="COLUMN")
    group.add_argument("--cell-line-value", help="the one cell line of all cells")
    group.add_argument(
        "--control", action="append", metavar="LABEL", help="label of control cells; repeatable"
    )
    group.add_argument("--control-column", metavar="COLUMN", help="true for control cells")
    group.add_argument("--scale", choices=["counts", "log1p"], help="what X holds")
    group.add_argument("--identifier", choices=["symbol", "ensembl", "entrez", "drug"])
    group.add_argument(
        "--unmatched",
        choices=["error", "drop", "keep"],
        help="perturbations without cells in any batch that has controls",
    )
    group.add_argument("--dataset", help="name of the data set; else the file's name")
