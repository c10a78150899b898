"""From what each layer bears alone to a plan for all of them.

As Han et al. (2015, https://arxiv.org/abs/1506.02626) and Li et al. (2017, https://arxiv.org/abs/1608.08710) choose
what to prune: by how accuracy falls when one layer alone is pruned and nothing is trained again. What several layers
lose together adds up, and fine-tuning wins most of it back; the plan says where there is room, not what a leaf will
reach.
"""

from collections.abc import Sequence
from typing import Literal

from collabopt.components.engine.layer_plan import LayerPlan
from collabopt.components.engine.sensitivity.records import LayerSensitivity, Trial
from collabopt.components.engine.settings import LayerClustering, LayerPruning

# A layer of less than this share of the weights costs few bytes when it is left out.
SMALL_SHARE = 0.05


def propose(layers: Sequence[LayerSensitivity], tolerance: float) -> LayerPlan:
    """What is within tolerance, layer by layer.

    A layer gets the strongest value that it bears: it and all gentler ones cost no more than the tolerance. One that
    does not bear even the gentlest is excluded where it is small, below `SMALL_SHARE` of the weights; otherwise it gets
    the gentlest, as most of the bytes are at stake. The largest layer is never excluded, so that some layer is left.

    Args:
        layers: What each layer does alone.
        tolerance: Drop that is accepted of a layer, as a share of the baseline.

    Returns:
        An entry for every layer that there are trials of.
    """
    largest = max(layers, key=lambda each: each.weights).layer
    prune: dict[str, LayerPruning | Literal["exclude"]] = {}
    cluster: dict[str, LayerClustering | Literal["exclude"]] = {}
    for each in layers:
        small = each.share < SMALL_SHARE and each.layer != largest
        if each.pruned:
            sparsity = _strongest(each.pruned, tolerance, small)
            prune[each.layer] = "exclude" if sparsity is None else LayerPruning(target_sparsity=sparsity)
        if each.clustered:
            clusters = _strongest(each.clustered, tolerance, small)
            cluster[each.layer] = "exclude" if clusters is None else LayerClustering(number_of_clusters=int(clusters))
    return LayerPlan(prune=prune, cluster=cluster)


def within(trial: Trial, tolerance: float) -> bool:
    """Whether a trial costs no more than the tolerance."""
    return trial.drop is not None and trial.drop <= tolerance


def _strongest(trials: Sequence[Trial], tolerance: float, small: bool) -> float | None:
    """Of trials from the gentlest on; None to leave the layer out."""
    borne = None
    for trial in trials:
        if not within(trial, tolerance):
            break
        borne = trial.value
    if borne is None and not small:
        return trials[0].value
    return borne
