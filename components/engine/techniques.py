"""What every technique requires of its parent, preserves and adds: the grammar of the tree, as data.

Two properties can be won and lost on the way down: `sparse` (zeros at fixed positions) and `clustered` (few distinct
weight values). A third, `quantized`, ends a path. Source of the legal combinations: the collaborative-optimization
guide of TensorFlow Model Optimization
(https://www.tensorflow.org/model_optimization/guide/combine/collaborative_optimization).
"""

from collections.abc import Iterable
from dataclasses import dataclass

SPARSE = "sparse"
CLUSTERED = "clustered"
QUANTIZED = "quantized"


@dataclass(frozen=True)
class Technique:
    """One way of making a model smaller.

    Attributes:
        name: Also the name of the component that applies it.
        requires: Properties that the parent must have.
        preserves: Properties of the parent that are still there afterwards.
        adds: Properties that are there afterwards whatever the parent had.
        trains: Whether weights are fine-tuned.
        deploys: Whether the outcome is a `.tflite` file, that is, a leaf.
    """

    name: str
    requires: frozenset[str] = frozenset()
    preserves: frozenset[str] = frozenset()
    adds: frozenset[str] = frozenset()
    trains: bool = True
    deploys: bool = False

    @property
    def is_collaborative(self) -> bool:
        """Whether it exists to keep what an earlier technique won."""
        return bool(self.requires)

    def properties_after(self, before: frozenset[str]) -> frozenset[str]:
        """Properties of the outcome, given those of the parent."""
        return (before & self.preserves) | self.adds


def _technique(
    name: str,
    *,
    requires: Iterable[str] = (),
    preserves: Iterable[str] = (),
    adds: Iterable[str] = (),
    trains: bool = True,
    deploys: bool = False,
) -> Technique:
    return Technique(name, frozenset(requires), frozenset(preserves), frozenset(adds), trains, deploys)


TECHNIQUES: dict[str, Technique] = {
    technique.name: technique
    for technique in (
        _technique("import_model", trains=False),
        _technique("prune", adds=[SPARSE]),
        _technique("cluster", adds=[CLUSTERED]),
        _technique("sparsity_preserving_cluster", requires=[SPARSE], preserves=[SPARSE], adds=[CLUSTERED]),
        _technique(
            "post_training_quantize", preserves=[SPARSE, CLUSTERED], adds=[QUANTIZED], trains=False, deploys=True
        ),
        _technique("quantize_aware_train", adds=[QUANTIZED], deploys=True),
        _technique("sparsity_preserving_qat", requires=[SPARSE], preserves=[SPARSE], adds=[QUANTIZED], deploys=True),
        _technique(
            "cluster_preserving_qat", requires=[CLUSTERED], preserves=[CLUSTERED], adds=[QUANTIZED], deploys=True
        ),
        _technique(
            "sparsity_cluster_preserving_qat",
            requires=[SPARSE, CLUSTERED],
            preserves=[SPARSE, CLUSTERED],
            adds=[QUANTIZED],
            deploys=True,
        ),
    )
}


def properties_after(techniques: Iterable[str]) -> frozenset[str]:
    """What a model has won and kept after these techniques, in this order, from the baseline on."""
    properties: frozenset[str] = frozenset()
    for name in techniques:
        properties = TECHNIQUES[name].properties_after(properties)
    return properties


def pathway_of(techniques: Iterable[str]) -> str:
    """`collaborative` when any technique on the way preserves an earlier one, else `standard`.

    Args:
        techniques: Names of the techniques from the baseline to the stage, both included.
    """
    return "collaborative" if any(TECHNIQUES[name].is_collaborative for name in techniques) else "standard"
