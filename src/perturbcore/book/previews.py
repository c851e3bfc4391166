"""What a link to a page shows elsewhere: its title, one sentence and a picture (Open Graph)."""

import re
from html import escape, unescape
from pathlib import Path

from perturbcore.core.files import read_yaml

_TITLE = re.compile(r"<title>(.*?)(?:\s(?:&#8212;|\u2014)\s[^<]*)?</title>", re.S)
_ANSWER = re.compile(r"<p><strong>In one line\.</strong>(.*?)</p>", re.S)
_FIRST = re.compile(r"</h1>.*?<p>(.*?)</p>", re.S)
_LONGEST = 300
CARD = "_static/card.png"


def site(config: Path) -> tuple[str, str]:
    """Read the book's title and its address, "" where it has none, from ``_config.yml``."""
    said = read_yaml(config)
    given = said.get("sphinx", {}).get("config", {}).get("html_baseurl")
    base = str(given or said.get("html", {}).get("baseurl") or "").rstrip("/")
    return str(said.get("title", "")), f"{base}/" if base else ""


def preview(text: str, page: str, *, picture: str = CARD, title: str = "", base: str = "") -> str:
    """Write the tags of one page: the answer in one line, else its first paragraph, and a picture.

    `text`: HTML of the page; `page`, `picture`: places below the first folder of the book; `title`:
    of the book; `base`: address of the book, without which the picture's is relative.
    """
    found = _ANSWER.search(text) or _FIRST.search(text)
    heading = _TITLE.search(text)
    said = {
        "og:type": "website" if page.endswith("index.html") else "article",
        "og:site_name": title,
        "og:title": _plain(heading[1]) if heading else title,
        "og:description": _shortened(_plain(found[1])) if found else title,
        "og:image": (base or "../" * page.count("/")) + picture,
        "og:url": base and base + page,
    }
    tags = [f'<meta property="{k}" content="{escape(v)}" />' for k, v in said.items() if v]
    tags += [f'<meta name="description" content="{escape(said["og:description"])}" />']
    return "\n".join([*tags, '<meta name="twitter:card" content="summary_large_image" />\n'])


def _plain(markup: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>|\\[()]", "", markup)).split())


def _shortened(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    return text[: _LONGEST - 1].rpartition(" ")[0].rstrip(",;:") + "…"
