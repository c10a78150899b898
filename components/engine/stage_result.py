"""What a stage hands to Kubeflow Pipelines beside its directory."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class StageResult:
    """Scalars, metadata and values of a finished stage.

    Attributes:
        metrics: Scalars for `dsl.Metrics`.
        metadata: Text for the artifact's metadata.
        values: Output parameters.
    """

    metrics: dict[str, float]
    metadata: dict[str, str]
    values: dict[str, str] = field(default_factory=dict)

    def write_to(self, artifact: Any, metrics: Any = None) -> None:
        """Writes onto a KFP artifact and, if given, a KFP metrics artifact.

        KFP keeps scalars as metadata and wants no file; but kfp.local takes a task whose artifact is no file for one
        that has to run again. So they are written as JSON too.
        """
        artifact.metadata.update(self.metadata)
        if metrics is not None:
            for name, value in self.metrics.items():
                metrics.log_metric(name, value)
            Path(metrics.path).parent.mkdir(parents=True, exist_ok=True)
            Path(metrics.path).write_text(json.dumps(self.metrics, indent=2) + "\n", encoding="utf-8")
