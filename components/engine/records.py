"""What a stage says of itself: `stage.json` beside a fp32 model, `report.json` beside a deployed one.

A stage that was not trained has `skipped.json`, and nothing beside it.
"""

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.settings import Palette
from collabopt.components.engine.stage_names import name_in_trial
from collabopt.components.engine.techniques import pathway_of

STAGE_FILE = "stage.json"
REPORT_FILE = "report.json"
SKIPPED_FILE = "skipped.json"
TFLITE_FILE = "model.tflite"
CURVE_FILE = "training_curve.csv"
PACKED_FILE = "model.tflite.gz"
DECISION_FILE = "decision.json"
HTML_FILE = "report.html"
CARD_FILES = ("model_card.md", "model_card.json")
BASELINE_FILE = "baseline.json"
SAMPLE_FILE = "sample.npz"
PRESCREEN_FILE = "prescreen.json"
# What the gate says of the decision for the leaf that ships; published with it.
RELEASED_FILES = (*CARD_FILES, HTML_FILE)
# What the gate leaves in its directory; the model card only where something ships, predictions where it has any.
GATE_FILES = (DECISION_FILE, HTML_FILE, *CARD_FILES, BASELINE_FILE, SAMPLE_FILE, PRESCREEN_FILE)

# As many test samples a leaf's proof takes at most; whoever keeps samples to prove leaves on keeps as many.
PROOF_SAMPLES = 256


def validation_name(metric: str) -> str:
    """Name of a metric on the validation split; its own name is that of its value on the test split."""
    return f"validation_{metric}"


RecordType = TypeVar("RecordType", bound="StageRecord")


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class Step(_Record):
    """One stage on the way from the baseline.

    Attributes:
        stage: Name of the stage in the tree.
        technique: Name of the technique it applied.
        settings: The hyperparameters it ran with, defaults included.
        metric_value: What its model reached in the deciding metric on the test split; None where that is not finite.
        metrics: Every finite scalar that the stage measured; empty for a leaf, whose report has them.
        mlflow_run_id: Run that logged the stage.
        skipped: Why it was not trained; "" where it was.
        trial: The trial of a search that it was made for first; None outside of a search.
    """

    stage: str
    technique: str
    settings: dict[str, Any] = Field(default_factory=dict)
    metric_value: float | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    mlflow_run_id: str = ""
    skipped: str = ""
    trial: int | None = None

    @property
    def name(self) -> str:
        """Its name among all stages of a run: in a search, the stage's with the trial."""
        return name_in_trial(self.stage, self.trial)


class MetricOfRecord(_Record):
    """The task's metric that decides, and its value for the fp32 baseline on the test split.

    Attributes:
        name: Name under which every record reports it.
        higher_is_better: Its direction.
        baseline: The baseline's value.
    """

    name: str
    higher_is_better: bool
    baseline: float

    def drop(self, value: float) -> float:
        """How much worse than the baseline a value is; negative when it is better."""
        return self.baseline - value if self.higher_is_better else value - self.baseline


class Claims(_Record):
    """What the fp32 model of an interior stage has won, by layer; its leaves are held to it.

    Attributes:
        sparsity: Pruned layer -> share of exact zeros in its kernel.
        zero_positions: Pruned layer -> SHA-256 of its packed zero mask (`numpy.packbits` of `kernel == 0`).
        clusters: Clustered layer -> distinct values, in its kernel or on an output channel of it.
        palette: Whether `clusters` counts over the whole `tensor` or over each output `channel`.
    """

    sparsity: dict[str, float] = Field(default_factory=dict)
    zero_positions: dict[str, str] = Field(default_factory=dict)
    clusters: dict[str, int] = Field(default_factory=dict)
    palette: Palette = "tensor"


class StageRecord(_Record):
    """Lineage, claims and metrics of one stage.

    Attributes:
        lineage: Steps from the baseline to this stage, both included.
        task: Import path of the task (`module:attribute`).
        dataset_digest: SHA-256 of the dataset's content.
        metric: The deciding metric and its baseline.
        metrics: Every scalar that the stage measured.
        claims: What the model has won so far.
        mlflow: `run_id` and `experiment_id` of the run that logged the stage; `incomplete`, with MLflow's failure,
            where the run does not show all of it.
        versions: Package -> version, of what produced it.
    """

    schema_version: int = 1
    lineage: list[Step]
    task: str
    dataset_digest: str
    metric: MetricOfRecord
    metrics: dict[str, float] = Field(default_factory=dict)
    claims: Claims = Claims()
    mlflow: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)

    @property
    def stage(self) -> str:
        """Name of the stage in the tree."""
        return self.lineage[-1].stage

    @property
    def name(self) -> str:
        """Its name among all stages of a run; see `Step`."""
        return self.lineage[-1].name

    @property
    def technique(self) -> str:
        """Name of the stage's technique."""
        return self.lineage[-1].technique

    @property
    def pathway(self) -> str:
        """`standard` or `collaborative`."""
        return pathway_of(step.technique for step in self.lineage)


class DeployedTensor(_Record):
    """One weight tensor as it lies in the `.tflite`.

    Attributes:
        name: Tensor name in the file.
        op: Builtin operator that reads it.
        dtype: Type of the stored values.
        shape: Dense shape.
        zero_fraction: Share of values equal to zero (the zero point, for quantized tensors).
        distinct_values: Distinct values in the whole tensor.
        max_distinct_values_per_channel: Largest number of distinct values on one output channel.
        channel_axis: Axis of the output channels.
        layer: The Keras layer that the tensor's name tells of; "" where it tells of none.
        quantization_axis: Axis that the scales run along; None for one scale or none.
        scales: Quantization scales, one or one per channel; empty for float weights.
        entropy_bits: Shannon entropy of the values in bits per weight, of the dense tensor.
        stored_bytes: Bytes of the buffer.
        deflated_bytes: Bytes of the buffer, deflated on its own by zlib's default strategy at level 9.
        packed_bytes: Bytes of the buffer, deflated on its own with or without pointers to repeats; see
            `DeployedModel.packed_bytes`.
    """

    name: str
    op: str
    dtype: str
    shape: list[int]
    zero_fraction: float
    distinct_values: int
    max_distinct_values_per_channel: int
    channel_axis: int
    layer: str = ""
    quantization_axis: int | None = None
    scales: list[float] = Field(default_factory=list)
    entropy_bits: float = 0.0
    stored_bytes: int = 0
    deflated_bytes: int = 0
    packed_bytes: int = 0


class DeployedModel(_Record):
    """What the bytes of a `.tflite` show.

    Attributes:
        sha256: Digest of the file.
        tflite_bytes: Size of the file.
        gzip_bytes: Size after gzip -9.
        zip_bytes: Size after ZIP deflate, the figure that TensorFlow Model Optimization's tables give.
        packed_bytes: Size of `model.tflite.gz`: a gzip file too, but with blocks and symbol codes of its own for every
            weight tensor.
        input_dtype: Type of the model input.
        output_dtype: Type of the model output.
        operators: Operator -> how often it occurs.
        float_operators: Operators that compute on float tensors.
        weights: Weight tensors of convolutions and fully connected layers.
        float_reasons: `OPERATOR (tensor it writes)` -> why it computes on floats.
        float_weights: Names of the weight tensors that are stored as floats.
        weight_bytes: Bytes of all weight buffers.
        weight_entropy_bytes: What they take at their tensors' entropies: the bound for codes of single weights.
        weight_packed_bytes: Sum of the weight tensors' `packed_bytes`.
        weight_deflated_bytes: Sum of the weight tensors' `deflated_bytes`.
        contents: What the file's bytes are for -> how many; adds up to `tflite_bytes`.
        contents_deflated: The same after zlib's deflate, level 9, every category on its own and of the weights every
            tensor; its sum is not that of the file.
    """

    sha256: str
    tflite_bytes: int
    gzip_bytes: int
    zip_bytes: int
    packed_bytes: int = 0
    input_dtype: str
    output_dtype: str
    operators: dict[str, int]
    float_operators: list[str] = Field(default_factory=list)
    weights: list[DeployedTensor] = Field(default_factory=list)
    float_reasons: dict[str, str] = Field(default_factory=dict)
    float_weights: list[str] = Field(default_factory=list)
    weight_bytes: int = 0
    weight_entropy_bytes: int = 0
    weight_packed_bytes: int = 0
    weight_deflated_bytes: int = 0
    contents: dict[str, int] = Field(default_factory=dict)
    contents_deflated: dict[str, int] = Field(default_factory=dict)


class BrokenLayer(_Record):
    """A layer whose deployed weights are not what its ancestors claim.

    Attributes:
        layer: Name of the Keras layer, or of the tensor where no layer is known for it.
        what: What is wrong, with figures.
    """

    layer: str
    what: str


class Contract(_Record):
    """What became, in the deployed bytes, of the claims that a leaf has to keep.

    Attributes:
        layers: Layers that claims are made for; all of them were checked.
        broken: What does not hold, layer by layer.
    """

    layers: list[str] = Field(default_factory=list)
    broken: list[BrokenLayer] = Field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether nothing is broken."""
        return not self.broken


class Interval(_Record):
    """How far the deciding metric may be off because the test split is a sample.

    Attributes:
        samples: Size of the test split.
        low: Lower end of the confidence interval.
        high: Upper end.
        confidence: Its level.
        method: How it was found.
    """

    samples: int
    low: float
    high: float
    confidence: float = 0.95
    method: str


class NpuEstimate(_Record):
    """What Arm's Vela says a file costs on an Ethos-U; estimates of a compiler, not measurements of silicon.

    Attributes:
        accelerator: Accelerator configuration, as `ethos-u55-128`.
        system_config: Vela's name for clocks and memories.
        memory_mode: Vela's name for what lies where.
        tool: Name and version of the compiler.
        supported: Whether any operator runs on the NPU. All figures are None where not.
        reason: Why not; "" where it is.
        latency_ms: One inference.
        sram_bytes: SRAM used.
        flash_bytes: Off-chip flash used: encoded weights, biases, commands.
        weight_bytes: Weights as the NPU reads them, after Vela's encoding.
        macs: Multiply-accumulates of one inference on the NPU.
        npu_operators: Operators on the NPU.
        cpu_operators: Operators that are left to the CPU, which the latency does not include.
    """

    accelerator: str
    system_config: str
    memory_mode: str
    tool: str
    supported: bool
    reason: str = ""
    latency_ms: float | None = None
    sram_bytes: int | None = None
    flash_bytes: int | None = None
    weight_bytes: int | None = None
    macs: int | None = None
    npu_operators: int = 0
    cpu_operators: int = 0


class HostLatency(_Record):
    """How long LiteRT takes for one sample on the machine of the stage, on one thread.

    A sanity figure: it cannot tell the leaves apart, which differ in their weights and not in their work.

    Attributes:
        kernels: `xnnpack`, or LiteRT's `builtin` ones.
        supported: Whether these kernels take the file. The times are None where not.
        median_ms: Median.
        p90_ms: 90th percentile.
        invokes: Invokes timed, after a warm-up.
        tool: Name and version of the runtime.
        cpu: The machine's processor.
    """

    kernels: Literal["xnnpack", "builtin"]
    supported: bool = True
    median_ms: float | None = None
    p90_ms: float | None = None
    invokes: int
    tool: str
    cpu: str


class Footprint(_Record):
    """What a file costs where it runs.

    Attributes:
        npu: On the NPU.
        host: On the machine of the stage.
        activation_bytes: Most bytes of activations alive at once, in the file's order of execution; an estimate
            without the runtime's own needs, alignment and scratch buffers.
    """

    npu: NpuEstimate
    host: list[HostLatency]
    activation_bytes: int


class Proof(_Record):
    """What anyone who has the file and the data set can reproduce in a moment.

    Attributes:
        samples: The first so many samples of the test split.
        metrics: The task's metrics on them, of the `.tflite` in LiteRT.
    """

    samples: int
    metrics: dict[str, float]


class LeafReport(StageRecord):
    """A stage record together with what its deployed file shows.

    Attributes:
        deployed: Inspection of `model.tflite`.
        contract: Whether the file holds `claims`. A leaf that breaks them is never shipped.
        interval: Confidence interval of the deciding metric.
        footprint: What the file costs on its target.
        proof: What the gate reproduces before it ships the leaf.
    """

    deployed: DeployedModel
    contract: Contract
    interval: Interval | None = None
    footprint: Footprint | None = None
    proof: Proof | None = None


class SkippedRecord(StageRecord):
    """The record of a stage that was not trained, without metrics and claims; its last step says why."""

    @property
    def reason(self) -> str:
        """Why it was not trained."""
        return self.lineage[-1].skipped


def write_record(record: StageRecord, directory: str | Path) -> Path:
    """Writes `report.json` for a leaf, `stage.json` for any other stage, and returns its path.

    For a stage that was not trained, leaf or not, it is `skipped.json`.
    """
    path = Path(directory) / _file_of(record)
    path.write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return path


def read_stage_record(directory: str | Path) -> StageRecord:
    """Reads the `stage.json` of a fp32 model directory.

    Raises:
        CollaboptError: The file is missing or not a stage record.
    """
    return _read(StageRecord, Path(directory) / STAGE_FILE)


def read_skipped(directory: str | Path) -> SkippedRecord | None:
    """Reads the `skipped.json` of a stage's directory; None where there is none.

    Raises:
        CollaboptError: The file is not the record of a skipped stage.
    """
    path = Path(directory) / SKIPPED_FILE
    return _read(SkippedRecord, path) if path.is_file() else None


def read_baseline(path: str | Path) -> StageRecord:
    """Reads the baseline's record that a gate has kept.

    Raises:
        CollaboptError: The file is missing or not a stage record.
    """
    return _read(StageRecord, Path(path))


def read_leaf_report(directory: str | Path) -> LeafReport:
    """Reads the `report.json` of a leaf directory.

    Raises:
        CollaboptError: The file is missing or not a leaf report.
    """
    return _read(LeafReport, Path(directory) / REPORT_FILE)


def _file_of(record: StageRecord) -> str:
    if isinstance(record, SkippedRecord):
        return SKIPPED_FILE
    return REPORT_FILE if isinstance(record, LeafReport) else STAGE_FILE


def _read(kind: type[RecordType], path: Path) -> RecordType:
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise CollaboptError(
            f"there is no {path.name} in this artifact",
            where=str(path.parent),
            todo="pass the output of a collabopt stage",
        ) from error
    except ValidationError as error:
        raise CollaboptError(
            f"{path.name} does not read as a {kind.__name__}: {error.errors()[0]['msg']}",
            where=str(path),
            todo="it may come from another version of collabopt; run the stage again",
        ) from error
