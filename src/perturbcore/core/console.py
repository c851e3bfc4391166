"""Commands that a page runs for real, shown with what they printed."""

import os
import re
import subprocess
import sys
import tempfile
import textwrap
from importlib.resources import files
from pathlib import Path

from IPython.display import Markdown, display

from perturbcore.core.errors import InputError
from perturbcore.core.profile import project_root, results_root

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
WIDTH = 76
# what Make says to a Make below it would change what the shown command does
_MAKE = ("MAKE", "MFLAGS", "PROFILE", "CHAPTER", "ARGS")


class Console:
    """Run commands in the checkout and show them; ``mine/`` in a command is a temporary folder."""

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="perturbcore-")
        self.mine = Path(self._folder.name).resolve()
        # how near ceilings come to the truth is the same for any profile, and takes a minute
        common = results_root() / "ceilings"
        for folder in (common, self.mine / "results"):
            folder.mkdir(parents=True, exist_ok=True)
        (self.mine / "results/ceilings").symlink_to(common)

    def example(self, name: str, target: str) -> None:
        """Copy an example of ``perturbcore/book/examples`` to `target` in ``mine`` and show it.

        ``mine/`` in its text is the folder.
        """
        text = (files("perturbcore.book") / "examples" / name).read_text(encoding="utf-8")
        path = self.mine / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._placed(text), encoding="utf-8")
        language = {".yml": "yaml", ".py": "python"}.get(path.suffix, "text")
        display(Markdown(f"`mine/{target}`:\n\n~~~~{language}\n{text.strip()}\n~~~~"))

    def run(self, command: str, *, fails: bool = False, last: int | None = None) -> None:
        """Run a command, as a reader would type it, in the checkout; show it with its output.

        `fails`: whether it is to fail; `last`: lines of the output to show, from its end.
        """
        typed = self._placed(command)
        # a plain make uses the environment of this book, and does not set it up again
        make = f'make() {{ command make -s -o {sys.prefix}/.ready "$@"; }}\n'
        done = subprocess.run(
            ["bash", "-c", make + typed], cwd=project_root(), env=self._environment(),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        printed = self.tidy(done.stdout.decode("utf-8", "replace"))
        if bool(done.returncode) != fails:
            raise InputError(f"'{command}' ended with status {done.returncode}:\n{printed}")
        lines = printed.splitlines()
        if last is not None and len(lines) > last:
            lines = ["...", *lines[-last:]]
        wrap = textwrap.TextWrapper(
            WIDTH, break_long_words=False, break_on_hyphens=False, subsequent_indent="    "
        )
        shown = _folded(f"$ {command}")
        for line in lines:
            shown += [line] if len(line) <= WIDTH else wrap.wrap(line)
        if fails:
            shown.append(f"(exit status {done.returncode})")
        display(Markdown("~~~~console\n" + "\n".join(shown) + "\n~~~~"))

    def tidy(self, text: str) -> str:
        """Take colours, progress bars and the folders of this machine out of a text."""
        # of a line that was written over, as progress bars are, the last state stays
        lines = [line.rstrip().rsplit("\r", 1)[-1] for line in _ANSI.sub("", text).split("\n")]
        kept = "\n".join(line for line in lines if line)
        root = str(project_root())
        places = {str(self.mine): "mine", f"{root}/": "", root: ".", sys.prefix: ".venv"}
        for place, name in places.items():
            kept = kept.replace(place, name)
        return kept

    def _placed(self, text: str) -> str:
        return re.sub(r"(?<![\w./-])mine(?=/)", str(self.mine), text)

    def _environment(self) -> dict:
        keep = {k: v for k, v in os.environ.items() if not k.startswith(_MAKE)}
        return {
            **keep,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "PERTURBCORE_RESULTS": str(self.mine / "results"),
            "VENV": sys.prefix,
            "JUPYTER_PREFER_ENV_PATH": "1",
            "PYTHONWARNINGS": "ignore",
            "COLUMNS": "100",
        }


def _folded(command: str) -> list[str]:
    """Break a long command before its options, as a shell reads it."""
    lines = [""]
    for part in re.split(r" (?=-)", command):
        if lines[-1] and len(lines[-1]) + len(part) > WIDTH - 2:
            lines[-1] += " \\"
            lines.append(f"    {part}")
        else:
            lines[-1] += f" {part}" if lines[-1] else part
    return lines
