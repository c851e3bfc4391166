"""Encoder over the tokens of one perturbation: CLS, cell line, and the sources it has."""

import torch
import torch.nn.functional as F
from torch import nn


def pack(tokens: torch.Tensor, masked: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Put live tokens first, in their order, and find how many keys the longest row has.

    What attention sums over is then the same for a source that is masked and one that is not
    there: a masked source cannot change an output by a single bit.

    Parameters
    ----------
    tokens : (B, T, d) tensor
    masked : (B, T) bool tensor

    Returns
    -------
    order : (B, T) int tensor
        Position in `tokens` of each packed token.
    alive : (B, L) bool tensor
        Whether each of the first L packed tokens is live, L being the largest number in a row.
    """
    order = torch.argsort(masked.to(torch.int8), dim=1, stable=True)
    n = (~masked).sum(dim=1, keepdim=True)
    alive = torch.arange(int(n.max()), device=masked.device) < n
    return order, alive


class EncoderLayer(nn.Module):
    """Post-norm attention and feed-forward block, with an optional gate on attention's output.

    References
    ----------
    Vaswani et al. 2017; Cole et al. 2026, released code (gate).
    """

    def __init__(self, d: int, heads: int, dropout: float, gate: bool):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.out = (nn.Linear(d, d) for _ in range(4))
        self.gate = nn.Linear(d, d) if gate else None
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.up, self.down = nn.Linear(d, 2 * d), nn.Linear(2 * d, d)

    def forward(self, x: torch.Tensor, alive: torch.Tensor, *, weights: bool = False):
        """Encode (B, T, d); only the first L tokens, where `alive` (B, L), are attended to."""
        keys = x[:, : alive.shape[1]]
        q, k, v = (
            self._split(self.query(x)),
            self._split(self.key(keys)),
            self._split(self.value(keys)),
        )
        p = self.dropout if self.training else 0.0
        # a row of one length everywhere needs no mask, and is faster without
        mask = None if bool(alive.all()) else alive[:, None, None, :]
        found = None
        if weights:
            logit = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
            if mask is not None:
                logit = logit.masked_fill(~mask, float("-inf"))
            found = logit.softmax(dim=3)
            seen = found @ v
        else:
            seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)
        seen = seen.transpose(1, 2).flatten(2)
        if self.gate is not None:
            seen = seen * torch.sigmoid(self.gate(x))
        x = self.norm1(x + F.dropout(self.out(seen), p))
        step = F.dropout(F.gelu(self.up(x)), p)
        x = self.norm2(x + F.dropout(self.down(step), p))
        return x, None if found is None else found.mean(dim=1)

    def _split(self, x):
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Encoder(nn.Module):
    """Stack of `EncoderLayer`, Xavier-uniform weights and zero biases."""

    def __init__(self, d: int, heads: int, layers: int, dropout: float, gate: bool):
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(d, heads, dropout, gate) for _ in range(layers))
        self.apply(xavier)

    def forward(self, x, alive, *, weights: bool = False):
        """Return the encoded tokens, and where asked the attention of each layer (B, T, L)."""
        found = []
        for layer in self.layers:
            x, one = layer(x, alive, weights=weights)
            found.append(one)
        return x, found


def xavier(module: nn.Module) -> None:
    """Draw a linear layer's weights Xavier-uniform and set its bias to zero."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
