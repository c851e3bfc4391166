"""A variational autoencoder of zeros and ones."""

from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
