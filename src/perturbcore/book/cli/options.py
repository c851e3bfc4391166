"""What can be written after ``perturbcore``."""

import argparse
from pathlib import Path

from perturbcore import __version__
from perturbcore.book.cli import book_verbs, file_verbs, paper

DATASETS = ("essential", "norman", "sciplex", "tahoe")
FEW = "with fewer cells a perturbation is not estimable"
RANKED = (
    "cells: one .h5ad or 10x folder; lfc, labels: .csv, .tsv, .parquet or .h5ad, a row per "
    "perturbation and a column per gene, or long: perturbation, gene, value; one file per cell "
    "line, or a column cell_line"
)
TOTALS = "chemicals: genes over which a cell's total is taken"


def parser() -> argparse.ArgumentParser:
    """Make the parser."""
    top = argparse.ArgumentParser(
        prog="perturbcore",
        description="From cells to responses, from responses and embeddings "
        "to scores, from scores to a book.",
    )
    top.add_argument("--version", action="version", version=f"perturbcore {__version__}")
    verb = _verbs(top)

    v = verb(book_verbs.run)
    v.add_argument("chapter")
    v.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                   help="a parameter; a list as '[5, 10]' or 5,10")  # fmt: skip
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
    _out(v, ".h5ad", what="responses, ")
    _controls(v)
    v.add_argument("--batches", choices=["with_controls", "all"], default="with_controls")
    v.add_argument("--min-cells", type=int, default=10, help=FEW)
    v.add_argument("--folds", type=int, default=5)
    v.add_argument("--seed", type=int, default=0)
    said = "whether combinations that share a gene share a fold; published: apart"
    v.add_argument("--doubles", choices=["apart", "together"], default="apart", help=said)
    said = "put older symbols and Ensembl ids of a gene in its fold, by the catalogue's table"
    v.add_argument("--gene-table", action="store_true", help=said)

    v = verb(file_verbs.ceiling)
    _screen_options(v)
    _out(v, ".parquet", ".csv")
    _controls(v)
    v.add_argument("--min-cells", type=int, default=10, help=FEW)
    _trials(v, seed=5050)

    v = verb(file_verbs.evaluate)
    v.add_argument("responses", type=Path, help=".h5ad written by 'perturbcore effects'")
    v.add_argument("embeddings", nargs="+", type=Path, help=".parquet, .csv, .npz or .h5ad")
    _out(v, ".parquet", ".csv", what="scores, ")
    v.add_argument("--predictor", action="append", help="knn (default), ridge, lasso; repeatable")
    v.add_argument("--ceiling", type=Path, help="table written by 'perturbcore ceiling'")
    v.add_argument("--seed", type=int, default=0)
    _resume(v)

    v = verb(file_verbs.rank)
    v.add_argument("files", nargs="+", type=Path, help=RANKED)
    v.add_argument("--kind", choices=["cells", "lfc", "labels"], required=True,
                   help="log fold-changes; labels -1, 0, 1, empty where not known")  # fmt: skip
    v.add_argument("--embeddings", nargs="+", required=True, metavar="NAME",
                   help="files of vectors, and names that the profile knows")  # fmt: skip
    v.add_argument("--out", type=Path, required=True, help="folder of the report")
    v.add_argument("--force", action="store_true", help="replace a report that is there")
    v.add_argument("--profile", default="real", help="whose embeddings have names")
    v.add_argument("--predictor", default="knn", help="knn, ridge, lasso; of labels knn, logistic")
    v.add_argument("--folds", type=int, default=5)
    _trials(v, seed=0)
    _resume(v)
    v.add_argument("--backed", action="store_true", help="leave the cells on disk")
    _controls(v)
    v.add_argument("--min-cells", type=int, default=10, help=FEW)
    _declaration(v, "what cells are, where they were not declared; --identifier of all kinds")

    v = verb(file_verbs.score)
    v.add_argument("predicted", type=Path, help="cells x genes, counts, .h5ad, such as of STATE")
    v.add_argument("reference", type=Path, help="measured cells, counts, .h5ad; with controls")
    _out(v, ".csv", ".parquet", what="a row per line and metric, ")
    v.add_argument("--perturbation", default="target", metavar="COLUMN")
    v.add_argument("--control", default="non-targeting", metavar="LABEL")
    v.add_argument("--cell-line", metavar="COLUMN", help="score each line by itself")
    v.add_argument("--splits", type=int, default=5, help="of the repeated experiment")
    v.add_argument("--seed", type=int, default=0)

    _paper_verbs(_verbs(verb(paper.paper)))
    return top


def _trials(verb, seed: int) -> None:
    """Add the numbers of draws of the experimental error."""
    verb.add_argument("--outer", type=int, default=10, help="of cells: draws of batches")
    verb.add_argument("--inner", type=int, default=10, help="of cells: draws of cells in each")
    verb.add_argument("--seed", type=int, default=seed)


def _resume(verb) -> None:
    verb.add_argument("--store", type=Path, help="file that keeps finished units, to resume")
    verb.add_argument("--jobs", type=int, default=1, help="threads")


def _out(verb, *suffixes: str, what: str = "") -> None:
    """Add --out, which `perturbcore.core.files.check_output` holds against the other files."""
    verb.add_argument("--out", type=Path, required=True, help=f"{what}{' or '.join(suffixes)}")
    verb.add_argument("--force", action="store_true", help="replace a file that is there")
    verb.set_defaults(suffixes=suffixes)


def _verbs(top):
    """Return what adds a verb: its name is that of its function, its help the first line there.

    What follows that line is an example.
    """
    verbs = top.add_subparsers(required=True, metavar="VERB", title="verbs")

    def verb(call):
        line, *rest = call.__doc__.splitlines()
        example = " ".join(" ".join(rest).split())
        epilog = f"example: {example}" if example else None
        about = dict(help=line, description=line, epilog=epilog, formatter_class=_WithDefaults)
        new = verbs.add_parser(call.__name__, **about)
        new.set_defaults(call=call)
        return new

    return verb


class _WithDefaults(argparse.HelpFormatter):
    """Help in which each option says its default, where it has one."""

    def add_argument(self, action):
        said, default = action.help or "", action.default
        shown = action.option_strings and default not in (None, False, [], argparse.SUPPRESS)
        if shown and said != argparse.SUPPRESS and "%(default)" not in said:
            action.help = f"{said} (default: %(default)s)".strip()
        super().add_argument(action)


def _paper_verbs(verb) -> None:
    v = verb(paper.responses)
    _raw_options(v)
    _out(v, ".h5ad", what="in the documented layout, ")
    v.add_argument("--task", choices=["lfc", "deg"], default="lfc")
    v.add_argument("--folds", type=Path, help="take the stored folds from this .h5ad or .csv")
    v.add_argument("--batches", choices=["all", "with_controls"], default="all",
                   help="as the published code, or as the paper")  # fmt: skip
    v.add_argument("--totals", choices=["all", "kept"], default="all", help=TOTALS)
    v.add_argument("--test", choices=["welch", "student"], default="welch",
                   help="of labels: as the published code, or as the paper")  # fmt: skip
    v.add_argument("--min-cells", type=int, help="of labels: groups must have more cells than this")

    v = verb(paper.error)
    _raw_options(v)
    _out(v, ".csv", what="in the published columns, ")
    _controls(v, None, "; as published by default")
    v.add_argument("--totals", choices=["kept", "all"], default="kept", help=TOTALS)
    v.add_argument("--cell-line", help="only this one")
    v.add_argument("--outer", type=int, help="draws of batches")
    v.add_argument("--inner", type=int, help="draws of cells in each")
    v.add_argument("--seed", type=int, default=5050)
    v.add_argument("--jobs", type=int, default=1)
    v.add_argument("--checkpoint", type=Path, help="file that keeps finished perturbations")

    v = verb(paper.compare)
    v.add_argument("dataset", nargs="*", help=f"of {', '.join(DATASETS)}; all that are there")
    v.add_argument("--root", type=Path, help="folder of the layout, else PERTURBCORE_PAPER_DATA")
    _out(v, ".csv")
    v.add_argument("--seed", type=int, default=0)
    _resume(v)

    v = verb(paper.fixture)
    v.add_argument("folder", type=Path)
    v.add_argument("--seed", type=int, default=0)
    v.add_argument("--task", action="append", choices=["lfc", "deg"], help="repeatable")


def _raw_options(verb) -> None:
    verb.add_argument("dataset", choices=DATASETS)
    verb.add_argument("--raw", type=Path, required=True, help="folder with the raw files")
    verb.add_argument("--dose", type=float, help="chemicals: the dose that is kept")
    verb.add_argument("--in-memory", action="store_true", help="Essential: read all cells at once")


def _controls(verb, default: str | None = "global", more: str = "") -> None:
    said = f"of the whole cell line, or of the same batch{more}"
    verb.add_argument("--controls", choices=["global", "matched"], default=default, help=said)


def _screen_options(verb) -> None:
    verb.add_argument("screen", type=Path, help="cells x genes, .h5ad or a 10x folder")
    verb.add_argument("--backed", action="store_true", help="leave the cells on disk")
    _declaration(verb, "where the file was not declared with perturbcore")


def _declaration(verb, title: str) -> None:
    group = verb.add_argument_group(title)
    group.add_argument("--perturbation", metavar="COLUMN")
    group.add_argument("--batch", metavar="COLUMN")
    group.add_argument("--batch-value", help="the one batch of all cells")
    group.add_argument("--cell-line", metavar="COLUMN")
    group.add_argument("--cell-line-value", help="the one cell line of all cells")
    said = "label of control cells; repeatable"
    group.add_argument("--control", action="append", metavar="LABEL", help=said)
    group.add_argument("--control-column", metavar="COLUMN", help="true for control cells")
    group.add_argument("--scale", choices=["counts", "log1p"], help="what X holds")
    group.add_argument("--layer", help="the layer that holds the values, instead of X")
    said = "table that says more of the cells: their names, then columns such as perturbation"
    group.add_argument("--cells", type=Path, metavar="TABLE", help=said)
    said = "what perturbations are named by (symbol where nothing is said)"
    identifiers = ["symbol", "ensembl", "entrez", "drug"]
    group.add_argument("--identifier", choices=identifiers, help=said)
    said = "perturbations without cells in any batch that has controls"
    group.add_argument("--unmatched", choices=["error", "drop", "keep"], help=said)
    group.add_argument("--dataset", help="name of the data set; else the file's name")
