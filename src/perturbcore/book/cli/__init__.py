"""The ``perturbcore`` command: a few verbs for people who don't want to write Python.

``options.toml`` lists what can be written after it.
"""

import argparse
import os
import sys
import tomllib
from pathlib import Path

from perturbcore import __version__
from perturbcore.book.cli import book_verbs, file_verbs
from perturbcore.core.errors import DownloadError, FailedError, InputError

_TYPES = {"int": int, "float": float, "Path": Path}
_HOMES = {"book_verbs": book_verbs, "file_verbs": file_verbs}
_TABLE = tomllib.loads(Path(__file__).with_name("options.toml").read_text("utf-8"))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0 is success, 1 a chapter or book that failed, 2 a wrong input or parameter.
    """
    options = parser().parse_args(arguments)
    if getattr(options, "scheduler", None):
        os.environ["PERTURBCORE_SCHEDULER"] = options.scheduler
    try:
        if hasattr(options, "suffixes"):
            from perturbcore.core.files import check_output

            given = [v for k, v in vars(options).items() if k != "out"]
            check_output(options.out, options.suffixes, given, force=options.force)
        options.call(options)
    except (InputError, DownloadError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except MemoryError as error:
        print(f"error: there is not enough memory ({error}); try --backed", file=sys.stderr)
        return 2
    except FailedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; what was finished is kept", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """Make the parser."""
    top = argparse.ArgumentParser(
        prog="perturbcore",
        description="From cells to responses, from responses and embeddings "
        "to scores, from scores to a book.",
    )
    top.add_argument("--version", action="version", version=f"perturbcore {__version__}")
    _add_verbs(top, _TABLE["verbs"])
    return top


def _add_verbs(top, table: dict) -> None:
    """Add verbs: the help of each is the first line of its function, what follows an example."""
    verbs = top.add_subparsers(required=True, metavar="VERB", title="verbs")
    for name, entry in table.items():
        home, function = entry["call"].split(".")
        call = getattr(_HOMES[home], function)
        line, *rest = call.__doc__.splitlines()
        example = " ".join(" ".join(rest).split())
        epilog = f"example: {example}" if example else None
        how = dict(help=line, description=line, epilog=epilog, formatter_class=_WithDefaults)
        verb = verbs.add_parser(name, **how)
        verb.set_defaults(call=call)
        _add_options(verb, entry)


def _add_options(verb, entry: dict) -> None:
    for name, value in entry.items():
        if name == "use":
            for shared in value:
                _add_options(verb, _TABLE["shared"][shared])
        elif name == "suffixes":
            # `perturbcore.core.files.check_output` holds it against the other files
            said = f"{entry.get('what', '')}{' or '.join(value)}"
            verb.add_argument("--out", type=Path, required=True, help=said)
            verb.add_argument("--force", action="store_true", help="replace a file that is there")
            verb.set_defaults(suffixes=tuple(value))
        elif name == "declaration":
            _add_options(verb.add_argument_group(value), _TABLE["declaration"])
        elif name == "verbs":
            _add_verbs(verb, value)
        elif name not in ("call", "what"):
            how = dict(value)
            if "type" in how:
                how["type"] = _TYPES[how["type"]]
            if how.get("nargs") == 2:
                how["metavar"] = tuple(how["metavar"])
            verb.add_argument(name, **how)


class _WithDefaults(argparse.HelpFormatter):
    """Help in which each option says its default, where it has one."""

    def add_argument(self, action):
        said, default = action.help or "", action.default
        shown = action.option_strings and default not in (None, False, [], argparse.SUPPRESS)
        if shown and said != argparse.SUPPRESS and "%(default)" not in said:
            action.help = f"{said} (default: %(default)s)".strip()
        super().add_argument(action)
