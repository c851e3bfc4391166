"""Over-representation, labels of functions, their prediction, and the chapter's page."""

import gseapy
import numpy as np
import pandas as pd
import pytest
import rdata
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.multioutput import MultiOutputClassifier
from worlds import responses_of

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.deg import function_labels, over_represented
from perturbcore.data.identifiers import convert
from perturbcore.data.sets import lincs, replogle
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.coverage import covered_by_all
from perturbcore.models.simple import evaluate_embeddings
from perturbcore.models.simple.labels import FunctionLogistic
from perturbcore.models.simple.space import Space
from perturbcore.report import functions as page
from perturbcore.report.comparison import Comparison
from perturbcore.score.functions import function_auroc, function_f1
from perturbcore.score.task import task_of

GENES = [f"g{i}" for i in range(300)]


def test_p_values_are_those_of_gseapy():
    rng = np.random.default_rng(0)
    sets = {f"s{j}": list(rng.choice(GENES, rng.integers(1, 60), False)) for j in range(80)}
    hits = rng.random((12, len(GENES))) < rng.uniform(0.01, 0.4, (12, 1))
    found = over_represented(hits, GENES, sets)
    for i in (0, 5, 11):
        listed = [g for g, hit in zip(GENES, hits[i], strict=True) if hit]
        theirs = gseapy.enrich(listed, sets, background=GENES, outdir=None, no_plot=True).results
        theirs = theirs.set_index("Term")
        at = slice(*found.p.indptr[i : i + 2])
        terms = found.terms[found.p.indices[at]]
        assert set(terms) == set(theirs.index)
        for ours, name in ((found.p, "P-value"), (found.p_adj, "Adjusted P-value")):
            np.testing.assert_allclose(ours.data[at], theirs.loc[terms, name], rtol=0, atol=1e-10)


def screen(n=60, seed=0):
    """Perturbed genes of three modules; each moves ten genes of its module, and often itself."""
    rng = np.random.default_rng(seed)
    module = np.arange(len(GENES)) % 3
    label = np.zeros((n, len(GENES)), dtype=int)
    for i in range(n):
        label[i, rng.choice(np.flatnonzero(module == module[i]), 10, replace=False)] = 1
        label[i, i] = -1
    made = responses_of(label, GENES[:n], genes=GENES, task="deg")
    sets = {
        f"module {m}": [g for g, k in zip(GENES, module, strict=True) if k == m] for m in (0, 1, 2)
    }
    return made, sets | {g: [g] for g in GENES[:n]}


def test_labels_are_the_planted_modules_and_the_target_can_be_left_out():
    responses, sets = screen()
    labels = function_labels(responses, sets, least_perturbations=15)
    assert list(labels.var_names) == ["module 0", "module 1", "module 2"]
    right = np.arange(60)[:, None] % 3 == np.arange(3)
    assert (labels.X.astype(bool) == right).mean() > 0.97
    assert labels.obs["own"].all() and (labels.obs["fold"] == responses.obs["fold"]).all()
    # a set of the perturbed gene alone is a label only where the gene may be in its own list
    whole, rest = (
        function_labels(responses, sets, least_perturbations=1, keep_target=k)
        for k in (True, False)
    )
    own = [g for g in GENES[:60] if g in whole.var_names and whole[f"A|{g}", g].X.all()]
    assert len(own) > 30
    assert not any(rest[f"A|{g}", g].X.any() for g in own if g in rest.var_names)
    two = function_labels(responses, sets, least_perturbations=1, least_shared=2)
    assert list(two.var_names) == ["module 0", "module 1", "module 2"]
    with pytest.raises(InputError, match="least_perturbations=50: no gene set is enriched"):
        function_labels(responses, sets, least_perturbations=50)
    with pytest.raises(InputError, match="none of the 1 gene sets.*such as 'g0'"):
        over_represented(np.ones((1, 300)), GENES, {"x": ["y"]})
    partial = responses.copy()
    partial.layers["observed"] = np.ones(partial.shape, dtype=bool)
    pytest.raises(InputError, function_labels, partial, sets).match("need complete labels")


def test_metrics_are_those_of_scikit_learn_and_the_floor_has_its_formula():
    rng = np.random.default_rng(0)
    label, said = (rng.random((50, 8)) < 0.2).astype(np.float32), rng.random((50, 8))
    label[:, 0] = 0
    expected = f1_score(label, said >= 0.5, average="macro", zero_division=0)
    assert function_f1(label, said) == pytest.approx(expected, abs=1e-12)
    expected = roc_auc_score(label[:, 1:], said[:, 1:], average="macro")
    assert function_auroc(label, said) == pytest.approx(expected, abs=1e-12)
    task = task_of("functions")
    rate = label.mean(axis=0)
    floor = function_f1(label, task.floor(label, 50))
    assert floor == pytest.approx((2 * rate / (1 + rate)).mean())
    assert function_f1(label, task.floor(label, 50, "prior")) == 0
    assert function_auroc(label, task.floor(label, 50)) == 0.5


@pytest.mark.parametrize("balanced", [True, False])
def test_the_classifier_is_scikit_learns(balanced):
    rng = np.random.default_rng(0)
    X, new = rng.normal(size=(90, 6)), rng.normal(size=(20, 6))
    Y = (X @ rng.normal(size=(6, 5)) + rng.normal(size=(90, 5)) > 1).astype(np.float32)
    Y[:, 4] = 0
    way = FunctionLogistic(balanced=balanced, max_iter=5000)
    (values,) = way.predictions(Space(X, new), Y, [0.7])
    weight = "balanced" if balanced else None
    theirs = LogisticRegression(C=0.7, class_weight=weight, max_iter=5000, tol=1e-10)
    said = MultiOutputClassifier(theirs).fit(X, Y[:, :4]).predict_proba(new)
    atol = 1e-5 if balanced else 2e-3
    np.testing.assert_allclose(values[:, :4], np.stack([p[:, 1] for p in said], 1), atol=atol)
    assert (values[:, 4] == 0.5).all()


def embeddings(n=60, seed=0):
    rng = np.random.default_rng(seed)
    truth = np.eye(3)[np.arange(n) % 3] + rng.normal(0, 0.2, (n, 3))
    some = Embedding("some", "Expression", GENES[: n // 2], truth[: n // 2])
    made = [Embedding("modules", "Prior knowledge", GENES[:n], truth), some]
    return [*made, Embedding("shuffled", "Negative control", GENES[:n], rng.permutation(truth))]


def test_a_planted_function_is_predicted_and_a_shuffled_embedding_is_not():
    responses, sets = screen()
    labels = function_labels(responses, sets, least_perturbations=15)
    controls = ("train_mean", "prior", "idealized")
    scores = evaluate_embeddings(
        labels, embeddings(), [FunctionLogistic()], controls=controls, progress=False
    )
    c = Comparison(scores)
    assert c.best == "modules" and c.means["modules"] > 0.9 > 0.6 > c.means["shuffled"]
    assert c.unproven() == ["some"] or c.unproven() == []
    assert c.means[c.floor] == pytest.approx(0.5, abs=0.05)
    assert c.common["modules"] > 0.9  # where all embeddings have vectors
    half = covered_by_all(labels, embeddings())
    assert list(half.obs["perturbation"]) == GENES[:30]
    other = Embedding("other", "Expression", ["x"], np.ones((1, 2)), cell_line="B")
    assert len(covered_by_all(labels, [other])) == 60
    with pytest.raises(InputError, match="no perturbation has a vector in every"):
        covered_by_all(labels, [Embedding("none", "Expression", ["x"], np.ones((1, 2)))])


MORE = """
embeddings:
  - {name: Interactome, modality: Prior knowledge, builder: network, source: simulated, dim: 16}
  - {name: Annotation, modality: Prior knowledge, builder: annotation, source: simulated, dim: 16}
  - {name: Sequence, modality: Protein, builder: sequence, source: simulated, dim: 16}
"""


def test_error_profiles_are_z_scores_of_kept_errors(study_of):
    study = study_of("embedding_ranking", MORE)
    # a chapter run on its own has the scores of no other
    assert page.error_profiles(study, "embedding_ranking")[0].empty
    scores = study.evaluate("simulated", ["knn"], controls=("train_mean", "idealized"))
    profile, about = page.error_profiles(study, "embedding_ranking")
    assert list(profile.index) == ["Annotation", "Interactome", "Sequence", "random"]
    np.testing.assert_allclose(profile.mean(), 0, atol=1e-9)
    np.testing.assert_allclose(profile.std(ddof=0), 1, atol=1e-6)
    rows = scores[(scores["metric"] == "L2") & (scores["predictor"] == "knn")]
    each = study.store.per_perturbation(rows["key"], "L2").merge(rows, on="key")
    gene = profile.columns[0]
    raw = each[each["perturbation"] == gene].set_index("embedding")["value_x"].drop("idealized")
    assert raw.idxmax() == profile[gene].idxmax()  # a larger error is above zero
    said = page.clusters_said(profile, about["modality"])
    assert "agree" in said and "1 and 2 pairs" in said


def test_profiles_that_agree_within_modalities_are_found_and_others_are_not():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(3, 200))
    kind = pd.Series(np.repeat(["Protein", "DNA", "Expression"], 4))
    alike = pd.DataFrame(shared[np.repeat(range(3), 4)] + rng.normal(size=(12, 200)))
    assert "agree more with each other" in page.clusters_said(alike, kind)
    apart = pd.DataFrame(rng.normal(size=(12, 200)))
    assert "neither error profiles of the same modality" in page.clusters_said(apart, kind)
    assert "cannot be shown to agree more" in page.clusters_said(apart + shared[0], kind)
    assert "no scores of single perturbations" in page.clusters_said(pd.DataFrame(), None)


def test_lincs_has_complete_labels_of_over_expressed_genes(mirror):
    data = lincs.load()
    labels = data.responses.layers["deg"]
    assert data.task == "deg" and 780 < len(labels) < 818 and data.responses.n_vars > 950
    assert ((labels != 0).sum(axis=1) >= 5).all() and data.responses.var["measured"].all()
    # 59 in the file: CDC20 of an over-expression is named by Entrez id 991, down at z -4.687
    everything = lincs.load(readouts="all", min_labels=1).responses
    row = everything.obs_names[everything.obs["entrez"] == "2"][0]
    assert everything[row, ["CDC20", "GFOD1", "RBP4"]].X.ravel().tolist() == [-1, 1, 1]
    pytest.raises(InputError, lincs.load, min_labels=9999).match("min_labels=9999")


def test_ranked_knock_downs_become_scores_of_genes(tmp_path, monkeypatch):
    """In the format of the files: per target the genes raised, and all of them in order."""
    rng, genes = np.random.default_rng(0), [f"G{i}" for i in range(40)]
    files, ranked = {}, {}
    for line in ("k562", "rpe1"):
        ranked[line] = {t: [str(g) for g in rng.permutation(genes)] for t in ("TP53", "MYC", "A")}
        ranked[line]["A"] = ranked[line]["A"][:9]  # too short
        ranked[line]["MYC"].remove("G7")
        parts = {
            t: {"up": np.array(g[:5]), "up_full": np.array(g)} for t, g in ranked[line].items()
        }
        files[f"sigrecon/perturbseq.{line}"] = tmp_path / line
        rdata.write_rda(tmp_path / line, {f"perturbseq.{line}": parts}, compression="bzip2")
    monkeypatch.setattr(replogle, "fetch", files.__getitem__)
    made = replogle.load(min_genes=20).responses
    assert made.shape == (4, 39) and "G7" not in made.var_names
    for target, line, row in zip(
        made.obs["perturbation"], made.obs["cell_line"], made.X, strict=True
    ):
        order = [g for g in ranked[line.lower()][target] if g != "G7"]
        assert [*made.var_names[np.argsort(-row)]] == order
    assert np.allclose(np.sort(made.X[0]), norm.ppf((np.arange(39) + 0.5) / 39), atol=1e-6)
    assert made.obs.groupby("perturbation")["fold"].nunique().eq(1).all()
    pytest.raises(InputError, replogle.load, min_genes=99).match("the longest 40")
    pytest.raises(ParameterError, replogle.load, lines=["HeLa"]).match("K562")


def test_lincs_scores_are_read_in_the_format_of_the_large_files(mirror, tmp_path, monkeypatch):
    """The notebook that wrote them: perturbagens x Entrez ids, tab-separated, bz2."""
    file, real = tmp_path / "consensi-knockdown.tsv.bz2", lincs.fetch
    monkeypatch.setattr(lincs, "fetch", lambda n: file if "consensi" in n else real(n))
    genes = real("lincs/genes")
    readouts = pd.read_csv(genes, sep="\t", dtype=str).set_index("entrez_gene_id")["status"]
    some = [
        *readouts.index[readouts == "measured"][:30],
        *readouts.index[readouts != "measured"][:9],
    ]
    z = np.random.default_rng(0).normal(size=(12, len(some)))
    targets = ["7157", "1956", "4609", "ABL1_G2A", *readouts.index[50:58]]
    table = pd.DataFrame(z, pd.Index(targets, name="perturbagen"), some)
    table.to_csv(file, sep="\t", float_format="%.3f")
    data = lincs.load("z", "knockdown")
    made = data.responses
    assert data.task == "lfc" and data.sources == ("lincs/consensi-knockdown", "lincs/genes")
    assert made.shape[1] == 30 and {"TP53", "EGFR", "MYC"} <= {*made.obs["perturbation"]}
    row = made[made.obs["perturbation"] == "TP53"]
    column = {s: i for i, s in enumerate(convert(some, "entrez", "symbol")["value"])}
    assert np.allclose(row.X.ravel(), [z[0, column[g]] for g in made.var_names], atol=6e-4)
    assert lincs.load("z", "knockdown", readouts="all").responses.shape[1] > 30
    assert lincs.load("z", "knockdown", n_folds=3).responses.obs["fold"].nunique() == 3
    file.write_bytes(file.read_bytes()[:400])
    pytest.raises(InputError, lincs.load, "z", "knockdown").match("cannot be read as a table")
    pytest.raises(ParameterError, lincs.load, of="knockdown").match("of")
