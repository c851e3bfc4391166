"""The profile of the authors' data: any part of them builds, and every choice is the published one."""

import re
import shutil
from functools import cache
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Lasso

from perturbcore.book.build import _cards
from perturbcore.book.inside import OpenChapter
from perturbcore.book.rules import write_rules
from perturbcore.book.runner import run_for_book
from perturbcore.book.source import absent, find_chapter, published
from perturbcore.book.study import Study
from perturbcore.core.errors import InputError
from perturbcore.core.profile import load_profile
from perturbcore.data.authors.layout import LAYOUTS, VARIABLE
from perturbcore.data.authors.read import read_control_profiles
from perturbcore.data.contexts import controls_of
from perturbcore.data.published.tables import SCORE_COLUMNS, Published, load_published, medians
from perturbcore.data.sets.base import load
from perturbcore.embeddings.authors import read_embeddings
from perturbcore.models.fusion.transformer import validation_rows
from perturbcore.models.simple.linear import Linear
from perturbcore.models.simple.space import Space
from perturbcore.report.fusion.scores import fusion_transformers
from perturbcore.report.reproduction import benchmark as bench
from perturbcore.report.reproduction import page
from perturbcore.report.reproduction.benchmark import score_dataset

# chapter -> the data sets of which one at least must be there
NEEDS = {
    "embedding_ranking": {"essential"},
    "low_signal": {"norman"},
    "prior_knowledge": {"norman"},
    "fine_tuning": {"essential"},
    "small_molecules": {"sciplex", "tahoe"},
    "cross_context": {"essential"},
    "fusion": {"essential"},
    "generative_decoders": {"essential"},
    "chemical_deg": {"sciplex", "tahoe"},
}
ALONE = [{name} for name in LAYOUTS]
PARTS = [*ALONE, *(set(LAYOUTS) - one for one in ALONE), set(LAYOUTS)]


chapters = cache(lambda: {name: find_chapter(name) for name in published()})  # takes seconds


@pytest.fixture
def paper(tmp_path, monkeypatch):
    """Make the profile `paper` with empty files in place of some data sets."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "data"))
    monkeypatch.setenv("PERTURBCORE_RESULTS", str(tmp_path / "results"))

    def make(there):
        for layout in (LAYOUTS[name] for name in there):
            embeddings = layout.drug_embeddings or "gene_embeddings/any.h5ad"
            for name in (*layout.files.values(), embeddings):
                path = tmp_path / "data" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        return load_profile("paper")

    return make


@pytest.mark.parametrize("there", PARTS, ids=lambda names: " ".join(sorted(names)))
def test_every_chapter_uses_what_is_there_or_is_left_out(paper, there):
    profile = paper(there)
    gone = absent(profile)
    assert {profile.dataset(n).options["dataset"] for n in gone} == set(LAYOUTS) - there
    left_out = {name for name, chapter in chapters().items() if chapter.missing(profile)}
    wanted = {name for name, any_of in NEEDS.items() if not any_of & there}
    assert left_out == wanted | {"foundation_models", "gene_functions", "representation_tasks"}
    for name in set(chapters()) - left_out:
        values = [v for v in chapters()[name].values(profile).values() if not isinstance(v, dict)]
        assert not gone.keys() & set(str(values).split("'")), name
    if "sciplex" not in there and "tahoe" in there:
        assert chapters()["small_molecules"].values(profile)["dataset"] == "cole_tahoe"


def test_a_chapter_left_out_has_a_page_and_a_card_that_say_why(paper):
    profile = paper({"essential"})
    path = run_for_book(find_chapter("low_signal"), profile)
    text = path.read_text()
    assert "norman_pseudobulk_deltas.h5ad is not in" in text and '"code"' not in text
    card = _cards(profile, ["low_signal"])
    assert "Left out: cole_norman" in card and ":img-top:" not in card
    chapter = OpenChapter("answer", profile, {})
    assert Study(chapter).claimed("low_signal", "small_molecules") is None
    rules = write_rules(profile)
    sets, before = rules.read_text().splitlines()[1].split(), rules.parent / "stamps/low_signal"
    assert "cole_essential" in sets and "cole_norman" not in sets
    stamp = before.read_text()
    write_rules(paper({"norman"}))
    assert before.read_text() != stamp  # so that Make runs it once the data are there


def test_a_profile_that_is_not_partial_leaves_nothing_out(paper):
    profile = paper(set()).model_copy(update={"partial": False})
    assert not absent(profile) and not find_chapter("low_signal").missing(profile)
    with pytest.raises(InputError, match="make data PROFILE=paper"):
        Study(OpenChapter("low_signal", profile, {})).dataset("cole_norman")


# --- on the small files


@pytest.fixture
def study(root, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(root))
    monkeypatch.setenv("PERTURBCORE_RESULTS", str(tmp_path / "results"))
    return Study(OpenChapter("embedding_ranking", load_profile("paper"), {}), n_jobs=1)


ONE = ["STRING WaveGC"]
UNITS = dict(cell_lines=["K-562"], folds=[0], estimators=["knn"], progress=False)


@pytest.fixture(scope="module")
def done(root):
    """Scores of two folds by the published procedure."""
    return score_dataset("essential", root, **UNITS | dict(embeddings=ONE, folds=[0, 1]))


def test_embeddings_of_unknown_name_are_named_neutral_and_checked_first(root, study, tmp_path):
    for name in LAYOUTS["essential"].files["lfc"], "gene_embeddings/GenotypeVAE_(D=256).h5ad":
        new = tmp_path / name.replace("GenotypeVAE_(D=256)", "my_lab_v2")
        new.parent.mkdir()
        shutil.copy(root / name, new)
    done = score_dataset("essential", tmp_path, **UNITS)
    assert any("my_lab_v2 is not among the published" in note for note in done.notes)
    mine = done.scores[done.scores["embedding"] == "my_lab_v2"]
    assert set(mine["modality"]) == {"Not classified"}
    page.figures.box_by_method(page.scores_for_figure(done, "essential"), "L2")
    # a modality that has no colour is refused before anything is computed
    pd.DataFrame(np.eye(3), index=["ENSG1", "ENSG2", "ENSG3"]).to_csv(tmp_path / "mine.csv")
    spec = dict(name="M", file=str(tmp_path / "mine.csv"), modality="Tea leaves")
    study.profile = study.profile.model_copy(update={"embeddings": (spec,)})
    with pytest.raises(InputError, match="'Tea leaves' has no colour"):
        study.embeddings("cole_essential")


def test_every_chapter_of_a_profile_has_its_inner_order(study):
    assert study.protocol(n_components=7).inner_order == "file"
    study.profile = load_profile("demo")
    assert study.protocol(n_components=7).inner_order == "id"
    own = [name for name, chapter in chapters().items() if "pc.Protocol(" in str(chapter.code)]
    assert own == ["add_your_own"]


def test_a_study_and_the_reproduction_give_one_number_for_one_unit(study, done):
    made = study.embeddings("cole_essential", only=ONE)
    how = dict(protocol=study.protocol(n_components=100), embeddings=made)
    models = study.models("lfc", knn=LAYOUTS["essential"].k, lasso=[0.1])[:1]
    scores = study.evaluate("cole_essential", models, cell_lines=["K-562"], folds=[0], **how)
    unit = dict(embedding="STRING WaveGC", predictor="knn", metric="L2", fold=0)
    first, second = (
        t.loc[(t[list(unit)] == pd.Series(unit)).all(axis=1), ["chosen", "value"]].astype(float)
        for t in (done.scores, scores)
    )
    np.testing.assert_allclose(first, second, rtol=1e-7)


# --- beside the published scores


def published_of(done, shift=0.0):
    """Published rows made from our own, moved by `shift`."""
    rows = bench.published_names(done.scores).dropna(subset="value")
    rows = rows.assign(value=rows["value"] + shift, method="x", perturbation_set="full")
    return Published(rows.assign(source="test")[SCORE_COLUMNS], None, "folds")


def test_the_published_files_are_known_by_counts_and_by_what_no_seed_moves(done, monkeypatch):
    layout = SimpleNamespace(**vars(LAYOUTS["essential"]))
    monkeypatch.setitem(LAYOUTS, "essential", layout)
    layout.genes, theirs = 200, published_of(done)
    table = bench.compare(done.scores, theirs)
    for theirs_too in (176, 175):  # the controls count as one
        layout.perturbations = {"K-562": theirs_too}
        assert not bench.other_data(done, table)
    fixed = table[table["display"].isin(["Train Mean", "No Change"])]
    assert "4 of 4 published L2" in bench.verdict(fixed)
    theirs.scores["value"] += (theirs.scores["predictor"] == "train_mean") * 0.02
    other = bench.other_data(done, bench.compare(done.scores, theirs))
    assert other == {"essential": "L2 of Train Mean differs by up to 0.02"}
    said = bench.verdict(table, other)
    assert said.startswith("These are other data") and "reproduced" not in said
    assert "other data" in page.answer(page.Files(None, False, ""), table, other)
    assert page.answer(page.Files(None, True, ""), table, {}).startswith("Nothing can be said")
    layout.genes, layout.perturbations = 6640, {"K-562": 170}
    said = bench.other_data(done, table)["essential"]
    assert "200 genes (published: 6,640)" in said
    assert "176 perturbations in K-562 (published: 170)" in said


def test_every_row_meets_its_published_one_and_is_drawn_and_condensed(done):
    other = published_of(done, 0.25)
    table = bench.compare(done.scores, other)
    assert (table["status"] == "both").all()
    np.testing.assert_allclose(table["difference"], -0.25)
    # a constant has no correlation: 0 here, missing there, no row in the table
    undefined = (table["display"] == "No Change") & (table["metric"] == "Pearson")
    assert not undefined.any()
    summary, found = bench.agreement(table), bench.families(table)
    assert summary["largest"].max() == pytest.approx(0.25) and (summary["rows"] == 2).all()
    assert found["largest"].to_numpy() == pytest.approx(0.25) and found["values"].sum() > 20
    assert "0 of" in bench.verdict(table) and "0.25" in bench.verdict(table)
    assert "published" in page.published_figure(table).axes[0].get_xlabel()
    fewer = Published(other.scores[other.scores["fold"] == 0], None, "folds")
    assert set(bench.compare(done.scores, fewer)["status"]) == {"both", "not published"}


def test_medians_are_compared_with_medians(done):
    table = bench.compare(done.scores, medians())
    both = table[(table["status"] == "both") & (table["metric"] == "L2")]
    assert {"STRING WaveGC", "Train Mean", "Random Embeddings"} <= set(both["display"])
    assert (both["fold"] == -1).all() and (both["n"] == 2).all()
    one = both.query("display == 'STRING WaveGC' and predictor == 'knn'").iloc[0]
    own = done.scores.query("embedding == 'STRING WaveGC' and metric == 'L2'")
    assert one["reproduced"] == pytest.approx(own["value"].median())
    assert one["published"] == pytest.approx(4.660, abs=1e-3)  # K-562, Figure 1
    assert bench.counts(table)["rows"].sum() == (table["metric"] == "L2").sum()


def test_the_page_says_how_far_two_seeds_of_the_error_differ(root, tmp_path):
    said = page.spread_said(page.Files(root, True, ""), ["Jurkat"], n_outer=3, n_inner=3)
    each, level = re.search(r"by (\d+) % in the mean.* over all by ([\d.]+) %", said).groups()
    assert 5 < float(each) and float(level) < float(each) / 2
    files = page.Files(tmp_path, False, "")
    assert "No raw cells" in page.spread_said(files, ["K-562"])


@pytest.mark.parametrize("tolerance", [0.0, 1e-4])
def test_lasso_stops_at_the_published_tolerance_or_solves_it(tolerance):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 40)) @ rng.standard_normal((40, 40))
    Y = X[:, :5] @ rng.standard_normal((5, 12)) + rng.standard_normal((60, 12))
    model = Linear("lasso", (0.1,), tolerance=tolerance)
    (found,) = model.predictions(Space(X[:45], X[45:], False), Y[:45], (0.1,))
    tight = Lasso(0.1, tol=1e-12, max_iter=10**6).fit(X[:45], Y[:45]).predict(X[45:])
    off = np.abs(found - tight).max()
    assert 1e-4 < off < 0.01 * np.abs(tight).max() if tolerance else off < 1e-5


def test_published_rows_have_the_names_that_the_layout_gives(mirror):
    """Scores under our names for the files of the layout find every published row."""
    published = load_published()
    for dataset in ("essential", "norman", "sciplex"):
        rows = published.scores.query(
            f"dataset == '{dataset}' and task == 'lfc' and perturbation_set == 'full' and "
            "predictor in ['knn', 'lasso', 'train_mean', 'no_change']"
        )
        alone = rows["predictor"].isin(["train_mean", "no_change"])
        table = bench.compare(rows.assign(embedding=rows["display"].mask(alone, "")), published)
        assert set(table["status"]) == {"both"} and len(table) > 100
        np.testing.assert_allclose(table["difference"], 0)


# --- full fusion


def test_full_fusion_runs_from_the_control_profiles(root, tmp_path):
    data, where = load("cole", root=root), LAYOUTS["essential"].controls
    raw = ad.read_h5ad(root / where)
    rows = raw[raw.obs["cell_line"] == "Jurkat"]
    np.testing.assert_allclose(controls_of(data).loc["Jurkat"], rows.X.mean(axis=0), rtol=1e-6)
    study = SimpleNamespace(profile=SimpleNamespace(results=root))
    sources = read_embeddings("essential", data.responses, root)[0]
    full = {"Full": {"preset": "lfc_full", "expression_line": "Hep-G2"}}
    (made,), left_out = fusion_transformers(study, data, sources, full)
    assert made.expression_line == "Hep-G2" and not left_out
    fewer = [e for e in sources if (e.name, e.cell_line) != ("PCA", "Hep-G2")]
    (made,), left_out = fusion_transformers(study, data, fewer, full)
    assert "goes without PCA" in left_out[0] and "PCA" not in {e.name for e in made.embeddings}
    assert read_control_profiles("norman", root) is None
    raw.obs["gene"] = "A1BG"
    (tmp_path / "essential").mkdir()
    raw.write_h5ad(tmp_path / where)
    with pytest.raises(InputError, match="full_processed.h5ad: column 'gene' never says"):
        read_control_profiles("essential", tmp_path)


def test_validation_perturbations_come_by_lines_in_alphabetical_order():
    ids, lines = np.array(list("abcdefghijdefghijabc")), np.repeat(["Z", "A"], 10)
    held, turned, other = (
        set(here[validation_rows(here, 0.2, of)])
        for here, of in ((ids, lines), (ids[10:], lines[10:]), (ids, lines[::-1]))
    )
    assert held == turned != other
