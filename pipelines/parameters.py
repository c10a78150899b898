"""The parameters that every pipeline takes: the few that people sweep and compare."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from collabopt.components.engine.prescreen.mode import SKIP
from collabopt.components.engine.training.task import DEFAULT_TASK


@dataclass(frozen=True)
class Parameters:
    """Arguments of one pipeline run; while a pipeline compiles, these are Kubeflow's placeholders.

    Attributes:
        model: Trained model: `.keras`, `.h5`, SavedModel, local or `gs://`, or `example://NAME`.
        data: Data set: `.npz`, TFRecord, image directory, local or `gs://`, or `example://NAME`.
        task: Import path of the task, `module:attribute`.
        policy: What the deployment gate demands, as YAML; empty for the default policy.
        model_name: Name in the MLflow registry.
        sparsity: Share of weights that pruning sets to zero.
        clusters: Distinct values that clustering leaves in a layer.
        epochs: Fine-tuning epochs of pruning and clustering.
        learning_rate: Learning rate of pruning and clustering.
        qat_epochs: Epochs of quantization-aware training.
        qat_learning_rate: Learning rate of quantization-aware training.
        batch_size: Samples per training step.
        accelerator: NPU that the leaves' footprint is estimated for, as `ethos-u55-128`.
        releases: Where releases are kept: `gs://bucket/prefix` or a directory; empty for the MLflow registry alone.
        prescreen: `skip` predicts sizes and NPU figures and trains nothing that cannot meet
            the policy, `report` only compares what was predicted with what was trained, `off` predicts nothing.
        seed: Seed of splits, shuffling and initialisation.
        settings: Stage name -> hyperparameter -> value, for everything else.
    """

    model: str = "example://digits"
    data: str = "example://digits"
    task: str = DEFAULT_TASK
    policy: str = ""
    model_name: str = "collabopt"
    sparsity: float = 0.5
    clusters: int = 16
    epochs: int = 3
    learning_rate: float = 1e-3
    qat_epochs: int = 3
    qat_learning_rate: float = 1e-4
    batch_size: int = 32
    accelerator: str = "ethos-u55-128"
    releases: str = ""
    prescreen: str = SKIP
    seed: int = 0
    settings: Mapping[str, Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class SearchParameters(Parameters):
    """Arguments of a search, beside those of every run.

    Attributes:
        space: What to try, as YAML; empty for the default space.
        budget_trials: Most trials, the default configuration included.
        budget_epochs: Most epochs of training over all stages; 0 for no limit.
        budget_minutes: Wall time since the first proposal after which no wave is proposed; 0 for no limit.
    """

    space: str = ""
    budget_trials: int = 12
    budget_epochs: int = 0
    budget_minutes: float = 0.0


Taken = TypeVar("Taken", bound=Parameters)


def signature(kind: type[Parameters] = Parameters) -> inspect.Signature:
    """The signature of every pipeline, as Kubeflow Pipelines reads it.

    Args:
        kind: What the pipeline takes.
    """
    defaults = kind()
    return inspect.Signature(
        [
            inspect.Parameter(
                name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default={} if name == "settings" else getattr(defaults, name),
                annotation=dict if name == "settings" else field.type,
            )
            for name, field in kind.__dataclass_fields__.items()
        ]
    )


def pipeline(name: str, kind: type[Taken] = Parameters) -> Callable[[Callable[[Taken], None]], Any]:  # type: ignore[assignment]
    """Makes a KFP pipeline of a function of its parameters.

    Args:
        name: Name of the pipeline.
        kind: What it takes.
    """
    from kfp import dsl

    def decorate(body: Callable[[Taken], None]) -> Any:
        @functools.wraps(body)
        def build(*args: Any, **kwargs: Any) -> None:
            body(kind(**signature(kind).bind(*args, **kwargs).arguments))

        build.__signature__ = signature(kind)  # type: ignore[attr-defined]
        build.__doc__ = f"{body.__doc__}\n\nArgs:{_documentation(kind)}"
        del build.__wrapped__
        return dsl.pipeline(name=name)(build)

    return decorate


def _documentation(kind: type[Parameters]) -> str:
    """What the docstrings of the class and of that which it extends say of their attributes."""
    classes = [each for each in reversed(kind.__mro__) if issubclass(each, Parameters)]
    return "".join((each.__doc__ or "").partition("Attributes:")[2].rstrip() for each in classes) + "\n    "
