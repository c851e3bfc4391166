"""A cell line that was held out: what models may see, what they find, what is said."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from worlds import logged, responses_of

from perturbcore.core.errors import InputError, LeakError, ParameterError
from perturbcore.data.contexts import CONTROL, context_responses, control_profiles
from perturbcore.data.sets.base import constants_of
from perturbcore.embeddings.base import Embedding
from perturbcore.models.contexts import Known, MeanOffset, SavedPredictions, ShrunkenOffset
from perturbcore.models.registry import build_models
from perturbcore.models.simple import evaluate_embeddings
from perturbcore.report import contexts
from perturbcore.report.comparison import Comparison
from perturbcore.score.evaluate import evaluate
from perturbcore.score.model import Fold, Model, Prediction, fit_predict
from perturbcore.score.store import ScoreStore
from perturbcore.score.task import task_of

LINES, NAMES, GENES = ("A", "B", "C", "D"), [f"p{i:02d}" for i in range(24)], 40


def world(own: float = 0.3, shared_wells: bool = False, seed: int = 0):
    """Responses of four lines: a shared effect, a part of the line, noise."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(24, GENES))
    rows = [shared + own * rng.normal(size=(24, GENES)) for _ in LINES]
    out = responses_of(np.concatenate(rows), NAMES, LINES, dataset="w")
    out.uns["perturbcore"]["shared_wells"] = shared_wells
    return out


def with_controls(responses, seed=1):
    rng = np.random.default_rng(seed)
    for line in LINES:
        responses.var[f"{CONTROL}{line}"] = rng.normal(size=GENES)
    return responses


@pytest.mark.parametrize("split", ["new_line", "few_known", "both_new"])
def test_a_fold_hides_the_line_and_what_else_the_question_hides(split):
    responses = context_responses(world(), split, n_known=3)
    task = task_of(responses)
    assert task.across and task.primary == "L2"
    numbers = sorted(set(responses.obs["fold"]) - {-1})
    assert len(numbers) == (8 if split == "both_new" else 4)
    for number in numbers:
        fold = Fold.of(responses, number)
        (target,) = fold.test.obs["cell_line"].unique()
        assert np.isnan(fold.test.X).all() and set(fold.test.obs) == {
            "perturbation", "cell_line", "fold",
        }  # fmt: skip
        own = fold.train.obs["cell_line"] == target
        assert own.sum() == (3 if split == "few_known" else 0)
        asked = set(fold.test_ids)
        assert not asked & set(fold.train_ids[own])
        seen_elsewhere = asked & set(fold.train_ids)
        assert not seen_elsewhere if split == "both_new" else seen_elsewhere == asked


def test_lines_that_shared_wells_and_one_line_alone_are_refused():
    with pytest.raises(LeakError, match="'w' were together in each well.*treated apart"):
        context_responses(world(shared_wells=True))
    responses = context_responses(world())
    responses.uns["perturbcore"]["shared_wells"] = True
    with pytest.raises(LeakError, match="together in each well"):
        evaluate(responses, [MeanOffset()], progress=False)
    assert constants_of("tahoe_signatures")["shared_wells"]
    assert constants_of("op3_signatures")["shared_wells"]
    one = world()[:24].copy()
    with pytest.raises(InputError, match=r"one cell line \(A\) tells nothing of another"):
        context_responses(one)
    with pytest.raises(ParameterError, match="n_known=24: line 'A' has 24"):
        context_responses(world(), "few_known", n_known=24)
    with pytest.raises(ParameterError, match="metric 'f1_score' is not one of: L2, MAE"):
        task_of("cross_context").check_metrics(["f1_score"])


class Thief(Model):
    """Reads all that it can reach, takes NaN for nothing, and copies what is nearest."""

    name, modality, predictor = "thief", "Advanced", "thief"

    def predict(self, fold):
        reached = [np.asarray(fold.test.X), *map(np.asarray, fold.test.layers.values())]
        reached += [x for x in fold.test.uns.values() if isinstance(x, np.ndarray)]
        found = np.nan_to_num(sum(reached))
        target = fold.test.obs["cell_line"].iloc[0]
        own = (fold.train.obs["cell_line"] == target).to_numpy()
        assert not own.any()
        return Prediction(found + fold.truth.mean(axis=0))


def test_a_thief_scores_like_the_floor():
    responses = with_controls(context_responses(world()))
    scores = evaluate_embeddings(responses, [], (), models=[Thief()], controls=("train_mean",),
                                 progress=False)  # fmt: skip
    wide = scores.pivot_table(index=["fold", "metric"], columns="predictor", values="value")
    np.testing.assert_allclose(wide["thief"], wide["train_mean"], rtol=1e-5)


def models_of(task, **more):
    rng = np.random.default_rng(5)
    emb = Embedding("mine", "Expression", NAMES, rng.normal(size=(24, 6)))
    wanted = ["context_mean", "mean_offset", "shrunken_offset", "similar_lines", "line_kernel",
              {"name": "mlp", "max_iter": 30}, {"name": "mlp", "one_hot": True, "max_iter": 30}]  # fmt: skip
    return build_models(wanted, task, [emb])


def test_models_by_hand_and_their_order_where_lines_share_effects():
    responses = with_controls(context_responses(world()))
    fold = Fold.of(responses, 0)
    table = pd.DataFrame(fold.truth, fold.train_ids).groupby(level=0).mean()
    said = {m.name: fit_predict(m, fold) for m in models_of("cross_context")}
    assert not said["Context mean"].values.any()  # nothing of the line is known: its control
    np.testing.assert_allclose(said["Mean offset"].values, table.loc[fold.test_ids], rtol=1e-4,
                               atol=1e-5)  # fmt: skip
    assert {"MLP (mine)", "MLP (one-hot)", "Line kernel", "kNN of lines"} < set(said)
    truth = world()[:24].X
    loss = {name: task_of("cross_context").loss(truth, p.values) for name, p in said.items()}
    assert loss["Mean offset"] < 0.6 * loss["Context mean"]
    assert loss["Shrunken offset"] < 1.02 * loss["Mean offset"]
    assert loss["Line kernel"] < 1.1 * loss["Mean offset"]
    # k lines are chosen on training lines: any k is the mean of so many
    assert said["kNN of lines"].chosen in ("1", "2", "3")


def test_few_known_perturbations_move_the_context_mean_and_the_shift():
    responses = context_responses(world(own=1.0), "few_known", n_known=6)
    responses.X[responses.obs["cell_line"] == "A"] += 2.0  # a shift of the line alone
    fold = Fold.of(responses, 0)
    known = fold.truth[(fold.train.obs["cell_line"] == "A").to_numpy()].mean(axis=0)
    by_name = {m.name: fit_predict(m, fold).values for m in models_of("cross_context_few")}
    np.testing.assert_allclose(by_name["Context mean"][0], known, rtol=1e-5)
    assert by_name["Shrunken offset"].mean() > by_name["Mean offset"].mean() + 0.3


def test_new_perturbations_get_the_mean_where_there_is_no_code():
    responses = with_controls(context_responses(world(), "both_new"))
    fold = Fold.of(responses, 3)
    for model in models_of("cross_context_new"):
        values = fit_predict(model, fold).values
        assert np.isfinite(values).all() and values.shape == fold.test.shape
        if model.name in ("Mean offset", "kNN of lines"):
            np.testing.assert_allclose(values, np.tile(values[0], (len(values), 1)), rtol=1e-4)


def test_likeness_of_controls_decides_the_weights():
    Y = np.arange(6.0)[:, None]
    line, name = np.array(list("BBCCDD")), np.array(["x", "y"] * 3)
    controls = pd.DataFrame(
        {"A": [0.0, 1, 2], "B": [0.0, 1, 2.1], "C": [2.0, 1, 0], "D": [1.0, 1, 1]}
    )
    known = Known(line, name, Y, controls)
    alike = known.alike("A")
    assert alike["B"] > 0.9 > alike["D"] > alike["C"]
    weight = pd.Series({"A": 1.0, "B": 3.0, "C": 1.0, "D": 0.0})
    np.testing.assert_allclose(known.offset("A", ["y", "new"], weight).ravel(), [1.5, 1.0 + 1.5])
    assert (Known(line, name, Y, controls[[]]).alike("A") == 1).all()
    sharp = ShrunkenOffset().guess(known, "A", pd.Index(["x"]), (50.0, 1.0, 1.0))
    np.testing.assert_allclose(sharp, [[0.0]], atol=1e-3)


def test_saved_cells_are_a_model_and_units_keep_predictions(tmp_path):
    from anndata import AnnData

    rng = np.random.default_rng(0)
    labels = ["non-targeting"] * 30 + [n for n in NAMES for _ in range(5)]
    X = rng.poisson(3.0, size=(len(labels), GENES)).astype(np.float32) + 1
    X[30:35, 0] *= 8
    obs = pd.DataFrame({"target": labels, "cell_line": "A"}, index=[f"c{i}" for i in range(len(X))])
    cells = AnnData(X, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(GENES)]))
    path = tmp_path / "state.h5ad"
    cells.write_h5ad(path)
    responses = context_responses(world())[:, ::-1].copy()
    wanted = [{"name": "saved", "path": str(path), "title": "STATE"}]
    (model,) = build_models(wanted, "cross_context", [])
    assert model.name == "STATE"
    fold = Fold.of(responses, 0)
    values = fit_predict(model, fold).values
    effect = logged(X[30:35]).mean(axis=0) - logged(X[:30]).mean(axis=0)
    np.testing.assert_allclose(values[0][::-1], effect, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match=re.escape(f"{path}: it has no cell of line 'B'")):
        fit_predict(model, Fold.of(responses, 1))
    with pytest.raises(InputError, match="nowhere.h5ad: no such file"):
        SavedPredictions(path="nowhere.h5ad")
    store = ScoreStore()
    scores = evaluate(responses, [MeanOffset()], store=store, progress=False)
    kept = store.kept(scores["key"].iloc[0])
    assert kept["values"].shape == (24, GENES) and set(kept["perturbation"]) == set(NAMES)
    assert store.kept("nothing") == {}


def test_control_means_go_into_the_table(tmp_path):
    from perturbcore.data.sets.base import load

    data = load("simulated", n_cell_lines=2, n_perturbations=6, n_genes=50, n_batches=2,
                n_control_cells=40, cells_per_perturbation=(12, 14), n_modules=4)  # fmt: skip
    found = control_profiles(context_responses(data.responses, screen=data.screen).var)
    line = data.responses.obs["cell_line"].iloc[0]
    assert list(found) == list(pd.unique(data.responses.obs["cell_line"].astype(str)))
    here = (data.screen.obs["cell_line"] == line) & data.screen.obs["is_control"]
    X = logged(data.screen[here.to_numpy()].X)
    np.testing.assert_allclose(found[line], X.mean(axis=0), rtol=1e-5)


def test_what_is_said_names_the_best_and_refuses_to_rank_a_handful():
    responses = with_controls(context_responses(world()))
    scores = evaluate_embeddings(
        responses, [], (), models=[*models_of("cross_context")], progress=False,
        controls=("train_mean", "no_change"), dataset="w",
    )  # fmt: skip
    c = Comparison(scores)
    said = contexts.answer(c, SimpleNamespace(title="these", responses=responses), "new_line")
    assert "24 perturbations in 4 lines are too few to rank methods" in said
    assert f"No Change has L2 error {c.means['No Change']:.3f}" in said and "Mean offset" in said
    said = contexts.embedding_said(c)
    on, codes = c.means["MLP (mine)"], c.means["MLP (one-hot)"]
    assert f"the network on mine has L2 error {on:.3f}, on one-hot codes {codes:.3f}" in said


def test_the_published_claim_stands_beside_its_own_numbers():
    from perturbcore.data.published.tables import load_published

    said = contexts.embedding_said(None, load_published())
    assert ".419 with the embedding, 0.273 with one-hot codes" in said


def test_curves_say_who_finds_which_part():
    rows = [
        (m, n, part, known, share + 0.1 * n)
        for m, at in (("good", 0.5), ("poor", 0.1))
        for n in (1, 3)
        for part, known, share in (
            (contexts.SHARED, 0, at), (contexts.OWN, 0, 0.0), (contexts.OWN, 5, at / 2),
        )
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["method", "lines", "part", "known", "share"])
    said = contexts.parts_said(table)
    assert "shared by all lines is found by good: 60 % of it from 1 other line, 80 % from 3" in said
    assert "With 5 perturbations of it known" in said
