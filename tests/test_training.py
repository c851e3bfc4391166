"""The training loop: known minima, early stopping, and a kill that changes nothing."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from perturbcore.core import training
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.core.training import Batches, Learner, fit


class Line(Learner):
    """y = x w with dropout, so that the random stream matters."""

    def __init__(self, d=3, lr=0.05, dropout=0.1):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(d, 1)
        self.dropout = torch.nn.Dropout(dropout)
        self.lr = lr

    def loss(self, batch):
        x, y = batch
        error = ((self.dropout(self.layer(x))[:, 0] - y) ** 2).mean()
        return {"loss": error, "twice": 2 * error}


def data(n=64, seed=0):
    rng = np.random.default_rng(seed)
    x = torch.tensor(rng.normal(size=(n, 3)), dtype=torch.float32)
    return x, x @ torch.tensor([1.0, -2.0, 0.5])


def batches(x, y, size=16, **options):
    return Batches(len(x), size, lambda i: (x[i], y[i]), **options)


def weights(learner):
    return torch.cat([p.detach().ravel() for p in learner.parameters()])


def test_it_finds_the_line_and_keeps_the_best_weights_of_an_early_stop():
    x, y = data()
    validation = batches(*data(seed=1), shuffle=False)
    learner = Line(lr=0.1, dropout=0.0)
    done = fit(learner, batches(x, y), validation, max_epochs=60)
    np.testing.assert_allclose(weights(learner)[:3], [1, -2, 0.5], atol=0.02)
    history = done.history
    np.testing.assert_allclose(history["train_twice"], 2 * history["train_loss"], rtol=1e-5)
    assert done.best_epoch == history["val"].idxmin() and not learner.training
    learner = Line(lr=0.5, dropout=0.3)
    done = fit(learner, batches(x, y), validation, max_epochs=200, patience=3)
    assert done.epochs < 200 and done.epochs == done.best_epoch + 4
    value = np.average([learner.loss(b)["loss"].item() for b in validation.epoch(0)])
    assert value == pytest.approx(done.history["val"].min(), rel=1e-5)
    with pytest.raises(ParameterError, match="validation"):
        fit(Line(), batches(x, y), max_epochs=1, patience=2)
    pytest.raises(InputError, fit, Line(lr=1e30), batches(x, y), max_epochs=3).match("lower lr")


def trained(seed=0, **options):
    learner = Line()
    fit(learner, batches(*data(), seed=seed), seed=seed, **{"max_epochs": 1} | options)
    return weights(learner)


KILLED = """
import os, signal, sys, torch
sys.path.insert(0, {tests!r})
from test_training import Line, batches, data, fit
from perturbcore.core.training import Learner

class Dies(Line):
    steps = 0

    def loss(self, batch):
        self.steps += torch.is_grad_enabled()
        if self.steps > 5 * 4:  # batches of an epoch
            os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(batch)

fit(Dies(), batches(*data()), batches(*data(seed=1), shuffle=False), max_epochs=9, ema=0.9,
    folder={folder!r}, key="k", checkpoint_seconds=0)
"""


def test_a_killed_training_resumes_to_the_same_weights(tmp_path):
    own = [batches(*data()), batches(*data(seed=1), shuffle=False)]
    whole, resumed, how = Line(), Line(), dict(max_epochs=9, ema=0.9)
    uninterrupted = fit(whole, *own, **how)
    script = KILLED.format(tests=os.path.dirname(__file__), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "last.ckpt").exists() and not (tmp_path / "done.json").exists()
    after = fit(resumed, *own, **how, folder=tmp_path, key="k")
    assert torch.equal(weights(whole), weights(resumed))
    assert not torch.equal(trained(1), trained(0))
    columns = ["epoch", "train_loss", "val"]
    assert after.history[columns].equals(uninterrupted.history[columns])


def test_a_finished_training_is_loaded_not_repeated(tmp_path, monkeypatch):
    first, second = Line(), Line()
    here = dict(max_epochs=3, folder=tmp_path, key="k")
    a = fit(first, batches(*data()), **here)
    monkeypatch.setattr(Line, "loss", None)
    b = fit(second, batches(*data()), **here)
    assert torch.equal(weights(first), weights(second)) and a.history.equals(b.history)
    assert b.epochs == 3
    pytest.raises(ParameterError, trained, folder=tmp_path, key="other").match("delete it")
    (tmp_path / "weights.safetensors").write_bytes(b"no")
    pytest.raises(InputError, trained, folder=tmp_path, key="k").match("delete the folder")


class Evil:
    """A pickled object that runs a command where it is read."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (os.system, (f"touch {self.file}",))


def test_a_damaged_checkpoint_names_the_way_out_and_a_pickled_object_is_not_run(tmp_path):
    (tmp_path / "key.txt").write_text("k")
    (tmp_path / "last.ckpt").write_bytes(b"PK\x03\x04 not whole")
    pytest.raises(InputError, trained, folder=tmp_path, key="k").match("train anew")
    torch.save({"state_dict": Evil(tmp_path / "ran")}, tmp_path / "last.ckpt")
    with pytest.raises(Exception, match=r"train anew|weights.only|Weights only"):
        trained(folder=tmp_path, key="k")
    assert not (tmp_path / "ran").exists()


def test_ema_is_the_weighted_mean_of_the_weights():
    plain, other, seen = Line(dropout=0.0), Line(dropout=0.0), []
    optimizer = other.optimizer()
    optimizer.register_step_post_hook(lambda *_: seen.append(weights(other).clone()))
    other.optimizer = lambda: optimizer
    fit(plain, batches(*data()), max_epochs=2, ema=0.8)
    fit(other, batches(*data()), max_epochs=2)
    mean = seen[0]
    for now in seen[1:]:
        mean = 0.8 * mean + 0.2 * now
    torch.testing.assert_close(weights(plain), mean)


def test_batches():
    made = Batches(10, 4, lambda i, rng: (i.tolist(), rng.random()), seed=3)
    first, again, next_ = (list(made.epoch(e)) for e in (0, 0, 1))
    assert first == again and first != next_ and len(made) == 3
    assert sorted(sum((b[0] for b in first), [])) == list(range(10))
    (x, y), seen = data(), []
    fit(Line(), Batches(64, 16, lambda i: seen.append(list(i)) or (x[i], y[i])), max_epochs=2)
    assert len(seen) == 8 and seen[:4] != seen[4:]
    fixed = Batches(10, 4, lambda i, rng: rng.random(), shuffle=False)
    assert list(fixed.epoch(0)) == list(fixed.epoch(7))
    assert [len(i) for i in Batches(3, 2, lambda i: i, steps=4).indices(0)] == [2, 2, 2, 2]
    pytest.raises(ParameterError, Batches, 0, 4, lambda i: i).match("at least 1")


def test_schedules():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    (rise,) = training.constant_after_warmup(optimizer, 4).lr_lambdas
    np.testing.assert_allclose([rise(i) for i in range(6)], [1e-8, 0.25, 0.5, 0.75, 1, 1])
    (fall,) = training.cosine_after_warmup(optimizer, 2, 6).lr_lambdas
    half = 0.5**1.5
    expected = [0, 0.5, 1, 0.5 + half, 0.5, 0.5 - half, 0]
    np.testing.assert_allclose([fall(i) for i in range(7)], expected, atol=1e-6)
