"""What a model must say of itself to be trained."""

import lightning
import torch
from torch.optim.lr_scheduler import LambdaLR


class Learner(lightning.LightningModule):
    """A lightning module that only needs a loss and an optimiser.

    Subclasses define `loss` and `optimizer`; where validation is measured in another way than
    training, `validation_loss`; where the learning rate changes, `schedule`.
    """

    def loss(self, batch) -> dict[str, torch.Tensor]:
        """Return the parts of the loss of a batch; the key "loss" is minimised."""
        raise NotImplementedError

    def optimizer(self) -> torch.optim.Optimizer:
        """Return the optimiser of the parameters to be trained."""
        raise NotImplementedError

    def validation_loss(self, batch) -> torch.Tensor:
        """Return the loss by which epochs are compared, a mean over the batch."""
        return self.loss(batch)["loss"]

    def schedule(self, optimizer) -> LambdaLR | None:
        """Return a learning-rate scheduler stepped after every batch, or None."""
        return None

    def training_step(self, batch, _):
        """Answer lightning."""
        parts = self.loss(batch)
        self._sums = getattr(self, "_sums", {})
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach()
        return parts["loss"]

    def validation_step(self, batch, _):
        """Answer lightning."""
        value = self.validation_loss(batch)
        self.log("val", value, on_epoch=True, batch_size=_size(batch))

    def configure_optimizers(self):
        """Answer lightning."""
        optimizer = self.optimizer()
        scheduler = self.schedule(optimizer)
        if scheduler is None:
            return optimizer
        scheduler = {"scheduler": scheduler, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


def _size(batch) -> int:
    """Examples of a batch: the first dimension of its first tensor."""
    if isinstance(batch, dict):
        batch = list(batch.values())
    while isinstance(batch, list | tuple):
        batch = batch[0]
    return len(batch)


def constant_after_warmup(optimizer, steps: int) -> LambdaLR:
    """Rise linearly from 1e-8 times the learning rate over `steps` batches, then stay."""
    start = 1e-8
    return LambdaLR(optimizer, lambda i: min(1.0, start + (1 - start) * i / max(steps, 1)))


def cosine_after_warmup(optimizer, steps: int, total: int) -> LambdaLR:
    """Rise linearly over `steps` batches, then fall along half a cosine to zero at `total`."""

    def rate(i):
        if i < steps:
            return i / max(steps, 1)
        done = torch.tensor(min(1.0, (i - steps) / max(total - steps, 1)))
        return float(0.5 * (1 + torch.cos(torch.pi * done)))

    return LambdaLR(optimizer, rate)
