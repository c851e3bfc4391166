import numpy as np
import pandas as pd
import scipy.sparse as sp

import perturbcore.core.digest as code
from perturbcore.core.digest import digest, imports_of


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
    assert digest(m) != digest(sp.csr_matrix((m.data, m.indices, m.indptr), (5, 6)))
    assert digest(2, 12) != digest(21, 2)  # numbers of draws: one ceiling was taken for the other
    assert digest("ab", "c") != digest("a", "bc") and digest("1") != digest(1)


def test_a_result_depends_on_what_its_code_imports_and_on_nothing_else():
    found = imports_of("perturbcore.models.fusion.transformer")
    assert {"perturbcore.models.fusion.network", "perturbcore.core.training"} <= found
    assert not any(m.startswith(("perturbcore.report", "perturbcore.book")) for m in found)


def package(tmp_path, monkeypatch, **files):
    """A stand-in for the package, of the files given."""
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(code, "_ROOT", tmp_path)
    for kept in (code._imported, code._normal, code.code_digest):
        kept.cache_clear()
    return code.code_digest("perturbcore.a")


A = '"""Doc."""\nfrom perturbcore.b import two\n\n\ndef one():\n    """Say one."""\n    return 1 + two\n'


def test_prose_and_layout_change_no_key_and_a_formula_does(tmp_path, monkeypatch):
    files = {"a": A, "b": "two = 2\n", "c": "red = 1\n"}
    first = package(tmp_path, monkeypatch, **files)
    assert package(tmp_path, monkeypatch, **files | {"c": "red = 2\n"}) == first
    reworded = A.replace("Say one.", "Return one.").replace("return", "# a comment\n    return")
    assert package(tmp_path, monkeypatch, **files | {"a": reworded}) == first
    assert package(tmp_path, monkeypatch, **files | {"a": A.replace("1 +", "1 -")}) != first
    assert package(tmp_path, monkeypatch, **files | {"b": "two = 3\n"}) != first
    (tmp_path / "facts.csv").write_text("1")
    first = package(tmp_path, monkeypatch, **files | {"b": 'two = "facts.csv"\n'})
    (tmp_path / "facts.csv").write_text("2")
    assert package(tmp_path, monkeypatch, **files | {"b": 'two = "facts.csv"\n'}) != first
    for kept in (code._imported, code._normal, code.code_digest):
        kept.cache_clear()
