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
    """Write the working folder, or nothing where a file of it is there; return its files."""
    root = PACKAGED if PACKAGED.is_dir() else project_root()
    names = start_files(root)
    if there := [name for name in names if (folder / name).exists()]:
        raise InputError(f"{folder} has {there[0]} already: name an empty folder")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, folder / name)
    return [folder / name for name in names]
