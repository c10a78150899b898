"""What a sensitivity scan has found."""

from pydantic import BaseModel, ConfigDict

from collabopt.components.engine.layer_plan import LayerPlan


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Trial(_Frozen):
    """One layer changed, all others as they were.

    Attributes:
        value: Sparsity, or number of clusters.
        metric: What the model then reaches; None where that is not finite.
        drop: How much worse that is than the baseline, as a share of it; negative where it is better.
    """

    value: int | float
    metric: float | None
    drop: float | None


class LayerSensitivity(_Frozen):
    """What becomes of the model when one layer is pruned or clustered.

    Attributes:
        layer: Name of the layer.
        weights: Size of its kernel.
        share: Of all weights that pruning and clustering work on.
        pruned: One for every sparsity, from the lowest.
        clustered: One for every number of clusters, from the highest, of those that it has more weights than.
    """

    layer: str
    weights: int
    share: float
    pruned: list[Trial]
    clustered: list[Trial]


class Scan(_Frozen):
    """What every layer does alone.

    Attributes:
        metric: Name of the deciding metric.
        baseline: Its value for the model as it is, on the same samples.
        samples: So many samples of the calibration split were used: the first.
        calibration_samples: So many there are.
        layers: In the model's order.
    """

    metric: str
    baseline: float
    samples: int
    calibration_samples: int
    layers: list[LayerSensitivity]


class Sensitivity(Scan):
    """A scan, and what is proposed for it.

    Attributes:
        schema_version: Version of this layout.
        model: Source of the model.
        data: Source of the data.
        tolerance: Drop that a layer alone may cause, as a share of the baseline.
        plan: The proposal.
        versions: Package -> version.
    """

    schema_version: int = 1
    model: str
    data: str
    tolerance: float
    plan: LayerPlan
    versions: dict[str, str]
