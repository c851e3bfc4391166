"""Bring a catalogue file to this machine; nothing passes that is not the pinned file."""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
import uuid
import zipfile
from collections.abc import Iterable
from pathlib import Path

import requests
from tqdm.auto import tqdm

from perturbcore.core.errors import DownloadError
from perturbcore.data.catalogue.records import Entry, entries, entry, licence_notice

PARTIAL = ".partial"
STALE_SECONDS = 24 * 3600
TIMEOUT_SECONDS = 30
PIP_SECONDS = 600

_hashed: dict[tuple, str] = {}
_shown: set[tuple] = set()
_unheard: dict[str, str] = {}  # packages that pip could not bring, and why: asked for once


def data_folder(folder=None) -> Path:
    """Return the cache folder: `folder`, else ``PERTURBCORE_DATA``, else ``data``."""
    return Path(folder or os.environ.get("PERTURBCORE_DATA") or "data")


def hash_of(path, kind: str = "sha256") -> str:
    """Return the "sha256" of a file or its git "blob" id; taken once while its time stamp stays."""
    path = Path(path)
    stat = path.stat()
    key = (kind, str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino)
    if key not in _hashed:
        made = hashlib.sha256() if kind == "sha256" else hashlib.sha1(usedforsecurity=False)
        if kind == "blob":
            made.update(b"blob %d\0" % stat.st_size)
        with path.open("rb") as handle:
            _hashed[key] = hashlib.file_digest(handle, lambda: made).hexdigest()
    return _hashed[key]


def _differs(item: Entry, path: Path) -> str:
    """Say in what a file differs from the pinned one; empty where it is that file."""
    kind = "sha256" if item.sha256 else "blob"
    have, pinned = hash_of(path, kind), getattr(item, kind)
    return "" if have == pinned else f"its {kind} is {have}, pinned is {pinned}"


def fetch(name: str, *, folder=None, accept_licence: bool | None = None, progress=True) -> Path:
    """Return the path of a catalogue file, fetching it where need be.

    Looked for in this order: the mirror folder of ``PERTURBCORE_MIRROR``, the cache, the
    network (``PERTURBCORE_URL`` replaces the server's address; ``PERTURBCORE_OFFLINE=1``
    forbids it). Mirror and cache have the tree ``owner/repository/commit/path``. Wherever the
    file comes from, its sha256 (or git blob id) is checked first, so a truncated file, an error
    page or a changed file never reaches a reader.

    `folder`: cache folder; see `data_folder`; `accept_licence`: None shows the licence before
    the first download from a source; True does not (you have shown it); False refuses to
    download from sources of restricted use.
    """
    item = entry(name)
    for root in _mirror():
        if not root.is_dir():
            raise DownloadError(f"PERTURBCORE_MIRROR={root} is not a folder; correct or unset it")
        path = root / item.tree_path
        if path.is_file():
            if wrong := _differs(item, path):
                raise DownloadError(
                    f"{path} in the mirror is not the pinned file: {wrong}; "
                    "replace it, or remove it "
                    f"to download from {item.url}"
                )
            return path
    target = data_folder(folder) / item.tree_path
    corrupt = ""
    if target.is_file():
        if not (wrong := _differs(item, target)):
            return target
        corrupt = f"; the cached {target} is corrupt ({wrong})"
    if os.environ.get("PERTURBCORE_OFFLINE", "") not in ("", "0"):
        raise DownloadError(
            f"{name} is not on this machine{corrupt}, and PERTURBCORE_OFFLINE forbids the network; "
            + _way_out(item, target)
        )
    _agree(item, accept_licence)
    bring = unpack if item.packaged else _download
    bring(item, target, data_folder(folder) / PARTIAL, progress, corrupt)
    return target


def fetch_many(
    names: str | Iterable[str], *, folder=None, accept_licence: bool | None = None, progress=True
) -> dict[str, Path]:
    """Fetch several files, showing each licence before anything is downloaded.

    Of several, an optional one that cannot be had is left out with a line.
    """
    names = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    items = [entry(name) for name in names]
    if accept_licence is None:
        for item in items:
            if not any(path.is_file() for path in _places(item, folder)):
                _agree(item, None)
        accept_licence = True
    paths, failures, left = {}, [], []
    total = sum(item.bytes for item in items)
    with tqdm(total=total, unit="B", unit_scale=True, disable=not progress, desc="fetch") as bar:
        for item in items:
            bar.set_postfix_str(item.name)
            try:
                paths[item.name] = fetch(
                    item.name, folder=folder, accept_licence=accept_licence, progress=False
                )
            except DownloadError as error:
                (left if item.optional and len(items) > 1 else failures).append(str(error))
            bar.update(item.bytes)
    for line in left:
        print(f"left out, nothing needs it: {line}", file=sys.stderr)
    if failures:
        raise DownloadError(
            f"{len(failures)} of {len(items)} files failed:\n- " + "\n- ".join(failures)
        )
    return paths


def verify(names: Iterable[str] | None = None, *, folder=None) -> dict[str, str]:
    """Say of each file whether it is "ok", "missing" or "corrupt", without any download."""
    out = {}
    for name in entries().index if names is None else names:
        item = entry(name)
        path = next((p for p in _places(item, folder) if p.is_file()), None)
        out[name] = "missing" if path is None else "corrupt" if _differs(item, path) else "ok"
    return out


def _mirror() -> list[Path]:
    mirror = os.environ.get("PERTURBCORE_MIRROR", "")
    return [Path(mirror)] if mirror else []


def _places(item: Entry, folder) -> list[Path]:
    return [root / item.tree_path for root in (*_mirror(), data_folder(folder))]


def _address(item: Entry) -> str:
    base = os.environ.get("PERTURBCORE_URL", "").rstrip("/")
    return f"{base}/{item.tree_path}" if base else item.url


def _way_out(item: Entry, target: Path) -> str:
    return (
        "set PERTURBCORE_MIRROR to a folder with the tree owner/repository/commit/path, or put the "
        f"file of {_address(item)} at {target}"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, requests.exceptions.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code}"
    if isinstance(error, requests.exceptions.Timeout):
        return "the server did not answer in time"
    if isinstance(error, requests.exceptions.ConnectionError):
        return "no connection, or it broke off"
    return f"{type(error).__name__}: {error}"


def _agree(item: Entry, accept: bool | None) -> None:
    if accept is False and item.restricted:
        raise DownloadError(
            f"{item.name} was not downloaded: its licence is {item.licence}. "
            f"{item.licence_note} Call again with accept_licence=True to accept it"
        )
    terms = (item.source, item.licence, item.licence_note)
    if accept is None and terms not in _shown:
        _shown.add(terms)
        print(licence_notice(item.name), file=sys.stderr, flush=True)


def _download(item: Entry, target: Path, folder: Path, progress, corrupt: str) -> None:
    import pooch

    _clean(folder)
    partial = folder / f"{os.getpid()}-{uuid.uuid4().hex}"
    get = pooch.HTTPDownloader(progressbar=bool(progress), timeout=TIMEOUT_SECONDS)
    try:
        get(_address(item), str(partial), None)
        if wrong := _differs(item, partial):
            raise DownloadError(
                f"what {_address(item)} sent is not the pinned file {item.name} "
                f"({wrong}){corrupt}; "
                "it was not kept. Try again; if it stays so, " + _way_out(item, target)
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial, target)
    # the chain of connection errors below says nothing that the reason does not
    except (requests.exceptions.RequestException, OSError) as error:
        raise DownloadError(
            f"{item.name} could not be downloaded ({_reason(error)}){corrupt}; "
            + _way_out(item, target)
        ) from None
    finally:
        partial.unlink(missing_ok=True)


def unpack(item: Entry, target: Path, folder: Path, progress=False, corrupt: str = "") -> None:
    """Take a file, and what else the catalogue has of its package, out of a wheel.

    pip brings the wheel from the index that the user's settings name, without what it depends on;
    nothing of it is installed or run.
    """
    _clean(folder)
    wanted = f"{item.repository}=={item.commit}"
    with tempfile.TemporaryDirectory(dir=folder) as place:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
        command += ["--only-binary", ":all:", "--dest", place, wanted]
        if wanted not in _unheard:
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS)
                if done.returncode:
                    _unheard[wanted] = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
            except (OSError, subprocess.TimeoutExpired) as error:
                _unheard[wanted] = f"pip: {type(error).__name__}"
        if wanted in _unheard:
            raise DownloadError(
                f"{item.name}: the package {wanted} could not be had ({_unheard[wanted]}){corrupt};"
                f" {_way_out(item, target)}"
            )
        (wheel,) = Path(place).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            inside = set(archive.namelist())
            for name in entries().index:
                other = entry(name)
                if (other.repository, other.commit) != (item.repository, item.commit):
                    continue
                wrong = f"there is no {other.path}"
                if other.path in inside:
                    found = Path(archive.extract(other.path, Path(place) / "files"))
                    wrong = _differs(other, found)
                if wrong:
                    raise DownloadError(
                        f"{wanted} is not the pinned package of {other.name}: {wrong}; it was not "
                        "kept; " + _way_out(item, target)
                    )
                root = target.parents[len(Path(item.path).parts) - 1]
                (root / other.path).parent.mkdir(parents=True, exist_ok=True)
                os.replace(found, root / other.path)


def _clean(folder: Path) -> None:
    """Make the folder of unfinished downloads; a killed process cannot clean up after itself."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        try:
            if time.time() - old.stat().st_mtime > STALE_SECONDS:
                old.unlink()
        except OSError:
            continue
