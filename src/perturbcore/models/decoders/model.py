"""The decoder: fitted on cells of training perturbations, it draws cells of others."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from scipy.optimize import linear_sum_assignment

from perturbcore.core import training
from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import ParameterError
from perturbcore.models.decoders.backbones import GROUP, MLP, DecoderOptions, DiT
from perturbcore.models.decoders.cells import Latent, vector_units
from perturbcore.models.decoders.processes import PROCESSES
from perturbcore.score.model import Fold


class Pairs:
    """Draws mini-batches of pairs from cells that lie once in memory.

    A pair is a uniformly drawn perturbation, a random cell of it and a random control cell of its
    batch (any, where that has none). With `coupling` "perturbation", cells of a drawn perturbation
    and batch stand together and choose their partners. `perturbation`: row of `vectors` of each
    perturbed cell; no other row is ever drawn.
    """

    def __init__(self, source, target, perturbation, vectors, source_batch, target_batch, coupling):
        self.source, self.target, self.vectors = map(torch.from_numpy, (source, target, vectors))
        self.coupling = coupling
        self.of_perturbation, self.controls = _Members(perturbation), _Members(source_batch)
        both = np.stack([perturbation, target_batch], axis=1)
        self.stratum = np.unique(both, axis=0, return_inverse=True)[1].ravel()
        self.of_stratum = _Members(self.stratum)
        at = np.searchsorted(self.controls.labels, target_batch)
        known = np.isin(target_batch, self.controls.labels)
        self.batch = np.where(known, at, -1)

    def __len__(self) -> int:
        """Count the cells, controls included: the length of an epoch as published."""
        return len(self.source) + len(self.target)

    def make(self, index, rng) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Draw ``len(index)`` pairs: source, target (n, n_latent) and vectors (n, d)."""
        n, grouped = len(index), self.coupling == "perturbation"
        group = GROUP if grouped else 1
        drawn = self.of_perturbation.labels
        chosen = np.repeat(rng.integers(len(drawn), size=-(-n // group)), group)
        rows = self.of_perturbation.draw(chosen, rng)
        if grouped:
            # a group stands in one batch of the screen: that of its first cell
            rows = self.of_stratum.draw(np.repeat(self.stratum[rows[::group]], group), rng)
        target = self.target[rows]
        source = self.source[self.controls.draw(self.batch[rows], rng)]
        if self.coupling != "independent":
            shape = (-1, group if grouped else len(rows), target.shape[1])
            partner = couple(source.view(shape), target.view(shape))
            partner = partner[..., None].expand(-1, -1, shape[2])
            source = source.view(shape).gather(1, partner).flatten(0, 1)
        return source[:n], target[:n], self.vectors[drawn[chosen[:n]]]


class _Members:
    """Rows by their label; the number -1 of a label stands for all rows."""

    def __init__(self, label):
        self.order = np.argsort(label, kind="stable")
        self.labels, start, count = np.unique(
            label[self.order], return_index=True, return_counts=True
        )
        self.start, self.count = np.append(start, 0), np.append(count, len(label))

    def draw(self, at, rng):
        """Draw a row for each number of a label."""
        return self.order[self.start[at] + (rng.random(len(at)) * self.count[at]).astype(np.int64)]


def couple(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Optimal partners in `source` of rows of `target`, by group (Tong et al. 2024, exact)."""
    cost = torch.cdist(target.double(), source.double()) ** 2
    return torch.from_numpy(np.stack([linear_sum_assignment(c)[1] for c in cost.numpy()]))


WEIGHT_DECAY, WARMUP = 1e-4, 0.001  # as published; the warm-up is a share of all steps
# cells that go through a network together when sampling, small enough for a processor's cache where
# each is many tokens; random draws are seeded chunk by chunk
CHUNK = {"mlp": 8192, "dit": 512}


@dataclass
class TrainingCells:
    """What a generator may learn from: one cell line, one fold.

    `vectors`: of training and test perturbations; `fold`: what a model of responses is given.
    """

    controls: sp.csr_matrix
    cells: sp.csr_matrix
    perturbation: np.ndarray
    vectors: pd.DataFrame
    control_batch: np.ndarray
    cell_batch: np.ndarray
    fold: Fold | None = None
    seed: int = 0
    folder: Path | None = None


class Decoder:
    """Latent diffusion, flow matching or Schrödinger bridge from control to perturbed cells.

    `validation`: share of the training perturbations that decide when to stop; their cells are kept
    out of training and of the latent space (Cole et al. 2026, Methods 4.7.4).
    """

    def __init__(self, options: DecoderOptions, validation: float = 0.15):
        if not 0 <= validation < 1:
            raise ParameterError(f"validation={validation}: give a share from 0 to below 1")
        self.options, self.share = options, validation

    @property
    def spec(self) -> dict:
        """Everything that decides what it generates, as plain values."""
        return {"class": "decoder", "validation": self.share, **self.options.model_dump()}

    def fit(self, data: TrainingCells) -> "Decoder":
        """Fit the latent space and train the network."""
        o, seed = self.options, data.seed
        names, codes = np.unique(data.perturbation, return_inverse=True)
        n_held = max(1, round(self.share * len(names))) if self.share else 0
        if n_held >= len(names):
            raise ParameterError(f"validation holds all {len(names)} perturbations: none is left")
        held = np.zeros(len(names), dtype=bool)
        held[np.random.default_rng([seed, 7]).choice(len(names), n_held, replace=False)] = True
        trains, self.validation = ~held[codes], list(names[held])
        self.latent = Latent(o.n_components, o.scaling, seed).fit(
            sp.vstack([data.controls, data.cells[np.flatnonzero(trains)]], format="csr")
        )
        table = data.vectors.loc[names].to_numpy(dtype=np.float64)
        self.vectors, self.units = data.vectors, vector_units(table[~held], o.embedding_scaling)
        z0, z1 = self.latent.transform(data.controls), self.latent.transform(data.cells)
        x = self._scaled(table)
        # mean over controls of what the latent space does not show of them
        seen = self.latent.inverse(z0.mean(axis=0, keepdims=True))[0]
        self.unseen = np.asarray(data.controls.mean(axis=0)).ravel() - seen
        batch = np.concatenate([data.control_batch, data.cell_batch])
        batch = np.unique(batch, return_inverse=True)[1] * (o.partners == "same_batch")
        b0, b1 = np.split(batch, [len(z0)])
        train, check = (
            Pairs(z0, z1[rows], codes[rows], x, b0, b1[rows], o.coupling) if rows.any() else None
            for rows in (trains, ~trains)
        )
        steps = max(1, round((o.epoch_cells or len(train)) / o.batch_size))
        if check is not None:
            n = o.validation_batches * o.batch_size
            check = training.Batches(n, o.batch_size, check.make, seed=seed, shuffle=False)
        torch.manual_seed(seed)
        self.learner = DecoderLearner(o, o.n_components, x.shape[1], steps * o.max_epochs)
        sampling = {"sampler", "steps", "residual", "last_noise"}
        learnt = (o.model_dump(exclude=sampling), seed, z0, z1, codes, x, held.astype(int), b0, b1)
        key = digest(*learnt, code_digest(type(self)))
        pairs = training.Batches(len(train), o.batch_size, train.make, seed=seed, steps=steps)
        trained = training.fit(
            self.learner, pairs, check, max_epochs=o.max_epochs, patience=o.patience,
            folder=Path(data.folder) / key if data.folder is not None else None, key=key,
            grad_clip=1.0, ema=o.ema, ema_every=o.ema_every, seed=seed,
        )  # fmt: skip
        self.history, self.seconds = trained.history, trained.seconds
        self.chosen = f"epoch {trained.best_epoch + 1} of {trained.epochs}"
        return self

    def _scaled(self, vectors) -> np.ndarray:
        centre, factor = self.units
        return ((np.asarray(vectors, dtype=np.float64) - centre) * factor).astype(np.float32)

    def sample(self, controls, index: np.ndarray, names: Sequence[str], seed: int) -> np.ndarray:
        """Draw one cell of perturbation ``names[index]`` from each control cell: (n, n_genes).

        Equal seeds give equal cells, on a GPU too: noise is drawn on the CPU.
        """
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        learner = self.learner.to(device).eval()
        z0, x = self.latent.transform(controls), self._scaled(self.vectors.loc[list(names)])
        low, high = (torch.from_numpy(b).to(device) for b in (self.latent.low, self.latent.high))
        z, chunk = np.empty_like(z0), CHUNK[self.options.backbone]
        for start in range(0, len(z0), chunk):
            rows = slice(start, start + chunk)
            here, condition = (torch.from_numpy(v).to(device) for v in (z0[rows], x[index[rows]]))
            stream = np.random.SeedSequence([seed, start // chunk]).generate_state(1)
            random = torch.Generator().manual_seed(int(stream[0]))

            def noise(here=here, random=random):
                return torch.randn(here.shape, generator=random).to(device)

            with torch.no_grad():
                drawn = learner.process.sample(learner.network, here, condition, noise, low, high)
            z[rows] = drawn.cpu().numpy()
        if self.options.residual == "none":
            return self.latent.inverse(z)
        return controls.toarray() + self.latent.shift(z - z0) - self.unseen


class DecoderLearner(training.Learner):
    """Network and process of a decoder; the learning rate is laid out for `total` steps."""

    def __init__(self, options: DecoderOptions, n_latent: int, n_condition: int, total: int):
        super().__init__()
        self.options, self.total = options, total
        self.process = PROCESSES[options.method](options)
        kind = DiT if options.backbone == "dit" else MLP
        self.network = kind(options, n_latent, n_condition, *self.process.channels)

    def loss(self, batch) -> dict[str, torch.Tensor]:
        """Draw times and noise; see the process for the rest."""
        source, target, condition = batch
        time = torch.rand(len(target), device=target.device)
        noise = torch.randn_like(target)
        return {"loss": self.process.loss(self.network, source, target, condition, time, noise)}

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(
            self.network.parameters(), lr=self.options.learning_rate, weight_decay=WEIGHT_DECAY,
            fused=True,
        )  # fmt: skip

    def schedule(self, optimizer):
        """Warm up, then stay or fall along a cosine."""
        warm = max(1, round(WARMUP * self.total))
        if self.options.schedule == "constant":
            return training.constant_after_warmup(optimizer, warm)
        return training.cosine_after_warmup(optimizer, warm, self.total)
