"""Assemble the executed chapters of a profile and build the HTML book from them."""

import ast
import ctypes
import hashlib
import json
import os
import re
import shutil
from datetime import UTC, datetime
from functools import partial
from html import escape
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import nbformat
import yaml
from nbformat.v4 import new_markdown_cell

import perturbcore
from perturbcore import _NAMES, VERBS, WINGS
from perturbcore.book.previews import preview, site
from perturbcore.book.source import Chapter, find_chapter, published
from perturbcore.book.sphinx import BookError, run_sphinx
from perturbcore.core.digest import digest
from perturbcore.core.errors import InputError
from perturbcore.core.files import read_yaml
from perturbcore.core.profile import PACKAGED, Profile, project_root
from perturbcore.core.provenance import record
from perturbcore.data.stored import from_simulated_files

_OUTSIDE = re.compile(
    r"""<(?:script|img|iframe|source|link(?=[^>]*rel=["'](?:stylesheet|preload|icon)))[^>]*?"""
    r"""(?:src|href)=["']((?:https?:)?//[^"']+)""",
    re.I,
)
_OUTSIDE_STYLE = re.compile(r"""(?:url\(|@import\s+)["']?((?:https?:)?//[^"')\s]+)""")
_NEEDLESS = re.compile(
    r"""<link rel="preload" as="font"[^>]*>|<script>const THEBE_JS_URL[^<]*</script>"""
    r"""|<script[^>]*sphinx-thebe\.js[^>]*></script>"""
    r"""|<script[^>]*/fontawesome/[^>]*></script>"""  # its fonts draw the same
)
_MATHJAX = re.compile(
    r"<script[^>]*>window\.MathJax[^<]*</script>|<script[^>]*/mathjax/[^<]*</script>"
)
# stands on the pages until Sphinx is done, so that another commit or day changes no page for it
_BANNER = "the banner of this build"
_REFRESH = re.compile(r'\s*<meta http-equiv="Refresh" content="0; url=([^"#]+)')
_DRAWN = re.compile(r'(<img[^>]*src="([^"]*_images/[^"]+)\.svg"[^>]*>)((?:</a>)?)')
# what other pages may refer to, number or collect: headings, targets, directives, roles, anchors
_BINDING = re.compile(
    r"^#.*|^\(.*\)=|^\s*[:`~]{3,}.*|^\s*:[\w-]+:.*|^\$\$.*|\{[\w:-]+\}`[^`]*`|\{#[^}]*\}|\bid=\S+",
    re.M,
)

ALONG = (
    "Take this page along: {{download}}`notebook with all outputs <along/{0}.ipynb>`, "
    "{{download}}`script <along/{0}.py>`."
)


def build(profile: Profile) -> Path:
    """Build ``_build/html`` from the executed chapters of a profile; return the first page.

    It is built aside and takes its place when there was not a single warning. Where nothing but
    plain prose is new, only its pages are built; where no code is, all but its reference.
    """
    root = project_root()
    if root == PACKAGED.resolve():
        raise InputError("a book is built in a folder of its own: perturbcore start FOLDER")
    config = assemble(profile)
    stage, mark = root / "_build" / "stage", root / "_build" / "stage" / "frame"
    frame, code = _frame(root)
    old_frame, _, old_code = mark.read_text().partition(" ") if mark.is_file() else ("", "", "")
    if old_code != code:
        shutil.rmtree(stage, ignore_errors=True)
    # a page that was refused must be read again
    mark.unlink(missing_ok=True)
    run_sphinx(stage, config, anew=old_frame != frame)
    html = root / "_build" / "html.new"
    shutil.rmtree(html, ignore_errors=True)
    shutil.copytree(stage / "_build" / "html", html)
    from perturbcore.report.text import unbroken

    banner, (title, base) = _banner(profile), site(config)
    phones = profile.results.glob("phone/*/*.svg")  # what is shown there instead of each drawing
    wide = {p: profile.results / "figures" / p.parent.name / p.name for p in phones}
    narrow = {_svg(w): _svg(p) for p, w in wide.items() if w.is_file()}
    for page in html.rglob("*.html"):
        text = unbroken(_NEEDLESS.sub("", page.read_text(encoding="utf-8")))
        if 'class="math' not in text:  # the first page gets it for the formulas of all others
            text = _MATHJAX.sub("", text)
        first = _REFRESH.match(text)  # the page that leads to the first one shows that one's
        shown = (page.parent / first[1]).read_text(encoding="utf-8") if first else text
        # the main figure of a chapter's page; without one the book's card is shown
        drawn = next((profile.results / "figures" / page.stem).glob("*.png"), None)
        if drawn:
            _lay(html / "_images" / f"{page.stem}.png", drawn.read_bytes())
        picture = f"_images/{page.stem}.png" if drawn else ""
        about = dict(picture=picture, title=title, base=base)
        tags = preview(shown, page.relative_to(html).as_posix(), **about)
        text = text.replace(_BANNER, banner)
        text = tags + text if first else text.replace("</head>", f"{tags}</head>", 1)
        text = _DRAWN.sub(partial(_drawn, page.parent, set(), narrow), text)
        page.write_text(text, encoding="utf-8")
    if outside := outside_references(html):
        raise BookError("these pages would load something from outside:\n" + "\n".join(outside))
    mark.write_text(f"{frame} {code}")
    final, old = root / "_build" / "html", root / "_build" / "html.old"
    shutil.rmtree(old, ignore_errors=True)
    put_in_place(html, final, old)
    shutil.rmtree(old, ignore_errors=True)
    return final / "index.html"


def _svg(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    return text[text.index("<svg") :].strip()


def _drawn(folder: Path, there: set, narrow: dict, image: re.Match) -> str:
    """Let a phone choose the narrow drawing; lay beside it, once a page, those that say more."""
    tag, place, end = image.groups()
    drawn = folder / f"{place}.svg"
    if "sd-card-img" in tag:  # a card has a thumbnail
        return image[0].replace("<img", '<img loading="lazy"')
    if not drawn.is_file():
        return image[0]
    kinds = [_svg(drawn)]
    if kinds[0] in narrow:
        kinds.append(narrow[kinds[0]])
        _lay(folder / f"{place}-phone.svg", kinds[1].encode())
        of = 'media="screen and (max-width: 576px)"'
        tag = f'<picture><source {of} srcset="{place}-phone.svg">{tag}</picture>'
    if 'class="marks"' not in kinds[0]:
        return tag + end
    name, shown = digest(kinds[0])[:8], "" if kinds[0] in there else "".join(kinds)
    there.add(kinds[0])
    return f'{tag}{end}<template class="live-figure" data-of="{name}">{shown}</template>'


def put_in_place(new: Path, final: Path, old: Path) -> None:
    """Let a folder take the place of another in one step, where the file system can (Linux)."""
    libc = ctypes.CDLL(None)
    if final.exists() and hasattr(libc, "renameat2"):
        here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
        if libc.renameat2(here, os.fsencode(new), here, os.fsencode(final), exchange) == 0:
            new.rename(old)
            return
    if final.exists():
        final.rename(old)
    new.rename(final)


def _frame(root: Path) -> tuple[str, str]:
    """Digest of all that one page can change on another, and of what changes those of the code."""
    along = root / "book" / "chapters" / "along"  # no page is made of these
    book = [p for p in (root / "book").rglob("*") if p.is_file() and p.parent != along]
    code = [*Path(perturbcore.__file__).parent.rglob("*.py"), *root.glob("_*.yml")]
    fixed = [[str(p), hashlib.sha256(p.read_bytes()).hexdigest()] for p in sorted(code)]
    parts = []
    for path in sorted(book):
        content = path.read_bytes()
        if path.suffix == ".md":
            parts.append(_BINDING.findall(content.decode()))
            fixed.append(parts[-1][:1])  # every page names all others
        elif path.suffix == ".ipynb":
            for cell in json.loads(content)["cells"]:
                prose = cell["cell_type"] == "markdown"
                parts.append(_BINDING.findall("".join(cell["source"])) if prose else cell)
                if cell.get("id") == "title":
                    fixed.append(parts[-1])
        else:
            parts.append(hashlib.sha256(content).hexdigest())
        parts.append(str(path))
    return digest([parts, fixed]), digest(fixed)


def assemble(profile: Profile) -> Path:
    """Lay chapters, tables and figures into ``book/`` where they changed; return the configuration.

    That is ``_config.yml`` with a place for the banner, which every page gets last.
    """
    # loads what draws and counts, which the process that runs Sphinx has no use for
    from perturbcore.report.published.claims.page import answers_table

    root = project_root()
    names = published()
    out = profile.results
    whole = [(out / "chapters" / f"{n}.ipynb", out / "runs" / f"{n}.json") for n in names]
    if missing := [page.stem for page, note in whole if not (page.is_file() and note.is_file())]:
        raise InputError(
            f"not run to its end with profile {profile.name}: {', '.join(missing)}; "
            f"make book PROFILE={profile.address} runs them"
        )
    laid = {}
    for kind in ("tables", "figures"):
        for name in names:
            found = (profile.results / kind / name).glob("*")
            laid |= {f"{kind}/{name}/{path.name}": path for path in found}
    chapters, mathjax = root / "book" / "chapters", root / "book" / "_static" / "mathjax"
    texts = {
        "_cards.md": _cards(profile, names),
        "_answers.md": answers_table(profile.results, simulated=_simulated(profile)),
        "_reference.md": _reference(),
    }
    for chapter in map(find_chapter, names):
        name, card = chapter.name, chapter.header.card
        executed = profile.results / "chapters" / f"{name}.ipynb"
        drawn = f"figures/{name}/{card.figure if card else ''}.svg" in laid
        laid |= {f"along/{name}.ipynb": executed, f"along/{name}.py": chapter.path}
        texts[f"{name}.ipynb"] = opened(chapter, executed.read_bytes(), drawn=drawn).decode()
    for path in [p for p in chapters.rglob("*") if p.is_file()]:
        if path.relative_to(chapters).as_posix() not in {*laid, *texts}:
            path.unlink()
    for name, source in laid.items():
        _lay(chapters / name, source.read_bytes())
    for name, text in texts.items():
        _lay(chapters / name, text.encode())
    bundle = files("sphinx-mathjax-offline") / "static" / "mathjax" / "tex-svg.js"
    _lay(mathjax / "tex-svg.js", bundle.read_bytes())
    config = read_yaml(root / "_config.yml")
    config.setdefault("html", {})["announcement"] = _BANNER
    if not config.get("repository", {}).get("url"):
        config.pop("launch_buttons", None)  # the theme fails on buttons that lead nowhere
    target = root / "_build" / "config.yml"
    _lay(target, yaml.safe_dump(config, sort_keys=False).encode())
    return target


def opened(chapter: Chapter, executed: bytes, *, drawn: bool) -> bytes:
    """Put the answer that an executed chapter left, and its main figure, behind the page's title.

    The answer is what `perturbcore.report.pages.take_home` showed, which is taken out below.
    """
    notebook = nbformat.reads(executed.decode(), as_version=4)
    parts = [_taken(notebook)]
    card = chapter.header.card
    if card is not None and card.figure and drawn:
        where = f"figures/{chapter.name}/{card.figure}.svg"
        parts.append(f"![{card.alt or card.title}]({where})")
    at = next((i for i, c in enumerate(notebook.cells) if c.cell_type == "markdown"), None)
    if at is not None and any(parts):
        title, _, rest = notebook.cells[at].source.partition("\n")
        inside = "\n\n".join(filter(None, parts))
        box = new_markdown_cell(f":::::{{div}} result-box\n{inside}\n:::::", id="opening")
        after = [new_markdown_cell(rest.strip(), id="after-title")] if rest.strip() else []
        notebook.cells[at : at + 1] = [new_markdown_cell(title, id="title"), box, *after]
    notebook.cells.append(new_markdown_cell(ALONG.format(chapter.name), id="along"))
    return nbformat.writes(notebook).encode()


def _taken(notebook) -> str:
    """Take the answer in one line out of the outputs; "" where there is none."""
    from perturbcore.report.pages import ONE_LINE

    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            text = "".join(output.get("data", {}).get("text/markdown", ""))
            if text.startswith(ONE_LINE):
                cell.outputs.remove(output)
                return text
    return ""


def _lay(path: Path, content: bytes) -> None:
    """Write a file where it differs: Sphinx reads a page again when the file is newer."""
    if not path.is_file() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def run_notes(profile: Profile) -> list[dict]:
    """Provenance of each chapter of the book, in its order."""
    notes = [profile.results / "runs" / f"{name}.json" for name in published()]
    return [json.loads(n.read_text(encoding="utf-8")) for n in notes if n.is_file()]


def seconds_table(profile: Profile) -> str:
    """How long each chapter took, as aligned text."""
    rows = [(n["chapter"], n["seconds"]) for n in run_notes(profile)]
    width = max([len("all chapters"), *(len(name) for name, _ in rows)])
    rows.append(("all chapters", sum(s for _, s in rows)))
    return "\n".join(f"  {name:<{width}}  {seconds:8.1f} s" for name, seconds in rows)


def outside_references(html: Path) -> list[str]:
    """Scripts, styles, fonts and images that pages would load from another machine."""
    found = set()
    for pattern, kind in ((_OUTSIDE, "*.html"), (_OUTSIDE_STYLE, "*.css")):
        for page in html.rglob(kind):
            text = page.read_text(encoding="utf-8", errors="replace")
            found |= {f"{page.relative_to(html)}: {url}" for url in pattern.findall(text)}
    return sorted(found)


def _simulated(profile: Profile) -> bool:
    loaders = {entry.name: entry.loader for entry in profile.datasets}
    return profile.simulated or from_simulated_files(profile.results / "responses", loaders)


def _banner(profile: Profile) -> str:
    here = record()
    cells = "<strong>simulated</strong>" if _simulated(profile) else "real"
    commit = f", commit {here['commit'][:10]}{'+' * here['dirty']}" if here["commit"] else ""
    return (
        f"The cells on these pages are {cells}. Profile <strong>{escape(profile.name)}</strong>: "
        f"{escape(profile.title)}. Built {datetime.now(UTC):%Y-%m-%d}{commit}."
    )


def _cards(profile: Profile, names: list[str]) -> str:
    """One card per chapter that asks for one: title, small figure, and its answer in one line."""
    from perturbcore.report.published.claims.page import answer_of

    cards = ["::::{grid} 1 2 2 2\n:gutter: 3\n"]
    for name in names:
        chapter = find_chapter(name)
        card, gone = chapter.header.card, chapter.missing(profile)
        if card is None:
            continue
        answer = f"Left out: {gone}." if gone else card.text or answer_of(profile.results, name)
        if not answer:
            raise InputError(f"{name} has a card but left no answer: show one with take_home")
        lines = [f":::{{grid-item-card}} {card.title}"]
        lines += [f":link: chapters/{name}", ":link-type: doc"]
        drawn = profile.results / "figures" / name / f"{card.figure}.svg"
        # with some profiles, a chapter has nothing to draw
        if card.figure and (drawn.is_file() or not (gone or profile.partial)):
            picture = f"chapters/figures/{name}/{card.figure}.svg"
            lines += [f":img-top: {picture}", f":img-alt: {card.alt}"]
        cards.append("\n".join([*lines, answer, ":::\n"]))
    return "\n".join([*cards, "::::\n"])


def _reference() -> str:
    """Every module of the package with its public names, one section per wing."""
    root = Path(perturbcore.__file__).parent
    lines = ["## The front door\n", "| verb | what it does |", "|---|---|"]
    for verb, module in sorted(VERBS.items()):
        name = _NAMES.get(verb, verb)
        tree = ast.parse(root.joinpath(*module.split(".")[1:]).with_suffix(".py").read_text())
        thing = next(n for n in tree.body if getattr(n, "name", "") == name)
        kind = "class" if isinstance(thing, ast.ClassDef) else "func"
        said = (ast.get_docstring(thing) or "").splitlines()[0]
        lines.append(f"| {{py:{kind}}}`{verb} <{module}.{name}>` | {said} |")
    for wing in WINGS:
        about = import_module(f"perturbcore.{wing}").__doc__ or ""
        lines += [f"\n## {wing}\n", about.strip() + "\n", "```{eval-rst}"]
        for path in sorted((root / wing).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if parts[-1] == "__init__" and re.search(r"^(def|class) ", path.read_text(), re.M):
                parts = parts[:-1]  # a package that holds functions of its own
            if not any(part.startswith("_") for part in parts):
                lines += [f".. automodule:: perturbcore.{'.'.join(parts)}", "   :members:"]
        lines.append("```")
    return "\n".join(lines) + "\n"
