"""The standard pathway first; the collaborative one only where it does not suffice."""

from kfp import dsl

from collabopt.pipelines.grow import assess, decide, grow, plant
from collabopt.pipelines.parameters import Parameters, pipeline
from collabopt.pipelines.tree import TREE


@pipeline(name="staged")
def staged(parameters: Parameters) -> None:
    """Builds the standard leaves and, only if none meets the policy, the collaborative ones; the gate sees them all."""
    standard = grow(plant(parameters, TREE), TREE.standard())
    with dsl.If(assess(standard) == "sufficient", name="standard-suffices"):
        decide(standard)
    with dsl.Else(name="collaborative-needed"):
        decide(grow(standard, TREE))
