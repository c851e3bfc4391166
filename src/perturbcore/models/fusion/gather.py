"""Sum the weights of the training labels of a gene, for many (response, gene) pairs at once."""

import numba
import torch


@numba.njit(nogil=True, cache=True)
def _sum(weight, row, gene, start, column, label, hit, seen):
    for e in range(len(gene)):
        w = weight[row[e]]
        h = s = 0.0
        for i in range(start[gene[e]], start[gene[e] + 1]):
            value = w[column[i]]
            s += value
            h += value * label[i]
        hit[e] = h
        seen[e] = s


@numba.njit(nogil=True, cache=True)
def _spread(d_hit, d_seen, row, gene, start, column, label, out):
    for e in range(len(gene)):
        to = out[row[e]]
        for i in range(start[gene[e]], start[gene[e] + 1]):
            to[column[i]] += d_seen[e] + d_hit[e] * label[i]


class _OnCPU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, row, gene, start, column, label):
        hit, seen = weight.new_empty(len(gene)), weight.new_empty(len(gene))
        arrays = [x.numpy() for x in (row, gene, start, column, label)]
        _sum(weight.detach().numpy(), *arrays, hit.numpy(), seen.numpy())
        ctx.save_for_backward(row, gene, start, column, label)
        ctx.shape = weight.shape
        return hit, seen

    @staticmethod
    def backward(ctx, d_hit, d_seen):
        out = torch.zeros(ctx.shape, dtype=d_hit.dtype)
        given = [x.contiguous().numpy() for x in (d_hit, d_seen, *ctx.saved_tensors)]
        _spread(*given, out.numpy())
        return out, None, None, None, None, None


def label_sums(weight, row, gene, start, column, label) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum weights over the positive and over all known labels of each pair's gene.

    Parameters
    ----------
    weight : (B, C) tensor
        Weight of each training response for each response.
    row, gene : (E,) int tensors
        The pairs.
    start : (G + 1,) int tensor
        Where each gene's labels start.
    column, label : (N,) tensors
        Training response, 0/1 value of each label, sorted by gene.

    Returns
    -------
    hit, seen : (E,) tensors
    """
    if weight.device.type == "cpu" and weight.dtype == torch.float32:
        return _OnCPU.apply(weight.contiguous(), row, gene, start, column, label)
    return listed_sums(weight, row, gene, start, column, label)


def listed_sums(weight, row, gene, start, column, label) -> tuple[torch.Tensor, torch.Tensor]:
    """Do the same by listing all terms: for GPUs."""
    n = start[gene + 1] - start[gene]
    pair = torch.repeat_interleave(torch.arange(len(gene), device=gene.device), n)
    at = torch.arange(len(pair), device=gene.device) + (start[gene] - (n.cumsum(0) - n))[pair]
    w = torch.take(weight, row[pair] * weight.shape[1] + column[at])
    zero = torch.zeros(len(gene), dtype=w.dtype, device=w.device)
    return zero.index_add(0, pair, w * label[at].to(w.dtype)), zero.index_add(0, pair, w)
