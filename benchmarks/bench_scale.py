"""How effects grow with the number of cells: seconds and peak memory, 10 thousand to 3 million.

Backed on disk, 2,000 genes, each size in a process of its own; counts beyond 100 thousand cells
repeat. The last rows are the same work by one and by two workers of a dask scheduler on this
machine, beside the one process.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
from bench_effects import write_screen
from reporter import Seconds, apart, farthest, main, peak_mb, row, timed

SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000)
SMALL = (2_000, 6_000)
N_GENES = 2_000


def child(path, out, workers):
    from perturbcore.data.effects import ba_ate
    from perturbcore.data.screens.declare import read_screen

    screen = read_screen(path, backed=True, names=False)

    def run():
        return ba_ate(screen, progress=False).X

    if workers == "0":
        run()  # compiles
        effects, seconds = timed(run)
        np.save(out, effects)
        return {"seconds": seconds.times, "peak_mb": peak_mb()}
    from distributed import LocalCluster

    how = dict(processes=True, threads_per_worker=1, dashboard_address=":0")
    with LocalCluster(n_workers=int(workers), **how) as cluster:
        os.environ["PERTURBCORE_SCHEDULER"] = cluster.scheduler_address
        run()  # workers import and compile once
        effects, seconds = timed(run)
        np.save(out, effects)
    return {"seconds": seconds.times, "peak_mb": peak_mb()}


def cases(options):
    """Yield a row for each size, and for the workers."""
    sizes = SMALL if options.small else SIZES
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path, outs = Path(folder) / "screen.h5ad", [Path(folder) / f"{i}.npy" for i in range(3)]
        for n_cells in sizes:
            how = dict(n_genes=N_GENES, n_perturbations=max(20, n_cells // 1000), n_batches=20)
            how["distinct"] = 100_000
            density = write_screen(path, n_cells=n_cells, **how)
            found = apart(__file__, path, outs[0], 0)
            about = dict(cells=n_cells, stored_gb=path.stat().st_size / 1e9)
            size = f"{n_cells:,} cells x {N_GENES:,} genes, density {density:.2f}"
            yield row(
                f"Effects, backed on disk, {size}", "", Seconds(found["seconds"]),
                ours_peak_mb=found["peak_mb"], **about,
            )  # fmt: skip
            if n_cells == sizes[-2]:
                one = Seconds(found["seconds"])
                for n in (1, 2):
                    shared = apart(__file__, path, outs[n], n)
                    yield row(
                        f"The same, {n_cells:,} cells, by {n} dask worker{'s' if n > 1 else ''}",
                        "one process without a scheduler", Seconds(shared["seconds"]), one,
                        farthest(np.load(outs[0]), np.load(outs[n])),
                    )  # fmt: skip


if __name__ == "__main__":
    main(__doc__, cases, child)
