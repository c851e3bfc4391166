"""What a chapter uses while it runs: checked parameters, its profile, and its places for files."""

import inspect
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType

import pandas as pd

from perturbcore.book.source import declared_types, find_chapter, resolve, run_folder
from perturbcore.core.profile import Profile, load_profile

_PLAIN = (bool, int, float, str, list, dict, tuple, set, type(None))


@dataclass(frozen=True)
class OpenChapter:
    """A running chapter.

    `name`: name of the chapter; `profile`: the profile it runs with; `parameters`: checked
    values of its parameters.
    """

    name: str
    profile: Profile
    parameters: dict

    @cached_property
    def changed(self) -> dict:
        """Parameters whose values differ from the book's."""
        return find_chapter(self.name).changed(self.profile, self.parameters)

    @property
    def folder(self) -> Path:
        """Where a run leaves what it makes; with other values than the book's, its own folder."""
        return run_folder(self.profile, self.name, self.changed)

    @property
    def tables(self) -> Path:
        """Folder of the tables this chapter shows, ``<folder>/tables/<chapter>``."""
        return self._made("tables")

    @property
    def figures(self) -> Path:
        """Folder of the figures this chapter shows, ``<folder>/figures/<chapter>``."""
        return self._made("figures")

    def save_table(self, table, name: str):
        """Write a data frame as CSV among the chapter's tables and return it for display."""
        numbered = isinstance(table.index, pd.RangeIndex)
        table.to_csv(self.tables / f"{name}.csv", index=not numbered)
        return table

    def save_figure(self, figure, name: str, *, live: bool = False):
        """Write a matplotlib figure as SVG among the chapter's figures and return it.

        Under ``phone`` beside them lies the same, narrow, for the pages of the book; that of the
        chapter's card also as PNG, which previews of a link take and SVG they do not.
        `live`: whether its points say more on a screen, see `perturbcore.report.marks`.
        """
        import matplotlib

        from perturbcore.report.figures.style import narrowed
        from perturbcore.report.marks import svg

        figure = getattr(figure, "figure", figure)
        card = find_chapter(self.name).header.card
        if card and card.figure == name:
            figure.savefig(self.figures / f"{name}.png", dpi=120, bbox_inches="tight")
        # Without a date and with fixed ids, an unchanged figure is an unchanged file.
        with matplotlib.rc_context({"svg.hashsalt": f"{self.name}/{name}"}):
            for folder, drawn in (self.figures, figure), (self._made("phone"), narrowed(figure)):
                (folder / f"{name}.svg").write_text(svg(drawn, live=live), encoding="utf-8")
        return figure

    def _made(self, kind: str) -> Path:
        folder = self.folder / kind / self.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def open_chapter(name: str, module: ModuleType | None = None) -> OpenChapter:
    """Check the parameters of the running notebook and open its profile.

    `module` is where the notebook's names live (``__main__``). A value of the wrong type, or a
    plain one that no parameter declares, is refused, also when plain papermill passed it.

    Examples
    --------
    >>> from types import ModuleType
    >>> notebook = ModuleType("notebook")
    >>> notebook.profile, notebook.__annotations__ = "demo", {"profile": str}
    >>> chapter = pc.open_chapter("embedding_ranking", notebook)
    >>> chapter.name, chapter.profile.name
    ('embedding_ranking', 'demo')
    """
    module = module or sys.modules["__main__"]
    parameters = declared_types(inspect.get_annotations(module), name)
    # In and Out are IPython's history; an imported constant (SOME_COLUMNS) is no parameter.
    given = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, _PLAIN) and not key.startswith("_") and key not in ("In", "Out")
        if not (key.isupper() and "_" in key)
    }
    # papermill's command line hands over a list as the text "[5, 10]"
    values = resolve(parameters, given, name, parse=True)
    vars(module).update(values)
    if "IPython" in sys.modules and sys.modules["IPython"].get_ipython():
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg")
    chapter = OpenChapter(name, load_profile(values["profile"]), values)
    from IPython.display import Markdown, display

    for gone, why in find_chapter(name).left_out(chapter.profile).items():
        display(Markdown(f"**Left out:** `{gone}`, {why}."))
    if chapter.changed:
        changed = ", ".join(f"`{k}={v!r}`" for k, v in chapter.changed.items())
        folder = f"[{chapter.folder}]({chapter.folder.as_uri()})"
        said = f"**Other values than the book's:** {changed}. Tables, figures and scores: {folder}"
        display(Markdown(said))
    return chapter
