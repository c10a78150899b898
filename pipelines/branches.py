"""One pipeline per branch of the tree."""

from collabopt.pipelines.grow import decide, grow, plant
from collabopt.pipelines.parameters import Parameters, pipeline
from collabopt.pipelines.tree import CLUSTERING, PRUNING, QUANTIZATION


@pipeline(name="pruning")
def pruning(parameters: Parameters) -> None:
    """Builds the leaves below `pruned`."""
    decide(grow(plant(parameters, PRUNING), PRUNING))


@pipeline(name="clustering")
def clustering(parameters: Parameters) -> None:
    """Builds the leaves below `clustered`."""
    decide(grow(plant(parameters, CLUSTERING), CLUSTERING))


@pipeline(name="quantization")
def quantization(parameters: Parameters) -> None:
    """Builds the leaves right below the baseline: post-training quantization and quantization-aware training."""
    decide(grow(plant(parameters, QUANTIZATION), QUANTIZATION))
