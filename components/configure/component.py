"""Check a run's parameters and settings before anything is spent on it."""

from typing import NamedTuple

from collabopt.components.image import component


@component
def configure(
    stages: dict,
    settings: dict = {},
    policy: str = "",
    model: str = "",
    data: str = "",
    model_name: str = "collabopt",
    task: str = "collabopt.components.engine.training.classification:TASK",
    sparsity: float = 0.5,
    clusters: int = 16,
    epochs: int = 3,
    learning_rate: float = 1e-3,
    qat_epochs: int = 3,
    qat_learning_rate: float = 1e-4,
    batch_size: int = 32,
    accelerator: str = "ethos-u55-128",
    releases: str = "",
    prescreen: str = "skip",
    seed: int = 0,
) -> NamedTuple(  # type: ignore[valid-type]
    "Configuration",
    parameters=dict,
    model_digest=str,
    data_digest=str,
    dataset=dict,
    baseline=dict,
    ptq=dict,
    qat=dict,
    pruned=dict,
    pruned_ptq=dict,
    pqat=dict,
    pruned_clustered=dict,
    pruned_clustered_ptq=dict,
    pcqat=dict,
    clustered=dict,
    clustered_ptq=dict,
    cqat=dict,
):
    """Check a run's parameters and settings before anything is spent on it.

    Every stage gets its own overrides as a value, so that a change invalidates the cached results of that stage and
    of those below it, and no others. Model and data are told apart by what they hold, not by their names: their
    digests are values too. So this component itself must never be cached.

    Args:
        stages: Every stage of the tree that has settings -> its technique, or "" where the pipeline leaves it out.
        settings: Stage name -> hyperparameter -> value.
        policy: Policy of the deployment gate, as YAML.
        model: Source of the model, as for import_model.
        data: Source of the data, as for load_dataset.
        model_name: Name in the MLflow registry.
        task: Import path of the task, `module:attribute`.
        sparsity: Target sparsity of pruning.
        clusters: Number of clusters.
        epochs: Fine-tuning epochs of pruning and clustering.
        learning_rate: Learning rate of pruning and clustering.
        qat_epochs: Epochs of quantization-aware training.
        qat_learning_rate: Learning rate of quantization-aware training.
        batch_size: Samples per step.
        accelerator: NPU that the leaves' footprint is estimated for.
        releases: Where releases are kept; empty for the MLflow registry alone.
        prescreen: What predictions are for, as `mode` of the component prescreen.
        seed: Seed of everything.

    Returns:
        parameters: What people compare runs by: the arguments above, and settings as `<stage>.<name>`.
        model_digest: Digest of what the model's source holds now, for import_model.
        data_digest: Digest of what the data's source holds now, for load_dataset.
        dataset: Overrides of load_dataset.
        baseline: Overrides of import_model.
        ptq: Overrides of that stage, as for every stage of the tree.
    """
    from collections import namedtuple

    from collabopt.components.engine.configure import configure_run

    outputs = configure_run(
        stages=stages,
        settings=settings,
        policy=policy,
        model=model,
        data=data,
        model_name=model_name,
        releases=releases,
        task=task,
        prescreen=prescreen,
        parameters={
            "sparsity": sparsity,
            "clusters": clusters,
            "epochs": epochs,
            "learning_rate": learning_rate,
            "qat_epochs": qat_epochs,
            "qat_learning_rate": qat_learning_rate,
            "batch_size": batch_size,
            "accelerator": accelerator,
            "seed": seed,
        },
    )
    return namedtuple("Configuration", outputs)(**outputs)
