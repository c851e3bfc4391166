"""Independent parts of one work: done in threads here, or by the workers of a dask scheduler."""

import copyreg
import os
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import joblib
from threadpoolctl import threadpool_limits

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import FailedError, InputError
from perturbcore.core.provenance import computing

SCHEDULER = "PERTURBCORE_SCHEDULER"
_SECONDS = 30  # to answer, and for the first worker to come


def scheduler() -> str:
    """Address of the dask scheduler whose workers are to do the work; empty: it is done here."""
    return os.environ.get(SCHEDULER, "")


def spread(
    function: Callable, items: Iterable, *shared: Any, n_jobs: int = 1
) -> Iterator[tuple[int, Any]]:
    """Yield the number of an item and ``function(item, *shared)``, as they finish.

    `items`: each independent of the others, and able to be pickled, as `shared` is; `n_jobs`:
    threads, at most one per core that this process may use, where no scheduler is set
    (``PERTURBCORE_SCHEDULER``, such as tcp://host:8786). What a lost worker was doing is done again
    by another one. Workers must have the same packages and code, and see files under one path.
    """
    if address := scheduler():
        yield from _by_workers(address, function, items, shared)
        return
    n_jobs = min(n_jobs, joblib.cpu_count())  # kernels side by side have fewer cores each
    work = joblib.Parallel(n_jobs, prefer="threads", return_as="generator_unordered")
    yield from work(
        joblib.delayed(_numbered)(function, number, item, shared)
        for number, item in enumerate(items)
    )


def in_order(numbered: Iterable[tuple[int, Any]]) -> Iterator[Any]:
    """Yield results of `spread` in the order of its items."""
    waiting: dict[int, Any] = {}
    due = 0
    for number, result in numbered:
        waiting[number] = result
        while due in waiting:
            yield waiting.pop(due)
            due += 1


def _numbered(function, number, item, shared) -> tuple[int, Any]:
    return number, function(item, *shared)


def _by_workers(address, function, items, shared) -> Iterator[tuple[int, Any]]:
    from distributed import CancelledError, KilledWorker, as_completed

    client, code = _client(address), _code(function.__module__)
    for kind in (h5py.Group, h5py.Dataset):
        copyreg.pickle(kind, _place_in_file)
    # a task, not a copy put somewhere: it is made again where the worker that had it is lost
    held = client.submit(tuple, shared, pure=False)
    left = iter(enumerate(items))

    def started(n: int) -> list:
        return [
            client.submit(_at_worker, code, function, number, item, held, pure=False)
            for number, item in islice(left, n)
        ]

    try:
        running = as_completed(started(2), loop=client.loop)
        for future in running:
            result = future.result()
            future.release()
            # two per thread, so that none waits and no more than these lie in memory
            room = max(2, 2 * sum(client.nthreads().values()))
            running.update(started(max(0, room - running.count())))
            yield result
    except KilledWorker as error:
        raise FailedError(
            f"one part of the work lost its worker each time it was tried ({error.task}): most "
            "often there is too little memory; give workers more, or fewer threads each"
        ) from error
    except (CancelledError, OSError) as error:
        _client.cache_clear()
        raise FailedError(
            f"the scheduler at {address} went away; finished units are kept: start it and its "
            f"workers, and run the same command again, or without {SCHEDULER} to work here"
        ) from error


@cache
def _client(address: str):
    """Connect once per process, and wait for the first worker."""
    from distributed import Client

    try:
        client = Client(address, timeout=_SECONDS, set_as_default=False)
        client.wait_for_workers(1, timeout=_SECONDS)
    except (OSError, ValueError) as error:
        raise InputError(
            f"no scheduler with a worker answers at {address} ({error}): start `dask scheduler` "
            f"and `dask worker {address}`, or leave --scheduler and {SCHEDULER} out"
        ) from None
    return client


@cache
def _code(module: str) -> str:
    """Digest of what must be the same on both sides: our code, and the packages that compute."""
    return digest(code_digest(module), computing())


def _place_in_file(part) -> tuple[Callable, tuple[str, str]]:
    """Send what lies in an HDF5 file as the names of the file and of the place in it."""
    return _read_there, (str(Path(part.file.filename).resolve()), part.name)


def _read_there(file: str, name: str):
    if not Path(file).is_file():
        raise InputError(
            f"a worker does not see {file}: put it where every machine has it under this path"
        )
    return _opened(file, Path(file).stat().st_mtime_ns)[name]


@cache
def _opened(file: str, changed: int) -> h5py.File:
    return h5py.File(file)


def _at_worker(code, function, number, item, shared) -> tuple[int, Any]:
    if code != _code(function.__module__):
        raise InputError(
            "a worker has another version of perturbcore or of the packages that compute: install "
            "the same on every machine (constraints.txt)"
        )
    # one thread per part: those of BLAS would only fight for the same cores
    with threadpool_limits(1):
        return _numbered(function, number, item, shared)
