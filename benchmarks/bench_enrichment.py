"""All lists against all gene sets at once beside GSEApy, one list at a time."""

import gseapy
import numpy as np
from reporter import farthest, main, row, timed

from perturbcore.data.deg import over_represented


def compare(n, terms, genes, theirs_on):
    """GSEApy is run on some of the lists, its time is multiplied."""
    rng = np.random.default_rng(0)
    names = [f"g{i}" for i in range(genes)]
    sizes = np.exp(rng.uniform(np.log(5), np.log(500), terms)).astype(int)
    sets = {f"s{j}": list(rng.choice(names, k, replace=False)) for j, k in enumerate(sizes)}
    hits = rng.random((n, genes)) < rng.uniform(0.002, 0.05, (n, 1))
    over_represented(hits[:2], names, sets)  # compiled before it is timed
    found, ours = timed(lambda: over_represented(hits, names, sets))

    def one_by_one():
        how = dict(gene_sets=sets, background=names, outdir=None, no_plot=True)
        listed = [np.array(names)[hits[i]].tolist() for i in range(theirs_on)]
        return [gseapy.enrich(one, **how).results.set_index("Term") for one in listed]

    results, theirs = timed(one_by_one)
    apart = 0.0
    for i, table in enumerate(results):
        at = slice(*found.p.indptr[i : i + 2])
        own = found.terms[found.p.indices[at]]
        for mine, name in ((found.p, "P-value"), (found.p_adj, "Adjusted P-value")):
            apart = max(apart, farthest(mine.data[at], table.loc[own, name].astype(float)))
    times = n / theirs_on
    return row(
        f"{n:,} lists x {terms:,} gene sets, {genes:,} genes",
        f"gseapy.enrich ({theirs_on} lists, times {times:g})", ours, theirs * times, apart,
    )  # fmt: skip


def cases(options):
    """Yield the row."""
    yield compare(*((100, 1000, 5000, 5) if options.small else (1500, 10_000, 10_000, 15)))


if __name__ == "__main__":
    main(__doc__, cases)
