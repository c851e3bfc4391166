"""Models that predict whole folds are scored as `evaluate` scores embeddings, and cannot peek."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest

from perturbcore.core.errors import InputError, LeakError, ParameterError
from perturbcore.data.folds import add_folds
from perturbcore.data.responses import make_responses
from perturbcore.embeddings.base import Embedding
from perturbcore.models.simple import evaluate_embeddings as evaluate
from perturbcore.models.simple.knn import KNN
from perturbcore.models.simple.space import Protocol
from perturbcore.score.evaluate import evaluate as evaluate_models
from perturbcore.score.model import Model as Base
from perturbcore.score.model import Prediction
from perturbcore.score.store import ScoreStore


def responses(task="lfc", n=30, g=12, lines=("A", "B"), seed=0):
    rng = np.random.default_rng(seed)
    names = [f"g{i:02d}" for i in range(n)]
    obs = pd.DataFrame({"perturbation": names * len(lines), "cell_line": np.repeat(lines, n)})
    X = rng.normal(size=(n * len(lines), g))
    observed = None
    if task != "lfc":
        X = np.sign(X) * (np.abs(X) > 0.7)
    if task.endswith("pairs"):
        observed = rng.random(X.shape) < 0.6
    out = make_responses(
        X, obs, [f"y{j}" for j in range(g)], dataset="toy", task=task, observed=observed
    )
    return add_folds(out, 3)


@dataclass
class Model(Base):
    """Train Mean of each line, or whatever `how` says."""

    how: str = "mean"
    name: str = "mean of training"
    modality: str = "Fusion"
    predictor: str = "mean"
    digest: str = "x"
    joint: bool = False
    seen: list = field(default_factory=list)

    @property
    def spec(self):
        return {"how": self.how}

    def predict(self, fold):
        train, test = fold.train, fold.test
        self.seen.append(
            (fold.number, sorted(set(train.obs["cell_line"])), list(test.obs["perturbation"]))
        )
        assert not set(train.obs["perturbation"]) & set(test.obs["perturbation"])
        if self.how == "peek":
            return Prediction(np.asarray(test.X))
        if self.how == "short":
            return Prediction(np.zeros((test.n_obs, 3)))
        task = train.uns["perturbcore"]["task"]
        if task == "deg":
            label = train.layers["deg"]
            share = np.stack([(label == c).mean(axis=0) for c in (-1, 0, 1)])
            return Prediction(np.repeat(share[:, None], test.n_obs, axis=1))
        if task == "deg_pairs":
            positive = (train.layers["deg"] != 0) & train.layers["observed"]
            rate = (positive.sum(0) + 1) / (train.layers["observed"].sum(0) + 2)
            return Prediction(
                np.tile(rate, (test.n_obs, 1)), {"A": 0.5, "B": 0.5}, note={"rate": rate.tolist()}
            )
        out = np.zeros(test.shape, dtype=np.float32)
        for line in set(test.obs["cell_line"]):
            rows = (test.obs["cell_line"] == line).to_numpy()
            out[rows] = train.X[(train.obs["cell_line"] == line).to_numpy()].mean(axis=0)
        return Prediction(out)


def wide(scores):
    return scores.pivot_table(index=["cell_line", "fold"], columns="metric", values="value")


@pytest.mark.parametrize("joint", [False, True])
def test_train_mean_as_a_model_scores_like_the_train_mean(joint):
    data = responses()
    ours = wide(evaluate_models(data, [Model(joint=joint)], progress=False))
    plain = evaluate(data, [], [], controls=("train_mean",), progress=False)
    theirs = wide(plain)[ours.columns]
    assert len(ours) == 6 and "L2" in ours
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)


def test_labels_are_scored_as_evaluate_does():
    data = responses("deg")
    ours = wide(evaluate_models(data, [Model()], progress=False))
    theirs = wide(evaluate(data, [], [], controls=("prior",), progress=False))
    # the prior counts three rows more, which moves no ranking of classes with this many rows
    np.testing.assert_allclose(ours["f1_score"], theirs["f1_score"], atol=0.06)


def test_partial_labels_need_a_threshold_for_f1():
    data = responses("deg_pairs")
    scores = evaluate_models(data, [Model()], progress=False)
    assert {"auroc_within", "macro_F1"} <= set(scores["metric"])
    level = scores.loc[scores["metric"] == "auroc_within", "value"]
    np.testing.assert_allclose(level, 0.5, atol=1e-9)


def test_a_model_that_reads_test_responses_gets_nan_and_is_refused():
    with pytest.raises(InputError, match="blanked"):
        evaluate_models(responses(), [Model("peek")], progress=False)


def test_wrong_shape_is_refused():
    with pytest.raises(InputError, match=r"\(10, 3\), where \(10, 12\)"):
        evaluate_models(responses(), [Model("short")], progress=False)


def test_a_planted_leak_across_lines_is_refused_for_joint_models_only():
    data = responses()
    row = data.obs_names[(data.obs["cell_line"] == "B") & (data.obs["perturbation"] == "g00")][0]
    data.obs.loc[row, "fold"] = (data.obs.loc[row, "fold"] + 1) % 3
    with pytest.raises(LeakError, match="g00"):
        evaluate_models(data, [Model(joint=True)], progress=False)
    with pytest.warns(UserWarning, match="joint"):
        evaluate_models(data, [Model()], progress=False)


def test_finished_units_are_not_run_again_and_notes_are_kept(tmp_path):
    data, path = responses("deg_pairs"), tmp_path / "s.sqlite"
    first = Model()
    a = evaluate_models(data, [first], store=ScoreStore(path), progress=False)
    second = Model()
    store = ScoreStore(path)
    b = evaluate_models(data, [second], store=store, progress=False)
    assert len(first.seen) == 6 and not second.seen
    pd.testing.assert_frame_equal(a, b)
    notes = store.notes(b["key"])
    assert len(notes) == 6 and all(len(n["rate"]) == 12 for n in notes.values())
    changed = Model(how="other")
    evaluate_models(data, [changed], store=store, progress=False)
    assert len(changed.seen) == 6


def test_labels_of_test_rows_do_not_change_a_prediction():
    data, poisoned = responses(), responses()
    fold = poisoned.obs["fold"].to_numpy() == 0
    poisoned.X[fold] = 1e3
    models = [Model(), Model()]
    seen = []
    for model, given in zip(models, (data, poisoned), strict=True):
        kept = model.predict
        model.predict = lambda fold, kept=kept: seen.append(kept(fold)) or seen[-1]
        evaluate_models(given, [model], folds=[0], progress=False)
    np.testing.assert_array_equal(seen[0].values, seen[2].values)


def test_scores_join_those_of_evaluate_in_one_table():
    data, store = responses(), ScoreStore()
    names = sorted(set(data.obs["perturbation"]))
    e = Embedding(
        "e", "Protein", pd.Index(names), np.random.default_rng(1).normal(size=(30, 4)), "symbol"
    )
    evaluate(data, [e], [KNN([3])], store=store, scope="s", protocol=Protocol(3), progress=False)
    evaluate_models(data, [Model()], store=store, scope="s", add=True, progress=False)
    both = store.scores(store.keys_of("s"))
    assert {"e", "mean of training", "idealized", ""} == set(both["embedding"])


def test_two_models_of_one_name():
    with pytest.raises(ParameterError, match="rename"):
        evaluate_models(responses(), [Model(), Model()], progress=False)
