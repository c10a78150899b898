"""The parameters that every pipeline takes: the few that people sweep and compare."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

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


def signature() -> inspect.Signature:
    """The signature of every pipeline, as Kubeflow Pipelines reads it."""
    defaults = Parameters()
    return inspect.Signature(
        [
            inspect.Parameter(
                name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default={} if name == "settings" else getattr(defaults, name),
                annotation=dict if name == "settings" else field.type,
            )
            for name, field in Parameters.__dataclass_fields__.items()
        ]
    )


def pipeline(name: str) -> Callable[[Callable[[Parameters], None]], Any]:
    """Makes a KFP pipeline of a function of `Parameters`.

    Args:
        name: Name of the pipeline.
    """
    from kfp import dsl

    def decorate(body: Callable[[Parameters], None]) -> Any:
        @functools.wraps(body)
        def build(*args: Any, **kwargs: Any) -> None:
            body(Parameters(**signature().bind(*args, **kwargs).arguments))

        build.__signature__ = signature()  # type: ignore[attr-defined]
        build.__doc__ = f"{body.__doc__}\n\nArgs:{(Parameters.__doc__ or '').partition('Attributes:')[2]}"
        del build.__wrapped__
        return dsl.pipeline(name=name)(build)

    return decorate
