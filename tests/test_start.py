"""What a reader starts with: previews of links, a working folder from the package, a container."""

import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from html.parser import HTMLParser

import pytest
from toys import ROOT

from perturbcore.book.cli import main
from perturbcore.book.previews import preview, site
from perturbcore.book.start import PARTS, start_files

PAGE = """<html><head><title>Which is “best” — The book</title></head><body>
<article><h1>Which is best<a href="#x">#</a></h1><p>Why this is asked.</p>
<p><strong>In one line.</strong> <em>STRING</em> is best &amp; closes 40&nbsp;%.</p></article>"""


def tags(text: str) -> dict[str, str]:
    found, parser = {}, HTMLParser()
    parser.handle_startendtag = lambda _, a: found.update({(d := dict(a)).get("property", d.get("name")): d["content"]})  # fmt: skip
    parser.feed(text)
    return found


def test_a_link_shows_title_answer_and_picture(tmp_path):
    found = tags(preview(PAGE, "book/chapters/x.html", picture="_images/x.png", title="The book"))
    assert found["og:title"] == "Which is “best”" and found["og:site_name"] == "The book"
    assert found["og:description"] == found["description"] == "STRING is best & closes 40 %."
    assert found["og:image"] == "../../_images/x.png" and found["og:type"] == "article"
    assert "og:url" not in found
    plain = PAGE.replace("In one line.", "Else.").replace("asked.", "asked " + "again " * 99)
    found = tags(preview(plain, "index.html", base="https://book.org/"))
    assert (
        found["og:image"] == "https://book.org/_static/card.png" and found["og:type"] == "website"
    )
    assert found["og:url"] == "https://book.org/index.html"
    assert found["og:description"].startswith("Why this is asked again")
    assert len(found["og:description"]) <= 300 and found["og:description"].endswith("again…")
    config = tmp_path / "_config.yml"
    config.write_text("title: T\nhtml: {baseurl: https://book.org/b}\n")
    assert site(config) == ("T", "https://book.org/b/")
    assert site(ROOT / "_config.yml")[1] == "" and (ROOT / "book/_static/card.png").is_file()


def test_the_package_writes_a_working_folder_and_replaces_nothing(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "mine"
    assert main(["start", str(folder)]) == 0
    written = start_files(folder)
    assert written == start_files(ROOT) and f"{len(written)} files" in capsys.readouterr().out
    assert {"notebooks/profiles/demo.yml", "book/_static/figures.js", "Makefile"} <= {*written}
    known = subprocess.run(
        ["git", "ls-files", *PARTS], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    assert not known or set(known) <= set(written)
    monkeypatch.chdir(folder)
    assert main(["chapters"]) == 0 and "run_record" in capsys.readouterr().out
    done = subprocess.run(
        ["make", "-n", "data", f"VENV={sys.prefix}"], cwd=folder, capture_output=True, text=True
    )
    # nothing is set up: the package is installed already
    assert done.stdout.strip() == f"{sys.prefix}/bin/perturbcore data fetch --profile demo"
    (folder / "notebooks/claims.py").write_text("mine")
    assert main(["start", str(folder)]) == 2 and "already" in capsys.readouterr().err
    assert (folder / "notebooks/claims.py").read_text() == "mine"


def test_the_wheel_has_all_that_a_working_folder_starts_with():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    to = {**wheel["sources"], **wheel["force-include"]}
    assert {p: to[p] for p in PARTS} == {p: f"perturbcore/start/{p}" for p in PARTS}
    assert {f"/{p}" for p in PARTS if "." not in p and p != "Makefile"} < {*wheel["include"]}


def test_without_a_folder_the_packaged_chapters_are_read(tmp_path, monkeypatch):
    from perturbcore.book import build
    from perturbcore.book.start import write_start
    from perturbcore.core import profile
    from perturbcore.core.errors import InputError

    write_start(tmp_path / "package/start")
    here = tmp_path / "empty"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(profile, "__file__", str(tmp_path / "a/b/c/d/profile.py"))
    for module in (profile, build):
        monkeypatch.setattr(module, "PACKAGED", tmp_path / "package/start")
    assert profile.project_root() == (tmp_path / "package/start").resolve()
    assert profile.results_root() == here / "results"
    with pytest.raises(InputError, match="perturbcore start FOLDER"):
        build.build(profile.load_profile("demo"))


def test_the_container_calls_what_exists_with_the_pinned_python_and_torch():
    text = (ROOT / "Dockerfile").read_text()
    pins = (ROOT / "constraints.txt").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    python = re.search(r"^ARG PYTHON=(\S+)", text, re.M)[1]
    assert f"on Python {python};" in pins and project["requires-python"] == f">={python}"
    (torch,) = (d for d in project["dependencies"] if d.startswith("torch="))
    assert f"\n{torch}\n" in pins and "constraints.txt" in text
    assert re.search(r"^ARG TORCH=cpu\nENV UV_TORCH_BACKEND=\$\{TORCH\}$", text, re.M)
    makefile = (ROOT / "Makefile").read_text()
    verbs = re.findall(r'make"?,? "?([\w./]+)', re.sub(r"(?m)^#.*|.*apt-get.*", "", text))
    assert "book" in verbs and ".venv/.ready" in verbs
    for verb in {*verbs} - {".venv/.ready"}:
        assert f"\n.PHONY: {verb}\n" in makefile, verb
    (chapter,) = re.findall(r"CHAPTER=(\w+)", text)
    assert (ROOT / f"notebooks/{chapter}.py").is_file()
    ignored = (ROOT / ".dockerignore").read_text().split()
    needed = project["readme"], project["license"]["file"], *PARTS[2:]  # of the installation
    assert set(needed) <= set(text.partition("RUN make .venv")[0].split())
    for place in " ".join(re.findall(r"^COPY (.+) \S+$", text, re.M)).split():
        assert (ROOT / place).exists() and not any(fnmatch(place, i) for i in ignored), place
