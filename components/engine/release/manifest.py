"""What belongs to a release."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from collabopt.components.engine.records import LeafReport


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class ReleaseFacts(_Record):
    """What a release is, beside its files.

    Attributes:
        leaf: Name of the leaf.
        metric: Name of the deciding metric.
        metric_value: What the leaf reached in it on the test split; None where that is not known.
        pipeline_run_id: The pipeline run that made the leaf; "" outside of one.
    """

    leaf: str
    metric: str
    metric_value: float | None
    pipeline_run_id: str = ""


class ReleasedFile(_Record):
    """One file of a release.

    Attributes:
        object: Name of its object, below the store's root.
        sha256: Digest of the content.
        size_bytes: Its size.
        crc32c: Its CRC32C, as Cloud Storage writes it.
    """

    object: str
    sha256: str
    size_bytes: int
    crc32c: str


class Manifest(_Record):
    """A release: all its files, and where each one lies.

    The model and what belongs to it never change. Where it becomes champion after another one than before, it gains
    patches, and its card and report are those of that decision.

    Attributes:
        schema_version: Version of this record.
        name: Name of the release.
        sha256: SHA-256 of its `model.tflite`.
        facts: What it is.
        created: When it was first published, UTC, ISO 8601.
        files: File name -> the file.
    """

    schema_version: Literal[1] = 1
    name: str
    sha256: str
    facts: ReleaseFacts
    created: str
    files: dict[str, ReleasedFile] = Field(default_factory=dict)


def facts_of(report: LeafReport, pipeline_run_id: str) -> ReleaseFacts:
    """The facts of a leaf."""
    return ReleaseFacts(
        leaf=report.name,
        metric=report.metric.name,
        metric_value=report.metrics.get(report.metric.name),
        pipeline_run_id=pipeline_run_id,
    )
