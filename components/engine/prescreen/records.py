"""What a prescreen has found: `prescreen.json`."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.policy.figures import FIGURES, NPU
from collabopt.components.engine.policy.policy import Policy
from collabopt.components.engine.records import PRESCREEN_FILE, Contract
from collabopt.components.engine.whole_file import written_whole

# What is the same, but for a few bytes, after training.
PREDICTABLE = (
    *("tflite_bytes", "gzip_bytes", "zip_bytes", "packed_bytes", "weight_entropy_bytes", "activation_bytes"),
    *(name for name in FIGURES if name.startswith(NPU)),
)


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PredictedFile(_Frozen):
    """What a file made without training shows and costs.

    Attributes:
        sha256: Its digest; "" where it cannot be made.
        figures: Those of the gate's figures that are `PREDICTABLE`, where they are known and finite.
        contract: Whether it keeps what was claimed of its weights.
        accelerator: NPU that the figures on an NPU are for.
        npu_gap: Why there are none; "" where there are.
        npu_tool: Name and version of the compiler that estimated them.
        infeasible: Why the file cannot be made; "" where it can.
        recipe: Names how it was made, whatever NPU its figures are for; see `Recipe.name`.
    """

    sha256: str = ""
    recipe: str = ""
    figures: dict[str, FiniteFloat] = Field(default_factory=dict)
    contract: Contract = Contract()
    accelerator: str
    npu_gap: str = ""
    npu_tool: str = ""
    infeasible: str = ""


class Prediction(PredictedFile):
    """What a leaf will come to in a configuration.

    Attributes:
        leaf: Name of the leaf.
        configuration: Axis -> value, of the axes that the leaf depends on.
        missed: Goals of the policy that it cannot meet, each a sentence with the predicted figure.
    """

    leaf: str
    configuration: dict[str, int | float]
    missed: list[str] = Field(default_factory=list)


class Comparison(_Frozen):
    """A figure of a leaf, predicted and after training.

    Attributes:
        leaf: Name of the leaf.
        configuration: As its prediction has it.
        figure: Name of the figure.
        predicted: Without training.
        trained: Of the trained leaf.
        error: How far the prediction is off, as a share of the trained leaf's figure; positive where it is too large.
    """

    leaf: str
    configuration: dict[str, int | float]
    figure: str
    predicted: FiniteFloat
    trained: FiniteFloat
    error: FiniteFloat


class Prescreen(_Frozen):
    """Everything that a prescreen has predicted.

    Attributes:
        schema_version: Version of this layout.
        model: Source of the model.
        data: Source of the data.
        dataset_digest: SHA-256 of the dataset's content.
        grid: Axis -> its values.
        baseline: Sizes of the float `.tflite` of the baseline, in bytes.
        policy: What predictions were judged by; None for nothing.
        predictions: One per leaf and configuration; leaves of one structure have the same file.
        files: So many files were made.
        not_trained: Stage -> why a pipeline does not train it.
        comparisons: Predictions beside trained leaves, where there were any.
        versions: Package -> version, of what made the files.
    """

    schema_version: int = 1
    model: str
    data: str
    dataset_digest: str
    grid: dict[str, list[int | float]]
    baseline: dict[str, FiniteFloat]
    policy: Policy | None = None
    predictions: list[Prediction]
    files: int
    not_trained: dict[str, str] = Field(default_factory=dict)
    comparisons: list[Comparison] = Field(default_factory=list)
    versions: dict[str, str]


def write_prescreen(prescreen: Prescreen, path: Path) -> None:
    """Writes the record, of which nobody ever reads half.

    Raises:
        CollaboptError: It cannot be written there.
    """
    try:
        with written_whole(path) as written:
            written.write_text(prescreen.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise CollaboptError(
            f"the predictions cannot be written: {error.strerror}", where=str(path), todo="pass another --output"
        ) from error


def read_prescreen(path: Path) -> Prescreen:
    """Reads a record.

    Raises:
        CollaboptError: The file is missing or not such a record.
    """
    todo = f"pass a {PRESCREEN_FILE} that this version of collabopt has written"
    try:
        return Prescreen.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CollaboptError(f"the predictions cannot be read: {error.strerror}", where=str(path), todo=todo) from error
    except ValidationError as error:
        raise CollaboptError(
            f"these are no predictions: {error.errors()[0]['msg']}", where=str(path), todo=todo
        ) from error
