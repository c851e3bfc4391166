"""All lists against all gene sets at once beside GSEApy, one list at a time.

Run: python benchmarks/bench_enrichment.py [--small] [--out rows.json]
"""

import argparse
import json
import time

import gseapy
import numpy as np
import pandas as pd

from perturbcore.data.enrichment import over_represented


def compare(n, terms, genes, theirs_on):
    """GSEApy is run on some of the lists, its time is multiplied."""
    rng = np.random.default_rng(0)
    names = [f"g{i}" for i in range(genes)]
    sizes = np.exp(rng.uniform(np.log(5), np.log(500), terms)).astype(int)
    sets = {f"s{j}": list(rng.choice(names, k, replace=False)) for j, k in enumerate(sizes)}
    hits = rng.random((n, genes)) < rng.uniform(0.002, 0.05, (n, 1))
    over_represented(hits[:2], names, sets)  # compiled before it is timed
    start = time.perf_counter()
    found = over_represented(hits, names, sets)
    ours = time.perf_counter() - start
    apart, start = 0.0, time.perf_counter()
    results = []
    for i in range(theirs_on):
        listed = [g for g, hit in zip(names, hits[i], strict=True) if hit]
        how = dict(gene_sets=sets, background=names, outdir=None, no_plot=True)
        results.append(gseapy.enrich(listed, **how).results.set_index("Term"))
    theirs = (time.perf_counter() - start) * n / theirs_on
    for i, table in enumerate(results):
        at = slice(*found.p.indptr[i : i + 2])
        own = found.terms[found.p.indices[at]]
        for mine, name in ((found.p, "P-value"), (found.p_adj, "Adjusted P-value")):
            apart = max(apart, np.abs(mine.data[at] - table.loc[own, name].to_numpy(float)).max())
    return {"task": f"{n:,} lists x {terms:,} gene sets, {genes:,} genes",
            "baseline": f"gseapy.enrich ({theirs_on} lists, times {n / theirs_on:g})",
            "ours_seconds": ours, "baseline_seconds": theirs, "ratio": theirs / ours,
            "agreement": f"largest difference of p and adjusted p {apart:.1e}"}  # fmt: skip


def main(argv=None):
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a smoke run of seconds")
    parser.add_argument("--out", help="write the rows as JSON")
    options = parser.parse_args(argv)
    size = (100, 1000, 5000, 5) if options.small else (1500, 10_000, 10_000, 15)
    rows = [compare(*size)]
    print(pd.DataFrame(rows).to_string(index=False))
    if options.out:
        with open(options.out, "w") as file:
            json.dump(rows, file, indent=1)
    return rows


if __name__ == "__main__":
    main()
