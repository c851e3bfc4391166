"""The catalogue's records, read from one YAML file per source."""

import difflib
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator

from perturbcore.core.errors import ParameterError
from perturbcore.core.files import read_yaml

HEAD = """\
# Licences of the data

The licence of this project covers its code and prose only. The files below are not part of it: \
they are fetched at run time from their authors' repositories at a pinned commit, or from a \
package of a pinned version, and checked against a sha256 or a git blob id, and each keeps its \
own terms. *Restricted* means that commercial use or passing the file on is not allowed, or that \
no licence allows it.

This table is written from the catalogue: \
`python -m perturbcore.data.catalogue > DATA_LICENSES.md`.

| source | repository @ commit | licence | restricted | what to know | files |
|---|---|---|---|---|---|
"""


class Entry(BaseModel):
    """One file at one commit of a public repository, or in one version of a Python package.

    Of a package, `owner` is "package", `repository` its name and `commit` its version. `source`:
    title of the source that the file belongs to; licences are shown once per source; `sha256,
    blob`: what the file must be: its sha256, or its git blob id (sha1 of the word blob, the size, a
    zero byte and the content), which is enough where nobody could compute the sha256; `bytes`: 0
    where it is not known; `licence, licence_note`: SPDX identifier, the licence's name, or "none
    stated"; what a user must know of it; `restricted`: whether commercial use or passing on is not
    allowed (or nowhere allowed); `citations`: keys in the book's bibliography; `optional`: whether
    every profile runs without the file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: str
    owner: str
    repository: str
    commit: str
    path: str
    sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$")
    blob: str = Field("", pattern=r"^([0-9a-f]{40})?$")
    bytes: int = 0
    licence: str
    licence_note: str
    restricted: bool
    citations: tuple[str, ...]
    description: str
    optional: bool = False

    @model_validator(mode="after")
    def _pinned(self) -> "Entry":
        if not (self.sha256 or self.blob):
            raise ValueError(f"'{self.name}' has neither a sha256 nor a git blob id")
        if not (self.packaged or re.fullmatch("[0-9a-f]{40}", self.commit)):
            raise ValueError(f"'{self.name}' has no commit of 40 hexadecimal digits")
        return self

    @property
    def packaged(self) -> bool:
        """Whether the file lies in a Python package."""
        return self.owner == "package"

    @property
    def tree_path(self) -> str:
        """Path in a mirror folder, in the cache and on the server: owner/repository/commit/path."""
        return f"{self.owner}/{self.repository}/{self.commit}/{self.path}"

    @property
    def url(self) -> str:
        """Address of the raw file at the pinned commit; of a package its name and version."""
        if self.packaged:
            return f"pip:{self.repository}=={self.commit}/{self.path}"
        return f"https://raw.githubusercontent.com/{self.tree_path}"


@cache
def _records() -> dict[str, Entry]:
    records: dict[str, Entry] = {}
    for file in sorted(Path(__file__).with_name("sources").iterdir()):
        shared = read_yaml(file)
        files, title = shared.pop("files"), shared.pop("title")
        for item in files:
            if item["name"] in records:
                raise ValueError(f"{file.name}: '{item['name']}' is in the catalogue twice")
            records[item["name"]] = Entry(source=title, **(shared | item))
    return records


def entry(name: str) -> Entry:
    """Return one entry; where no entry has that name, the error lists the closest ones."""
    records = _records()
    if name not in records:
        close = difflib.get_close_matches(str(name), records, n=5, cutoff=0.4)
        hint = f"close names: {', '.join(close)}; " if close else ""
        raise ParameterError(
            f"the catalogue has no '{name}'; {hint}all names: "
            "perturbcore.data.catalogue.entries().index"
        )
    return records[name]


def entries() -> pd.DataFrame:
    """List the catalogue, indexed by name: one row per file, fields of `Entry`, and `url`."""
    rows = [
        {**e.model_dump(), "citations": ", ".join(e.citations), "url": e.url}
        for e in _records().values()
    ]
    return pd.DataFrame(rows).set_index("name")


def _by_terms(files: Iterable[Entry]) -> list[list[Entry]]:
    """Group files by source and licence."""
    groups: dict[tuple, list[Entry]] = {}
    for e in files:
        terms = (e.source, e.owner, e.repository, e.commit, e.licence, e.licence_note, e.restricted)
        groups.setdefault(terms, []).append(e)
    return list(groups.values())


def licence_notice(*names: str) -> str:
    """Write the notice to show before a download: one paragraph per source and licence."""
    paragraphs = []
    for files in _by_terms(map(entry, names)):
        e, size = files[0], sum(f.bytes for f in files)
        mark = "RESTRICTED USE: " if e.restricted else ""
        amount = f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
        count = "1 file" if len(files) == 1 else f"{len(files)} files"
        unknown = "" if all(f.bytes for f in files) else ", not all of known size"
        paragraphs.append(
            f"{mark}{e.source} ({e.owner}/{e.repository}): {count}, {amount}{unknown}\n"
            + f"  Licence: {e.licence}. {e.licence_note}".rstrip()
        )
    return "\n".join(paragraphs)


def licences_markdown() -> str:
    """Write the content of DATA_LICENSES.md from the catalogue."""
    lines = []
    for files in _by_terms(_records().values()):
        e = files[0]
        names = [f"`{f.name}`" for f in files]
        if len(names) > 12:
            names = names[:3] + [f"... and {len(names) - 3} more"]
        repository = f"{e.owner}/{e.repository}"
        tree = f"[{repository}](https://github.com/{repository}/tree/{e.commit})"
        terms = (e.licence, "yes" if e.restricted else "no", e.licence_note, ", ".join(names))
        packaged = f"package {e.repository} {e.commit}"
        cells = (e.source, packaged if e.packaged else f"{tree} @ {e.commit[:10]}", *terms)
        lines.append(f"| {' | '.join(cells)} |\n")
    return HEAD + "".join(lines)
