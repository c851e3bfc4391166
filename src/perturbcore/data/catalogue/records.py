"""The catalogue's records, read from one YAML file a source."""

import difflib
from dataclasses import dataclass
from functools import cache
from importlib import resources

import pandas as pd
import yaml

from perturbcore.core.errors import ParameterError


@dataclass(frozen=True)
class Entry:
    """One file at one commit of a public repository.

    Parameters
    ----------
    name : str
        What the project calls the file.
    source : str
        Title of the source that the file belongs to; licences are shown once a source.
    owner, repository, commit, path : str
        Where the file is; `commit` is the full hash.
    sha256 : str
        64 hexadecimal characters.
    bytes : int
        Size of the file.
    licence : str
        SPDX identifier, or the licence's name, or "none stated".
    licence_note : str
        What a user must know: non-commercial, no licence file, conflicting statements.
    restricted : bool
        Whether commercial use or passing on is not allowed (or nowhere allowed).
    citations : tuple of str
        Keys in the book's bibliography.
    description : str
        One line.
    """

    name: str
    source: str
    owner: str
    repository: str
    commit: str
    path: str
    sha256: str
    bytes: int
    licence: str
    licence_note: str
    restricted: bool
    citations: tuple[str, ...]
    description: str

    @property
    def tree_path(self) -> str:
        """Path in a mirror folder, in the cache and on the server: owner/repository/commit/path."""
        return f"{self.owner}/{self.repository}/{self.commit}/{self.path}"

    @property
    def url(self) -> str:
        """Address of the raw file at the pinned commit."""
        return f"https://raw.githubusercontent.com/{self.tree_path}"


@cache
def _records() -> dict[str, Entry]:
    records: dict[str, Entry] = {}
    folder = resources.files("perturbcore.data.catalogue") / "sources"
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if not file.name.endswith(".yml"):
            continue
        source = yaml.safe_load(file.read_text(encoding="utf-8"))
        shared = {k: source[k] for k in ("owner", "repository", "commit")}
        for item in source["files"]:
            item = {
                "licence": source["licence"],
                "licence_note": source["licence_note"],
                "restricted": source["restricted"],
                "citations": source["citations"],
                **item,
            }
            if item["name"] in records:
                raise ValueError(
                    f"{file.name}: the name '{item['name']}' is in the catalogue twice"
                )
            item["citations"] = tuple(item["citations"])
            records[item["name"]] = Entry(source=source["title"], **shared, **item)
    return records


def entry(name: str) -> Entry:
    """Return one entry.

    Raises
    ------
    ParameterError
        No entry has that name; the message lists the closest ones.
    """
    records = _records()
    if name not in records:
        close = difflib.get_close_matches(str(name), records, n=5, cutoff=0.4)
        hint = f"close names: {', '.join(close)}; " if close else ""
        raise ParameterError(
            f"the catalogue has no '{name}'; {hint}all names: perturbcore.data.catalogue.entries().index"
        )
    return records[name]


def entries() -> pd.DataFrame:
    """List the catalogue.

    Returns
    -------
    pandas.DataFrame
        Indexed by name, one row a file, with the fields of `Entry` and its `url`.
    """
    rows = [
        {**vars(e), "citations": ", ".join(e.citations), "url": e.url} for e in _records().values()
    ]
    return pd.DataFrame(rows).set_index("name")


def licence(name: str) -> str:
    """Return the licence of one entry with what a user must know, in one line."""
    found = entry(name)
    return f"{found.licence}. {found.licence_note}".strip() if found.licence_note else found.licence


def licence_notice(names) -> str:
    """Write the notice to show before files are downloaded, grouped by source and licence.

    Parameters
    ----------
    names : str or iterable of str
        Names of entries.

    Returns
    -------
    str
        One paragraph a source and licence; restricted ones say so in their first line.
    """
    names = [names] if isinstance(names, str) else list(names)
    groups: dict[tuple, list[Entry]] = {}
    for found in map(entry, names):
        groups.setdefault((found.source, found.licence, found.licence_note), []).append(found)
    paragraphs = []
    for (source, terms, note), files in groups.items():
        mark = "RESTRICTED USE: " if files[0].restricted else ""
        size = sum(f.bytes for f in files)
        amount = f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
        count = "1 file" if len(files) == 1 else f"{len(files)} files"
        lines = [
            f"{mark}{source} ({files[0].owner}/{files[0].repository}): {count}, {amount}",
            f"  Licence: {terms}. {note}".rstrip(),
        ]
        paragraphs.append("\n".join(lines))
    return "\n".join(paragraphs)


def licences_markdown() -> str:
    """Write the content of DATA_LICENSES.md from the catalogue."""
    groups: dict[tuple, list[Entry]] = {}
    for found in _records().values():
        key = (found.source, found.owner, found.repository, found.commit)
        groups.setdefault((*key, found.licence, found.licence_note, found.restricted), []).append(
            found
        )
    lines = [
        "# Licences of the data",
        "",
        "The licence of this project covers its code and prose only. The files below are not part "
        "of it: they are fetched at run time from their authors' repositories, at a pinned commit "
        "and checked against a sha256, and each keeps its own terms. *Restricted* means that "
        "commercial use or passing the file on is not allowed, or that no licence allows it.",
        "",
        "This table is written from the catalogue: "
        "`python -m perturbcore.data.catalogue --licences --write DATA_LICENSES.md`.",
        "",
        "| source | repository @ commit | licence | restricted | what to know | files |",
        "|---|---|---|---|---|---|",
    ]
    for (source, owner, repository, commit, terms, note, restricted), files in groups.items():
        names = [f"`{f.name}`" for f in files]
        if len(names) > 12:
            names = names[:3] + [f"... and {len(names) - 3} more"]
        lines.append(
            f"| {source} | [{owner}/{repository}](https://github.com/{owner}/{repository}/tree/"
            f"{commit}) @ {commit[:10]} | {terms} | {'yes' if restricted else 'no'} | {note} | "
            f"{', '.join(names)} |"
        )
    return "\n".join(lines) + "\n"
