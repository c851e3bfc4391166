"""From cells to effects: group moments, pseudobulk profiles and the batch-aware effect."""

from perturbcore.effects.ba_ate import ba_ate
from perturbcore.effects.moments import Moments, group_moments, pseudobulk

__all__ = ["Moments", "ba_ate", "group_moments", "pseudobulk"]
