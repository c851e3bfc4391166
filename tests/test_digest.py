import ast
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import perturbcore
from perturbcore.decoders import evaluation
from perturbcore.digest import code_digest, digest
from perturbcore.fusion import competitor, joint_model


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


def read_by(modules, package):
    """Every module of `package` that these import, directly or not, inside functions too."""
    root, found, left = Path(perturbcore.__file__).parent, set(), list(modules)
    while left:
        module = left.pop()
        if module in found or not (root / f"{module}.py").exists():
            continue
        found.add(module)
        for node in ast.walk(ast.parse((root / f"{module}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"perturbcore.{package}"):
                name = node.module.removeprefix("perturbcore.").replace(".", "/")
                left += [name, *(f"{name}/{a.name}" for a in node.names)]
    return found


@pytest.mark.parametrize(
    "package, modules, rooms, besides",
    [
        ("fusion", ["fusion/competitors"], competitor.ROOMS, set()),
        # what attention says is a note, not a score
        ("fusion", ["fusion/joint_model", "fusion/train"], joint_model.ROOMS, {"fusion/inspect"}),
        ("decoders", ["decoders/evaluation", "decoders/generators"], evaluation.ROOMS, set()),
    ],
)
def test_the_key_of_a_score_knows_all_code_that_decides_it(package, modules, rooms, besides):
    assert read_by(modules, package) - besides <= set(rooms)
