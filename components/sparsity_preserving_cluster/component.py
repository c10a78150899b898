"""Cluster a pruned model's weights and keep its zeros."""

from kfp import dsl

from collabopt.components.image import component


@component
def sparsity_preserving_cluster(
    parent: dsl.Input[dsl.Model],
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    stage: str,
    task: str = "collabopt.components.engine.training.classification:TASK",
    number_of_clusters: int = 16,
    centroid_initialization: str = "kmeans++",
    per_channel: bool = False,
    layers: dict = {},
    epochs: int = 3,
    batch_size: int = 32,
    learning_rate: float = 1e-4,
    learning_rate_schedule: str = "cosine",
    optimizer: str = "adam",
    distillation_weight: float = 0.5,
    distillation_temperature: float = 1.0,
    seed: int = 0,
    overrides: dict = {},
    skip: str = "",
):
    """Cluster a pruned model's weights and keep its zeros.

    As `cluster`, with one cluster fixed at zero, so that what pruning won stays.

    Args:
        parent: fp32 model of the parent stage.
        dataset: Output of load_dataset.
        stage: Name of the stage in the tree; also of its MLflow run.
        task: Import path of the task, `module:attribute`.
        number_of_clusters: Distinct values left in every clustered layer; at least 3.
        centroid_initialization: `kmeans++`, `linear`, `density` or `random`.
        per_channel: Cluster every output channel by itself instead of the whole kernel.
        layers: Name or pattern of layers (`block1_*`) -> `{"number_of_clusters": 8}` of their own, or `exclude`; the
            most specific pattern wins.
        epochs: Passes over the train split.
        batch_size: Samples per step.
        learning_rate: Initial learning rate; well below that of the original training.
        learning_rate_schedule: `cosine`, down to zero, or `constant`.
        optimizer: `adam`, `sgd`, `rmsprop` or `adamw`.
        distillation_weight: Share of the loss that compares outputs with the parent's, its teacher; 0 for labels alone,
            which is what the default comes to for tasks that have no `distillation`.
        distillation_temperature: Softens the outputs of both, from 1.
        seed: Seeds shuffling and initialisation; the same seed gives the same bytes.
        overrides: Hyperparameters by name that take precedence over the inputs above.
        skip: Why the stage is not trained, which is then all that it says; empty to train it.

    Returns:
        model: Directory with the fp32 model and `stage.json`.
        metrics: Scalars measured on the test split and in the outcome.
    """
    from collabopt.components.engine.stages import run_stage

    run_stage(
        "sparsity_preserving_cluster",
        stage=stage,
        parent=parent.path,
        dataset=dataset.path,
        output=model.path,
        task=task,
        settings={
            "number_of_clusters": number_of_clusters,
            "centroid_initialization": centroid_initialization,
            "per_channel": per_channel,
            "layers": layers,
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "learning_rate_schedule": learning_rate_schedule,
            "optimizer": optimizer,
            "distillation_weight": distillation_weight,
            "distillation_temperature": distillation_temperature,
            "seed": seed,
        },
        overrides=overrides,
        skip=skip,
    ).write_to(model, metrics)
