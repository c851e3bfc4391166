"""The ``perturbcore`` command: a few verbs for people who don't want to write Python."""

import sys

from perturbcore.book.cli.options import parser
from perturbcore.core.errors import DownloadError, FailedError, InputError


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0 is success, 1 a chapter or book that failed, 2 a wrong input or parameter.
    """
    options = parser().parse_args(arguments)
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
