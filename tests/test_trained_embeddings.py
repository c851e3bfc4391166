"""What is trained on sets of genes without responses: the GenotypeVAE, and files of such sets."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid
from toys import scores

from perturbcore.core.errors import InputError
from perturbcore.data import catalogue
from perturbcore.embeddings.sources import coessential_modules, ncbi_summaries, regulons
from perturbcore.embeddings.vae import Autoencoder
from perturbcore.embeddings.words import genotype_vae, membership
from perturbcore.report.comparison import Comparison
from perturbcore.report.foundation import stand_ins_table


def planted_sets(n=300, k=5, per=12, seed=0):
    """Sets of one of k functions: a gene is in many of its function's, and in few others."""
    rng = np.random.default_rng(seed)
    function = np.arange(n) % k
    genes = np.array([f"G{i:03d}" for i in range(n)])
    chance = {f"S{c}.{j}": np.where(function == c, 0.5, 0.03) for c in range(k) for j in range(per)}
    return {s: genes[rng.random(n) < p].tolist() for s, p in chance.items()}, function


QUICK = dict(dim=4, hidden=32, smallest=5, lr=2e-2, batch_size=32, max_epochs=12)


def test_the_autoencoder_finds_planted_functions_of_genes():
    sets, function = planted_sets()
    e = genotype_vae(sets, name="E", **QUICK)
    assert NearestCentroid().fit(e.X, function).score(e.X, function) > 0.9
    taken = float(e.source.split("it takes ")[1].split("%")[0])
    assert taken > 15 and "60 of 60 sets" in e.source
    assert genotype_vae(dict(reversed(sets.items())), name="E", **QUICK).digest == e.digest
    assert genotype_vae(sets, name="E", seed=1, **QUICK).digest != e.digest
    with pytest.raises(InputError, match="3 genes in sets are too few"):
        genotype_vae({"s": ["a", "b", "c"]}, name="E", smallest=2)


def test_the_loss_of_the_autoencoder_against_numpy():
    sets, _ = planted_sets(40)
    X = membership(sets, 2)[1][:7]
    torch.manual_seed(0)
    model = Autoencoder(np.full(X.shape[1], 0.1, np.float32), 3, 6, 1e-3).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    rows = np.repeat(np.arange(7), np.diff(X.indptr))
    batch = {"start": X.indptr[:-1], "row": rows, "members": X.indices}
    found = model.loss({k: torch.as_tensor(v.astype(np.int64)) for k, v in batch.items()})
    w = {k: v.numpy().astype(np.float64) for k, v in model.state_dict().items()}
    latent = np.maximum(X @ w["first.weight"], 0) @ w["latent.weight"].T + w["latent.bias"]
    mean, spread = latent[:, :3], np.clip(latent[:, 3:], -10, 10)
    back = np.maximum(mean @ w["back.0.weight"].T + w["back.0.bias"], 0)
    logit = back @ w["back.2.weight"].T + w["back.2.bias"]
    missed = np.logaddexp(0, np.where(X.toarray() > 0, -logit, logit)).sum(axis=1).mean()
    apart = (mean**2 + np.exp(spread) - 1 - spread).sum(axis=1).mean() / 2
    assert found["missed"].item() == pytest.approx(missed, rel=1e-5)
    assert found["loss"].item() == pytest.approx(missed + apart, rel=1e-5)


def test_the_real_files_have_what_was_published(mirror):
    modules = coessential_modules(catalogue.fetch("coessential_modules"))
    assert len(modules) == 1892 and modules["1"][:3] == ["A1BG", "BRSK1", "C19orf18"]
    assert modules["1892"][:3] == ["DOCK3", "NXPE2", "REM2"]
    sets = regulons(catalogue.fetch("dorothea"))
    assert sum(map(len, sets.values())) == 29086  # of 454,504 pairs, those of confidence A to D
    up, down = (set(sets[f"{sign} by TP53"]) for sign in ("activated", "repressed"))
    assert {"CDKN1A", "MDM2"} <= up and not up & down
    texts = ncbi_summaries(catalogue.fetch("ncbi_summaries"))
    assert len(texts) > 18_000 and "tumor" in texts["TP53"]


def test_trained_embeddings_are_held_against_their_stand_ins():
    c = Comparison(scores(), predictor="knn")
    pairs = {"good": "dull", "twin": "good", "dull": "good", "gone": "good"}
    found = stand_ins_table(c, pairs).set_index("method")["verdict"].to_dict()
    assert found == {"good": "better", "twin": "tie", "dull": "worse"}
    assert stand_ins_table(c, {"gone": "good"}).empty
