import numpy as np
import pandas as pd
import scipy.sparse as sp

from perturbcore.digest import code_digest, digest


def test_equal_content_has_equal_digest_and_a_changed_value_does_not():
    a = np.arange(6.0).reshape(2, 3)
    assert digest(a) == digest(a.copy(order="F"))
    b = a.copy()
    b[1, 2] += 1e-12
    assert digest(a) != digest(b)
    assert digest(a) != digest(a.T.copy())


def test_frames_series_and_sparse_are_told_apart_by_content():
    frame = pd.DataFrame({"x": [1, 2]}, index=["a", "b"])
    assert digest(frame) != digest(frame.rename(columns={"x": "y"}))
    assert digest(frame) != digest(frame.rename(index={"b": "c"}))
    m = sp.random(5, 5, 0.4, format="csr", random_state=0)
    assert digest(m) == digest(m.tocsc())


def test_code_digest_follows_the_named_rooms():
    assert code_digest("errors") != code_digest("digest")
    assert code_digest("errors") == code_digest("errors")
