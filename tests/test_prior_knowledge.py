"""Simple predictors on prior knowledge: splits, models and metrics against plain references."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from sklearn.decomposition import PCA
from worlds import cells_of

from perturbcore.core.errors import InputError
from perturbcore.data.contexts import control_profiles
from perturbcore.data.folds import gears_split, single_genes
from perturbcore.embeddings.base import Embedding
from perturbcore.models.registry import build_models
from perturbcore.report import prior
from perturbcore.score.evaluate import evaluate
from perturbcore.score.model import Fold, fit_predict
from perturbcore.score.profiles import coherence, heterogeneity, profile_metrics, reference_of
from perturbcore.score.task import task_of

GENES = [f"G{i:02d}" for i in range(30)]
SINGLES = GENES[:16]
DOUBLES = [f"{a}+{b}" for a, b in zip(SINGLES[:12], SINGLES[4:], strict=True)]


@pytest.fixture(scope="module")
def screen() -> AnnData:
    """Log-normalised cells of one line in which the effects of two genes add up."""
    rng = np.random.default_rng(0)
    effect = {g: rng.normal(0, 0.6, len(GENES)) for g in SINGLES}
    names = ["control"] * 60 + [n for n in SINGLES + DOUBLES for _ in range(12)]
    level = rng.uniform(1, 3, len(GENES))
    zero = np.zeros(len(GENES))
    X = [level + sum((effect.get(g, zero) for g in n.split("+")), zero) for n in names]
    X = np.maximum(np.array(X) + rng.normal(0, 0.2, (len(names), len(GENES))), 0)
    made = cells_of(X, names, control="control", scale="log1p", genes=GENES)
    made.X = made.X.toarray()
    return made


@pytest.fixture(scope="module")
def responses(screen):
    """Responses of the screen, asked for one split by gene."""
    from perturbcore.data.effects import ba_ate

    effects = ba_ate(screen, progress=False)
    data = dict(responses=effects, screen=screen, extras={}, holds=lambda _: True)
    out = prior.laid_out(SimpleNamespace(**data))
    group = gears_split(out.obs["perturbation"], 1)
    out.obs["fold"] = np.where(group[out.obs["perturbation"]] == "train", -1, 0)
    return out


def test_control_profiles_of_the_authors_serve_where_there_are_no_cells(responses):
    levels = pd.DataFrame([np.arange(30.0)], index=["A"], columns=GENES[::-1])
    data = dict(title="Toy", responses=responses, screen=None, extras={"controls": levels})
    out = prior.laid_out(SimpleNamespace(**data, holds=lambda _: False), n_genes=10)
    assert list(out.var_names) == GENES[:10]  # the most expressed
    np.testing.assert_allclose(control_profiles(out.var)["A"], np.arange(29.0, 19, -1))
    for lost, said in ((levels.drop(columns="G07"), "gene 'G07'"), (levels[:0], "cell line 'A'")):
        data["extras"] = {"controls": lost}
        with pytest.raises(InputError, match=said):
            prior.laid_out(SimpleNamespace(**data, holds=lambda _: False))


def test_the_split_by_gene_keeps_what_its_names_say():
    """Equal to GEARS' own draws, written out; what is asked holds only what the name promises."""
    names = [*SINGLES, *DOUBLES]
    group = gears_split(names, seed=1)
    assert set(group.index) == set(names)
    rng = np.random.RandomState(1)
    drawn = set(rng.choice(sorted(SINGLES), int(16 * 0.75), replace=False))
    both = sorted(n for n in DOUBLES if set(n.split("+")) <= drawn)
    trained = set(np.random.RandomState(1).choice(both, int(len(both) * 0.75), replace=False))
    for name in names:
        seen = len(set(name.split("+")) & drawn)
        if "+" not in name:
            assert group[name] == ("train" if seen else "unseen_single")
        elif seen == 2:
            assert group[name] == ("train" if name in trained else "combo_seen2")
        else:
            assert group[name] == f"combo_seen{seen}"
    assert gears_split(["A+ctrl", "B", "C", "D"], 3).index.tolist() == ["A+ctrl", "B", "C", "D"]
    assert single_genes("A+ctrl") == ["A"]


def test_effects_that_add_up_are_found_by_the_additive_model(responses):
    """Doubles of two known genes are predicted almost wholly, single ones get the floor."""
    fold = Fold.of(responses, 0)
    (model,) = build_models(["additive"], "expression", [])
    found = fit_predict(model, fold)
    truth = responses[responses.obs["fold"] == 0]
    for name, said, known in zip(fold.test_ids, found.values, found.covered, strict=True):
        measured = np.asarray(truth[truth.obs["perturbation"] == name].X)[0]
        if "+" not in name:
            assert not known
            np.testing.assert_allclose(said, fold.truth.mean(axis=0), atol=1e-6)
        if known:
            assert np.corrcoef(said, measured)[0, 1] > 0.9
    assert found.covered.any()


def test_the_bilinear_model_is_the_published_one(responses, screen):
    """Equal to the two-sided ridge written with inverses, genes by perturbations."""
    fold = Fold.of(responses, 0)
    (model,) = build_models([{"name": "bilinear", "n_components": 4}], "expression", [])
    found = fit_predict(model, fold)
    level = np.asarray(screen[screen.obs["is_control"]].X).mean(axis=0)
    Y = np.c_[fold.truth.T, np.zeros(len(GENES))].astype(float)
    G = PCA(4, svd_solver="full").fit_transform(Y + level[:, None])
    row = pd.DataFrame(G, GENES)

    def vectors(names):
        return np.array([sum(row.loc[g].to_numpy() for g in n.split("+")) for n in names]).T

    P = np.c_[vectors(fold.train_ids), np.zeros(4)]
    b, eye = Y.mean(axis=1, keepdims=True), 0.1 * np.eye(4)
    W = np.linalg.inv(G.T @ G + eye) @ G.T @ (Y - b) @ P.T @ np.linalg.inv(P @ P.T + eye)
    np.testing.assert_allclose(found.values, (G @ W @ vectors(fold.test_ids) + b).T, atol=1e-4)
    bare = responses.copy()
    bare.var = bare.var[[]]
    with pytest.raises(InputError, match="control cells of 'A'"):
        fit_predict(model, Fold.of(bare, 0))


def test_metrics_of_profiles_equal_the_definitions(responses, screen):
    """Correlations on scanpy's own lists, with the published slip in leaving targets out."""
    level = np.asarray(screen[screen.obs["is_control"]].X).mean(axis=0)
    reference = reference_of(screen, "A", level)
    rng = np.random.default_rng(1)
    names = [SINGLES[0], DOUBLES[0], SINGLES[5]]
    rows = responses[[f"A|{n}" for n in names]]
    truth = np.asarray(rows.X)
    said = (truth + rng.normal(0, 0.3, truth.shape)).astype(np.float32)
    mean = truth.mean(axis=0)
    table = profile_metrics(truth, said, names, mean, reference)
    cells = AnnData(screen.X.copy(), obs=screen.obs[["perturbation"]].copy(), var=screen.var[[]])
    cells.obs["perturbation"] = cells.obs["perturbation"].astype("category")
    sc.tl.rank_genes_groups(cells, "perturbation", reference="control", rankby_abs=True)
    at = screen.var_names.get_indexer

    def r(a, b):
        return np.corrcoef(a, b)[0, 1]

    for i, name in enumerate(names):
        ranked = list(cells.uns["rank_genes_groups"]["names"][name])
        row, y, s = table.loc[name], truth[i], said[i]
        assert row["Pearson"] == pytest.approx(r(y + level, s + level), abs=1e-5)
        assert row["Pearson Delta"] == pytest.approx(r(y, s), abs=1e-5)
        assert row["beyond the mean"] == pytest.approx(r(y - mean, s - mean), abs=1e-5)
        assert row["L2, 30 genes"] == pytest.approx(np.linalg.norm(y - s), abs=1e-4)
        for suffix, gone in (
            ("", []), (", target out", name.split("+")),
            (", target out as published", [] if "+" in name else [name]),
        ):  # fmt: skip
            top = at([g for g in ranked if g not in gone][:20])
            assert row[f"Delta on top 20, t-test{suffix}"] == pytest.approx(
                r(y[top], s[top]), abs=1e-5
            )
    targets = reference.top("t-test", names, "out")
    assert not set(at(DOUBLES[0].split("+"))) & set(targets[1])
    assert set(at(DOUBLES[0].split("+"))) & set(
        reference.top("t-test", names, "out as published")[1]
    )


def test_coherence_equals_a_loop_and_a_shuffle_has_none():
    """Genes of a set share a direction in one embedding, in the other not."""
    rng = np.random.default_rng(0)
    names = [f"G{i}" for i in range(60)]
    sets = {f"s{k}": names[6 * k : 6 * k + 6] for k in range(10)} | {"small": names[:3]}
    X = np.repeat(rng.normal(size=(10, 8)), 6, axis=0) + rng.normal(0, 0.5, (60, 8))
    made = [Embedding("true", "Prior knowledge", names, X),
            Embedding("noise", "Negative control", names, rng.normal(size=(60, 8)))]  # fmt: skip
    table = coherence(made, sets).set_index("embedding")
    real = [np.corrcoef(X[6 * k : 6 * k + 6])[np.tril_indices(6, -1)].mean() for k in range(10)]
    assert table.loc["true", "real"] == pytest.approx(np.mean(real), abs=1e-5)
    assert table.loc["true", "low"] > 0.3
    assert table.loc["noise", "low"] < 0 < table.loc["noise", "high"]
    assert set(table["sets"]) == {10}
    Y = rng.normal(size=(5, 40))
    pairs = [np.corrcoef(Y[i], Y[j])[0, 1] for i in range(5) for j in range(i)]
    assert heterogeneity(Y) == pytest.approx(np.median(pairs))


def test_candidates_are_chosen_by_the_correlation_that_is_reported(responses):
    """The same features and ridge: tuned by L2 as log fold-changes, by correlation here."""
    (ridge,) = prior.predictors(["ridge"], {"ridge": [1e-3, 1e3]})
    (nearest,) = prior.predictors(["knn"], {})
    assert ridge.task is nearest.task is task_of("expression")
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(6, 20))
    shrunk, wild = 0.01 * truth, truth + 1.2 * rng.normal(size=truth.shape)
    assert ridge.task.loss(truth, shrunk) < ridge.task.loss(truth, wild)
    assert task_of("lfc").loss(truth, 0 * shrunk) < task_of("lfc").loss(truth, 3 * wild)


def test_features_of_two_genes_are_sums_and_nobody_sees_what_is_asked(responses):
    """Vectors of doubles are added; a test response that is changed changes no prediction."""
    rng = np.random.default_rng(0)
    table = Embedding("mine", "Prior knowledge", SINGLES[:-1], rng.normal(size=(15, 5)))
    both = prior._combined(table, [*SINGLES, *DOUBLES])
    a, b = DOUBLES[0].split("+")
    at = both.ids.get_indexer([DOUBLES[0], a, b])
    np.testing.assert_allclose(both.X[at[0]], both.X[at[1]] + both.X[at[2]], rtol=1e-5)
    assert SINGLES[-1] not in both.ids
    changed = responses.copy()
    test = (changed.obs["fold"] == 0).to_numpy()
    changed.X[test] = rng.normal(size=(test.sum(), changed.n_vars))
    said = []
    for source in (responses, changed):
        for model in build_models(["bilinear", "additive"], "expression", []):
            said.append(fit_predict(model, Fold.of(source, 0)).values)
    for first, second in zip(said[:2], said[2:], strict=True):
        np.testing.assert_array_equal(first, second)


def test_the_page_says_both_what_holds_and_what_does_not(responses):
    """Few perturbations take the verdict away; foundation models are named only where there are."""
    models = build_models(["bilinear", "additive"], "expression", [])
    from perturbcore.models.simple.embedding import Floor

    parts = []
    for fold, seed in enumerate((1, 2, 3)):
        group = gears_split(responses.obs["perturbation"], seed)
        here = responses.copy()
        here.obs["fold"] = np.where(group[here.obs["perturbation"]] == "train", -1, 0)
        floors = [Floor("train_mean"), Floor("no_change")]
        parts.append(evaluate(here, [*models, *floors], progress=False).assign(fold=fold))
    data = dict(title="Toy", responses=responses, screen=None, extras={}, holds=lambda _: False)
    data = SimpleNamespace(**data)
    groups = [gears_split(responses.obs["perturbation"], s) for s in (1, 2, 3)]
    f = prior.PriorScores(None, data, responses, groups, pd.concat(parts, ignore_index=True))
    assert "28 perturbations, 12 of two genes" in prior.setting(f)
    assert "cannot be trusted" in prior.setting(f)
    assert prior.verdicts(f) == []
    assert "too few to rank" in prior.one_line(f)
    assert "Additive" in prior.baselines_said(f)
    # the best method needs no features here: it is not called the best feature
    assert f.main.best == "Bilinear" and f.on_features.empty and prior.codes_said(f) == ""
    assert prior.metrics_table(f) is None
    assert "no cells" in prior.bug_said(None)
