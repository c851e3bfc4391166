"""Write the table of data licences: ``python -m perturbcore.data.catalogue --licences``."""

import argparse
from pathlib import Path

from perturbcore.data.catalogue import entries, licences_markdown


def main(argv=None) -> None:
    """Print the catalogue, or its licences; write the latter where a path is given."""
    parser = argparse.ArgumentParser(prog="python -m perturbcore.data.catalogue")
    parser.add_argument("--licences", action="store_true", help="the licence table as Markdown")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write it there, not to stdout")
    options = parser.parse_args(argv)
    if not options.licences:
        print(entries()[["repository", "bytes", "licence", "description"]].to_string())
    elif options.write is None:
        print(licences_markdown(), end="")
    else:
        options.write.write_text(licences_markdown(), encoding="utf-8")


if __name__ == "__main__":
    main()
