"""Canonical correlation between embeddings, against scikit-learn's iteration."""

import itertools

import numpy as np
import pandas as pd
import pytest
from sklearn.cross_decomposition import CCA
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.linalg import cca_matrix


def related(n=300, d=12, seed=0):
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, 6))
    ids = pd.Index([f"G{i}" for i in range(n)])
    made = []
    for name, noise in [("b", 0.3), ("a", 0.5), ("c", 3.0)]:
        vectors = shared @ rng.normal(size=(6, d)) + noise * rng.normal(size=(n, d))
        made.append(Embedding(name, "DNA", ids, vectors))
    return made


def published_r2(x, y, n):
    """The published steps, one after another, with scikit-learn's iteration run to its end."""
    X, Y = (
        PCA(n, svd_solver="full").fit_transform(StandardScaler().fit_transform(e.X.astype(float)))
        for e in (x, y)
    )
    return CCA(n, max_iter=20_000, tol=1e-13).fit(X, Y).score(X, Y)


def test_cca_matrix_equals_the_published_steps():
    embeddings = related()
    got = cca_matrix(embeddings, 5)
    assert got.index.tolist() == ["b", "a", "c"] and got.attrs["common_ids"] == 300
    by_name = {e.name: e for e in embeddings}
    for one, other in itertools.combinations("abc", 2):
        want = published_r2(by_name[one], by_name[other], 5)
        assert got.loc[one, other] == got.loc[other, one] == pytest.approx(want, abs=1e-5)
    assert (np.diag(got) == 1).all() and got.loc["a", "b"] > got.loc["a", "c"]
    b, a, c = embeddings
    order = np.random.default_rng(1).permutation(300)
    turned = Embedding("c", "DNA", c.ids[order], c.X[order])
    pd.testing.assert_frame_equal(cca_matrix([b, a, turned], 5), got)
    part = Embedding("c", "DNA", c.ids[:50], c.X[:50])
    assert cca_matrix([a, b, part], 5).attrs["common_ids"] == 50


def test_cca_refuses_what_cannot_be_compared():
    a, b, c = related()
    tiny = Embedding("tiny", "DNA", a.ids[:11], a.X[:11])
    with pytest.raises(InputError, match="share 11 ids.*at least 12.*'tiny' with 11 ids"):
        cca_matrix([a, b, tiny])
    pytest.raises(ParameterError, cca_matrix, [a, a]).match("several embeddings are named")
    own = Embedding("own", "DNA", a.ids, a.X, cell_line="K562")
    pytest.raises(ParameterError, cca_matrix, [a, own]).match("give cell_line")
    assert cca_matrix([a, own], 5, cell_line="K562").shape == (2, 2)
    with pytest.raises(ParameterError, match="identifiers differ"):
        cca_matrix([a, Embedding("x", "DNA", a.ids, a.X, "entrez")])
