"""Three ways from control to perturbed cells in latent space: diffusion, flow, bridge.

`source`, `target` and `x` have shape (n, n_latent), `condition` (n, d) and `time` (n,) in [0, 1).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from perturbcore.models.decoders.backbones import DecoderOptions

TINY = 1e-8


class Process:
    """What the three ways share; `channels` are the latent vectors read and given."""

    channels = (1, 1)

    def __init__(self, options: DecoderOptions):
        self.options = options

    def loss(
        self, network: nn.Module, source: Tensor, target: Tensor, condition: Tensor, time: Tensor,
        noise: Tensor,
    ) -> Tensor:  # fmt: skip
        """Mean squared error of what the network says, summed over its channels."""
        x, clock, truths = self.example(source, target, time, noise)
        said = network(x, clock, condition).unbind(1)
        pairs = zip(said, truths, strict=True)
        return sum((weight * s - truth).square().mean() for s, (weight, truth) in pairs)

    def example(self, source, target, time, noise) -> tuple:
        """Input (n, channels, n_latent), time for the network, and (weight, truth) per channel."""
        raise NotImplementedError

    def sample(
        self, network: nn.Module, source: Tensor, condition: Tensor, noise: Callable[[], Tensor],
        low: Tensor, high: Tensor,
    ) -> Tensor:  # fmt: skip
        """Draw a cell for each control cell; `low` and `high` bound clean cells of a diffusion."""
        raise NotImplementedError


class Diffusion(Process):
    r"""Denoising diffusion of perturbed cells (Cole et al. 2026, Methods 4.7.4).

    The network predicts the noise, or with ``targets="bounded"`` the velocity
    :math:`\sqrt{\bar\alpha}\,\varepsilon - \sqrt{1-\bar\alpha}\,x_0`, from which the clean cell
    follows without dividing by :math:`\sqrt{\bar\alpha}`. Ho et al. 2020 (DDPM), Algorithms 1 and
    2; Song et al. 2021 (DDIM), Eq. 12; Salimans & Ho 2022 (velocity), Section 4.
    """

    channels = (2, 1)

    def __init__(self, options: DecoderOptions):
        super().__init__(options)
        # share of signal left after each step, float64 (T,) (Nichol & Dhariwal 2021, Eq. 17)
        t = torch.arange(options.timesteps + 1, dtype=torch.float64) / options.timesteps
        share = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
        self.signal = torch.cumprod(1 - (1 - share[1:] / share[:-1]).clamp(max=0.999), 0)
        self.bounded = options.targets == "bounded"

    def example(self, source, target, time, noise):
        """See `Process.example`."""
        step = (time * self.options.timesteps).long().clamp(max=self.options.timesteps - 1)
        signal = self.signal.to(time.device, target.dtype)[step, None]
        noised = signal.sqrt() * target + (1 - signal).sqrt() * noise
        truth = noise
        if self.bounded:
            truth = signal.sqrt() * noise - (1 - signal).sqrt() * target
        return self._with_source(noised, source), step.to(target.dtype), [(1.0, truth)]

    def _with_source(self, x, source):
        return torch.stack([x, source if self.options.source else torch.zeros_like(x)], dim=1)

    def sample(self, network, source, condition, noise, low, high):
        """See `Process.sample`."""
        total, ddim = self.options.timesteps, self.options.sampler == "ddim"
        taken = self.options.steps if ddim else total
        grid = torch.linspace(-1, total - 1, taken + 1, dtype=torch.float64)[1:]
        grid = grid.round().long().flip(0).tolist()
        signal = [*self.signal[grid].tolist(), 1.0]
        x = noise()
        for step, now, then in zip(grid, signal[:-1], signal[1:], strict=True):
            time = torch.full((len(x),), float(step), device=x.device)
            said = network(self._with_source(x, source), time, condition)[:, 0]
            if self.bounded:
                clean = (math.sqrt(now) * x - math.sqrt(1 - now) * said).clamp(low, high)
            else:
                clean = ((x - math.sqrt(1 - now) * said) / math.sqrt(now)).clamp(low, high)
            if ddim:
                said = (x - math.sqrt(now) * clean) / math.sqrt(1 - now)
                x = math.sqrt(then) * clean + math.sqrt(1 - then) * said
                continue
            # mean and variance of the step before, given this one and the clean cell
            alpha = now / then
            x = math.sqrt(then) * (1 - alpha) * clean + math.sqrt(alpha) * (1 - then) * x
            x = x / (1 - now)
            if step:
                x = x + math.sqrt((1 - alpha) * (1 - then) / (1 - now)) * noise()
        return x


class Flow(Process):
    r"""Conditional flow matching (Lipman et al. 2023; Tong et al. 2024; Cole et al. 2026, 4.7.4).

    On the path :math:`x_t = (1-t)\,x_0 + t\,x_1` the network learns the velocity :math:`x_1 - x_0`;
    a control cell follows it in `steps` equal midpoint steps (published: 20).
    """

    def example(self, source, target, time, noise):
        """See `Process.example`."""
        x = torch.lerp(source, target, time[:, None])
        return x[:, None], time * self.options.time_scale, [(1.0, target - source)]

    def sample(self, network, source, condition, noise, low, high):
        """See `Process.sample`; `noise`, `low` and `high` are not used."""
        from torchdiffeq import odeint

        def velocity(t, x):
            time = (t * self.options.time_scale).to(x.dtype).expand(len(x))
            return network(x[:, None], time, condition)[:, 0]

        ends = torch.tensor([0.0, 1.0], device=source.device)
        step = {"step_size": 1 / self.options.steps}
        return odeint(velocity, source, ends, method="midpoint", options=step)[-1]


class Bridge(Process):
    r"""Schrödinger bridge by score and flow matching (Tong et al. 2024; Cole et al. 2026, 4.7.4).

    On :math:`x_t = (1-t) x_0 + t x_1 + \sigma\sqrt{t(1-t)}\,\varepsilon` the network learns the
    velocity :math:`v = x_1 - x_0 + \frac{1-2t}{2\sqrt{t(1-t)}}\,\sigma\varepsilon` and the score
    times :math:`\sigma^2/2`, weighted by :math:`2\sqrt{t(1-t)}/\sigma`; with ``targets="bounded"``
    the means of :math:`x_1 - x_0` and of :math:`\varepsilon` given :math:`x_t`, of equal drift.
    Cells are drawn by Euler-Maruyama over `steps` time points.
    """

    channels = (1, 2)

    def example(self, source, target, time, noise):
        """See `Process.example`."""
        sigma, t = self.options.sigma, time[:, None]
        spread = (t * (1 - t)).sqrt()
        x = torch.lerp(source, target, t) + sigma * spread * noise
        truths = [(1.0, target - source), (1.0, noise)]
        if self.options.targets == "published":
            drift = (1 - 2 * t) / (2 * t * (1 - t) + TINY) * spread * sigma * noise
            truths = [(1.0, target - source + drift), (2 * spread / sigma, -noise)]
        return x[:, None], time * self.options.time_scale, truths

    def sample(self, network, source, condition, noise, low, high):
        """See `Process.sample`; `low` and `high` are not used."""
        o, x = self.options, source
        pause = 1 / (o.steps - 1)
        for i in range(o.steps - 1):
            t = i * pause
            time = torch.full((len(x),), t * o.time_scale, device=x.device)
            first, second = network(x[:, None], time, condition).unbind(1)
            bounded = o.targets == "bounded"
            drift = first - o.sigma * math.sqrt(t / (1 - t)) * second if bounded else first + second
            x = x + drift * pause
            if o.last_noise or i < o.steps - 2:
                x = x + o.sigma * math.sqrt(pause) * noise()
        return x


PROCESSES: dict[str, type[Process]] = {"diffusion": Diffusion, "flow": Flow, "bridge": Bridge}
