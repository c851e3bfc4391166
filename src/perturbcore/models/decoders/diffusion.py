"""Latent denoising diffusion: noise is predicted, cells are drawn from noise (DDPM or DDIM)."""

import math

import torch

from perturbcore.models.decoders.options import DecoderOptions


def cosine_schedule(timesteps: int, offset: float = 0.008, largest: float = 0.999) -> torch.Tensor:
    r"""Share of signal left after each step, :math:`\bar\alpha_1 \dots \bar\alpha_T`, float64 (T,).

    References
    ----------
    Nichol & Dhariwal 2021, Eq. 17.
    """
    t = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
    share = torch.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2
    beta = (1 - share[1:] / share[:-1]).clamp(max=largest)
    return torch.cumprod(1 - beta, 0)


class Diffusion:
    r"""Denoising diffusion of perturbed cells in latent space.

    The network sees the noised target, the time step, the embedding and, with ``source=True``, a
    control cell as a second channel. With ``targets="published"`` it predicts the noise; with
    ``targets="bounded"`` the velocity
    :math:`\sqrt{\bar\alpha}\,\varepsilon - \sqrt{1-\bar\alpha}\,x_0`, from which noise and clean cell
    follow without dividing by :math:`\sqrt{\bar\alpha}`, so that an error at the noisy end is not blown
    up. Predicted clean cells are clipped to the range of the training latents.

    References
    ----------
    Ho et al. 2020 (DDPM), Algorithms 1 and 2; Song et al. 2021 (DDIM), Eq. 12; Salimans & Ho 2022
    (velocity), Section 4; Cole et al. 2026, Methods 4.7.4. The released code zeroes the source channel
    in training: ``source=False``.
    """

    channels = (2, 1)

    def __init__(self, options: DecoderOptions):
        self.options = options
        self.signal = cosine_schedule(options.timesteps)

    def loss(self, network, source, target, condition, time, noise) -> dict:
        """Mean squared error of the network's target; `time` (n,) uniform in [0, 1)."""
        step = (time * self.options.timesteps).long().clamp(max=self.options.timesteps - 1)
        signal = self.signal.to(time.device, target.dtype)[step, None]
        noised = signal.sqrt() * target + (1 - signal).sqrt() * noise
        guess = network(self._channels(noised, source), step.to(target.dtype), condition)[:, 0]
        if self.options.targets == "bounded":
            noise = signal.sqrt() * noise - (1 - signal).sqrt() * target
        return {"loss": (guess - noise).square().mean()}

    def sample(
        self, network, source, condition, noise, *, sampler, steps, low, high
    ) -> torch.Tensor:
        """Draw a perturbed cell for each control cell.

        Parameters
        ----------
        network : Module
        source : Tensor, shape (n, n_latent)
            Control cells; only seen with ``source=True``.
        condition : Tensor, shape (n, d)
        noise : callable
            ``noise()`` gives standard normal draws, shape (n, n_latent).
        sampler : {"ddpm", "ddim"}
            All steps with noise in each, or `steps` of them without.
        steps : int
        low, high : Tensor, shape (n_latent,)
            Bounds of predicted clean cells.
        """
        total = self.options.timesteps
        taken = steps if sampler == "ddim" else total
        grid = (
            torch.linspace(-1, total - 1, taken + 1, dtype=torch.float64)[1:]
            .round()
            .long()
            .flip(0)
            .tolist()
        )
        signal = [*self.signal[grid].tolist(), 1.0]
        x = noise()
        for i, step in enumerate(grid):
            now, then = signal[i], signal[i + 1]
            time = torch.full((len(x),), float(step), device=x.device)
            guess = network(self._channels(x, source), time, condition)[:, 0]
            if self.options.targets == "bounded":
                clean = (math.sqrt(now) * x - math.sqrt(1 - now) * guess).clamp(low, high)
            else:
                clean = ((x - math.sqrt(1 - now) * guess) / math.sqrt(now)).clamp(low, high)
            if sampler == "ddim":
                guess = (x - math.sqrt(now) * clean) / math.sqrt(1 - now)
                x = math.sqrt(then) * clean + math.sqrt(1 - then) * guess
            else:
                alpha = now / then
                x = (math.sqrt(then) * (1 - alpha) * clean + math.sqrt(alpha) * (1 - then) * x) / (
                    1 - now
                )
                if step:
                    x = x + math.sqrt((1 - alpha) * (1 - then) / (1 - now)) * noise()
        return x

    def _channels(self, x, source):
        return torch.stack([x, source if self.options.source else torch.zeros_like(x)], dim=1)
