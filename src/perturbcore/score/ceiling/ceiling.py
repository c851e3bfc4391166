"""The noise ceiling: how far a repeated experiment would land from this one."""

from contextlib import closing
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from tqdm.auto import tqdm

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import InputError, ParameterError, check_choice
from perturbcore.core.files import open_sqlite
from perturbcore.core.order import row_ranks
from perturbcore.core.scheduler import spread
from perturbcore.data.catalogue import hash_of
from perturbcore.data.screens.declare import COLUMNS as LABELS
from perturbcore.data.screens.declare import check_declared
from perturbcore.data.screens.values import blocks
from perturbcore.score.ceiling.sampler import LineSampler, check_choices, check_quantiles
from perturbcore.score.metrics.registry import metric
from perturbcore.score.metrics.regression import pearson

TARGET_SUM = 1e4


class Cells:
    """Read-only access to the cells of a declared screen, or to replicate wells."""

    def __init__(self, X, columns, scale, dataset="", source=()):
        self.X, self.scale, self.dataset = X, scale, dataset
        self.n_genes = int(X.shape[1])
        self.obs = pd.DataFrame(
            {
                name: np.asarray(values).astype(bool if name == "is_control" else str)
                for name, values in zip(LABELS, columns, strict=True)
            }
        )
        self._source = source

    @classmethod
    def of(cls, screen, wells: bool = False, by_plate: bool = True) -> "Cells":
        """Wrap a declared screen, or replicate `wells`, which are on the scale of the responses."""
        obs, declared = screen.obs, screen.uns.get("perturbcore", {})
        dataset = str(declared.get("dataset", ""))
        if wells:
            X = screen.X.toarray() if sp.issparse(screen.X) else np.asarray(screen.X)
            if not np.isfinite(X).all():
                raise InputError(
                    "replicates must be finite; drop those, or genes, with missing values"
                )
            if missing := [c for c in ("perturbation", "cell_line", "is_control") if c not in obs]:
                raise InputError(
                    f"replicates lack obs column {missing[0]!r}; they have: {list(obs)}"
                )
            if not by_plate or "batch" not in obs:
                obs = obs.assign(batch="")
            return cls(X, [obs[c] for c in LABELS], "effects", dataset)
        check_declared(screen)
        source: tuple = ([str(v) for v in screen.var_names],)
        if screen.isbacked:
            source += (hash_of(screen.filename),)
        elif not isinstance(screen.X, np.ndarray) and not sp.issparse(screen.X):
            source += tuple(digest(block) for *_, block in blocks(screen))
        return cls(screen.X, [obs[c] for c in LABELS], str(declared["scale"]), dataset, source)

    def digest(self) -> str:
        """Content key of the cells (of a file that stays on disk: its sha256)."""
        content = self.X if isinstance(self.X, np.ndarray) or sp.issparse(self.X) else None
        return digest(self._source, self.obs, content, self.scale, self.dataset)

    def lines(self) -> list:
        """Cell lines, sorted."""
        return sorted(self.obs["cell_line"].unique())

    def of_line(self, line) -> tuple[dict, dict]:
        """Rows of a cell line: of controls by batch, of perturbations by name and batch."""
        here = self.obs.reset_index(drop=True)
        here = here[here["cell_line"] == line]
        treated = here[~here["is_control"]]
        controls = _rows(here[here["is_control"]], "batch")
        if not controls:
            raise InputError(
                f"cell line {line!r} has no control cells (is_control is False in every row); "
                "declare them, or drop the line"
            )
        perturbed: dict[str, dict] = {}
        for (name, batch), rows in _rows(treated, ["perturbation", "batch"]).items():
            perturbed.setdefault(name, {})[batch] = rows
        return controls, perturbed

    def read(self, rows):
        """Normalised expression of some cells, in ascending order, float64 (rows, genes)."""
        block = self.X[rows]
        sparse = sp.issparse(block)
        block = sp.csr_matrix(block, dtype=float) if sparse else np.asarray(block, dtype=float)
        if self.scale != "counts":
            return block
        totals = np.asarray(block.sum(axis=1)).ravel()  # a cell without counts stays zero
        factor = np.divide(TARGET_SUM, totals, out=np.zeros_like(totals), where=totals > 0)
        if not sparse:
            return np.log1p(block * factor[:, None])
        data = block.data * np.repeat(factor, np.diff(block.indptr))
        return sp.csr_matrix((np.log1p(data), block.indices, block.indptr), shape=block.shape)


def _rows(table: pd.DataFrame, by) -> dict:
    """Index of the rows of each group, groups sorted."""
    index = table.index.to_numpy()
    return {key: index[at] for key, at in sorted(table.groupby(by).indices.items())}


QUANTILES = (0.1, 0.2, 0.5, 0.8, 0.9, 0.99, 0.995)
METRICS = ("L2", "MSE", "MAE", "Spearman", "Pearson")
COLUMNS = ["dataset", "cell_line", "perturbation", "quantile", "metric", "value", "n_cells"]
COLUMNS += ["n_batches"]
# finished perturbations by a digest of data, parameters and code: never of another run
CHECKPOINT = (
    "CREATE TABLE IF NOT EXISTS ceilings (run TEXT, line TEXT, perturbation TEXT, content BLOB, "
    "PRIMARY KEY (run, line, perturbation)) WITHOUT ROWID",
    "checkpoint {path} is not a file of this kind ({error})",
)


def noise_ceiling(
    screen,
    *,
    control="global",
    n_outer=10,
    n_inner=10,
    quantiles=QUANTILES,
    seed=5050,
    metrics=METRICS,
    batches="all",
    perturbations=None,
    wells=False,
    n_jobs=1,
    progress=True,
    checkpoint=None,
) -> pd.DataFrame:
    """Experimental error of every perturbation by a hierarchical bootstrap.

    The effect from a sample is compared with the effect from all cells. `control`: "global"
    resamples the control batches of the line once for all its perturbations, "matched" subtracts
    control cells of each drawn batch; `n_outer`: trials, each drawing batches with replacement
    (published: 10); `n_inner`: trials in each, drawing in each batch as many cells as there are
    (published: 10, chemical screens 20); `quantiles`: of the n_outer x n_inner samples, linear
    interpolation; `seed`: root of the random streams; `batches`: "all" with cells of the
    perturbation (the published code), or those "with_controls" too (the paper's Eq. 1);
    `perturbations`: only these; `wells`: rows are replicate profiles on the scale of the responses,
    `batch` their plate; `n_jobs`: threads; `checkpoint`: a file that keeps finished perturbations.

    Returns dataset, cell_line, perturbation, quantile, metric, value, n_cells, n_batches.

    Drawing at both levels counts the noise of cells twice, so that the error is overestimated by up
    to sqrt(2) where batches differ little; :func:`perturbcore.score.ceiling.halves.noise_floor`
    counts nothing twice. n wells underestimate the variance by (n - 1) / n.

    Cole et al. 2026, Methods 4.7.1, Eq. 12; effects by Eq. 4 to 6.

    Examples
    --------
    >>> sizes = dict(n_cell_lines=1, n_perturbations=12, n_genes=80, n_control_cells=60)
    >>> screen = pc.simulate_screen(**sizes).screen
    >>> table = pc.ceiling(screen, n_outer=2, n_inner=2, progress=False)
    >>> table["perturbation"].nunique()
    12
    """
    check_choices(control=control, batches=batches, n_outer=n_outer, n_inner=n_inner)
    quantiles = check_quantiles(quantiles)
    metrics = [check_choice("metrics", m, METRICS) for m in metrics]
    cells = Cells.of(screen, wells, by_plate=control != "global")
    options = dict(control=control, batches=batches, seed=seed)
    options |= dict(n_outer=int(n_outer), n_inner=int(n_inner))
    samplers = [LineSampler(cells, line, **options) for line in cells.lines()]
    wanted = select(samplers, perturbations)
    run = ""
    if checkpoint is not None:
        Path(checkpoint).parent.mkdir(parents=True, exist_ok=True)
        code = code_digest("perturbcore.score.ceiling.ceiling")
        run = digest(cells.digest(), options, metrics, list(quantiles), code)
    tables = []
    with (
        closing(open_sqlite(checkpoint or ":memory:", *CHECKPOINT)) as store,
        tqdm(total=sum(map(len, wanted)), desc="noise ceiling", disable=not progress) as bar,
    ):
        for sampler, names in zip(samplers, wanted, strict=True):
            kept = store.execute(
                "SELECT perturbation, content FROM ceilings WHERE run = ? AND line = ?",
                (run, sampler.line),
            )
            done = {name: np.frombuffer(content) for name, content in kept if name in names}
            bar.update(len(done))
            todo = [name for name in names if name not in done]
            if todo:
                _ = sampler.shared  # made once, before threads ask for it
            # as they finish: no perturbation waits for a slow one to be kept
            work = spread(_quantiles, todo, sampler, metrics, quantiles, n_jobs=n_jobs)
            for number, values in work:
                name = todo[number]
                with store:
                    row = (run, sampler.line, name, values.tobytes())
                    store.execute("INSERT OR REPLACE INTO ceilings VALUES (?, ?, ?, ?)", row)
                done[name] = values
                bar.update()
            if names:
                tables.append(_table(sampler, names, done, quantiles, metrics))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)


def select(samplers, perturbations) -> list:
    """Perturbations to do in each line, checked before long work."""
    if perturbations is not None:
        asked = {str(p) for p in perturbations}
        unknown = sorted(asked.difference(*(s.perturbed for s in samplers)))
        if unknown:
            raise ParameterError(
                f"perturbations: {len(unknown)} of {len(asked)} are not in the screen, such as "
                f"{', '.join(unknown[:3])}; use names of obs['perturbation'] that are not controls"
            )
    wanted = [
        [name for name in s.perturbed if perturbations is None or name in asked] for s in samplers
    ]
    for sampler, names in zip(samplers, wanted, strict=True):
        empty = [name for name in names if not sampler.perturbed[name]]
        if empty:
            raise InputError(
                f"{len(empty)} perturbation(s) of cell line {sampler.line!r} have no cells in a "
                f"batch with control cells, such as {', '.join(empty[:3])}; drop them or choose "
                "control='global' with batches='all'"
            )
    return wanted


def distances(samples, point, metrics=METRICS) -> dict:
    """Distance (n,) by metric of samples (n, genes) to the point estimate (Eq. 12, Eq. 7)."""
    samples, point = (np.atleast_2d(np.asarray(x, dtype=np.float64)) for x in (samples, point))
    out, times = {}, len(samples) // len(point)
    for m in metrics:
        if m == "Spearman":
            out[m] = pearson(np.repeat(row_ranks(point), times, axis=0), row_ranks(samples))
        else:
            out[m] = metric(m).function(np.repeat(point, times, axis=0), samples)
    return out


def _quantiles(name, sampler, metrics, quantiles) -> np.ndarray:
    effects = sampler.effects(name)
    values = distances(effects[1:], effects[0], metrics)
    return np.quantile(np.stack([values[m] for m in metrics]), quantiles, axis=1).ravel()


def _table(sampler, names, values, quantiles, metrics) -> pd.DataFrame:
    rows = [
        (name, q, m, value, sum(map(len, groups.values())), len(groups))
        for name, groups in ((name, sampler.perturbed[name]) for name in names)
        for (q, m), value in zip(product(quantiles, metrics), values[name], strict=True)
    ]
    table = pd.DataFrame(rows, columns=COLUMNS[2:])
    table.insert(0, "cell_line", sampler.line)
    table.insert(0, "dataset", sampler.cells.dataset)
    return table
