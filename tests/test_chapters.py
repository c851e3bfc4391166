import json
from types import ModuleType

import nbformat
import pandas as pd
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from perturbcore.book import about
from perturbcore.book import build as book
from perturbcore.book.build import opened
from perturbcore.book.cli import main
from perturbcore.book.inside import open_chapter
from perturbcore.book.rules import code_stamp
from perturbcore.book.runner import ChapterError, run_for_book
from perturbcore.book.source import declared, find_chapter, find_chapters, resolve
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.core.profile import load_profile

CELL = """\
profile: str = "demo"  # which profile
k: int = 5
alpha: float = 1
deep: bool = False
ks: list[int] = [1, 2]
names: list[str] = []
anything: list = [1, "a"]
options: dict = {"a": 1}
limit: float | None = None
"""


def test_declarations_are_read_with_type_default_and_remark():
    found = declared(CELL, "x")
    read = [f"{p.name}: {p.type} = {p.default!r}" for p in found.values()]
    written = [line.split("  #")[0].replace('"', "'") for line in CELL.splitlines()]
    assert read == written and found["profile"].help == "which profile"


@pytest.mark.parametrize(
    "line, message",
    [
        ("k = 5", "only lines 'name: type = default'"),
        ("k: int", "only lines"),
        ("import os", "only lines"),
        ("k: int = 'five'", "k must be int, not str"),
        ("k: int = None", "k must be int, not NoneType"),
        ("k: set = {1}", "type is one of int, float"),
        ("k: int | str = 1", "type is one of"),
        ("k: list[list[int]] = []", "type is one of"),
        ("k: int = len([])", "must be a plain value"),
    ],
)
def test_a_wrong_declaration_is_refused(line, message):
    pytest.raises(ParameterError, declared, line, "x").match(message)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"K": 3}, r"unknown parameter K; this chapter has profile: str; k: int; alpha: float"),
        ({"k": "3"}, r"k must be int, not str \('3'\)"),
        ({"k": 3.0}, "k must be int, not float"),
        ({"k": True}, "k must be int, not bool"),
        ({"alpha": False}, "alpha must be float, not bool"),
        ({"deep": 1}, "deep must be bool, not int"),
        ({"ks": (1, 2)}, "ks must be list"),
        ({"ks": [1, 2.5]}, r"ks must be list\[int\], but holds 2.5"),
        ({"k": None}, "k must be int, not NoneType"),
    ],
)
def test_unknown_names_and_wrong_types_are_refused(given, message):
    pytest.raises(ParameterError, resolve, declared(CELL, "x"), given, "x").match(message)
    # an int serves where a float is declared
    values = resolve(declared(CELL, "x"), {"alpha": 2, "limit": 3}, "x")
    assert repr(values) == "{'alpha': 2.0, 'limit': 3.0}"


@pytest.mark.parametrize(
    "name, text, value",
    [
        ("k", "7", 7),
        ("alpha", "1e-3", 1e-3),
        ("deep", "true", True),
        ("deep", "False", False),
        ("ks", "[5, 10]", [5, 10]),
        ("ks", "5,10", [5, 10]),
        ("ks", "[]", []),
        ("names", "[a, b]", ["a", "b"]),
        ("names", '["a", "b"]', ["a", "b"]),
        ("names", "a", ["a"]),
        ("options", '{"b": 2}', {"b": 2}),
        ("limit", "none", None),
        ("limit", "2", 2.0),
        ("profile", "7", "7"),
    ],
)
def test_text_of_a_command_line_becomes_the_declared_type(name, text, value):
    read = declared(CELL, "x")[name].parse(text, "x")
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize("pair", "k=7.5 k=many deep=7 ks=a,b ks=[1 options=3 k=none".split())
def test_text_that_does_not_fit_is_refused(pair):
    name, text = pair.split("=")
    with pytest.raises(ParameterError, match=f"{name} must be"):
        declared(CELL, "x")[name].parse(text, "x")


def test_chapters_come_in_the_order_of_the_book(tree):
    (tree / "notebooks" / "aside.py").write_text((tree / "notebooks" / "first.py").read_text())
    assert [c.name for c in find_chapters()] == ["first", "second", "aside"]
    assert find_chapter("second").after == ("first",)
    assert find_chapter("first").title == "First chapter"
    with pytest.raises(ParameterError, match="no chapter 'frist'; there are first, second, aside"):
        find_chapter("frist")


def test_values_come_from_default_then_profile_then_command(tree):
    first, demo = find_chapter("first"), load_profile("demo")
    assert first.values(demo) == {"k": 7, "profile": "demo"}
    values = first.values(demo, {"k": "9", "limit": "none"})
    assert values == {"k": 9, "limit": None, "profile": "demo"}
    with pytest.raises(ParameterError, match="unknown parameter kk; this chapter has"):
        first.values(demo, {"kk": "9"})
    for text, message in (
        ("first: {k: seven}", "demo.yml, chapter first: k must be int"),
        ("first: {neighbours: 7}", "unknown parameter neighbours"),
        ("frist: {k: 7}", "there is no chapter 'frist'"),
    ):
        (tree / "notebooks/profiles/demo.yml").write_text(
            f"title: t\nsimulated: true\nchapters: {{{text}}}\n"
        )
        pytest.raises(ParameterError, first.values, load_profile("demo")).match(message)


def test_a_chapter_without_one_sound_parameters_cell_is_refused(tree):
    path = tree / "notebooks" / "first.py"
    whole = path.read_text()
    path.write_text(whole.replace(' tags=["parameters"]', ""))
    with pytest.raises(ParameterError, match="one cell tagged parameters, not 0"):
        _ = find_chapter("first").parameters
    path.write_text(whole.replace('profile: str = "demo"\n', ""))
    with pytest.raises(ParameterError, match="must declare profile: str"):
        _ = find_chapter("first").parameters


def test_a_run_publishes_an_executed_notebook_with_its_provenance(tree):
    demo = load_profile("demo")
    pytest.raises(InputError, about.run_table, demo).match("no chapter has run with profile demo")
    target = run_for_book(find_chapter("first"), demo)
    assert target == tree / "results/demo/chapters/first.ipynb"
    assert sorted(p.name for p in target.parent.iterdir()) == ["first.ipynb"]
    notebook = nbformat.read(target, as_version=4)
    nbformat.validate(notebook)
    text = "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", []))
    assert "k is 7 grid is [0.1, 1.0]" in text
    injected = [c for c in notebook.cells if "injected-parameters" in c.metadata.get("tags", [])]
    assert len(injected) == 1 and "hide-input" in injected[0].metadata["tags"]
    assert [c["id"] for c in notebook.cells] == [f"cell-{i}" for i in range(len(notebook.cells))]
    assert "input_path" not in notebook.metadata["papermill"]
    assert any(
        "image/svg+xml" in o.get("data", {}) for c in notebook.cells for o in c.get("outputs", [])
    )
    facts = json.loads((tree / "results/demo/runs/first.json").read_text())
    assert facts == notebook.metadata["perturbcore"]
    assert facts["parameters"] == {"profile": "demo", "k": 7, "grid": [0.1, 1.0], "limit": None}
    assert facts["profile_digest"] == demo.digest and facts["seconds"] > 0
    assert facts["packages"]["papermill"] == papermill.__version__
    assert (tree / "results/demo/tables/first/values.csv").read_text().startswith("name,value\na,")
    assert (tree / "results/demo/figures/first/line.svg").read_text().count("<svg") == 1
    table = about.run_table(demo)
    assert list(table["chapter"]) == ["first"]
    assert "k=7" in table["parameters"][0] and table["seconds"][0] > 0
    settings = about.profile_table(demo)
    assert settings.to_dict("records") == [{"of": "first", "name": "k", "value": "7"}]


def test_a_sweep_keeps_every_run_in_a_folder_of_its_own(tree):
    path = tree / "notebooks" / "first.py"
    head, rest = path.read_text().split("# %% mystnb")
    # kernels that draw nothing start faster
    path.write_text(head + "# %%\nimport pandas as pd\n" + rest.split("import pandas as pd\n")[1])
    chapter, results = find_chapter("first"), tree / "results/demo"
    book = run_for_book(chapter, load_profile("demo"))
    before = (book.read_text(), (results / "tables/first/values.csv").read_text())
    plain, out = tree / "plain.ipynb", tree / "out.ipynb"
    nbformat.write(chapter.notebook, plain)
    # by papermill, which hands lists over as text, and by the command
    swept = [
        papermill.execute_notebook(plain, out, {"k": k, "grid": "[4]"}, progress_bar=False)
        for k in (1, 3)
    ]
    assert main(["run", "first", "-p", "k", "4"]) == 0
    swept.append(nbformat.read(next((results / "runs").glob("*/*.ipynb")), as_version=4))
    tables = sorted((results / "runs").glob("first-*/tables/first/values.csv"))
    assert sorted(pd.read_csv(t)["value"].iloc[-1] for t in tables) == [1, 3, 4]
    assert before == (book.read_text(), (results / "tables/first/values.csv").read_text())
    # each says on its page where its own are
    said = [json.dumps(n) for n in swept]
    assert all("Other values than the book's" in s and "runs/first-" in s for s in said)
    assert "Other values" not in before[0] and "k is 3 grid is [4.0]" in said[1]
    with pytest.raises(PapermillExecutionError, match="unknown parameter neighbours"):
        papermill.execute_notebook(plain, out, {"neighbours": 3}, progress_bar=False)


def test_a_failed_chapter_is_shown_kept_aside_and_never_published(tree, capsys):
    chapters = tree / "results/demo/chapters"
    chapters.mkdir(parents=True)
    (chapters / "second.ipynb").write_text("the last good one")
    path = tree / "notebooks" / "second.py"
    path.write_text(path.read_text() + "\n# %%\nvalue = {}\nvalue['missing']\n")
    assert main(["run", "second", "--for-book"]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: chapter second failed in code cell 4")
    assert "value['missing']" in message and "KeyError: 'missing'" in message
    assert "\x1b[" not in message and "papermill" not in message
    assert (chapters / "second.ipynb").read_text() == "the last good one"
    assert sorted(p.name for p in chapters.iterdir()) == ["second.failed.ipynb", "second.ipynb"]
    assert not (tree / "results/demo/runs/second.json").exists()


@pytest.mark.parametrize("alive", [2, 9])
def test_a_kernel_that_does_not_start_is_tried_once_more(tree, monkeypatch, alive):
    calls = []

    def start(notebook, target, **options):
        calls.append(1)
        if len(calls) < alive:
            raise RuntimeError("Kernel died before replying to kernel_info")
        nbformat.write(notebook, target)

    monkeypatch.setattr(papermill, "execute_notebook", start)
    if alive == 2:
        assert run_for_book(find_chapter("second"), load_profile("demo")).is_file()
    else:
        with pytest.raises(ChapterError, match="Kernel died"):
            run_for_book(find_chapter("second"), load_profile("demo"))
    assert len(calls) == 2


def running(**values) -> ModuleType:
    module = ModuleType("__main__")
    text = "profile: str = 'demo'\nk: int = 5\ngrid: list[float] = [0.1]\nlimit: int | None = None"
    exec(text, vars(module))
    vars(module).update(values)
    return module


def test_a_running_chapter_checks_what_anyone_passed(tree):
    module = running(grid="[1, 2]")
    chapter = open_chapter("first", module)
    assert module.grid == chapter.parameters["grid"] == [1.0, 2.0]
    assert chapter.profile.name == "demo"
    with pytest.raises(ParameterError, match="unknown parameter kk; this chapter has profile"):
        open_chapter("first", running(kk=3))
    pytest.raises(ParameterError, open_chapter, "first", running(k="three")).match("k must be int")


def test_a_book_is_not_assembled_from_chapters_that_were_not_run(tree):
    with pytest.raises(
        InputError, match="not run to its end with profile demo: first, second; make book"
    ):
        book.assemble(load_profile("demo"))


def test_what_a_page_would_load_from_outside_is_found(tmp_path):
    (tmp_path / "good.html").write_text(
        '<script src="_static/a.js"></script><a href="https://example.org">x</a>'
        '<link rel="canonical" href="https://example.org">'
    )
    (tmp_path / "good.css").write_text("a { background: url(data:image/png;base64,AA) }")
    assert book.outside_references(tmp_path) == []
    (tmp_path / "bad.html").write_text(
        '<script async src="https://cdn.example.org/a.js"></script>'
        "<link href='//fonts.example.org/f.css' rel='stylesheet'><img src='http://example.org/i'>"
    )
    (tmp_path / "bad.css").write_text("@import 'https://example.org/b.css';")
    found = book.outside_references(tmp_path)
    assert len(found) == 4 and found[0] == "bad.css: https://example.org/b.css"


def test_a_page_opens_with_answer_verdict_and_figure(tree):
    chapter = find_chapter("first")
    notebook = chapter.notebook
    answer = {"text/markdown": "**In one line.** It rises.\n\n[= tie]{.verdict .tie} one."}
    output = nbformat.v4.new_output("display_data", answer)
    code = next(c for c in notebook.cells if c.cell_type == "code")
    code.outputs = [output]
    page = nbformat.reads(opened(chapter, nbformat.writes(notebook).encode(), drawn=True), 4)
    title, box, rest = page.cells[:3]
    assert title.source == "# First chapter" and rest.source.startswith("As said before")
    assert box.source.startswith(":::::{div} result-box\n**In one line.** It rises.\n\n[= tie]")
    assert "![a small line](figures/first/line.svg)" in box.source
    assert not any("In one line" in str(c.get("outputs")) for c in page.cells)
    assert "notebook with all outputs <along/first.ipynb>" in page.cells[-1].source
    second = find_chapter("second")
    bare = opened(second, nbformat.writes(second.notebook).encode(), drawn=False)
    cells = nbformat.reads(bare, 4).cells[:-1]
    assert [c.source for c in cells] == [c.source for c in second.notebook.cells]


def test_a_profile_leaves_chapters_out_and_names_no_unknown_one(tree):
    path = tree / "notebooks/profiles/other.yml"
    path.write_text(path.read_text() + "without: [first]\n")
    other = load_profile("other")
    page = run_for_book(find_chapter("first"), other).read_text()
    assert "profile other leaves it out" in page and "chapter.save_table" not in page
    second, stamp = find_chapter("second"), code_stamp(find_chapter("second"), other)
    assert not second.missing(other)
    # what a profile says of models and of chapters is what their pages depend on
    for line in ("models: [knn]", "without: [second]"):
        path.write_text(f"title: other\nsimulated: false\n{line}\n")
        assert code_stamp(second, load_profile("other")) != stamp
    path.write_text("title: other\nsimulated: false\nwithout: [frist]\n")
    with pytest.raises(ParameterError, match=r"frist.*first, second"):
        find_chapter("second").values(load_profile("other"))
