"""A working folder of one's own: the book's chapters, profiles and pages, from the package."""

import re
import shutil
from pathlib import Path

from perturbcore.core.errors import InputError
from perturbcore.core.profile import PACKAGED, project_root

PARTS = ("notebooks", "book", "_config.yml", "_toc.yml", "Makefile")
_MADE = re.compile(r"^book/(chapters|_static/mathjax)/|__pycache__|\.ipynb")


def start_files(root: Path) -> list[str]:
    """List what a working folder starts with, by place below `root`; nothing that was built."""
    found = [p for part in PARTS for p in (root / part, *(root / part).rglob("*")) if p.is_file()]
    names = sorted(p.relative_to(root).as_posix() for p in found)
    return [name for name in names if not _MADE.search(name)]


def write_start(folder: Path) -> list[Path]:
    """Write the working folder, of the installed package or of this checkout; return its files.

    Nothing is written where one of the files is there already.
    """
    root = PACKAGED if PACKAGED.is_dir() else project_root()
    names = start_files(root)
    if there := [name for name in names if (folder / name).exists()]:
        more = f" and {len(there) - 1} more" if there[1:] else ""
        raise InputError(f"{folder} has {there[0]}{more} already: name an empty folder")
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, target)
    return [folder / name for name in names]
