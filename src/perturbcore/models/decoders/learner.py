"""What the training loop asks of a decoder: loss, optimiser, learning rate."""

import torch

from perturbcore.core.training.learner import Learner, constant_after_warmup, cosine_after_warmup
from perturbcore.models.decoders.backbones import make_backbone
from perturbcore.models.decoders.bridge import Bridge
from perturbcore.models.decoders.diffusion import Diffusion
from perturbcore.models.decoders.flow import Flow
from perturbcore.models.decoders.options import DecoderOptions

PROCESSES = {"diffusion": Diffusion, "flow": Flow, "bridge": Bridge}


class DecoderLearner(Learner):
    """Network and process of a decoder, as the training loop wants them.

    Parameters
    ----------
    options : DecoderOptions
    n_latent, n_condition : int
    total : int
        Steps that the schedule of the learning rate is laid out for.
    """

    def __init__(self, options: DecoderOptions, n_latent: int, n_condition: int, total: int):
        super().__init__()
        self.options, self.total = options, total
        self.process = PROCESSES[options.method](options)
        self.network = make_backbone(options, n_latent, n_condition, self.process.channels)

    def loss(self, batch):
        """Draw times and noise; see the process for the rest."""
        source, target, condition = batch
        time = torch.rand(len(target), device=target.device)
        return self.process.loss(
            self.network, source, target, condition, time, torch.randn_like(target)
        )

    def optimizer(self):
        """AdamW."""
        o = self.options
        return torch.optim.AdamW(
            self.network.parameters(), lr=o.learning_rate, weight_decay=o.weight_decay, fused=True
        )

    def schedule(self, optimizer):
        """Warm up, then stay or fall along a cosine."""
        warm = max(1, round(self.options.warmup * self.total))
        if self.options.schedule == "constant":
            return constant_after_warmup(optimizer, warm)
        return cosine_after_warmup(optimizer, warm, self.total)
