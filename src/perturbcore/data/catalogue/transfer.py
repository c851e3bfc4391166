"""Bringing one file over the network: never more than it has, never for ever, and gone on with."""

import time
from collections.abc import Iterator
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


def download(url: str, part: Path, most: int) -> None:
    """Bring a file of at most `most` bytes to `part`; a server that is busy is asked again."""
    wait = dict(
        backoff_factor=BACKOFF_SECONDS, backoff_max=LONGEST_WAIT, retry_after_max=LONGEST_WAIT
    )
    retry = Retry(TRIES, connect=1, status_forcelist=BUSY, raise_on_status=False, **wait)
    end = time.monotonic() + GRACE_SECONDS + most / LEAST_RATE
    part.touch()
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retry))
        for attempt in range(TRIES):
            try:
                return _receive(session, url, part, most, end)
            except requests.exceptions.ChunkedEncodingError:  # it broke off on the way
                if attempt == TRIES - 1:
                    raise
                time.sleep(min(LONGEST_WAIT, BACKOFF_SECONDS * 2**attempt))


def _receive(session: requests.Session, url: str, part: Path, most: int, end: float) -> None:
    """Append what is missing of a file."""
    have = part.stat().st_size
    # as it is, since a range of a compressed answer would be one of other bytes
    asked = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with session.get(url, headers=asked, stream=True, timeout=TIMEOUT_SECONDS) as answer:
        answer.raise_for_status()
        goes_on = answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        have = have if answer.status_code == 206 and goes_on else 0
        due, came = int(answer.headers.get("Content-Length", 0)), 0
        with part.open("ab") as file:
            file.truncate(have)
            for piece in _pieces(answer):
                came += len(piece)
                if have + came > most:
                    raise DownloadError(f"{url} sends more than the {most:,} bytes of the file")
                if time.monotonic() > end:
                    raise DownloadError(f"{url} is too slow: {have + came:,} of {most:,} bytes")
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
