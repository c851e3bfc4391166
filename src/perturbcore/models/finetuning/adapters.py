"""Low-rank adapters: an encoder learns through a few small matrices beside frozen weights."""

from dataclasses import asdict, dataclass

import torch
from torch import nn

from perturbcore.core.errors import ParameterError


@dataclass(frozen=True)
class LoRA:
    """Sizes of low-rank adapters.

    Parameters
    ----------
    rank : int
        Rank of the change of each adapted weight matrix.
    alpha : float
        The change is scaled by alpha / rank.
    dropout : float
        On the adapter's input, while training.
    layers : tuple of str
        Last names of the linear layers to adapt; by default those that the encoder names as
        `adaptable`, or all of its linear layers.

    References
    ----------
    Hu et al. 2022 (LoRA).
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    layers: tuple[str, ...] = ()

    @property
    def spec(self) -> dict:
        """Plain values."""
        return asdict(self)


def adapt(encoder: nn.Module, lora: LoRA | None, *, seed: int = 0) -> nn.Module:
    """Put adapters on an encoder in place; only they learn afterwards.

    The encoder's output is unchanged until they are trained: each adapter begins at zero.

    Parameters
    ----------
    encoder : torch.nn.Module
    lora : LoRA or None
        None: no adapters, every weight of the encoder learns.
    seed : int
        Initial adapters.

    Returns
    -------
    torch.nn.Module
        `encoder`.

    Raises
    ------
    ParameterError
        The encoder has no such layer, or a size is out of range.
    """
    if lora is None:
        return encoder.requires_grad_(True)
    if lora.rank < 1 or not 0 <= lora.dropout < 1:
        raise ParameterError(
            f"rank={lora.rank} must be at least 1, dropout={lora.dropout} in [0, 1)"
        )
    linear = [name for name, layer in encoder.named_modules() if isinstance(layer, nn.Linear)]
    wanted = lora.layers or getattr(encoder, "adaptable", ())
    chosen = [name for name in linear if not wanted or name.rsplit(".", 1)[-1] in wanted]
    if not chosen:
        there = sorted({name.rsplit(".", 1)[-1] for name in linear})
        raise ParameterError(
            f"no linear layer of the encoder is called {' or '.join(wanted)}; it has {', '.join(there)}"
        )
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=chosen,
        bias="none",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, encoder)
    for name, weight in encoder.named_parameters():
        weight.requires_grad_("lora_" in name)
    return encoder


def trainable(module: nn.Module) -> int:
    """Count the parameters that learn."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
