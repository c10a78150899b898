"""Pick the leaf to ship, say why, and register it."""

from collabopt.components.deployment_gate.component import deployment_gate

__all__ = ["deployment_gate"]
