"""A small transformer of genes, its pretraining, and gene vectors of any frozen encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.utils.extmath import randomized_svd
from torch import Tensor, nn

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import ParameterError
from perturbcore.core.training import Batches, Learner, cosine_after_warmup, fit
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.cell_models.tokens import ControlCells

# standard deviations beyond which expression is not told apart
LARGEST = 10.0
LINEAR_PENALTIES, LINEAR_MASKS = (0.3, 1.0, 3.0, 10.0), 3
MASKED, HELD_OUT = 0.5, 0.1  # share of the genes masked, share of the cells held out


class Attention(nn.Module):
    """Multi-head attention with projections of its own, so that adapters can be put on each."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Read `context` (n, m, d) at `x` (n, q, d)."""
        given = self.query(x), self.key(context), self.value(context)
        read = F.scaled_dot_product_attention(*(self.split(t) for t in given))
        return self.out(read.transpose(-3, -2).flatten(-2))

    def split(self, t: Tensor) -> Tensor:
        """(..., m, d) -> (..., heads, m, d / heads)."""
        return t.unflatten(-1, (self.heads, -1)).transpose(-3, -2)


class FeedForward(nn.Module):
    """Pre-norm feed-forward layer with its residual."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.up, self.down = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        return x + self.down(F.gelu(self.up(self.norm(x))))


class Block(nn.Module):
    """Pre-norm attention to itself or to a context, then a feed-forward layer."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm_x, self.norm_context = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention, self.feed = Attention(dim, heads), FeedForward(dim)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(n, q, d) -> (n, q, d)."""
        normed = self.norm_x(x)
        context = normed if context is None else self.norm_context(context)
        return self.feed(x + self.attention(normed, context))


class Read(nn.Module):
    """Latent vectors read the expression of all genes."""

    def __init__(self, dim: int, heads: int, latents: int):
        super().__init__()
        self.latent = nn.Parameter(torch.randn(latents, dim))
        self.attention, self.feed = Attention(dim, heads), FeedForward(dim)

    def forward(self, z: Tensor, gene: Tensor, direction: Tensor) -> Tensor:
        """Expression (n, g), gene vectors and directions (g, d) -> states (n, latents, d)."""
        a = self.attention
        q, k, v = a.split(a.query(self.latent)), a.split(a.key(gene)), a.split(a.value(direction))
        weight = torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, -1)
        if len(z) < len(self.latent):
            # few cells: their values first; many: the weights first
            values = torch.einsum("ng,hgd->hgnd", z, v).flatten(2)
            read = torch.einsum("hlg,hgx->lxh", weight, values)
            read = read.unflatten(1, (len(z), -1)).permute(1, 0, 3, 2).flatten(2)
        else:
            both = torch.einsum("hlg,hgd->glhd", weight, v).flatten(1)
            read = (z @ both).unflatten(-1, (len(self.latent), -1))
        read = read * len(gene) ** 0.5
        return self.feed(self.latent + a.out(read))


class CellTransformer(nn.Module):
    """Encoder of cells with one token per gene.

    A token is the gene's vector plus its expression, in standard deviations from the control mean
    of its line, times a direction that follows from the vector. A few latent vectors read all
    genes, attend to one another, and the tokens of queried genes read them. `start` are initial
    gene vectors. Jaegle et al. 2022 (Perceiver IO: read, process, write); Vaswani et al. 2017.
    """

    # what adapters are put on: the heads of the pretraining are of no use later
    adaptable = ("direction", "query", "key", "value")

    def __init__(
        self, genes: Sequence[str], mean: np.ndarray, sd: np.ndarray, *, dim: int = 64,
        heads: int = 4, layers: int = 2, latents: int = 32, seed: int = 0,
        start: np.ndarray | None = None,
    ):  # fmt: skip
        super().__init__()
        if dim < 1 or heads < 1 or dim % heads or layers < 1 or latents < 1:
            raise ParameterError(
                f"dim={dim} must be a multiple of heads={heads}, and layers={layers} and "
                f"latents={latents} at least 1"
            )
        self.genes, self.dim = pd.Index(genes, dtype=object), dim
        self.register_buffer("mean", torch.tensor(np.asarray(mean, dtype=np.float32)))
        self.register_buffer("sd", torch.tensor(np.asarray(sd, dtype=np.float32)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            gene = torch.randn(len(self.genes), dim)
            gene = gene if start is None else torch.tensor(start, dtype=torch.float32)
            self.gene = nn.Parameter(gene)
            self.masked = nn.Parameter(torch.randn(dim) * 0.1)
            self.direction = nn.Linear(dim, dim, bias=False)
            self.read = Read(dim, heads, latents)
            self.process = nn.ModuleList(Block(dim, heads) for _ in range(layers))
            self.write = Block(dim, heads)
            self.norm = nn.LayerNorm(dim)
            self.to_gene = nn.Linear(dim, dim, bias=False)
            self.to_value = nn.Linear(dim, 1)

    def standardised(self, values: Tensor, line: Tensor | int) -> Tensor:
        """Express values (n, n_genes) in standard deviations from the line's control mean."""
        return ((values - self.mean[line]) / self.sd[line]).clamp(-LARGEST, LARGEST)

    def state(self, z: Tensor, visible: Tensor | None = None) -> Tensor:
        """Latent states of standardised cells (n, latents, dim), by the `visible` genes alone."""
        at = slice(None) if visible is None else visible
        gene, direction = self.gene, self.direction(self.gene)
        state = self.read(z[:, at], gene[at], direction[at])
        for block in self.process:
            state = block(state)
        return state

    def forward(
        self, values: Tensor, line: Tensor | int = 0, query: Tensor | None = None,
        visible: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Embed genes in cells: expression (n, n_genes), log1p(1e4) -> (n, q, dim)."""
        z = self.standardised(values, line)
        return self.norm(self.write(self._tokens(z, query, visible), self.state(z, visible)))

    def _tokens(self, z: Tensor, query: Tensor | None, visible: Tensor | None) -> Tensor:
        gene = self.gene if query is None else self.gene[query]
        shown = gene + (z if query is None else z[:, query]).unsqueeze(-1) * self.direction(gene)
        if visible is None:
            return shown
        seen = torch.zeros(len(self.genes), dtype=torch.bool, device=z.device)
        seen[visible] = True
        # `where` takes nothing from the values of masked genes, whatever they are
        seen = seen if query is None else seen[query]
        return torch.where(seen.unsqueeze(-1), shown, gene + self.masked)

    def predict(self, embedded: Tensor, query: Tensor) -> Tensor:
        """Standardised expression of queried genes, (n, q), from their embeddings (n, q, dim)."""
        by_gene = (embedded * self.to_gene(self.gene[query])).sum(-1) / self.dim**0.5
        return by_gene + self.to_value(embedded).squeeze(-1)


def encoder_digest(encoder: nn.Module) -> str:
    """Content of an encoder: its class, genes and weights."""
    return digest(type(encoder).__name__, encoder.genes, encoder, getattr(encoder, "spec", {}))


def spread_rows(n: int, most: int) -> np.ndarray:
    """At most `most` row numbers, spread evenly over `n`."""
    return np.arange(n) if n <= most else np.linspace(0, n - 1, most).astype(int)


def cells_with(embedded: Tensor) -> Tensor:
    """In how many cells each gene was read, (n, q, d) -> (q, 1): those where it is not zero."""
    return (embedded != 0).any(-1).sum(0).unsqueeze(-1)


def mean_over_cells(embedded: Tensor) -> Tensor:
    """Mean over the cells that have a gene (Cole et al., Eq. 11), (n, q, d) -> (q, d); else 0."""
    return embedded.sum(0) / cells_with(embedded).clamp_min(1)


@torch.no_grad()
def gene_vectors(
    encoder: nn.Module, cells: ControlCells, line: str, *, max_cells: int = 256,
    batch_size: int = 32,
) -> np.ndarray:  # fmt: skip
    """Mean embedding of each gene over control cells of a line (Cole et al., Eq. 11)."""
    values = cells.of(line)
    values = torch.from_numpy(values[spread_rows(len(values), max_cells)])
    total = torch.zeros(len(encoder.genes), encoder.dim, dtype=torch.float64)
    count = torch.zeros(len(encoder.genes), 1)
    encoder.eval()
    for part in values.split(batch_size):
        embedded = encoder(part, cells.position(line))
        total += embedded.sum(0, dtype=torch.float64)
        count += cells_with(embedded)
    return (total / count.clamp_min(1)).float().numpy()


def frozen_embeddings(
    encoder: nn.Module, cells: ControlCells, *, name: str = "Cell transformer", max_cells: int = 256
) -> list[Embedding]:
    """Make an embedding of each cell line from a frozen encoder; see `gene_vectors`."""
    cells = cells.take(encoder.genes)
    varies = np.ptp(cells.values, axis=0) > 0
    made = []
    for line in cells.lines:
        X = gene_vectors(encoder, cells, line, max_cells=max_cells)
        known = varies & X.any(axis=1)
        about, ids = f"frozen encoder; {cells.source}", cells.genes[known]
        made.append(Embedding(name, "Expression", ids, X[known], cells.identifier, line, about))
    return made


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A frozen encoder; squared error of held-out cells' masked genes, in their variances.

    `error_of_linear`: of the best of some ridge regressions of them on the genes that are seen.
    """

    encoder: CellTransformer
    history: pd.DataFrame
    error: float
    error_of_mean: float
    error_of_linear: float
    seconds: float


class MaskedExpression(Learner):
    """Predict masked genes from the other genes of the cell; error in standard deviations."""

    def __init__(self, encoder: CellTransformer, lr: float, steps: int):
        super().__init__()
        self.encoder, self.lr, self.steps = encoder, lr, steps

    def loss(self, batch) -> dict:
        """Mean squared error of the masked genes."""
        query = batch["query"]
        embedded = self.encoder(batch["values"], batch["line"], query, batch["visible"])
        truth = self.encoder.standardised(batch["values"], batch["line"])[:, query]
        return {"loss": (self.encoder.predict(embedded, query) - truth).square().mean()}

    def optimizer(self):
        """AdamW without weight decay."""
        return torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=0.0, fused=True)

    def schedule(self, optimizer):
        """Warm up over a tenth of the batches, then fall to zero."""
        return cosine_after_warmup(optimizer, max(1, self.steps // 10), self.steps)


def pretrain(
    cells: ControlCells, *, dim: int = 64, heads: int = 4, layers: int = 2, latents: int = 32,
    epochs: int = 5, batch_size: int = 32, lr: float = 3e-3, asked: int = 128, seed: int = 0,
    folder: Path | None = None, device: str = "auto",
) -> Pretrained:  # fmt: skip
    """Train a cell transformer to fill in masked genes of control cells; see `CellTransformer`.

    In each batch a random half of the genes is never read, and `asked` of them are predicted. Gene
    vectors start as principal components; a tenth of the cells is held out to choose the epoch.
    Trained encoders are kept in `folder`: a killed training goes on.
    """
    n, g = cells.values.shape
    n_masked, n_out = int(round(MASKED * g)), int(round(HELD_OUT * n))
    if not 0 < n_masked < g or not 0 < n_out < n or epochs < 1 or asked < 1:
        raise ParameterError(
            f"{g} genes, {n} cells, epochs={epochs} and asked={asked}: masked genes and held-out "
            "cells must leave something on both sides, numbers be at least 1"
        )
    sizes = dict(dim=dim, heads=heads, layers=layers, latents=latents, seed=seed)
    spec = sizes | dict(epochs=epochs, batch_size=batch_size, lr=lr, asked=asked)
    start = components(cells, dim, seed)
    encoder = CellTransformer(cells.genes, cells.mean, cells.sd, start=start, **sizes)
    order = np.random.default_rng([seed, 1]).permutation(n)
    values, line = torch.from_numpy(cells.values), torch.from_numpy(cells.line)

    def batches(rows: np.ndarray, shuffle: bool) -> Batches:
        def make(index, rng):
            genes = rng.permutation(g)
            hidden, visible = genes[:n_masked], np.sort(genes[n_masked:])
            at = torch.from_numpy(rows[index])
            return {
                "values": values[at],
                "line": line[at],
                "query": torch.from_numpy(hidden[:asked].copy()),
                "visible": torch.from_numpy(visible),
            }

        return Batches(len(rows), batch_size, make, seed=seed, shuffle=shuffle)

    train, held_out = batches(np.sort(order[n_out:]), True), batches(np.sort(order[:n_out]), False)
    learner = MaskedExpression(encoder, lr, epochs * len(train))
    z = [encoder.standardised(b["values"], b["line"])[:, b["query"]] for b in held_out.epoch(0)]
    of_mean = np.average([t.square().mean().item() for t in z], weights=[len(t) for t in z])
    of_linear = _error_of_linear(encoder, values, line, np.sort(order[n_out:]), held_out)
    key = digest(spec, cells.digest, code_digest("perturbcore.embeddings.cell_models.cells"))
    kept = Path(folder) / f"cell-transformer-{key}" if folder is not None else None
    done = fit(learner, train, held_out, max_epochs=epochs, folder=kept, key=key, grad_clip=1.0,
               device=device, seed=seed)  # fmt: skip
    encoder.requires_grad_(False).eval()
    best = float(done.history["val"].min())
    return Pretrained(encoder, done.history, best, float(of_mean), of_linear, done.seconds)


@torch.no_grad()
def _error_of_linear(encoder, values, line, train: np.ndarray, held_out: Batches) -> float:
    """Error of a ridge regression of masked genes on seen ones, with the best of some penalties."""
    z = encoder.standardised(values[train], line[train])
    products, errors = z.T @ z / len(z), []
    for batch in islice(held_out.epoch(0), LINEAR_MASKS):
        seen, asked = batch["visible"], batch["query"]
        z = encoder.standardised(batch["values"], batch["line"])
        among, across = products[seen][:, seen], products[seen][:, asked]
        for penalty in LINEAR_PENALTIES:
            weights = torch.linalg.solve(among + penalty * torch.eye(len(seen)), across)
            errors.append((z[:, seen] @ weights - z[:, asked]).square().mean().item())
    return float(np.reshape(errors, (-1, len(LINEAR_PENALTIES))).mean(axis=0).min())


def components(cells: ControlCells, dim: int, seed: int = 0) -> np.ndarray:
    """Principal components of genes over control cells, (n_genes, dim), of length sqrt(dim)."""
    z = ((cells.values - cells.mean[cells.line]) / cells.sd[cells.line]).clip(-LARGEST, LARGEST)
    size = min(dim, min(z.shape))
    _, s, vt = randomized_svd(z, size, random_state=seed)
    out = np.random.default_rng([seed, 2]).standard_normal((z.shape[1], dim))
    varies = np.ptp(z, axis=0) > 0
    out[varies, :size] = (vt.T * s)[varies]
    if size < dim:
        out[:, size:] *= 0.01
    out *= np.sqrt(dim) / np.linalg.norm(out, axis=1, keepdims=True)
    return out.astype(np.float32)
