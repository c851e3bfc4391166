import re

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from worlds import world

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.responses import make_responses
from perturbcore.embeddings.base import Embedding
from perturbcore.models.simple import evaluate_embeddings as evaluate
from perturbcore.models.simple.knn import KNN
from perturbcore.models.simple.labels import LabelKNN
from perturbcore.models.simple.linear import Linear
from perturbcore.models.simple.space import Protocol
from perturbcore.score.store import COLUMNS, ScoreStore, save_scores

SMALL = Protocol(n_components=8)
KS = KNN([3, 5, 10])


def value(scores, **where):
    for k, v in where.items():
        scores = scores[scores[k] == v]
    assert len(scores), where
    return scores["value"].to_numpy()


def test_scores_equal_the_published_procedure_written_out():
    responses, (good, _) = world()
    scores = evaluate(responses, [good], [KS], protocol=SMALL, progress=False)
    loss = make_scorer(lambda y, p: -np.linalg.norm(y - p, axis=1).mean())
    X = pd.DataFrame(good.X, index=good.ids)
    for line in ("A", "B"):
        part = responses[responses.obs["cell_line"] == line]
        Y = pd.DataFrame(part.X, index=part.obs["perturbation"]).sort_index()
        fold = part.obs.set_index("perturbation")["fold"].loc[Y.index]
        for f in range(5):
            train, test = Y[fold != f], Y[fold == f]
            has = train.index.intersection(X.index, sort=True)
            pipe = make_pipeline(StandardScaler(), PCA(8), KNeighborsRegressor())
            grid = {"kneighborsregressor__n_neighbors": [3, 5, 10]}
            folds = KFold(5, shuffle=True, random_state=42)
            model = GridSearchCV(pipe, grid, scoring=loss, cv=folds)
            model.fit(X.loc[has].to_numpy(), train.loc[has].to_numpy())
            predicted = pd.DataFrame(
                np.tile(train.mean().to_numpy(), (len(test), 1)), index=test.index
            )
            there = test.index.intersection(X.index)
            predicted.loc[there] = model.predict(X.loc[there].to_numpy())
            want = np.linalg.norm(test.to_numpy() - predicted.to_numpy(), axis=1).mean()
            got = value(scores, cell_line=line, fold=f, embedding="good", metric="L2")
            np.testing.assert_allclose(got, want, rtol=1e-5)
            unit = scores.query("cell_line == @line and fold == @f and embedding == 'good'")
            assert unit["chosen"].iloc[0] == str(list(model.best_params_.values())[0])
            for floor, expected in (("train_mean", train.mean()), ("no_change", 0)):
                want = np.linalg.norm(test - expected, axis=1).mean()
                got = value(scores, cell_line=line, fold=f, predictor=floor, metric="L2")
                np.testing.assert_allclose(got, want, rtol=1e-5)


def test_threads_shared_spaces_and_the_order_of_rows_do_not_change_a_number():
    responses, embeddings = world()
    kw = dict(protocol=SMALL, progress=False)
    shuffled = responses[np.random.default_rng(1).permutation(responses.n_obs)].copy()
    together = evaluate(shuffled, embeddings, [KS, Linear("ridge")], n_jobs=2, **kw)
    for line in ("A", "B"):
        alone = evaluate(responses, embeddings, [KS], cell_lines=[line], **kw)
        both = together[(together["cell_line"] == line) & (together["predictor"] != "ridge")]
        np.testing.assert_allclose(alone["value"], both["value"], rtol=1e-6)


def test_finished_units_are_not_computed_again_and_changed_ones_are(monkeypatch):
    import perturbcore.score.evaluate as module

    responses, (good, noise) = world()
    kw, calls, run = dict(protocol=SMALL, progress=False, store=ScoreStore()), [], module._run
    monkeypatch.setattr(module, "_run", lambda jobs, *a: calls.append(len(jobs)) or run(jobs, *a))
    evaluate(responses, [good, noise], [KS], **kw)
    calls.clear()
    evaluate(responses, [good, noise], [KS], **kw)
    assert calls == []
    X = noise.X.copy()
    X[0, 0] += 1
    changed = Embedding("noise", "Negative control", noise.ids, X)
    evaluate(responses, [good, changed], [KS], **kw)
    assert sum(calls) == 10  # 2 lines x 5 folds of the changed embedding only
    responses.X[0] += 1  # one perturbation of one line
    calls.clear()
    evaluate(responses, [good, noise], [KS], **kw)
    assert sum(calls) == 5 * 5  # line A: five folds of two embeddings, idealized and two baselines


def test_a_run_that_breaks_off_resumes_to_the_identical_table(tmp_path, monkeypatch):
    responses, embeddings = world()
    kw = dict(protocol=SMALL, progress=False)
    store, n = ScoreStore(tmp_path / "s.sqlite"), []

    def dying(results, log):
        ScoreStore.put(store, results, log)
        n.append(len(results))
        if len(n) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(store, "put", dying)
    with pytest.raises(KeyboardInterrupt):
        evaluate(responses, embeddings, [KS], store=store, **kw)
    store = ScoreStore(tmp_path / "s.sqlite")
    assert store._db.execute("SELECT count(*) FROM units").fetchone()[0] == sum(n)
    resumed = evaluate(responses, embeddings, [KS], store=store, **kw)
    whole = evaluate(responses, embeddings, [KS], **kw)
    columns = [c for c in COLUMNS if c not in ("seconds", "finished", "commit")]
    pd.testing.assert_frame_equal(resumed[columns], whole[columns])
    pd.testing.assert_frame_equal(evaluate(responses, embeddings, [KS], store=store, **kw), resumed)
    path = tmp_path / "x.sqlite"
    path.write_text("not a database, only some text that is long enough to be read as a header")
    pytest.raises(InputError, ScoreStore, path).match("not a score store")


def test_the_bar_counts_folds_of_models_and_promises_no_time(capsys):
    """Lasso takes a hundred times as long as kNN: the time of past folds says nothing."""
    evaluate(*world(), [KS], protocol=SMALL, folds=[0], progress=True)
    said = capsys.readouterr().err
    assert re.search(r"(\d+) of \1 folds of a model", said) and "<" not in said and "/s" not in said


def test_test_responses_are_never_read_in_training():
    responses, embeddings = world(lines=("A",))
    kw = dict(protocol=SMALL, progress=False, folds=[2], controls=("train_mean",), metrics=["L2"])
    a = evaluate(responses, embeddings, [KS, Linear("lasso")], **kw)
    test = (responses.obs["fold"] == 2).to_numpy()
    shifted = responses.copy()
    shifted.X[test] += 100
    b = evaluate(shifted, embeddings, [KS, Linear("lasso")], **kw)
    # predictions are unchanged: every error grows by the shift alone
    assert (b["chosen"] == a["chosen"]).all()
    np.testing.assert_allclose(b["value"], 100 * np.sqrt(30), rtol=0.02)


def pair_world(seed=0):
    responses, embeddings = world(120, 50, lines=("A",))
    deg = np.where(responses.X > 1.2, 1, np.where(responses.X < -0.4, -1, 0))
    observed = np.random.default_rng(seed).random(deg.shape) < 0.3
    obs = responses.obs[["perturbation", "cell_line", "fold"]]
    how = dict(dataset="toy", task="deg_pairs", observed=observed)
    return make_responses(deg, obs, responses.var_names, **how), embeddings


def test_partial_labels_use_only_what_is_known():
    responses, embeddings = pair_world()
    hidden = responses.copy()
    unknown = ~hidden.layers["observed"]
    hidden.layers["deg"] = np.where(unknown, 1, hidden.layers["deg"]).astype(np.int8)
    scores, again = (
        evaluate(r, embeddings, [LabelKNN([4], prior=2.0)], protocol=SMALL, progress=False)
        for r in (responses, hidden)
    )
    assert (value(scores, predictor="train_mean", metric="auroc_within") == 0.5).all()
    auc = scores[scores["metric"] == "auroc_within"].groupby("embedding")["value"].mean()
    assert auc["good"] > 0.6 and abs(auc["noise"] - 0.5) < 0.06 and auc["idealized"] > auc["noise"]
    a, b = (s.loc[s["embedding"] != "idealized", "value"] for s in (scores, again))
    np.testing.assert_array_equal(a, b)


def test_each_scoring_of_a_published_split_is_logged_and_carries_an_interval(tmp_path):
    responses, (good, _) = pair_world()
    store = ScoreStore(tmp_path / "s.sqlite")
    kw = dict(protocol=SMALL, progress=False, store=store, folds=[0], controls=())
    evaluate(responses, [good], [LabelKNN([4])], scope="own/A", **kw)
    assert store.scorings().empty
    responses.uns["perturbcore"]["published_split"] = True
    first = evaluate(responses, [good], [LabelKNN([4])], scope="board/A", **kw)
    evaluate(responses, [good], [LabelKNN([4])], scope="board/A", **kw)  # read, not scored
    other = evaluate(responses, [good], [LabelKNN([5])], scope="board/A", **kw)
    log = ScoreStore(tmp_path / "s.sqlite").scorings()
    assert log["settings"].tolist() == [first["key"].iloc[0], other["key"].iloc[0]]
    assert log["finished"].notna().all() and log["commit"].notna().all()
    assert set(log["embedding"] + log["predictor"]) == {"goodknn"}
    low, high = store.notes(first["key"])[first["key"].iloc[0]]["intervals"]["auroc_per_gene"]
    assert low < value(first, metric="auroc_per_gene")[0] < high < low + 0.5


def test_two_screens_of_one_loader_keep_their_own_scores_and_a_chapter_what_it_claims(tmp_path):
    store = ScoreStore(tmp_path / "s.sqlite")
    kw = dict(protocol=SMALL, progress=False, store=store, folds=[0], metrics=["L2"])
    for name, seed in (("first", 0), ("second", 1)):
        responses, embeddings = world(lines=("A",), seed=seed)
        evaluate(responses, embeddings, [KS], scope=f"chapter/{name}", dataset=name, **kw)
        evaluate(responses, embeddings, [KS], scope=f"other/{name}", dataset=name, **kw)
        evaluate(responses, embeddings[:1], [KS], scope=f"other/{name}", dataset=name, **kw)
    frame = pd.read_parquet(store.export(tmp_path / "scores.parquet"))
    for chapter, n in (("chapter", 5), ("other", 4)):  # the other one dropped an embedding
        for name in ("first", "second"):
            own = frame[(frame["chapter"] == chapter) & (frame["dataset"] == name)]
            assert set(own["key"]) == set(store.keys_of(f"{chapter}/{name}")) and len(own) == n
    a, b = (frame.loc[frame["dataset"] == n, "value"].to_numpy() for n in ("first", "second"))
    assert (a != b).all()
    each = store.per_perturbation(frame["key"].unique(), "L2").groupby("key")["value"].mean()
    np.testing.assert_allclose(each.loc[frame["key"]], frame["value"], rtol=1e-5)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_scores_are_written_whole_and_no_name_is_empty(tmp_path, suffix):
    responses, embeddings = world(lines=("A",))
    scores = evaluate(responses, embeddings, [KS], protocol=SMALL, folds=[0], progress=False)
    path = tmp_path / f"scores.{suffix}"
    save_scores(scores, path)
    plain = pd.read_csv(path) if suffix == "csv" else pd.read_parquet(path)
    assert plain["embedding"].notna().all()
    pd.testing.assert_series_equal(plain["value"], scores["value"])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(predictors=["boosting"]), ParameterError, "knn"),
        (dict(predictors=[LabelKNN([4])]), ParameterError, "predicts labels.*not log fold"),
        (dict(metrics=["auroc_within"]), ParameterError, "auroc_within"),
        (dict(controls=["best"]), ParameterError, "best"),
        (dict(cell_lines=["C"]), InputError, "'C'"),
        (dict(folds=[9]), InputError, "fold 9"),
    ],
)
def test_bad_requests_are_named(change, error, message):
    responses, embeddings = world()
    with pytest.raises(error, match=message):
        evaluate(responses, embeddings, **{"protocol": SMALL, "progress": False, **change})


def test_an_embedding_of_other_ids_or_a_repeated_name_is_refused():
    responses, (good, noise) = world()
    other = Embedding(
        "other", "Protein", pd.Index([f"ENSG{i}" for i in range(len(good.ids))]), good.X
    )
    pytest.raises(InputError, evaluate, responses, [other], [KS], progress=False).match("ENSG0")
    with pytest.raises(InputError, match="rename one"):
        evaluate(responses, [good, good], [KS], progress=False)
    pytest.raises(ParameterError, Protocol, inner_order="random").match("inner_order")
