import gzip
import hashlib
import multiprocessing
import os
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

GOOD = os.urandom(199_999) + b"."  # an end that the tests change
OTHER = b"gene,label\nTP53,1\n"
FORK = multiprocessing.get_context("fork")


def make_entry(name, content, restricted=False):
    return Entry(
        name=name, source="Test source", owner="someone", repository="somewhere", commit="0" * 40,
        path=f"data/{name}.bin", sha256=hashlib.sha256(content).hexdigest(), bytes=len(content),
        licence="Some Licence", licence_note="Non-commercial use only." if restricted else "",
        restricted=restricted, citations=("someone2026",), description="a file of the tests",
    )  # fmt: skip


def send(content, length=None, status=200, kind="application/octet-stream", headers=()):
    """An answer of the server."""

    def answer(handler):
        handler.send_response(status)
        length_of = {} if length == "none" else {"Content-Length": str(length or len(content))}
        for name, value in {"Content-Type": kind, **length_of, **dict(headers)}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests[self.path] += 1
        self.server.answers.get(self.path, send(b"no", status=404))(self)

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
    assert fetch("good").read_bytes() == GOOD and catalogue.verify(["good"]) == {"good": "ok"}
    place.cached("good").write_bytes(GOOD[:-1])
    assert catalogue.verify(["good"]) == {"good": "corrupt"}
    place.answers[place.good] = send(OTHER)
    with pytest.raises(DownloadError, match=f"blob is {blob_of(OTHER)}, pinned is {blob_of(GOOD)}"):
        fetch("good")
    with pytest.raises(ValidationError, match="neither a sha256 nor a git blob id"):
        Entry(**found.model_dump() | {"sha256": ""})


def test_a_commit_alone_is_enough_where_git_can_be_asked(place, tmp_path, monkeypatch):
    """Git is asked once what the commit has; then a file is held against it like any other."""
    found, home = place.entries["good"], tmp_path / "repository"
    git = ["git", "-C", home, "-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=0"]
    (home / found.path).parent.mkdir(parents=True)
    (home / found.path).write_bytes(GOOD)
    allowed = ("config uploadpack.allowFilter 1", "config uploadpack.allowAnySHA1InWant 1")
    for command in ("init -q", *allowed, "add .", "commit -qm one", "rev-parse HEAD"):
        said = subprocess.check_output([*git, *command.split()], text=True)
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
    place.entries["good"] = pinned.model_copy(update={"commit": "0" * 40})
    pytest.raises(DownloadError, fetch, "good").match("git fetch of .* at 0000")
    monkeypatch.setenv("PERTURBCORE_OFFLINE", "1")
    pytest.raises(DownloadError, fetch, "good").match("not on this machine.*OFFLINE")


def test_good_file_is_fetched_once_and_replaced_where_it_is_corrupt(place, monkeypatch):
    path = fetch("good")
    assert path == fetch("good") == place.cached("good") and path.read_bytes() == GOOD
    assert sum(place.requests.values()) == 1 and leftovers(catalogue.data_folder()) == [path]
    path.write_bytes(GOOD[:-1] + b"?")
    assert catalogue.verify(["good"]) == {"good": "corrupt"}
    assert fetch("good").read_bytes() == GOOD and sum(place.requests.values()) == 2
    path.write_bytes(GOOD[:100])
    monkeypatch.setenv("PERTURBCORE_OFFLINE", "1")
    error = pytest.raises(DownloadError, fetch, "good")
    error.match(f"corrupt(.|\n)*{hashlib.sha256(GOOD[:100]).hexdigest()}")
    monkeypatch.delenv("PERTURBCORE_OFFLINE")
    place.answers.clear()
    pytest.raises(DownloadError, fetch, "good").match("corrupt")


def leftovers(folder):
    return [p for p in Path(folder).rglob("*") if p.is_file()]


ANSWERS = {
    "changed": send(GOOD[:-1] + b"x"),
    "cut": send(GOOD[:1000], length="none"),
    "cut, announced": send(GOOD[:1000], length=len(GOOD)),
    "longer": send(GOOD + b"more"),
    "page": send(b"<html>rate limit</html>", kind="text/html"),
    "404": send(b"<html>no</html>", status=404, kind="text/html"),
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
        where = {"Content-Range": f"bytes {start}-{len(GOOD) - 1}/{len(GOOD)}"} if asked else {}
        send(GOOD[start:], status=206 if asked else 200, headers=where)(handler)


def busy(status):
    """A server that asks to be asked again at once."""
    return send(b"", status=status, headers={"Retry-After": "0"})


half = send(GOOD[:100_000], length=len(GOOD))
HICCUPS = {  # "reset": the connection is closed before a single byte
    "reset": ([lambda handler: handler.connection.shutdown(2)], [None, None]),
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
    for answer, said in ((busy(503), "answered 503"), (half, "it broke off")):
        place.answers[place.good] = answer
        place.requests.clear()
        pytest.raises(DownloadError, fetch, "good").match(said)
    assert place.requests[place.good] == transfer.TRIES
    server = place.answers[place.good] = Misbehaving()
    assert fetch("good").read_bytes() == GOOD and server.ranges == ["bytes=100000-"]


ENDLESS = {  # what is said, the piece that is sent again and again, the seconds after each
    "endless": ("sends more than the 200,000", bytes(10**5), 0),
    "gzip bomb": ("sends more than the 200,000", gzip.compress(bytes(10**6)), 0),
    "slow": ("too slow", bytes(10), 0.01),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_no_server_can_send_for_ever_or_more_than_the_file_has(place, kind, monkeypatch):
    what, piece, wait = ENDLESS[kind]
    sent = [0]

    def endless(handler):
        packed = {"Content-Encoding": "gzip"} if kind == "gzip bomb" else {}
        with suppress(OSError):
            send(piece, length="none", headers=packed)(handler)
            for sent[0] in range(3000):
                handler.wfile.write(piece)
                time.sleep(wait)

    if kind == "slow":
        monkeypatch.setattr(transfer, "GRACE_SECONDS", -3.8)  # and 4 seconds for the bytes
    place.answers[place.good] = endless
    pytest.raises(DownloadError, fetch, "good").match(what)
    kept = sum(p.stat().st_size for p in leftovers(catalogue.data_folder()))
    assert sent[0] < 500 and kept < 10**5 and not place.cached("good").exists()


def test_offline_names_the_way_out_and_asks_nobody(place, monkeypatch):
    monkeypatch.setenv("PERTURBCORE_OFFLINE", "1")
    said = str(pytest.raises(DownloadError, fetch, "good").value)
    for word in ("PERTURBCORE_OFFLINE", "PERTURBCORE_MIRROR", str(place.cached("good"))):
        assert word in said
    assert not place.requests
    monkeypatch.setenv("PERTURBCORE_OFFLINE", "0")
    monkeypatch.setenv("PERTURBCORE_URL", "http://127.0.0.1:1")
    pytest.raises(DownloadError, fetch, "good").match("no connection")


def test_mirror_comes_first_and_is_checked(place, tmp_path, monkeypatch):
    path = tmp_path / "mirror" / place.entries["good"].tree_path
    path.parent.mkdir(parents=True)
    path.write_bytes(GOOD)
    monkeypatch.setenv("PERTURBCORE_MIRROR", str(tmp_path / "mirror"))
    assert fetch("good") == path and not place.requests
    assert fetch("other") == place.cached("other")  # what it lacks is downloaded
    path.write_bytes(OTHER)
    said = str(pytest.raises(DownloadError, fetch, "good").value)
    for word in (str(path), *(hashlib.sha256(c).hexdigest() for c in (GOOD, OTHER))):
        assert word in said
    monkeypatch.setenv("PERTURBCORE_MIRROR", os.environ["PERTURBCORE_DATA"])
    assert fetch("other") == place.cached("other") and sum(place.requests.values()) == 1
    monkeypatch.setenv("PERTURBCORE_MIRROR", str(tmp_path / "nowhere"))
    pytest.raises(DownloadError, fetch, "good").match("nowhere")


def test_licence_is_shown_once_before_the_download_and_many_go_on_past_a_failure(place, capsys):
    del place.answers[place.good]
    with pytest.raises(DownloadError, match="1 of 2.*\n- good"):
        fetch_many(["good", "other"], progress=False)
    shown = capsys.readouterr().err
    assert shown.count("Some Licence") == 1 and "RESTRICTED" not in shown
    assert place.cached("other").is_file()
    paths = fetch_many(["other", "restricted", "other"], progress=False)
    assert list(paths) == ["other", "restricted"]
    shown = capsys.readouterr().err
    assert shown.count("Some Licence") == shown.count("RESTRICTED USE") == 1


def test_many_processes_at_once(place):
    with FORK.Pool(6) as pool:
        assert pool.map(fetch, ["good"] * 6) == [place.cached("good")] * 6
    assert place.cached("good").read_bytes() == GOOD
    assert leftovers(catalogue.data_folder()) == [place.cached("good")]


def test_killed_download_leaves_nothing_that_passes(place):
    half_sent, go_on = threading.Event(), threading.Event()

    def stall(handler):
        half(handler)
        half_sent.set()
        go_on.wait(30)

    place.answers[place.good] = stall
    child = FORK.Process(target=fetch, args=("good",))
    child.start()
    assert half_sent.wait(30)
    child.kill()
    child.join()
    go_on.set()
    partial = list((catalogue.data_folder() / catalogue.PARTIAL).iterdir())
    assert partial and not place.cached("good").exists()
    for left in partial:  # long ago: it is swept, not gone on with
        os.utime(left, (0, 0))
    server = place.answers[place.good] = Misbehaving()
    assert fetch("good").read_bytes() == GOOD and server.ranges == [None]
    assert leftovers(catalogue.data_folder()) == [place.cached("good")]


def test_every_entry_is_complete_and_unclear_licences_are_restricted():
    pytest.raises(ParameterError, entry, "string_db").match("stringdb")  # the close one
    table = entries()
    assert table.index.is_unique and len(table) > 100
    needed = table[~table["optional"]]
    assert (needed["bytes"] > 0).all() and (needed[["sha256", "blob"]] != "").all(axis=None)
    assert needed["sha256"].is_unique and needed["blob"].is_unique
    said = table[["owner", "repository", "path", "licence", "description", "citations"]]
    assert (said.apply(lambda column: column.str.strip()) != "").all(axis=None)
    assert not table["path"].str.contains(r"\.\.|^/|\\").any()
    packaged = table["owner"] == "package"
    assert table["url"][packaged].str.startswith("pip:").all() and table["sha256"][packaged].all()
    place = table[["owner", "repository", "commit", "path"]].agg("/".join, axis=1)[~packaged]
    assert (table["url"][~packaged] == "https://raw.githubusercontent.com/" + place).all()
    assert place.str.fullmatch(r"[A-Za-z0-9._/+-]+").all()
    unclear = table["licence"].str.contains("NC|Non-Commercial|none stated")
    assert table.loc[unclear, "restricted"].all() and table.loc[unclear, "licence_note"].all()
    assert entry("stringdb").licence == "CC-BY-4.0" and not entry("stringdb").restricted
    assert "conflict" in entry("sigrecon/tahoe.a498").licence
    assert entry("cole2026/scores/essential_lfc").restricted
    # what models are and read is asked for and missed without harm; other optional files not
    assert table.loc[packaged, "optional"].all()
    optional = set(table.index[table["optional"] & ~packaged]) - {"human_proteome"}
    assert "cole2026/scores/tahoe_lfc" in optional
    assert not any(optional & set(load_profile(name).data) for name in profile_names())
    page = Path(__file__).parents[1] / "DATA_LICENSES.md"
    assert page.read_text(encoding="utf-8") == catalogue.licences_markdown()


def test_mirror_has_every_entry(mirror, monkeypatch):
    monkeypatch.setenv("PERTURBCORE_MIRROR", str(mirror))
    monkeypatch.setenv("PERTURBCORE_OFFLINE", "1")
    # what only a git blob id pins is too large for a mirror, and no profile needs it
    table = entries().query("not optional")
    assert set(catalogue.verify(table.index).values()) == {"ok"}  # by their sha256
    paths = {name: fetch(name) for name in table.index}
    assert {n: catalogue.hash_of(p, "blob") for n, p in paths.items()} == dict(table["blob"])
    assert {n: p.stat().st_size for n, p in paths.items()} == dict(table["bytes"])
