"""An in-silico perturbation screen with known truth (design: the simulated screen is science)."""

from perturbcore.simulate.model import Model
from perturbcore.simulate.screen import SimulatedScreen, replicate_screen, simulate_screen
from perturbcore.simulate.truth import expected_effects

__all__ = ["Model", "SimulatedScreen", "expected_effects", "replicate_screen", "simulate_screen"]
