"""Schrödinger bridge by simulation-free score and flow matching."""

import math

import torch

from perturbcore.models.decoders.options import DecoderOptions

TINY = 1e-8


class Bridge:
    r"""Stochastic bridge from control to perturbed cells in latent space.

    Between a control cell :math:`x_0` and a perturbed cell :math:`x_1` runs a Brownian bridge,
    :math:`x_t = (1-t) x_0 + t x_1 + \sigma\sqrt{t(1-t)}\,\varepsilon`. With ``targets="published"`` the
    network learns the velocity of its probability flow,
    :math:`v = x_1 - x_0 + \frac{1-2t}{2\sqrt{t(1-t)}}\,\sigma\varepsilon`, and the score times
    :math:`\sigma^2/2`, weighted by :math:`\lambda_t = 2\sqrt{t(1-t)}/\sigma`. With
    ``targets="bounded"`` it learns the two means they are made of, of :math:`x_1 - x_0` and of
    :math:`\varepsilon` given :math:`x_t`; the drift
    :math:`v + s = (x_1 - x_0) - \sigma\sqrt{t/(1-t)}\,\varepsilon` is the same. Cells are drawn by
    Euler-Maruyama.

    References
    ----------
    Tong et al. 2024 (simulation-free Schrödinger bridges), Section 3; Cole et al. 2026, Methods 4.7.4.
    """

    channels = (1, 2)

    def __init__(self, options: DecoderOptions):
        self.options = options

    def loss(self, network, source, target, condition, time, noise) -> dict:
        """Loss of both outputs, and each alone; `time` (n,) uniform in [0, 1)."""
        sigma, t = self.options.sigma, time[:, None]
        spread = (t * (1 - t)).sqrt()
        x = torch.lerp(source, target, t) + sigma * spread * noise
        first, second = network(x[:, None], time * self.options.time_scale, condition).unbind(1)
        if self.options.targets == "published":
            velocity = (
                target - source + (1 - 2 * t) / (2 * t * (1 - t) + TINY) * spread * sigma * noise
            )
            flow = (first - velocity).square().mean()
            score = (2 * spread / sigma * second + noise).square().mean()
        else:
            flow = (first - (target - source)).square().mean()
            score = (second - noise).square().mean()
        return {"loss": flow + score, "flow": flow, "score": score}

    def sample(
        self, network, source, condition, noise, *, sampler, steps, low, high
    ) -> torch.Tensor:
        """Walk from control cells (n, n_latent) over `steps` time points; `noise()` gives the normals.

        `sampler` ("euler_maruyama"), `low` and `high` are not used.
        """
        sigma, x = self.options.sigma, source
        pause = 1 / (steps - 1)
        for i in range(steps - 1):
            t = i * pause
            time = torch.full((len(x),), t * self.options.time_scale, device=x.device)
            first, second = network(x[:, None], time, condition).unbind(1)
            if self.options.targets == "published":
                drift = first + second
            else:
                drift = first - sigma * math.sqrt(t / (1 - t)) * second
            x = x + drift * pause
            if self.options.last_noise or i < steps - 2:
                x = x + sigma * math.sqrt(pause) * noise()
        return x
