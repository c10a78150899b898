"""The whole tree: all eight leaves, then the gate."""

from collabopt.pipelines.grow import decide, grow, plant
from collabopt.pipelines.parameters import Parameters, pipeline
from collabopt.pipelines.tree import TREE


@pipeline(name="exhaustive")
def exhaustive(parameters: Parameters) -> None:
    """Builds every leaf of the tree and lets the gate choose among all of them."""
    baseline = plant(parameters, TREE)
    decide(grow(baseline, TREE))
