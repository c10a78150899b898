"""What the stages of a search have left behind so far."""

from dataclasses import dataclass, field
from pathlib import Path

from collabopt.components.engine.records import StageRecord


@dataclass
class Finished:
    """Stages that have been finished.

    Attributes:
        models: Name of a stage, in a search with its trial -> directory of its model.
        records: The same -> what it says of itself.
        dataset: Directory of the data set; None before it was loaded.
    """

    models: dict[str, Path] = field(default_factory=dict)
    records: dict[str, StageRecord] = field(default_factory=dict)
    dataset: Path | None = None
