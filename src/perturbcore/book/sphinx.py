"""Sphinx, run by Jupyter Book in a process of its own, and what it is told beside its settings."""

import gc
import os
import re
import subprocess
import sys
from pathlib import Path

from perturbcore.core.errors import FailedError
from perturbcore.core.profile import project_root

REFERENCE, _ANEW = "book/reference", "PERTURBCORE_ANEW"


class BookError(FailedError):
    """The book could not be built; the message holds the warnings."""


def run_sphinx(stage: Path, config: Path, *, anew: bool) -> None:
    """Build what is new of the book in the folder `stage`; `anew`: all pages but the code's."""
    log = project_root() / "_build" / "build.log"
    program = [sys.executable, "-m", __name__]
    where = [str(project_root()), "--path-output", str(stage), "--config", str(config)]
    command = [*program, "build", *where, "-W", "-n", "--keep-going"]
    env = os.environ | {_ANEW: str(anew)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=project_root(), env=env)
    text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    log.write_text(text, encoding="utf-8")
    if done.returncode:
        lines = text.splitlines()
        wrong = [line for line in lines if re.search(r"WARNING|ERROR|rror:|xception", line)]
        said = "\n".join(wrong[:40] or lines[-20:])
        raise BookError(f"the book was not built:\n{said}\n(all of it: {log})")


def setup(app) -> dict:
    """Let Sphinx read pages again whose own text is the same; it calls this of an extension.

    It cannot know that a page shows numbers of a chapter that changed. The reference of the code
    shows none: it is only written.
    """
    if os.environ.get(_ANEW) == str(True):
        app.connect("env-get-outdated", lambda _, env, *found: env.found_docs - {REFERENCE})
        app.connect("env-updated", lambda _, env: {REFERENCE} & env.found_docs)
    return {"parallel_read_safe": True}


def _jupyter_book() -> None:
    from jupyter_book.cli.main import main
    from sphinx.ext import autodoc, viewcode

    def missing(app, module: str) -> bool:
        return not Path(app.outdir, "_modules", f"{module.replace('.', '/')}.html").is_file()

    # a stage is kept while the code is the same; Sphinx would import every module to ask its date
    viewcode.should_generate_module_page = missing
    # autodoc would write the annotations of pydantic into our own base classes, and every class
    # that is derived from one of them afterwards would be refused
    autodoc.AttributeDocumenter.update_annotations = lambda self, parent: None
    # the trees of all pages live to the end: to look for garbage in them is a fifth of the time
    gc.disable()
    main()


if __name__ == "__main__":
    _jupyter_book()
