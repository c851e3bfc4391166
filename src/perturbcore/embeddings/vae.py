"""Variational autoencoders: of zeros and ones, and of the counts of cells."""

from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from signal import SIG_IGN, SIGINT, signal

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from anndata import AnnData
from torch import Tensor, nn

from perturbcore.core.errors import InputError
from perturbcore.core.training import Batches, Learner, Trained, fit


class Autoencoder(Learner):
    """Rows of zeros and ones -> hidden -> latent mean and log variance -> hidden -> log odds.

    The loss is the negative evidence lower bound of a row; log odds start at those of `rates`.
    Kingma and Welling 2014.
    """

    def __init__(self, rates: np.ndarray, dim: int, hidden: int, lr: float):
        super().__init__()
        self.lr, m = lr, len(rates)
        self.first = nn.EmbeddingBag(m, hidden, mode="sum")
        self.latent = nn.Linear(hidden, 2 * dim)
        self.back = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, m))
        nn.init.normal_(self.first.weight, std=0.1)
        with torch.no_grad():
            self.back[-1].bias.copy_(torch.logit(torch.as_tensor(rates)))

    def encode(self, members: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """Latent mean and log variance, (n, dim), of rows given by their columns with a one."""
        mean, spread = self.latent(torch.relu(self.first(members, start))).chunk(2, dim=1)
        return mean, spread.clamp(-10, 10)

    def loss(self, batch) -> dict[str, Tensor]:
        """Mean over rows; with noise in training, at the latent mean in validation."""
        mean, spread = self.encode(batch["members"], batch["start"])
        noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        odds = self.back(mean + noise * (spread / 2).exp())
        # cross-entropy: softplus of all log odds, less those of the ones, which are few
        ones = odds[batch["row"], batch["members"]]
        missed = F.softplus(odds).sum(dim=1).index_add(0, batch["row"], ones, alpha=-1)
        apart = (mean.square() + spread.exp() - 1 - spread).sum(dim=1) / 2
        return {"loss": (missed + apart).mean(), "missed": missed.mean()}


def autoencode(
    X: sp.csr_matrix, *, dim: int, hidden: int, lr: float, batch_size: int, max_epochs: int,
    patience: int, validation: float, seed: int, folder: Path | None = None, key: str = "",
) -> tuple[np.ndarray, Trained, float]:  # fmt: skip
    """Train an `Autoencoder` on zeros and ones X (n, m): latent means (n, dim), and how it went."""
    X, n = sp.csr_matrix(X), X.shape[0]
    order = np.random.default_rng([seed, 0]).permutation(n)
    n_out = min(max(1, round(validation * n)), n - 1)
    held, kept = np.sort(order[:n_out]), np.sort(order[n_out:])
    rates = ((np.asarray(X[kept].sum(axis=0)).ravel() + 0.5) / (len(kept) + 1)).astype(np.float32)

    def read(rows: np.ndarray) -> dict:
        part = X[rows]
        length = np.diff(part.indptr)
        # the row numbers come first: a batch is as large as its first tensor
        return {
            "start": torch.as_tensor(part.indptr[:-1].astype(np.int64)),
            "row": torch.as_tensor(np.repeat(np.arange(len(rows)), length)),
            "members": torch.as_tensor(part.indices.astype(np.int64)),
        }

    torch.manual_seed(seed)
    learner = Autoencoder(rates, dim, hidden, lr)
    trained = fit(
        learner, Batches(len(kept), batch_size, lambda index: read(kept[index]), seed=seed),
        Batches(len(held), batch_size, lambda index: read(held[index]), shuffle=False),
        max_epochs=max_epochs, patience=patience, grad_clip=1.0, folder=folder, key=key, seed=seed,
    )  # fmt: skip
    with torch.no_grad():
        whole = read(np.arange(n))
        mean, _ = learner.encode(whole["members"], whole["start"])
        missed = float(learner.loss(read(held))["missed"])
    truth = X[held].toarray()
    plain = -(truth * np.log(rates) + (1 - truth) * np.log1p(-rates)).sum(axis=1).mean()
    return mean.numpy(), trained, 1 - missed / float(plain)


class CountAutoencoder(Learner):
    """Log counts -> hidden -> latent; with the batch -> hidden -> share of each gene in the total.

    Weights are drawn by `rng`; the weight of the divergence from the prior rises over `steps`. The
    encoder does not see the batch. Lopez et al. 2018 (scVI).
    """

    def __init__(self, n_genes, n_batches, dim, hidden, likelihood, lr, steps, rng):
        super().__init__()
        self.likelihood, self.lr, self.steps, self.step = likelihood, lr, steps, 0
        self.first, self.latent = _hidden(n_genes, hidden), nn.Linear(hidden, 2 * dim)
        self.back, self.share = _hidden(dim + n_batches, hidden), nn.Linear(hidden, n_genes)
        self.absent = nn.Linear(hidden, n_genes) if likelihood == "ZINB" else None
        self.log_size = nn.Parameter(torch.zeros(n_genes))
        for layer in (m for m in self.modules() if isinstance(m, nn.Linear)):
            drawn = rng.uniform(-1, 1, tuple(layer.weight.shape)) / np.sqrt(layer.in_features)
            layer.weight.data.copy_(torch.as_tensor(drawn))
            layer.bias.data.zero_()

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latent mean and log variance, (n, dim) each."""
        mean, spread = self.latent(self.first(x.log1p())).chunk(2, dim=1)
        return mean, spread.clamp(-10, 10)

    def loss(self, batch) -> dict[str, Tensor]:
        """Mean over cells of minus the log likelihood, and of the divergence from the prior."""
        x = batch["x"]
        mean, spread = self.encode(x)
        z = mean + batch["noise"] * (spread / 2).exp()
        hidden = self.back(torch.cat([z, batch["place"]], dim=1))
        expected = self.share(hidden).softmax(dim=1) * x.sum(dim=1, keepdim=True)
        absent = None if self.absent is None else self.absent(hidden)
        said = log_likelihood(x, expected, self.likelihood, absent, self.log_size.exp())
        missed = -said.sum(dim=1).mean()
        apart = (mean.square() + spread.exp() - 1 - spread).sum(dim=1).mean() / 2
        self.step += 1
        return {"loss": missed + min(1.0, self.step / self.steps) * apart, "missed": missed}


def _hidden(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.ReLU())


def log_likelihood(
    x: Tensor, mean: Tensor, kind: str, absent: Tensor | None = None, size: Tensor | None = None
) -> Tensor:
    """Log likelihood of counts: "Poisson", "NB" of inverse dispersion `size`, or "ZINB".

    `absent`: log odds that a count is zero for a reason of its own. Of values that are no counts it
    is the same expression, which is then no probability.
    """
    mean = mean + 1e-8
    if kind == "Poisson":
        return x * mean.log() - mean - torch.lgamma(x + 1)
    both = (size + mean).log()
    said = torch.lgamma(x + size) - torch.lgamma(size) - torch.lgamma(x + 1)
    said = said + size * (size.log() - both) + x * (mean.log() - both)
    if kind == "NB":
        return said
    kept = F.logsigmoid(-absent) + said
    return torch.where(x > 0, kept, torch.logaddexp(F.logsigmoid(absent), kept))


def autoencode_counts(
    X: np.ndarray, place: np.ndarray, train: np.ndarray, likelihood: str, *, dim: int, seed: int,
    hidden: int = 128, lr: float = 4e-3, batch_size: int = 128, steps: int = 300,
) -> np.ndarray:  # fmt: skip
    """Train a `CountAutoencoder` on the cells of `train` (n,) bool: latent means of all (n, dim).

    `steps`: as many for few cells as for many. Nothing is drawn from the global state, so that
    trainings may run side by side.
    """
    rows = np.flatnonzero(train)
    names, at = np.unique(place[rows], return_inverse=True)
    own, known = np.eye(len(names), dtype=np.float32)[at], X[rows]

    def read(index: np.ndarray, rng: np.random.Generator) -> dict:
        noise = rng.standard_normal((len(index), dim), np.float32)
        parts = {"x": known[index], "place": own[index], "noise": noise}
        return {name: torch.as_tensor(value) for name, value in parts.items()}

    batches = Batches(len(rows), batch_size, read, seed=seed)
    sizes, rng = (X.shape[1], len(names), dim, hidden), np.random.default_rng(seed)
    learner = CountAutoencoder(*sizes, likelihood, lr, steps, rng)
    epochs = -(-steps // len(batches))
    fit(learner, batches, max_epochs=epochs, grad_clip=10.0, device="cpu", seed=seed)
    with torch.no_grad():
        return learner.encode(torch.as_tensor(X))[0].numpy()


@cache
def _apart() -> ProcessPoolExecutor:
    # a kernel that is told to stop tells all: this one ends with it, without a word
    quiet = dict(initializer=signal, initargs=(SIGINT, SIG_IGN))
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), **quiet)


def scvi_means(
    X: np.ndarray, place: np.ndarray, train: np.ndarray, likelihood: str, *, dim: int, seed: int,
    steps: int = 600,
) -> np.ndarray:  # fmt: skip
    """Train scVI (package scvi-tools) on the cells of `train` (n,) bool: latent means (n, dim).

    One after the other in a process of their own, since the package draws from the global state.
    Lopez et al. 2018.
    """
    if find_spec("scvi") is None:
        raise InputError("scVI needs a package: pip install 'perturbcore[scvi]'")
    # the encoder does not read the batch: cells of new batches may go by that of any known one
    known = np.where(train, place, place[train][0])
    epochs = -(-steps // -(-int(train.sum()) // 128))
    how = dict(n_latent=dim, gene_likelihood=likelihood.lower())
    return _apart().submit(_scvi, X, known, train, how, epochs, seed).result()


def _scvi(X, place, train, how, epochs, seed) -> np.ndarray:
    import logging
    import warnings

    import scvi

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)  # sums depend on their number
    scvi.settings.seed = seed
    whole = AnnData(X, obs=pd.DataFrame({"batch": place}))
    known = whole[train].copy()
    scvi.model.SCVI.setup_anndata(known, batch_key="batch")
    model = scvi.model.SCVI(known, **how)
    quiet = dict(enable_progress_bar=False, logger=False, enable_checkpointing=False)
    model.train(max_epochs=epochs, accelerator="cpu", **quiet)
    return model.get_latent_representation(whole)
