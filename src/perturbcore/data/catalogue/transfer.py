"""Bringing one file over the network: never more than it has, never for ever, and gone on with."""

import fcntl
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from perturbcore.core.errors import DownloadError

TIMEOUT_SECONDS = 30  # without a byte
GRACE_SECONDS, LEAST_RATE = 120, 50_000  # a whole file: two minutes, and its bytes at this rate
TRIES, BACKOFF_SECONDS, LONGEST_WAIT = 4, 1.0, 60
BUSY = (429, 502, 503, 504)


def download(url: str, part: Path, target: Path, most: int, check: Callable[[Path], None]) -> None:
    """Bring a file to `target`; what has come of it stays in `part`, and the next call goes on.

    `most`: bytes of the file, more are refused; `check`: raises for what is not the file. A server
    that is busy, resets or breaks off is asked again, later each time.
    """
    wait = dict(
        backoff_factor=BACKOFF_SECONDS, backoff_max=LONGEST_WAIT, retry_after_max=LONGEST_WAIT
    )
    retry = Retry(TRIES, connect=1, status_forcelist=BUSY, raise_on_status=False, **wait)
    end = time.monotonic() + GRACE_SECONDS + most / LEAST_RATE
    with _own(part) as own, requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retry))
        for attempt in range(TRIES):
            try:
                _receive(session, url, own, most, end)
                break
            except requests.exceptions.ChunkedEncodingError:  # it broke off on the way
                if attempt == TRIES - 1:
                    raise
                time.sleep(min(LONGEST_WAIT, BACKOFF_SECONDS * 2**attempt))
        try:
            check(own)
        except DownloadError:
            own.unlink()
            raise
        os.replace(own, target)


def blob_at(repository: str, commit: str, path: str) -> str:
    """Ask git for the id of a file at a commit; it checks what it brings against the commit's."""
    with tempfile.TemporaryDirectory() as folder:
        said = ""
        for command in (
            ["init", "--quiet", "--bare"],
            ["fetch", "--quiet", "--depth=1", "--filter=blob:none", repository, commit],
            ["rev-parse", f"{commit}:{path}"],
        ):
            try:
                done = subprocess.run(
                    ["git", "-C", folder, *command], capture_output=True, text=True,
                    timeout=GRACE_SECONDS, env=os.environ | {"GIT_TERMINAL_PROMPT": "0"},
                )  # fmt: skip
            except (OSError, subprocess.TimeoutExpired) as error:
                raise DownloadError(f"git {command[0]}: {type(error).__name__}") from None
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["no reason"])[-1]
                raise DownloadError(f"git {command[0]} of {repository} at {commit}: {reason}")
            said = done.stdout.strip()
    return said


@contextmanager
def _own(part: Path) -> Iterator[Path]:
    """Give the unfinished file, or a private one where another process writes to it."""
    with part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = part.exists() and part.stat().st_ino == os.fstat(file.fileno()).st_ino
        except BlockingIOError:
            mine = False
        if mine:
            try:
                yield part
            finally:
                if part.exists() and not part.stat().st_size:
                    part.unlink()
            return
    with tempfile.TemporaryDirectory(dir=part.parent) as folder:
        yield Path(folder) / "file"


def _receive(session: requests.Session, url: str, part: Path, most: int, end: float) -> None:
    """Append what is missing of a file: at most `most` bytes in all, until the time `end`."""
    have = part.stat().st_size if part.exists() else 0
    if have == most:
        return
    # as it is, since a range of a compressed answer would be one of other bytes
    asked = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with session.get(url, headers=asked, stream=True, timeout=TIMEOUT_SECONDS) as answer:
        if answer.status_code == 416:  # what is here is more than there is
            part.unlink()
        answer.raise_for_status()
        goes_on = answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        have = have if answer.status_code == 206 and goes_on else 0
        due = int(answer.headers.get("Content-Length", 0))
        came = 0
        with part.open("ab") as file:
            file.truncate(have)
            for piece in _pieces(answer):
                have, came = have + len(piece), came + len(piece)
                if have > most:
                    file.truncate(0)
                    raise DownloadError(f"{url} sends more than the {most:,} bytes of the file")
                if time.monotonic() > end:
                    raise DownloadError(f"{url} is too slow: {have:,} of {most:,} bytes in time")
                file.write(piece)
    if came < due:
        raise requests.exceptions.ChunkedEncodingError(f"{came} of {due} bytes")


def _pieces(answer: requests.Response) -> Iterator[bytes]:
    """Yield what comes as soon as it comes, so that a deadline is held with a trickle too."""
    try:
        while piece := answer.raw.read1(2**16, decode_content=True):
            yield piece
    except HTTPError as error:
        raise requests.exceptions.ChunkedEncodingError(error) from None
