"""A small transformer whose tokens are genes: gene identity plus expression in one cell."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perturbcore.core.errors import ParameterError

# standard deviations beyond which expression is not told apart
LARGEST = 10.0


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
    """Latent vectors read the expression of all genes.

    The weights follow from the genes' vectors alone and are the same for every cell, so that all
    cells are read by one matrix product. The weighted mean is scaled by the square root of the
    number of genes, lest the signal of many independent genes vanish beside the latents.
    """

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

    A token is the gene's vector plus its expression, in standard deviations from the mean of
    the control cells of its line, times a direction that follows from the gene's vector. A few
    latent vectors read all genes, attend to one another for `layers` rounds, and the token of
    each queried gene reads them: time grows with genes x latents, and with the genes that are
    asked for.

    `start` (n_genes, dim): initial gene vectors; normal random numbers by default.

    Jaegle et al. 2022 (Perceiver IO: read, process, write); Vaswani et al. 2017.
    """

    # what adapters are put on: the heads of the pretraining are of no use later
    adaptable = ("direction", "query", "key", "value")

    def __init__(
        self,
        genes: Sequence[str],
        mean: np.ndarray,
        sd: np.ndarray,
        *,
        dim: int = 64,
        heads: int = 4,
        layers: int = 2,
        latents: int = 32,
        seed: int = 0,
        start: np.ndarray | None = None,
    ):
        super().__init__()
        if dim < 1 or heads < 1 or dim % heads or layers < 1 or latents < 1:
            raise ParameterError(
                f"dim={dim} must be a multiple of heads={heads}, and layers={layers} and "
                f"latents={latents} at least 1"
            )
        self.genes, self.dim = pd.Index(genes, dtype=object), dim
        for name, array in (("mean", mean), ("sd", sd)):
            self.register_buffer(name, torch.tensor(np.asarray(array, dtype=np.float32)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            given = torch.randn(len(self.genes), dim)
            if start is not None:
                given = torch.tensor(np.asarray(start, dtype=np.float32))
            self.gene = nn.Parameter(given)
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

    def forward(
        self,
        values: Tensor,
        line: Tensor | int = 0,
        query: Tensor | None = None,
        visible: Tensor | None = None,
    ) -> Tensor:
        """Embed genes in cells: expression (n, n_genes), log1p(1e4) -> (n, q, dim).

        `line` is a position, or one per cell; `query` (q,) are the genes to embed, all
        by default; only the expression of the genes `visible` (v,) is read, all by default: the
        values of the others, queried ones too, take no part.
        """
        z = self.standardised(values, line)
        gene, direction, shown = self.gene, self.direction(self.gene), z
        if visible is not None:
            gene, direction, shown = gene[visible], direction[visible], z[:, visible]
        state = self.read(shown, gene, direction)
        for block in self.process:
            state = block(state)
        return self.norm(self.write(self._tokens(z, query, visible), state))

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

    def predict(self, embedded: Tensor, query: Tensor | None = None) -> Tensor:
        """Standardised expression of queried genes, (n, q), from their embeddings (n, q, dim)."""
        gene = self.gene if query is None else self.gene[query]
        by_gene = (embedded * self.to_gene(gene)).sum(-1) / self.dim**0.5
        return by_gene + self.to_value(embedded).squeeze(-1)
