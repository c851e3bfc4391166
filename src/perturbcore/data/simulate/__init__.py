"""An in-silico perturbation screen with known truth (design: the simulated screen is science)."""
