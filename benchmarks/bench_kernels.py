"""Multi-kernel ridge, smoother and mixed model beside scikit-learn, a loop, and a dense solve."""

import numpy as np
from reporter import farthest, main, row, timed
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV, LeaveOneOut

from perturbcore.models.fusion.kernel_models import MixedModel
from perturbcore.models.fusion.kernels import Ridge, centred, smooth_all, tune_weights
from perturbcore.score.labels import Labels

PENALTIES = [0.03, 0.1, 0.3, 1.0, 3.0, 10.0]


def leave_one_out(n, g, repeats):
    """Tune the penalty of one kernel by leave-one-out."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 30))
    X -= X.mean(axis=0)
    Y = X @ rng.normal(size=(30, g)) + 3 * rng.normal(size=(n, g))
    # a kernel of centred rows, and rows whose mean is zero: the intercept is then all but idle
    Y -= Y.mean(axis=0)
    K = X @ X.T
    scale = np.trace(K) / n
    loss = make_scorer(lambda y, p: -np.linalg.norm(y - p, axis=1).mean())

    def theirs():
        grid = {"alpha": [p * scale for p in PENALTIES]}
        model = GridSearchCV(
            KernelRidge(kernel="precomputed"), grid, scoring=loss, cv=LeaveOneOut()
        )
        return model.fit(K, Y)

    def ours():
        ridge = Ridge(K)
        best = PENALTIES[int(np.argmin(ridge.losses(Y @ Y.T, PENALTIES)))]
        return best, ridge.predict(K, best, Y)

    (best, values), mine = timed(ours, repeats)
    search, other = timed(theirs)
    apart = np.abs(values - search.predict(K)).max() / np.abs(values).max()
    same = np.isclose(best * scale, search.best_params_["alpha"])
    return row(f"Leave-one-out, {len(PENALTIES)} penalties, {n} perturbations x {g} genes",
               "scikit-learn GridSearchCV(KernelRidge, LeaveOneOut)", mine, other,
               f"same penalty: {same}; difference {apart:.1e} of the largest value")  # fmt: skip


def weights(n, g, sources):
    """Search kernel weights; the baseline scores the same points by leave-one-out refits."""
    rng = np.random.default_rng(1)
    parts = [rng.normal(size=(n, 20)) for _ in range(sources)]
    Y = (
        parts[0] @ rng.normal(size=(20, g))
        + parts[1] @ rng.normal(size=(20, g))
        + rng.normal(size=(n, g))
    )
    kernels = [p @ p.T for p in parts]
    gram = Y @ Y.T
    (weight, chosen, loss), mine = timed(lambda: tune_weights(kernels, gram, PENALTIES))
    K = sum(w * k for w, k in zip(weight, kernels, strict=True))
    scale = np.trace(centred(K)) / n

    def refits():
        errors = []
        for i in range(n):
            rest = np.arange(n) != i
            part = K[np.ix_(rest, rest)]
            # `predict` scales the penalty by the kernel it is given, which lacks a row here
            penalty = chosen * scale / (np.trace(centred(part)) / (n - 1))
            value = Ridge(part).predict(K[[i]][:, rest], penalty, Y[rest])
            errors.append(np.linalg.norm(Y[i] - value))
        return float(np.mean(errors))

    again, one = timed(refits)
    return row(f"Weights of {sources} kernels and penalty by leave-one-out, {n} x {g} genes",
               "one refit a row, for the chosen point alone", mine, one,
               f"loss {loss:.6f} against {again:.6f} by refits")  # fmt: skip


def smoother(n, g, m, repeats):
    """Smooth sparse labels."""
    rng = np.random.default_rng(2)
    observed = rng.random((n, g)) < 0.02
    known = Labels.from_dense(rng.random((n, g)) < 0.15, observed)
    weight = rng.random((m, n))
    weight *= 60 / weight.sum(axis=1, keepdims=True)
    rate = known.rates()
    smooth_all(known, weight[:2], 1.0)
    values, mine = timed(lambda: smooth_all(known, weight, 1.0), repeats)

    def loop():
        out = np.empty((m, g))
        of_gene = [np.flatnonzero(known.genes == j) for j in range(g)]
        at = np.repeat(np.arange(n), np.diff(known.indptr))
        for i in range(m):
            for j in range(g):
                e = of_gene[j]
                w = weight[i, at[e]]
                out[i, j] = (w @ known.label[e] + 3.0 * rate[j]) / (w.sum() + 3.0)
        return out

    theirs, other = timed(loop)
    return row(f"Smoother, {len(known.genes):,} labels, {m} x {g} pairs scored",
               "a loop over pairs in NumPy",
               mine, other, farthest(values, theirs))  # fmt: skip


def mixed(n, g, m, repeats):
    """Solve the mixed model of labelled pairs."""
    rng = np.random.default_rng(3)
    z = np.abs(rng.normal(size=(n + m, 30)))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    K = z @ z.T
    phi = rng.normal(size=(g, 8)).astype(np.float32)
    known = Labels.from_dense(rng.random((n, g)) < 0.15, rng.random((n, g)) < 0.05)
    model = MixedModel(iterations=200, tolerance=1e-5)
    model.scores(known, K[:n, :n], K[n:, :n], phi)
    values, mine = timed(lambda: model.scores(known, K[:n, :n], K[n:, :n], phi), repeats)

    def dense():
        k = K[:, :n] ** model.power / np.diag(K[:n, :n] ** model.power).mean()
        rows = np.repeat(np.arange(n), np.diff(known.indptr))
        between = np.eye(g) + model.shared + model.module * phi @ phi.T
        cov = k[:n][np.ix_(rows, rows)] * between[np.ix_(known.genes, known.genes)]
        cov += model.own * (rows[:, None] == rows) + model.noise * np.eye(len(rows))
        alpha = np.linalg.solve(cov, known.label - known.rates()[known.genes])
        by_gene = np.zeros((n, g))
        by_gene[rows, known.genes] = alpha
        return known.rates() + k[n:] @ by_gene @ between

    theirs, other = timed(dense)
    return row(f"Mixed model, {len(known.genes):,} labelled pairs",
               "the covariance written out, and solved",
               mine, other, farthest(values, theirs))  # fmt: skip


def cases(options):
    """Yield the rows."""
    small, n = options.small, options.repeats
    yield leave_one_out(*((60, 40) if small else (300, 1000)), n)
    yield weights(*((60, 40, 3) if small else (300, 1000, 8)))
    yield smoother(*((80, 60, 10) if small else (1300, 4136, 40)), n)
    yield mixed(*((60, 40, 10) if small else (300, 400, 60)), n)


if __name__ == "__main__":
    main(__doc__, cases)
