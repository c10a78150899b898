"""Say whether any of the standard leaves already meets the policy."""

from collabopt.components.assess_leaves.component import assess_leaves

__all__ = ["assess_leaves"]
