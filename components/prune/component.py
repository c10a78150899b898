"""Prune a model by weight magnitude while fine-tuning it."""

from kfp import dsl

from collabopt.components.image import component


@component
def prune(
    parent: dsl.Input[dsl.Model],
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    stage: str,
    task: str = "collabopt.components.engine.training.classification:TASK",
    target_sparsity: float = 0.5,
    schedule: str = "constant",
    initial_sparsity: float = 0.0,
    frequency_steps: int = 100,
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
    """Prune a model by weight magnitude while fine-tuning it.

    Zeros the smallest weights of every Dense and convolution layer (depthwise ones excepted) and fine-tunes the
    rest, with TFMOT's `prune_low_magnitude`.

    Args:
        parent: fp32 model of the parent stage.
        dataset: Output of load_dataset.
        stage: Name of the stage in the tree; also of its MLflow run.
        task: Import path of the task, `module:attribute`.
        target_sparsity: Share of weights that become zero in every pruned layer, in (0, 1).
        schedule: `constant` prunes to the target at once; `polynomial` ramps up to it over half of the training.
        initial_sparsity: Where the polynomial schedule starts.
        frequency_steps: Steps between two updates of the masks.
        layers: Name or pattern of layers (`block1_*`) -> `{"target_sparsity": 0.8}` of their own, or `exclude`, which
            leaves them dense; the most specific pattern wins.
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
        "prune",
        stage=stage,
        parent=parent.path,
        dataset=dataset.path,
        output=model.path,
        task=task,
        settings={
            "target_sparsity": target_sparsity,
            "schedule": schedule,
            "initial_sparsity": initial_sparsity,
            "frequency_steps": frequency_steps,
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
