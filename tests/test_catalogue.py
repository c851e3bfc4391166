import gzip
import hashlib
import multiprocessing
import os
import re
import subprocess
import threading
import time
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import ValidationError

from perturbcore.core.errors import DownloadError, ParameterError
from perturbcore.core.profile import load_profile, profile_names
from perturbcore.data import catalogue
from perturbcore.data.catalogue import Entry, entries, entry, fetch, fetch_many, transfer

GOOD = os.urandom(200_000)
OTHER = b"gene,label\nTP53,1\n"
FORK = multiprocessing.get_context("fork")


def make_entry(name, content, restricted=False):
    return Entry(
        name=name, source="Test source", owner="someone", repository="somewhere", commit="0" * 40,
        path=f"data/{name}.bin", sha256=hashlib.sha256(content).hexdigest(), bytes=len(content),
        licence="Some Licence", licence_note="Non-commercial use only." if restricted else "",
        restricted=restricted, citations=("someone2026",), description="a file of the tests",
    )  # fmt: skip


def send(content, length=None, status=200, kind="application/octet-stream"):
    """An answer of the server."""

    def answer(handler):
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        if length != "none":
            handler.send_header("Content-Length", str(length or len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def not_found(handler):
    handler.send_error(404)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests[self.path] += 1
        self.server.answers.get(self.path, not_found)(self)

    def log_message(self, *args):
        pass


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A server, two catalogue entries, an empty cache; no mirror, and the network allowed."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answers, server.requests, server.daemon_threads = {}, Counter(), True
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    contents = {"good": GOOD, "other": OTHER, "restricted": OTHER}
    fakes = {name: make_entry(name, c, name == "restricted") for name, c in contents.items()}
    monkeypatch.setattr(catalogue, "_records", lambda: fakes)
    monkeypatch.setattr(catalogue, "_shown", set())
    monkeypatch.setattr(transfer, "BACKOFF_SECONDS", 0.01)
    proxies = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
    for name in ("PERTURBCORE_MIRROR", "PERTURBCORE_OFFLINE", *proxies):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PERTURBCORE_URL", server.url)
    monkeypatch.setenv("PERTURBCORE_DATA", str(tmp_path / "data"))
    for name, content in contents.items():
        server.answers["/" + fakes[name].tree_path] = send(content)
    server.entries, server.good = fakes, "/" + fakes["good"].tree_path
    server.cached = lambda name: tmp_path / "data" / fakes[name].tree_path
    yield server
    server.shutdown()
    server.server_close()


def blob_of(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def test_a_git_blob_id_is_enough(place):
    """Of a file that nobody here could hash, its repository's tree says what it must be."""
    found = place.entries["good"]
    place.entries["good"] = found.model_copy(update={"sha256": "", "blob": blob_of(GOOD)})
    assert fetch("good").read_bytes() == GOOD
    assert catalogue.verify(["good"]) == {"good": "ok"}
    place.cached("good").write_bytes(GOOD[:-1])
    assert catalogue.verify(["good"]) == {"good": "corrupt"}
    place.answers[place.good] = send(OTHER)
    with pytest.raises(DownloadError, match=f"blob is {blob_of(OTHER)}, pinned is {blob_of(GOOD)}"):
        fetch("good")
    with pytest.raises(ValidationError, match="neither a sha256 nor a git blob id"):
        Entry(**found.model_dump() | {"sha256": ""})
    # the id that git itself gives this content
    assert blob_of(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_a_commit_alone_is_enough_where_git_can_be_asked(place, tmp_path, monkeypatch):
    """Git is asked once what the commit has; then a file is held against it like any other."""
    found, home = place.entries["good"], tmp_path / "repository"
    git = ["git", "-C", home, "-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=0"]
    (home / found.path).parent.mkdir(parents=True)
    (home / found.path).write_bytes(GOOD)
    allowed = ("config uploadpack.allowFilter 1", "config uploadpack.allowAnySHA1InWant 1")
    for command in ("init -q", *allowed, "add .", "commit -qm one"):
        subprocess.run([*git, *command.split()], check=True)
    said = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{home.as_uri()}.insteadOf")
    address = f"https://github.com/{found.owner}/{found.repository}"
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", address)
    pinned = found.model_copy(update={"sha256": "", "blob": "commit", "commit": said.strip()})
    place.entries["good"] = pinned
    place.answers["/" + pinned.tree_path] = send(OTHER)
    pytest.raises(DownloadError, fetch, "good").match(f"pinned is {blob_of(GOOD)}")
    place.answers["/" + pinned.tree_path] = send(GOOD)
    home.rename(tmp_path / "gone")  # it is not asked again
    assert fetch("good").read_bytes() == GOOD and catalogue.verify(["good"]) == {"good": "ok"}
    fetch("good").write_bytes(GOOD[:-1])
    assert catalogue.verify(["good"]) == {"good": "corrupt"}
    place.entries["good"] = pinned.model_copy(update={"commit": "0" * 40})
    pytest.raises(DownloadError, fetch, "good").match("git fetch of .* at 0000")
    monkeypatch.setenv("PERTURBCORE_OFFLINE", "1")
    pytest.raises(DownloadError, fetch, "good").match("not on this machine.*OFFLINE")


def test_no_profile_needs_an_optional_file():
    """What models are and read is asked for and missed without harm; other optional files not."""
    table = entries()
    model = (table["owner"] == "package") | (table.index == "human_proteome")
    optional = set(table.index[table["optional"] & ~model])
    assert "cole2026/scores/tahoe_lfc" in optional
    assert table.loc[table["owner"] == "package", "optional"].all()
    for name in profile_names():
        assert not optional & set(load_profile(name).data)


def leftovers(folder):
    return [p for p in Path(folder).rglob("*") if p.is_file()]


def test_good_file_is_fetched_once(place):
    path = fetch("good")
    assert path == place.cached("good") and path.read_bytes() == GOOD
    assert fetch("good") == path
    assert sum(place.requests.values()) == 1
    assert leftovers(catalogue.data_folder()) == [path]


ANSWERS = {
    "changed": send(GOOD[:-1] + b"x"),
    "cut": send(GOOD[:1000], length="none"),
    "cut, announced": send(GOOD[:1000], length=len(GOOD)),
    "longer": send(GOOD + b"more"),
    "page": send(b"<html>rate limit</html>", kind="text/html"),
    "empty": send(b""),
    "403": send(b"<html>no</html>", status=403, kind="text/html"),
    "500": send(GOOD, status=500),
    "404": not_found,
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_anything_else_is_refused_and_not_kept(place, kind):
    place.answers[place.good] = ANSWERS[kind]
    with pytest.raises(DownloadError, match=f"good.*{kind if kind.isdigit() else ''}") as error:
        fetch("good")
    assert "PERTURBCORE_MIRROR" in str(error.value) and place.url in str(error.value)
    # of what broke off, that much is kept to go on with, under no name that anyone reads
    kept = [1000] if kind == "cut, announced" else []
    assert [p.stat().st_size for p in leftovers(catalogue.data_folder())] == kept
    place.answers[place.good] = send(GOOD)
    assert fetch("good").read_bytes() == GOOD


class Misbehaving:
    """A server that answers properly only in the end, and knows ranges."""

    def __init__(self, *first):
        self.first, self.ranges = list(first), []

    def __call__(self, handler):
        asked = handler.headers.get("Range")
        self.ranges.append(asked)
        if self.first:
            return self.first.pop(0)(handler)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        handler.send_response(206 if asked else 200)
        if asked:
            handler.send_header("Content-Range", f"bytes {start}-{len(GOOD) - 1}/{len(GOOD)}")
        handler.send_header("Content-Length", str(len(GOOD) - start))
        handler.end_headers()
        handler.wfile.write(GOOD[start:])


def reset(handler):
    """Close before a single byte."""
    handler.connection.shutdown(2)


def busy(status):
    def answer(handler):
        handler.send_response(status)
        handler.send_header("Retry-After", "0")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


half = send(GOOD[:100_000], length=len(GOOD))
HICCUPS = {
    "reset": ([reset], [None, None]),
    "429 and 503": ([busy(429), busy(503)], [None] * 3),
    "broken off twice": ([half, half], [None, "bytes=100000-", "bytes=100000-"]),
    "another range": ([half, send(GOOD)], [None, "bytes=100000-"]),
}


@pytest.mark.parametrize("kind", HICCUPS)
def test_a_server_with_hiccups_is_asked_again_and_gone_on_with(place, kind):
    first, ranges = HICCUPS[kind]
    server = place.answers[place.good] = Misbehaving(*first)
    assert fetch("good").read_bytes() == GOOD
    assert server.ranges == ranges and leftovers(catalogue.data_folder()) == [place.cached("good")]


def test_a_later_run_goes_on_where_an_earlier_one_gave_up(place):
    place.answers[place.good] = half
    pytest.raises(DownloadError, fetch, "good").match("it broke off")
    assert place.requests[place.good] == transfer.TRIES
    server = place.answers[place.good] = Misbehaving()
    assert fetch("good").read_bytes() == GOOD and server.ranges == ["bytes=100000-"]


@pytest.mark.parametrize("kind", ["endless", "gzip bomb", "slow", "always busy"])
def test_no_server_can_send_for_ever_or_more_than_the_file_has(place, kind, monkeypatch):
    sent = [0]

    def endless(handler):
        handler.send_response(200)
        if kind == "gzip bomb":
            handler.send_header("Content-Encoding", "gzip")
        handler.end_headers()
        with suppress(OSError):
            for _ in range(3000):
                piece = gzip.compress(bytes(10**6)) if kind == "gzip bomb" else bytes(10**5)
                handler.wfile.write(piece[:10] if kind == "slow" else piece)
                sent[0] += 1
                time.sleep(0.01 if kind == "slow" else 0)

    if kind == "slow":
        monkeypatch.setattr(transfer, "GRACE_SECONDS", -3.8)  # and 4 seconds for the bytes
    place.answers[place.good] = busy(503) if kind == "always busy" else endless
    what = {"slow": "too slow", "always busy": "answered 503"}.get(
        kind, "sends more than the 200,000"
    )
    pytest.raises(DownloadError, fetch, "good").match(what)
    kept = sum(p.stat().st_size for p in leftovers(catalogue.data_folder()))
    assert sent[0] < 500 and kept < 10**5
    assert not place.cached("good").exists()


def test_corrupt_cache_is_replaced_and_refused_without_network(place, monkeypatch):
    path = fetch("good")
    path.write_bytes(GOOD[:-1] + b"?")
    assert catalogue.verify(["good"]) == {"good": "corrupt"}
    assert fetch("good").read_bytes() == GOOD and sum(place.requests.values()) == 2
    path.write_bytes(GOOD[:100])
    monkeypatch.setenv("PERTURBCORE_OFFLINE", "1")
    with pytest.raises(DownloadError, match="corrupt") as error:
        fetch("good")
    assert hashlib.sha256(GOOD[:100]).hexdigest() in str(error.value)
    monkeypatch.delenv("PERTURBCORE_OFFLINE")
    place.answers.clear()
    pytest.raises(DownloadError, fetch, "good").match("corrupt")


def test_offline_names_the_way_out_and_asks_nobody(place, monkeypatch):
    monkeypatch.setenv("PERTURBCORE_OFFLINE", "1")
    with pytest.raises(DownloadError, match="PERTURBCORE_OFFLINE") as error:
        fetch("good")
    assert "PERTURBCORE_MIRROR" in str(error.value)
    assert str(place.cached("good")) in str(error.value) and not place.requests
    monkeypatch.setenv("PERTURBCORE_OFFLINE", "0")
    assert fetch("good").is_file()
    place.cached("good").unlink()
    monkeypatch.setenv("PERTURBCORE_URL", "http://127.0.0.1:1")
    pytest.raises(DownloadError, fetch, "good").match("no connection")


def test_mirror_comes_first_and_is_checked(place, tmp_path, monkeypatch):
    mirror = tmp_path / "mirror"
    path = mirror / place.entries["good"].tree_path
    path.parent.mkdir(parents=True)
    path.write_bytes(GOOD)
    monkeypatch.setenv("PERTURBCORE_MIRROR", str(mirror))
    assert fetch("good") == path
    assert not place.requests
    assert fetch("other") == place.cached("other")  # what it lacks is downloaded
    monkeypatch.setenv("PERTURBCORE_MIRROR", os.environ["PERTURBCORE_DATA"])
    assert fetch("other") == place.cached("other") and sum(place.requests.values()) == 1
    monkeypatch.setenv("PERTURBCORE_MIRROR", str(mirror))
    path.write_bytes(OTHER)
    with pytest.raises(DownloadError) as error:
        fetch("good")
    assert str(path) in str(error.value)
    for content in (GOOD, OTHER):
        assert hashlib.sha256(content).hexdigest() in str(error.value)
    monkeypatch.setenv("PERTURBCORE_MIRROR", str(tmp_path / "nowhere"))
    pytest.raises(DownloadError, fetch, "good").match("nowhere")


def test_licence_is_shown_once_before_the_download(place, capsys):
    fetch_many(["other", "good"], progress=False)
    shown = capsys.readouterr().err
    assert shown.count("Some Licence") == 1 and "RESTRICTED" not in shown
    fetch("restricted")
    assert "RESTRICTED USE" in capsys.readouterr().err


def test_fetch_many_goes_on_past_a_failure(place, capsys):
    place.answers[place.good] = not_found
    with pytest.raises(DownloadError, match="1 of 3.*\n- good"):
        fetch_many(["good", "other", "restricted"], progress=False)
    assert place.cached("other").is_file() and place.cached("restricted").is_file()
    paths = fetch_many(["other", "restricted", "other"], progress=False)
    assert list(paths) == ["other", "restricted"]
    assert capsys.readouterr().err.count("Some Licence") == 2  # two sets of terms, each once


def fetch_in_child(name, queue):
    try:
        queue.put(hashlib.sha256(fetch(name).read_bytes()).hexdigest())
    except Exception as error:
        queue.put(repr(error))


def test_many_processes_at_once(place):
    queue = FORK.Queue()
    children = [FORK.Process(target=fetch_in_child, args=("good", queue)) for _ in range(6)]
    for child in children:
        child.start()
    got = [queue.get(timeout=30) for _ in children]
    for child in children:
        child.join()
    assert set(got) == {hashlib.sha256(GOOD).hexdigest()}
    assert leftovers(catalogue.data_folder()) == [place.cached("good")]


def test_killed_download_leaves_nothing_that_passes(place):
    half_sent, go_on = threading.Event(), threading.Event()

    def stall(handler):
        send(GOOD[: len(GOOD) // 2], length=len(GOOD))(handler)
        handler.wfile.flush()
        half_sent.set()
        go_on.wait(30)

    place.answers[place.good] = stall
    child = FORK.Process(target=fetch_in_child, args=("good", FORK.Queue()))
    child.start()
    assert half_sent.wait(30)
    child.kill()
    child.join()
    go_on.set()
    partial = catalogue.data_folder() / catalogue.PARTIAL
    assert not place.cached("good").exists() and list(partial.iterdir())
    for folder in partial.iterdir():
        os.utime(folder, (0, 0))
    place.answers[place.good] = send(GOOD)
    assert fetch("good").read_bytes() == GOOD
    assert leftovers(catalogue.data_folder()) == [place.cached("good")]


def test_every_entry_is_complete():
    pytest.raises(ParameterError, entry, "string_db").match("stringdb")  # the close one
    table = entries()
    assert table.index.is_unique and len(table) > 100
    needed = table[~table["optional"]]
    assert (needed["sha256"] != "").all() and needed["sha256"].is_unique
    assert (needed["bytes"] > 0).all() and needed["blob"].is_unique
    for column in ("owner", "repository", "path", "licence", "description", "citations"):
        assert (table[column].str.strip() != "").all(), column
    assert not table["path"].str.contains(r"\.\.|^/|\\").any()
    place = table["owner"] + "/" + table["repository"] + "/" + table["commit"] + "/" + table["path"]
    packaged = table["owner"] == "package"
    assert (
        table["url"][~packaged] == "https://raw.githubusercontent.com/" + place[~packaged]
    ).all()
    assert table["url"][~packaged].str.fullmatch(r"https://[A-Za-z0-9._/+-]+").all()
    assert table["url"][packaged].str.startswith("pip:").all() and table["sha256"][packaged].all()


def test_unclear_licences_are_restricted():
    for item in map(entry, entries().index):
        if re.search("NC|Non-Commercial|none stated", item.licence):
            assert item.restricted and item.licence_note, item.name
    assert entry("stringdb").licence == "CC-BY-4.0" and not entry("stringdb").restricted
    assert "conflict" in entry("sigrecon/tahoe.a498").licence
    assert entry("cole2026/scores/essential_lfc").restricted


def test_licence_page_is_the_generated_one():
    page = Path(__file__).parents[1] / "DATA_LICENSES.md"
    assert page.read_text(encoding="utf-8") == catalogue.licences_markdown()


def test_mirror_has_every_entry(mirror, monkeypatch):
    monkeypatch.setenv("PERTURBCORE_MIRROR", str(mirror))
    monkeypatch.setenv("PERTURBCORE_OFFLINE", "1")
    table = entries()
    # what only a git blob id pins is too large for a mirror, and no profile needs it
    table = table[~table["optional"]]
    assert set(catalogue.verify(table.index).values()) == {"ok"}
    for name in table.index:
        path, found = fetch(name), entry(name)
        assert catalogue.hash_of(path, "sha256") == found.sha256, name
        assert catalogue.hash_of(path, "blob") == found.blob, name
        assert path.stat().st_size == found.bytes
