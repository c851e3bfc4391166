"""Run one command with workers that a SLURM queue starts: copy it, and set what your site asks for.

    pip install dask-jobqueue
    python scripts/on_slurm.py --jobs 16 -- perturbcore effects screen.h5ad --backed \
        --perturbation gene --batch lane --control ctrl --scale counts --out responses.h5ad

A job that ends is replaced while the command runs, and what it was doing is done again. Home of
this repository, environment and data must be on a file system that all machines share.
"""

import argparse
import os
import subprocess
import sys

from dask_jobqueue import SLURMCluster
from distributed import Client


def main() -> int:
    """Start the queue's workers, run the command, and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=4, help="jobs in the queue at a time")
    parser.add_argument("--cores", type=int, default=4, help="of each job, a process on each")
    parser.add_argument("--memory", default="16GB", help="of each job")
    parser.add_argument("--walltime", default="02:00:00", help="of each job")
    parser.add_argument("--queue", help="partition; the site's default where left out")
    parser.add_argument("command", nargs="+", help="after --: what to run")
    options = parser.parse_args()
    with SLURMCluster(
        cores=options.cores,
        processes=options.cores,
        memory=options.memory,
        walltime=options.walltime,
        queue=options.queue,
        scheduler_options={"dashboard_address": ":0"},
    ) as cluster:
        cluster.adapt(minimum_jobs=options.jobs, maximum_jobs=options.jobs)
        with Client(cluster) as client:
            client.wait_for_workers(1)  # however long the queue is
        workers = {"PERTURBCORE_SCHEDULER": cluster.scheduler_address}
        return subprocess.run(options.command, env=os.environ | workers).returncode


if __name__ == "__main__":
    sys.exit(main())
