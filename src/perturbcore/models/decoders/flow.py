"""Flow matching: control cells are carried to perturbed cells along a learned velocity field."""

import torch

from perturbcore.models.decoders.options import DecoderOptions

TOLERANCE = 1e-4


class Flow:
    r"""Conditional flow matching from control to perturbed cells in latent space.

    On the straight path :math:`x_t = (1-t)\,x_0 + t\,x_1` between a control and a perturbed cell the
    network learns the velocity :math:`x_1 - x_0`; a cell is decoded by following it from its own
    control cell.

    References
    ----------
    Lipman et al. 2023; Tong et al. 2024; Cole et al. 2026, Methods 4.7.4.
    """

    channels = (1, 1)

    def __init__(self, options: DecoderOptions):
        self.options = options

    def loss(self, network, source, target, condition, time, noise) -> dict:
        """Mean squared error of the velocity; `time` (n,) uniform in [0, 1), `noise` is not used."""
        x = torch.lerp(source, target, time[:, None])
        guess = network(x[:, None], time * self.options.time_scale, condition)[:, 0]
        return {"loss": (guess - (target - source)).square().mean()}

    def sample(
        self, network, source, condition, noise, *, sampler, steps, low, high
    ) -> torch.Tensor:
        """Follow the flow from control cells, shape (n, n_latent).

        `sampler` is "midpoint", "euler" or "rk4" with `steps` equal steps (published: midpoint, 20), or
        the adaptive "dopri5" with tolerance 1e-4. `noise`, `low` and `high` are not used.
        """
        from torchdiffeq import odeint

        def velocity(t, x):
            time = (t * self.options.time_scale).to(x.dtype).expand(len(x))
            return network(x[:, None], time, condition)[:, 0]

        ends = torch.tensor([0.0, 1.0], device=source.device)
        if sampler == "dopri5":
            return odeint(velocity, source, ends, method="dopri5", rtol=TOLERANCE, atol=TOLERANCE)[
                -1
            ]
        return odeint(velocity, source, ends, method=sampler, options={"step_size": 1 / steps})[-1]
