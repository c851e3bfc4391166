"""Bring a catalogue file to this machine; nothing passes whose sha256 is not the pinned one."""

import hashlib
import os
import sys
import time
import uuid
from pathlib import Path

import requests
from tqdm.auto import tqdm

from perturbcore.core.errors import DownloadError
from perturbcore.data.catalogue.records import Entry, entries, entry, licence_notice

PARTIAL = ".partial"
STALE_SECONDS = 24 * 3600
TIMEOUT_SECONDS = 30

_verified: dict[tuple, str] = {}
_shown: set[tuple] = set()


def data_folder(folder=None) -> Path:
    """Return the cache folder: `folder`, else ``PERTURBCORE_DATA``, else ``data``."""
    return Path(folder or os.environ.get("PERTURBCORE_DATA") or "data")


def sha256_of(path) -> str:
    """Hash a file; a file whose size and time stamp did not change is hashed once a process."""
    path = Path(path)
    stat = path.stat()
    key = (str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino)
    if key not in _verified:
        with path.open("rb") as handle:
            _verified[key] = hashlib.file_digest(handle, "sha256").hexdigest()
    return _verified[key]


def fetch(name: str, *, folder=None, accept_licence: bool | None = None, progress=True) -> Path:
    """Return the path of a catalogue file, fetching it where need be.

    Looked for in this order: the mirror folder of ``PERTURBCORE_MIRROR``, the cache, the network
    (``PERTURBCORE_URL`` replaces the server's address; ``PERTURBCORE_OFFLINE=1`` forbids it).
    Mirror and cache have the tree ``owner/repository/commit/path``. Wherever the file comes from,
    its sha256 is checked first, so a truncated file, an error page or a changed file never
    reaches a reader.

    Parameters
    ----------
    name : str
        Name of an entry.
    folder : path, optional
        Cache folder; see `data_folder`.
    accept_licence : bool, optional
        None shows the licence before the first download from a source; True does not (you have
        shown it); False refuses to download from sources of restricted use.
    progress : bool
        Show a progress bar.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    DownloadError
        The file cannot be had, or is not what was pinned; the message says what to do.
    ParameterError
        The catalogue has no such entry.
    """
    found = entry(name)
    mirrored = _from_mirror(found)
    if mirrored is not None:
        return mirrored
    target = data_folder(folder) / found.tree_path
    corrupt = ""
    if target.is_file():
        have = sha256_of(target)
        if have == found.sha256:
            return target
        corrupt = f"; the cached {target} is corrupt (sha256 {have}, pinned {found.sha256})"
    if os.environ.get("PERTURBCORE_OFFLINE", "") not in ("", "0"):
        raise DownloadError(
            f"{name} is not on this machine{corrupt}, and PERTURBCORE_OFFLINE forbids the network; "
            + _way_out(found, target)
        )
    _agree(found, accept_licence)
    _download(found, target, progress, corrupt)
    return target


def fetch_many(
    names, *, folder=None, accept_licence: bool | None = None, progress=True
) -> dict[str, Path]:
    """Fetch several files, showing each licence before anything is downloaded.

    Returns
    -------
    dict of str to pathlib.Path

    Raises
    ------
    DownloadError
        One or more files failed; the others are fetched all the same, and the message lists all.
    """
    names = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    found = [entry(name) for name in names]
    if accept_licence is None:
        for item in found:
            if not _at_hand(item, folder):
                _agree(item, None)
        accept_licence = True
    paths, failures = {}, []
    with tqdm(
        total=sum(f.bytes for f in found),
        unit="B",
        unit_scale=True,
        disable=not progress,
        desc="fetch",
    ) as bar:
        for item in found:
            bar.set_postfix_str(item.name)
            try:
                paths[item.name] = fetch(
                    item.name, folder=folder, accept_licence=accept_licence, progress=False
                )
            except DownloadError as error:
                failures.append(str(error))
            bar.update(item.bytes)
    if failures:
        raise DownloadError(
            f"{len(failures)} of {len(found)} files failed:\n- " + "\n- ".join(failures)
        )
    return paths


def verify(names=None, *, folder=None) -> dict[str, str]:
    """Say of each file whether it is at hand, without any download.

    Returns
    -------
    dict of str to str
        "ok", "missing" or "corrupt".
    """
    out = {}
    for name in entries().index if names is None else names:
        item = entry(name)
        places = [root / item.tree_path for root in _roots(folder)]
        there = [sha256_of(p) == item.sha256 for p in places if p.is_file()]
        out[name] = "missing" if not there else "ok" if there[0] else "corrupt"
    return out


def _roots(folder) -> list[Path]:
    mirror = os.environ.get("PERTURBCORE_MIRROR", "")
    return [*([Path(mirror)] if mirror else []), data_folder(folder)]


def _at_hand(item: Entry, folder) -> bool:
    return any((root / item.tree_path).is_file() for root in _roots(folder))


def _from_mirror(found: Entry) -> Path | None:
    mirror = os.environ.get("PERTURBCORE_MIRROR", "")
    if not mirror:
        return None
    if not Path(mirror).is_dir():
        raise DownloadError(f"PERTURBCORE_MIRROR={mirror} is not a folder; correct or unset it")
    path = Path(mirror) / found.tree_path
    if not path.is_file():
        return None
    have = sha256_of(path)
    if have != found.sha256:
        raise DownloadError(
            f"{path} in the mirror is not the pinned file: its sha256 is {have}, pinned is "
            f"{found.sha256}; replace it, or remove it to download from {found.url}"
        )
    return path


def _address(found: Entry) -> str:
    base = os.environ.get("PERTURBCORE_URL", "").rstrip("/")
    return f"{base}/{found.tree_path}" if base else found.url


def _way_out(found: Entry, target: Path) -> str:
    return (
        "set PERTURBCORE_MIRROR to a folder with the tree owner/repository/commit/path, or put the "
        f"file of {_address(found)} at {target}"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, requests.exceptions.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code}"
    if isinstance(error, requests.exceptions.Timeout):
        return "the server did not answer in time"
    if isinstance(error, requests.exceptions.ConnectionError):
        return "no connection, or it broke off"
    return f"{type(error).__name__}: {error}"


def _agree(found: Entry, accept: bool | None) -> None:
    if accept is False and found.restricted:
        raise DownloadError(
            f"{found.name} was not downloaded: its licence is {found.licence}. "
            f"{found.licence_note} Call again with accept_licence=True to accept it"
        )
    terms = (found.source, found.licence, found.licence_note)
    if accept is None and terms not in _shown:
        _shown.add(terms)
        print(licence_notice(found.name), file=sys.stderr, flush=True)


def _download(found: Entry, target: Path, progress, corrupt: str) -> None:
    import pooch

    partial = _partial_folder(target, found)
    name = f"{os.getpid()}-{uuid.uuid4().hex}"
    downloader = pooch.HTTPDownloader(progressbar=bool(progress), timeout=TIMEOUT_SECONDS)
    level = pooch.get_logger().level
    pooch.get_logger().setLevel("ERROR")
    try:
        got = pooch.retrieve(
            _address(found),
            f"sha256:{found.sha256}",
            fname=name,
            path=partial,
            downloader=downloader,
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(got, target)
    # the chain of connection errors below says nothing that the reason does not
    except (requests.exceptions.RequestException, OSError) as error:
        raise DownloadError(
            f"{found.name} could not be downloaded ({_reason(error)}){corrupt}; "
            + _way_out(found, target)
        ) from None
    except ValueError as error:
        raise DownloadError(
            f"what {_address(found)} sent is not the pinned file {found.name} "
            f"(pinned sha256 {found.sha256}; {error}){corrupt}; it was not kept. "
            "Try again; if it stays so, " + _way_out(found, target)
        ) from None
    finally:
        pooch.get_logger().setLevel(level)
        (partial / name).unlink(missing_ok=True)


def _partial_folder(target: Path, found: Entry) -> Path:
    root = Path(*target.parts[: len(target.parts) - len(Path(found.tree_path).parts)])
    partial = root / PARTIAL
    partial.mkdir(parents=True, exist_ok=True)
    for old in partial.iterdir():  # a killed process cannot clean up after itself
        try:
            if time.time() - old.stat().st_mtime > STALE_SECONDS:
                old.unlink()
        except OSError:
            continue
    return partial
