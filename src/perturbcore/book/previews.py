"""What a link to a page shows elsewhere: its title, one sentence and a picture (Open Graph)."""

import re
from html import escape, unescape
from pathlib import Path
from textwrap import shorten

from perturbcore.core.files import read_yaml

_TITLE = re.compile(r"<title>(.*?)(?:\s(?:&#8212;|\u2014)\s[^<]*)?</title>", re.S)
_ANSWER = re.compile(r"<p><strong>In one line\.</strong>(.*?)</p>", re.S)
_FIRST = re.compile(r"</h1>.*?<p>(.*?)</p>", re.S)


def site(config: Path) -> tuple[str, str]:
    """Read the book's title and its address, "" where it has none, from ``_config.yml``."""
    said = read_yaml(config)
    base = str(said.get("html", {}).get("baseurl") or "").rstrip("/")
    return str(said.get("title", "")), base and f"{base}/"


def preview(text: str, page: str, *, picture: str = "", title: str = "", base: str = "") -> str:
    """Write the tags of one page: its answer in one line, else first paragraph, and a picture.

    `text`: its HTML; `page`, `picture`: places in the book; `title`, `base`: of the book.
    """
    found, heading = _ANSWER.search(text) or _FIRST.search(text), _TITLE.search(text)
    said = {
        "og:type": "website" if page.endswith("index.html") else "article",
        "og:site_name": title,
        "og:title": _plain(heading[1]) if heading else title,
        "og:description": _plain(found[1]) if found else title,
        "og:image": (base or "../" * page.count("/")) + (picture or "_static/card.png"),
        "og:url": base and base + page,
    }
    tags = [f'<meta property="{k}" content="{escape(v)}" />\n' for k, v in said.items() if v]
    return "".join([*tags, '<meta name="twitter:card" content="summary_large_image" />\n'])


def _plain(markup: str) -> str:
    return shorten(unescape(re.sub(r"<[^>]+>|\\[()]", "", markup)), 300, placeholder="…")
