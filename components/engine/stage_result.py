"""What a stage hands to Kubeflow Pipelines beside its directory."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StageResult:
    """Scalars and metadata of a finished stage.

    Attributes:
        metrics: Scalars for `dsl.Metrics`.
        metadata: Text for the artifact's metadata.
    """

    metrics: dict[str, float]
    metadata: dict[str, str]

    def write_to(self, artifact: Any, metrics: Any = None) -> None:
        """Writes onto a KFP artifact and, if given, a KFP metrics artifact."""
        artifact.metadata.update(self.metadata)
        if metrics is not None:
            for name, value in self.metrics.items():
                metrics.log_metric(name, value)
