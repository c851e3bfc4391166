"""Models that predict whole folds are scored as `evaluate` scores embeddings, and cannot peek."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import FunctionType, MethodType, ModuleType

import numpy as np
import pandas as pd
import pytest
import worlds
from anndata import AnnData

from perturbcore.core.errors import InputError, LeakError, ParameterError
from perturbcore.embeddings.base import Embedding
from perturbcore.models import registry
from perturbcore.models.simple import evaluate_embeddings as evaluate
from perturbcore.models.simple.space import Protocol
from perturbcore.score.evaluate import evaluate as evaluate_models
from perturbcore.score.model import Fold, Prediction
from perturbcore.score.model import Model as Base
from perturbcore.score.task import task_of


def responses(task="lfc", n=30, g=12, lines=("A", "B")):
    rng = np.random.default_rng(0)
    names = [f"g{i:02d}" for i in range(n)]
    X = rng.normal(size=(n * len(lines), g))
    return told(task, X, names, rng.random(X.shape) < 0.6, lines)


def told(task, X, names, observed, lines=("A",)):
    """Responses of a task from effects, in three folds."""
    deg = X if task == "lfc" else np.sign(X) * (np.abs(X) > 0.7)
    observed = observed if task.endswith("pairs") else None
    return worlds.responses_of(deg, names, lines, 3, task=task, observed=observed)


@dataclass
class Model(Base):
    """The floor of the task, or whatever `how` says."""

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
        self.seen.append(fold.number)
        assert not set(train.obs["perturbation"]) & set(test.obs["perturbation"])
        if self.how == "peek":
            return Prediction(np.asarray(test.X))
        if self.how == "short":
            return Prediction(np.zeros((test.n_obs, 3)))
        values = fold.task.floor(fold.truth, test.n_obs)
        if not fold.task.partial:
            line, at = (part.obs["cell_line"].astype(str).to_numpy() for part in (train, test))
            for one in set(at):
                values[at == one] = train.X[line == one].mean(axis=0)
        return Prediction(values, {"A": 0.5, "B": 0.5}, note={"rate": values[0].tolist()})


def wide(scores):
    return scores.pivot_table(index=["cell_line", "fold"], columns="metric", values="value")


@pytest.mark.parametrize("task, joint", [("lfc", False), ("lfc", True), ("deg_pairs", False)])
def test_train_mean_as_a_model_scores_like_the_train_mean(task, joint):
    data = responses(task)
    ours = wide(evaluate_models(data, [Model(joint=joint)], progress=False))
    theirs = wide(evaluate(data, [], [], controls=("train_mean",), progress=False))
    assert len(ours) == 6 and set(ours) == set(theirs) == set(task_of(task).metrics)
    np.testing.assert_allclose(ours[[*theirs]], theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "how, message", [("peek", "blanked"), ("short", r"\(10, 3\), where \(10, 12\)")]
)
def test_a_model_that_reads_test_responses_or_has_another_shape_is_refused(how, message):
    with pytest.raises(InputError, match=message):
        evaluate_models(responses(), [Model(how)], progress=False)


def test_a_planted_leak_across_lines_is_refused_for_joint_models_only():
    data = responses()
    row = data.obs_names[(data.obs["cell_line"] == "B") & (data.obs["perturbation"] == "g00")][0]
    data.obs.loc[row, "fold"] = (data.obs.loc[row, "fold"] + 1) % 3
    with pytest.raises(LeakError, match="g00"):
        evaluate_models(data, [Model(joint=True)], progress=False)
    with pytest.warns(UserWarning, match="joint"):
        evaluate_models(data, [Model()], progress=False)


def reachable(thing):
    """Every array that can be reached from an object: attributes, bases of views, closures."""
    arrays, seen, left = [], set(), [thing]
    while left:
        x = left.pop()
        if id(x) in seen or isinstance(x, ModuleType | type | str | bytes):
            continue
        seen.add(id(x))
        if isinstance(x, np.ndarray):
            arrays.append(x)
            left += [x.base] if x.base is not None else []
            left += list(x.ravel()[:5000]) if x.dtype == object else []
        elif isinstance(x, pd.DataFrame):
            left += [x[c].to_numpy() for c in x] + [x.to_numpy(), x.index, x.attrs]
        elif isinstance(x, pd.Series | pd.Index):
            left += [x.to_numpy(), x.array]
        elif isinstance(x, Mapping):
            left += [*x.keys(), *x.values()]
        elif isinstance(x, list | tuple | set | frozenset):
            left += list(x)
        elif isinstance(x, FunctionType):
            left += [c.cell_contents for c in x.__closure__ or ()] + list(x.__defaults__ or ())
        elif isinstance(x, MethodType):
            left += [x.__self__, x.__func__]
        elif isinstance(x, AnnData):
            parts = (x.layers, x.obsm, x.varm, x.obsp)
            left += [x.X, x.obs, x.var, x.uns, *map(dict, parts)]
        left += list(getattr(x, "__dict__", {}).values())
        left += [getattr(x, n) for n in getattr(type(x), "__slots__", ()) if hasattr(x, n)]
    return arrays


@dataclass(eq=False)
class Spy(Model):
    """Turn anything that varies between the test perturbations into a score, else the floor."""

    name: str = "spy"
    group: str | None = None
    found: list = field(default_factory=list)

    def predict(self, fold):
        arrays = reachable(fold)
        self.found.append([np.array(a) for a in arrays if a.dtype.kind in "fiub"])
        values = fold.task.floor(fold.truth, fold.test.n_obs).astype(float)
        for a in self.found[-1]:
            if len(a.shape) and a.shape[0] == fold.test.n_obs and np.isfinite(a).all():
                told = a.reshape(len(a), -1).sum(axis=1, dtype=float)
                values = values + 1e-6 * (told - told.mean())[:, None]
        return Prediction(values, {line: 0.5 for line in fold.cell_lines})


def leaky(task, n=90, g=41):
    """Responses of which mask, number of cells and unstructured parts tell the answer."""
    rng = np.random.default_rng(3)
    strong = rng.random(n) < 0.5
    X = rng.normal(size=(n, g)) * np.where(strong, 3, 0.3)[:, None]
    n_cells = np.where(strong, 40, 200) + rng.integers(0, 9, n)
    names, known = [f"p{i:02d}" for i in range(n)], np.where(strong, 0.8, 0.3)[:, None]
    out = told(task, X, names, rng.random((n, g)) < known)
    out.obs["n_cells"] = n_cells
    out.uns["effect"], out.obsm["size"] = np.array(strong), strong[:, None] * 1.0
    return out


@pytest.mark.parametrize("task", ["lfc", "deg", "deg_pairs", "dir_pairs"])
def test_nothing_of_the_test_responses_can_be_reached_from_a_fold(task):
    data = leaky(task)
    names = pd.Index(data.obs["perturbation"].astype(str))
    X = np.random.default_rng(1).normal(size=(90, 6)).astype(np.float32)
    embedding = Embedding("e", "Protein", names, X, "symbol")
    spies = [Spy(), Spy(name="spy in a group", group=embedding.digest)]
    scores = evaluate(data, [embedding], models=spies, protocol=Protocol(3), progress=False)
    primary = scores[scores["metric"] == task_of(task).primary]
    level = primary.groupby("embedding")["value"].mean()
    floor = primary.loc[primary["predictor"] == "train_mean", "value"].mean()
    # the one in a group also finds the coordinates of the embedding, which it may read
    assert level["spy"] == pytest.approx(floor, abs=1e-3)
    for spy in spies:
        for fold, arrays in enumerate(spy.found):
            test = (data.obs["fold"] == fold).to_numpy()
            for hidden in [data.X, *(data.layers[k] for k in data.layers)]:
                rows = {r.tobytes() for r in np.asarray(hidden[test], dtype=float)}
                rows -= {r.tobytes() for r in np.asarray(hidden[~test], dtype=float)}
                for a in arrays:
                    if a.ndim == 2 and a.shape[1] == data.n_vars:
                        assert rows.isdisjoint(r.tobytes() for r in a.astype(float))


@pytest.mark.parametrize("what", ["mask", "cells", "closure"])
def test_the_spy_finds_what_was_once_left_in_a_fold(what):
    data = leaky("deg_pairs")
    fold = Fold.of(data, 0)
    test = data[(data.obs["fold"] == 0).to_numpy()]
    if what == "mask":  # labels were blanked, but which of them are known was kept
        fold.test.layers["observed"] = test.layers["observed"].copy()
    elif what == "cells":
        fold.test.obs["n_cells"] = test.obs["n_cells"].to_numpy()
    else:
        fold.cache["later"] = lambda: test
    task, truth = fold.task, fold.task.truth(test)
    found = task.score(truth, Spy().predict(fold).values, ["auroc_within"], train=None, memo={})[0]
    assert abs(found["auroc_within"] - 0.5) > 0.2


def test_a_model_of_ones_own_is_one_file_and_one_line(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from perturbcore.models.simple import KNN\n"
        "from perturbcore.score.model import Model, Prediction\n"
        "class Mine(Model):\n"
        "    name, modality, predictor, digest = 'mine', 'Fusion', 'half', ''\n"
        "    tasks = ('lfc',)\n"
        "    def __init__(self, embeddings, share=0.5):\n"
        "        self.share, self.spec = share, {'share': share}\n"
        "    def fit(self, fold):\n"
        "        self.mean = fold.truth.mean(axis=0)\n"
        "        return self\n"
        "    def predict(self, fold):\n"
        "        values = fold.task.floor(fold.truth, fold.test.n_obs, 'no_change')\n"
        "        return Prediction(values + self.share * self.mean)\n"
        "class Few(KNN):\n"
        "    def __init__(self):\n"
        "        super().__init__([2], name='few')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    registry.register_model("mine", "mine:Mine")
    registry.register_model("few", "mine:Few")
    data, names = responses(), sorted({f"g{i:02d}" for i in range(30)})
    X = np.random.default_rng(1).normal(size=(30, 4))
    e = Embedding("e", "Protein", pd.Index(names), X, "symbol")
    wanted = ["knn", "few", {"name": "mine", "share": 0.2}, "mixed"]
    models = registry.build_models(wanted, "lfc", [e], Protocol(3))
    assert [(m.name, m.predictor) for m in models] == [
        ("e", "knn"), ("e", "few"), ("mine", "half")
    ]  # fmt: skip
    scores = evaluate_models(data, models[1:], progress=False)
    assert set(scores["predictor"]) == {"few", "half"}
    labels = registry.build_models(wanted, "deg_pairs", [e])
    assert [m.predictor for m in labels] == ["knn", "mixed"]
    with pytest.raises(ParameterError, match="model 'other' is not one of: knn"):
        registry.build_models(["other"], "lfc", [e])
    with pytest.raises(ParameterError, match="depth"):
        registry.build_models([{"name": "mine", "depth": 2}], "lfc", [e])
