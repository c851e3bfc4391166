"""The same numbers from the workers of a dask scheduler, also where workers are killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import anndata
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import yaml
from distributed import LocalCluster
from worlds import world

from perturbcore.book.cli import main
from perturbcore.core import scheduler as workers
from perturbcore.core.errors import FailedError, InputError
from perturbcore.core.scheduler import SCHEDULER, in_order, spread
from perturbcore.data.deg import deg_labels
from perturbcore.data.effects import ba_ate
from perturbcore.data.screens import values
from perturbcore.data.screens.declare import read_screen
from perturbcore.data.simulate.screen import simulate_screen
from perturbcore.models.registry import build_models
from perturbcore.models.simple import evaluate_embeddings
from perturbcore.score.ceiling.ceiling import Cells, noise_ceiling
from perturbcore.score.evaluate import evaluate
from perturbcore.score.store import ScoreStore

ROOT = Path(__file__).parents[1]
SIZES = dict(n_cell_lines=2, n_perturbations=12, n_genes=60, n_control_cells=90)


@pytest.fixture(scope="module")
def cluster():
    how = dict(processes=True, threads_per_worker=1, dashboard_address=":0")
    with LocalCluster(n_workers=2, **how) as made:
        yield made


@pytest.fixture
def two(cluster, monkeypatch):
    """Let two workers do it."""
    monkeypatch.setenv(SCHEDULER, cluster.scheduler_address)
    yield cluster
    cluster.scale(2)
    workers._client(cluster.scheduler_address).wait_for_workers(2)


@pytest.fixture(scope="module")
def screen():
    return simulate_screen(**SIZES, seed=3).screen


def here(function, *args, **kwargs):
    """Do something in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(SCHEDULER, raising=False)
        return function(*args, **kwargs)


def dying(once, then):
    """Make a function that kills its process at its first call, and answers from then on."""

    def call(*args):
        if not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return then(*args)

    return call


@pytest.fixture
def lying_in_many_blocks(monkeypatch, two):
    """Make blocks so small that a screen of hundreds of cells has many of them."""
    monkeypatch.setattr(values, "BLOCK_VALUES", 2000)


@pytest.mark.parametrize("where", ["memory", "file", "view of a file", "zarr", "lazy"])
def test_effects_and_labels_are_those_of_one_process(
    where, screen, tmp_path, lying_in_many_blocks, two
):
    path = tmp_path / "screen.h5ad"
    given = screen
    if where in ("file", "view of a file"):
        screen.write_h5ad(path)
        given = read_screen(path, backed=True)
    if where == "view of a file":
        given = given[np.arange(screen.n_obs)[::-1], 5:]
    if where == "zarr":
        with pytest.warns(UserWarning, match="zarr v2"):
            screen.write_zarr(tmp_path / "screen.zarr")
        given = read_screen(tmp_path / "screen.zarr", backed=True)
    if where == "lazy":
        given = screen.copy()
        given.X = da.from_array(screen.X.toarray(), chunks=(70, -1))
    for make in (ba_ate, deg_labels):
        ours, theirs = here(make, given, progress=False), make(given, progress=False)
        assert list(ours.obs_names) == list(theirs.obs_names)
        np.testing.assert_allclose(theirs.X, ours.X, atol=1e-6)
        for layer in ours.layers:
            np.testing.assert_array_equal(theirs.layers[layer], ours.layers[layer])


def test_one_worker_or_two_give_the_same_bits(screen, tmp_path, lying_in_many_blocks, two):
    screen.write_h5ad(tmp_path / "screen.h5ad")
    given = read_screen(tmp_path / "screen.h5ad", backed=True)
    with_two = ba_ate(given, progress=False).X
    two.scale(1)
    assert (ba_ate(given, progress=False).X == with_two).all()


def test_ceilings_and_scores_are_those_of_one_process(screen, two):
    how = dict(n_outer=2, n_inner=3, progress=False)
    ours, theirs = here(noise_ceiling, screen, **how), noise_ceiling(screen, **how)
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    responses, embeddings = world(n=60, g=8)
    ways = ["knn", "lasso"]
    ours, theirs = (
        run(evaluate_embeddings, responses, embeddings, ways, store=ScoreStore(), progress=False)
        for run in (here, lambda f, *a, **k: f(*a, **k))
    )
    same = ["key", "embedding", "predictor", "fold", "metric", "value", "chosen", "coverage"]
    by = ["key", "metric"]
    pd.testing.assert_frame_equal(
        *(t[same].sort_values(by, ignore_index=True) for t in (ours, theirs)), rtol=1e-9
    )


def test_a_screen_that_stays_in_a_zarr_folder_is_known_by_its_values(screen, tmp_path):
    keys = []
    for times in (1, 2):
        one = screen.copy()
        one.X = one.X * times
        with pytest.warns(UserWarning, match="zarr v2"):
            one.write_zarr(tmp_path / f"{times}.zarr")
        keys.append(Cells.of(read_screen(tmp_path / f"{times}.zarr", backed=True)).digest())
    assert keys[0] != keys[1]
    (tmp_path / "broken.zarr").mkdir()
    with pytest.raises(InputError, match="broken.zarr: not a readable"):
        read_screen(tmp_path / "broken.zarr", backed=True)


def test_a_worker_killed_during_effects_loses_nothing(screen, tmp_path, lying_in_many_blocks, two):
    ours = here(ba_ate, screen, progress=False)
    given = screen.copy()
    whole = da.from_array(screen.X.toarray(), chunks=(70, -1))
    given.X = whole.map_blocks(
        dying(tmp_path / "killed", lambda x: x), dtype=whole.dtype, meta=whole
    )
    assert np.allclose(ba_ate(given, progress=False).X, ours.X, atol=1e-6)
    assert (tmp_path / "killed").exists()


def dying_model(embedding, once):
    """Make a kNN whose first fit kills its process."""
    (model,) = build_models(["knn"], "lfc", [embedding])
    model.group = None
    kind = type(model)

    class Dying(kind):
        fit = dying(once, kind.fit)

    model.__class__ = Dying
    return model


def test_a_worker_killed_during_evaluation_loses_nothing(tmp_path, two):
    responses, (good, _) = world(n=60, g=8)
    ours = here(evaluate_embeddings, responses, [good], ["knn"], progress=False)
    theirs = evaluate(responses, [dying_model(good, tmp_path / "killed")], progress=False)
    assert (tmp_path / "killed").exists()
    mine = ours[ours["embedding"] == good.name]
    pd.testing.assert_series_equal(
        *(t.set_index(["fold", "metric"])["value"].sort_index() for t in (mine, theirs)), rtol=1e-9
    )


def test_a_scheduler_that_goes_away_is_said_and_the_next_run_goes_on(tmp_path, monkeypatch):
    responses, (good, _) = world(n=60, g=8)
    store = ScoreStore(tmp_path / "units.sqlite")
    (model,) = build_models(["knn"], "lfc", [good])
    how = dict(processes=True, n_workers=1, threads_per_worker=1, dashboard_address=":0")
    with LocalCluster(**how) as short:
        monkeypatch.setenv(SCHEDULER, short.scheduler_address)
        monkeypatch.setattr(store, "put", dying_scheduler(store.put, short))
        with pytest.raises(FailedError, match="went away; finished units are kept"):
            evaluate(responses, [model], store=store, progress=False)
    monkeypatch.undo()
    kept = ScoreStore(tmp_path / "units.sqlite")
    ran = []
    monkeypatch.setattr(kept, "put", lambda units, **k: ran.append(len(units)) or put(units, **k))
    put = ScoreStore.put.__get__(kept)
    evaluate(responses, [model], store=kept, progress=False)
    assert 0 < sum(ran) < 10


def dying_scheduler(put, cluster):
    """Let the scheduler go after the first units were kept."""

    def call(units, **how):
        put(units, **how)
        cluster.close()

    return call


def test_no_scheduler_another_version_and_a_part_that_always_kills_are_sentences(
    two, monkeypatch, capsys, tmp_path
):
    assert list(in_order(spread(pow, range(5), 2))) == [0, 1, 4, 9, 16]
    with pytest.raises(FailedError, match="lost its worker each time"):
        list(spread(kills, [0]))
    two.scale(2)
    monkeypatch.setattr(workers, "computing", lambda: {"numpy": "0.1"})
    workers._code.cache_clear()
    with pytest.raises(InputError, match="another version"):
        list(spread(pow, range(5), 3))
    workers._code.cache_clear()
    monkeypatch.setattr(workers, "_SECONDS", 1)
    monkeypatch.setenv(SCHEDULER, "tcp://127.0.0.1:1")
    with pytest.raises(InputError, match="no scheduler with a worker answers"):
        list(spread(pow, range(5), 2))


def kills(item):
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_command_line_takes_a_scheduler(screen, tmp_path, two, monkeypatch):
    screen.write_h5ad(tmp_path / "screen.h5ad")
    monkeypatch.delenv(SCHEDULER)
    monkeypatch.setitem(os.environ, SCHEDULER, "")
    outs = [tmp_path / "here.h5ad", tmp_path / "there.h5ad"]
    common = ["effects", str(tmp_path / "screen.h5ad"), "--backed", "--out"]
    assert main([*common, str(outs[0])]) == 0
    assert main([*common, str(outs[1]), "--scheduler", two.scheduler_address]) == 0
    ours, theirs = map(anndata.read_h5ad, outs)
    np.testing.assert_allclose(ours.X, theirs.X, atol=1e-6)


SBATCH = """#!/bin/sh
# a queue of one machine: a job starts at once, and is known by its process
cp "$1" "$0.job"
setsid sh "$0.job" > /dev/null 2>&1 &
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
kill -- -"$1"
"""


def test_the_example_for_slurm_runs_a_verb_by_the_jobs_of_a_queue(screen, tmp_path, monkeypatch):
    screen.write_h5ad(tmp_path / "screen.h5ad")
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    outs = [tmp_path / "here.h5ad", tmp_path / "there.h5ad"]
    verb = ["effects", str(tmp_path / "screen.h5ad"), "--backed", "--out"]
    assert here(main, [*verb, str(outs[0])]) == 0
    example = [sys.executable, str(ROOT / "scripts/on_slurm.py"), "--jobs", "1", "--cores", "2"]
    command = [sys.executable, "-m", "perturbcore.book.cli", *verb, str(outs[1])]
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [*example, "--memory", "1GB", "--", *command],
        env={k: v for k, v in os.environ.items() if k != SCHEDULER} | {"PATH": path},
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ours, theirs = map(anndata.read_h5ad, outs)
    np.testing.assert_allclose(ours.X, theirs.X, atol=1e-6)


def test_the_example_for_kubernetes_has_one_image_one_volume_and_the_address():
    made = yaml.safe_load((ROOT / "scripts/on_kubernetes.yml").read_text())
    (worker,), (head,) = (made["spec"][k]["spec"]["containers"] for k in ("worker", "scheduler"))
    assert worker["image"] == head["image"] and worker["volumeMounts"] == head["volumeMounts"]
    port = made["spec"]["scheduler"]["service"]["ports"][0]["port"]
    name = made["metadata"]["name"]
    assert head["env"] == [{"name": SCHEDULER, "value": f"tcp://{name}-scheduler:{port}"}]
    assert (worker["args"][:2], head["args"]) == (["dask", "worker"], ["dask", "scheduler"])
