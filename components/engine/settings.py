"""Hyperparameters of every technique: types, defaults, legal ranges.

The component specs repeat names and defaults because Kubeflow Pipelines reads signatures; a test keeps both equal.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from collabopt.components.engine.deployed.accelerators import DEFAULT_ACCELERATOR, Accelerator
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.layer_patterns import EXCLUDE

OpenUnit = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Count = Annotated[int, Field(ge=1)]
Palette = Literal["tensor", "channel"]
SettingsType = TypeVar("SettingsType", bound="Settings")


class Settings(BaseModel):
    """Base of all settings: immutable, no unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value_as_number(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("a number is wanted, not true or false")
        return value


class LayerPruning(Settings):
    """What pruning does to one layer.

    Attributes:
        target_sparsity: Share of its weights that become zero; 0 leaves it dense.
    """

    target_sparsity: Annotated[float, Field(ge=0, lt=1)]


class LayerClustering(Settings):
    """What clustering does to one layer.

    Attributes:
        number_of_clusters: Distinct values left in it.
    """

    number_of_clusters: Annotated[int, Field(ge=2)]


class LayerSparsityPreservingClustering(LayerClustering):
    """As `LayerClustering`, where one cluster is the zero."""

    number_of_clusters: Annotated[int, Field(ge=3)]


LayerName = Annotated[str, Field(min_length=1)]
LayerSettings = TypeVar("LayerSettings", bound=Settings)
# Told apart before they are validated, so that errors speak of what was meant.
OwnOrExcluded = Annotated[
    Annotated[LayerSettings, Tag("own")] | Annotated[Literal["exclude"], Tag(EXCLUDE)],
    Discriminator(lambda value: EXCLUDE if isinstance(value, str) else "own"),
]


class TrainingSettings(Settings):
    """Fine-tuning, shared by every technique that trains.

    Attributes:
        epochs: Passes over the train split.
        batch_size: Samples per step.
        learning_rate: Initial learning rate; for fine-tuning, well below that of the original training.
        learning_rate_schedule: `cosine` lets the learning rate fall to zero along half a cosine, over all steps of the
            stage (Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983, without restarts).
        optimizer: Keras optimizer.
        distillation_weight: Share of the loss that compares outputs with the parent's, which is the teacher (Hinton et
            al. 2015, https://arxiv.org/abs/1503.02531); 0 for labels alone, which is what the default comes to where
            the task has no `distillation`; 1 for the teacher alone.
        distillation_temperature: Softens the outputs of both; what a teacher says of the other classes counts more.
        seed: Seeds shuffling, initialisation and augmentation.
    """

    epochs: Count = 3
    batch_size: Count = 32
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    learning_rate_schedule: Literal["cosine", "constant"] = "cosine"
    optimizer: Literal["adam", "sgd", "rmsprop", "adamw"] = "adam"
    distillation_weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    distillation_temperature: Annotated[float, Field(ge=1, le=100)] = 1.0
    seed: Seed = 0


class PruningSettings(TrainingSettings):
    """Magnitude pruning.

    Attributes:
        target_sparsity: Share of weights that become zero in every pruned layer.
        schedule: `constant` prunes to the target at once; `polynomial` raises sparsity from `initial_sparsity` to the
            target over the first half of training (Zhu & Gupta 2017, https://arxiv.org/abs/1710.01878).
        initial_sparsity: Sparsity at the first step of the polynomial schedule.
        frequency_steps: Steps between two updates of the masks.
        layers: Name or pattern of layers -> their own `{"target_sparsity": 0.8}`, where 0 leaves them dense as
            `exclude` does; see `settings_by_layer`.
    """

    target_sparsity: OpenUnit = 0.5
    schedule: Literal["constant", "polynomial"] = "constant"
    initial_sparsity: Annotated[float, Field(ge=0, lt=1)] = 0.0
    frequency_steps: Count = 100
    layers: dict[LayerName, OwnOrExcluded[LayerPruning]] = {}

    @model_validator(mode="after")
    def _initial_below_target(self) -> "PruningSettings":
        if self.initial_sparsity >= self.target_sparsity:
            raise ValueError("initial_sparsity must be below target_sparsity")
        for pattern, own in self.layers.items():
            if isinstance(own, LayerPruning) and 0 < own.target_sparsity <= self.initial_sparsity:
                raise ValueError(f"initial_sparsity must be below target_sparsity of layers '{pattern}'")
        return self

    def __hash__(self) -> int:
        """Equal settings have the same, in whatever order they name layers."""
        return _hash_of(self)


class ClusteringSettings(TrainingSettings):
    """Weight clustering.

    Attributes:
        number_of_clusters: Distinct values left in every clustered layer.
        centroid_initialization: How the first centroids are chosen.
        per_channel: Cluster every output channel by itself instead of the whole kernel.
        layers: Name or pattern of layers -> their own `{"number_of_clusters": 8}`, or `exclude`; see
            `settings_by_layer`.
    """

    number_of_clusters: Annotated[int, Field(ge=2)] = 16
    centroid_initialization: Literal["kmeans++", "linear", "density", "random"] = "kmeans++"
    per_channel: bool = False
    layers: dict[LayerName, OwnOrExcluded[LayerClustering]] = {}

    def __hash__(self) -> int:
        """Equal settings have the same, in whatever order they name layers."""
        return _hash_of(self)


class SparsityPreservingClusteringSettings(ClusteringSettings):
    """Clustering that keeps zeros: one cluster is the zero, so three are the least."""

    number_of_clusters: Annotated[int, Field(ge=3)] = 16
    layers: dict[LayerName, OwnOrExcluded[LayerSparsityPreservingClustering]] = {}  # type: ignore[assignment]

    def __hash__(self) -> int:
        """Equal settings have the same, in whatever order they name layers."""
        return _hash_of(self)


class PostTrainingQuantizationSettings(Settings):
    """Full-integer quantization without training.

    Attributes:
        representative_samples: Samples of the calibration split that set the activation ranges.
        palette: Where the parent is clustered per tensor: `tensor` gives every deployed tensor one palette, of no more
            values than clusters; `channel` scales every output channel by itself, which is finer, and splits the
            palette.
        accelerator: Arm Ethos-U that the footprint of the file is estimated for.
        seed: Kept for a uniform interface; the calibration samples are the first of the split.
    """

    representative_samples: Count = 200
    palette: Palette = "tensor"
    accelerator: Accelerator = DEFAULT_ACCELERATOR
    seed: Seed = 0


class QuantizationAwareTrainingSettings(TrainingSettings):
    """Quantization-aware training, plain or preserving.

    Attributes:
        representative_samples: Samples of the calibration split that set the activation ranges, where some layer gets
            none from training.
        accelerator: See `PostTrainingQuantizationSettings`.
    """

    representative_samples: Count = 200
    accelerator: Accelerator = DEFAULT_ACCELERATOR


class ClusterPreservingSettings(QuantizationAwareTrainingSettings):
    """Quantization-aware training that keeps clusters.

    Attributes:
        palette: See `PostTrainingQuantizationSettings`.
    """

    palette: Palette = "tensor"


class DatasetSettings(Settings):
    """How data are read and split.

    Attributes:
        seed: Seeds every split; the same seed gives the same splits.
        train_share: Share of the training samples that is used at all, for quick runs.
        test_share: Share held out for `test` where the source has no test split of its own.
        validation_share: Share of the remaining samples for `validation`, where the source has none.
        calibration_share: Share of the remaining samples for `calibration`, at most `calibration_samples`.
        calibration_samples: See `calibration_share`.
        scale: Models are fed `features * scale + offset`, for example 1/255 for images in bytes.
        offset: See `scale`.
        image_height: Height in pixels that image files are resized to.
        image_width: Width in pixels that image files are resized to.
        image_channels: 1 for grey, 3 for colour.
        feature_spec: For TFRecord files: `{"features": {...}, "label": {...}}`, each with `key`, `shape`, `dtype` and
            `encoding` (`values`, `image`, `raw` or `tensor`).
    """

    seed: Seed = 0
    train_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    test_share: OpenUnit = 0.2
    validation_share: OpenUnit = 0.1
    calibration_share: OpenUnit = 0.1
    calibration_samples: Count = 500
    scale: float = 1.0
    offset: float = 0.0
    image_height: Count = 96
    image_width: Count = 96
    image_channels: Literal[1, 3] = 3
    feature_spec: dict[str, dict[str, object]] = {}


class ImportSettings(Settings):
    """How the trained model is accepted.

    Attributes:
        allow_lambda: Accept Lambda layers, which run code that came with the model file.
        seed: Seeds the training of an example's baseline.
    """

    allow_lambda: bool = False
    seed: Seed = 0


SETTINGS: dict[str, type[Settings]] = {
    "load_dataset": DatasetSettings,
    "import_model": ImportSettings,
    "prune": PruningSettings,
    "cluster": ClusteringSettings,
    "sparsity_preserving_cluster": SparsityPreservingClusteringSettings,
    "post_training_quantize": PostTrainingQuantizationSettings,
    "quantize_aware_train": QuantizationAwareTrainingSettings,
    "sparsity_preserving_qat": QuantizationAwareTrainingSettings,
    "cluster_preserving_qat": ClusterPreservingSettings,
    "sparsity_cluster_preserving_qat": ClusterPreservingSettings,
}


def settings_for(technique: str, values: Mapping[str, object], stage: str) -> Settings:
    """Validates the settings of one stage.

    Args:
        technique: Name of the technique.
        values: Hyperparameters by name; missing ones take their defaults.
        stage: Name of the stage, for the error message.

    Returns:
        The immutable settings.

    Raises:
        CollaboptError: An unknown name or an illegal value; the message names stage, parameter and legal values.
    """
    return parse_settings(SETTINGS[technique], values, stage)


def parse_settings(schema: type[SettingsType], values: Mapping[str, object], stage: str) -> SettingsType:
    """As `settings_for`, where the kind of settings is known."""
    try:
        return schema(**values)
    except ValidationError as error:
        raise CollaboptError(
            f"settings of stage '{stage}' are not valid: {_describe(error)}",
            where=f"stage '{stage}'",
            todo=f"parameters of this stage: {', '.join(schema.model_fields)}",
        ) from error


def _hash_of(settings: Settings) -> int:
    fields = vars(settings) | {"layers": frozenset(settings.layers.items())}  # type: ignore[attr-defined]
    return hash(frozenset(fields.items()))


def readable_path(path: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Where a value is as its author knows it: without the tags of `OwnOrExcluded`, which follow a pattern."""
    return (*path[:2], *path[3:]) if len(path) > 2 and path[2] in ("own", EXCLUDE) else path


def _describe(error: ValidationError) -> str:
    problems = []
    for detail in error.errors():
        name = ".".join(str(part) for part in readable_path(detail["loc"]))
        if detail["type"] == "extra_forbidden":
            problems.append(f"unknown parameter '{name}'")
        elif name:
            problems.append(f"{name}={detail['input']!r}: {detail['msg']}")
        else:
            problems.append(detail["msg"])
    return "; ".join(problems)
