import pydantic
import pytest

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.core.profile import load_profile, profile_names, project_root, results_root


def write(tree, text, name="mine"):
    path = tree / f"{name}.yml"
    path.write_text(text)
    return path


def test_a_profile_is_read_by_name_and_by_path(tree):
    by_name = load_profile("demo")
    assert (by_name.name, by_name.simulated, by_name.address) == ("demo", True, "demo")
    assert by_name.chapters == {"first": {"k": 7}}
    mine = write(tree, "title: mine\nsimulated: false\n")
    by_path = load_profile(mine)
    assert by_path.name == "mine" and load_profile(by_path.address) == by_path
    assert profile_names() == ["demo", "other"]


def test_everything_a_profile_can_hold(tree):
    profile = load_profile(
        write(
            tree,
            """
title: all of it
simulated: false
summary: words
data: [one, two]
datasets:
  - {name: simulated}
  - {name: essential, loader: perturbqa, options: {lines: [k562]}}
embeddings:
  - {name: string, dim: 8}
chapters:
  first: {k: 3}
  second:
""",
        )
    )
    assert profile.data == ("one", "two")
    loaders = {d.name: d.loader for d in profile.datasets}
    assert loaders == {"simulated": "simulated", "essential": "perturbqa"}
    assert profile.dataset("essential").options["lines"] == ["k562"]
    assert profile.chapters["second"] == {}
    with pytest.raises(
        ParameterError, match="data set 'tahoe' is not one of: simulated, essential"
    ):
        profile.dataset("tahoe")
    with pytest.raises(pydantic.ValidationError):
        profile.title = "another"
    with pytest.raises(TypeError):
        profile.datasets[1].options["lines"] = []


BASE = "title: a\nsimulated: true\n"


@pytest.mark.parametrize(
    "text, message",
    [
        (BASE + "chaptrs: {}", "mine.yml: unknown key chaptrs; known are title"),
        ("title: a", "the key 'simulated' is missing"),
        ("title: a\nsimulated: 'yes'", "simulated must be a bool, not str"),
        (BASE + "datasets: [{name: x, lader: y}]", "datasets.0.lader; known are name, loader, opt"),
        (BASE + "datasets: [x]", "datasets.0 must be a mapping, not str"),
        (BASE + "datasets: [{name: x, options: [1]}]", "0.options must be a mapping, not list"),
        (BASE + "embeddings: [{dim: 3}]", "embeddings: each is a mapping with a name"),
        (BASE + "embeddings: [{name: e}, {name: e}]", "embeddings: named twice: e"),
        (BASE + "embeddings: [{name: <img src=x>}]", "name '<img src=x>': it has '<'; rename it"),
        (BASE + "datasets: [{name: ../../x}]", "'../../x' looks like a path"),
        (BASE + "data: [{a: 1}]", "data.0 must be a str, not dict"),
        (BASE + "chapters: {first: [1]}", "chapters.first must be a mapping, not list"),
        ("- a", "a profile is a mapping"),
        ("title: [", "not valid YAML"),
    ],
)
def test_a_bad_profile_is_refused_by_file_and_key(tree, text, message):
    path = write(tree, text)
    with pytest.raises(ParameterError, match=message) as caught:
        load_profile(path)
    assert str(path) in str(caught.value)


def test_a_profile_that_is_not_there_lists_those_that_are(tree):
    with pytest.raises(ParameterError, match="no profile named 'dmeo'; there are demo, other"):
        load_profile("dmeo")
    pytest.raises(ParameterError, load_profile, tree / "none.yml").match("does not exist")


def test_results_follow_the_environment(tree, monkeypatch):
    assert load_profile("demo").results == tree / "results" / "demo"
    monkeypatch.setenv("PERTURBCORE_RESULTS", str(tree / "elsewhere"))
    assert load_profile("demo").results == tree / "elsewhere" / "demo"
    assert results_root() == tree / "elsewhere"


def test_two_profiles_of_one_name_do_not_share_results(tree):
    (tree / "a").mkdir()
    first = load_profile(write(tree, BASE, "one"))
    other = load_profile((tree / "one.yml").rename(tree / "a" / "one.yml"))
    first.claim_results()
    other.claim_results()  # moved, not another
    write(tree, BASE, "one")
    with pytest.raises(ParameterError, match="has the results of the profile .*a/one.yml: rename"):
        first.claim_results()
    other.claim_results()


def test_the_digest_follows_content_and_not_wording(tree):
    base = "title: a\nsimulated: true\nchapters: {first: {k: %s}}\n"
    one = load_profile(write(tree, base % 1, "one")).digest
    assert load_profile(write(tree, "# a remark\n" + base % 1, "two")).digest == one
    assert load_profile(write(tree, base % 2, "three")).digest != one


def test_the_project_is_found_from_below_and_missed_with_a_way_out(tree, monkeypatch):
    monkeypatch.delenv("PERTURBCORE_ROOT")
    monkeypatch.chdir(tree / "notebooks")
    assert project_root() == tree
    monkeypatch.setenv("PERTURBCORE_ROOT", str(tree / "book"))
    pytest.raises(InputError, project_root).match("set PERTURBCORE_ROOT")


def test_the_profiles_of_the_project_are_sound():
    assert all(load_profile(name).summary for name in profile_names())
