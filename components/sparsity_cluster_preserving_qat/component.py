"""Fine-tune a pruned and clustered model with fake quantization and keep both (PCQAT)."""

from kfp import dsl

from collabopt.components.image import component


@component
def sparsity_cluster_preserving_qat(
    parent: dsl.Input[dsl.Model],
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    stage: str,
    task: str = "collabopt.components.engine.training.classification:TASK",
    epochs: int = 3,
    batch_size: int = 32,
    learning_rate: float = 1e-4,
    learning_rate_schedule: str = "cosine",
    optimizer: str = "adam",
    distillation_weight: float = 0.5,
    distillation_temperature: float = 1.0,
    representative_samples: int = 200,
    palette: str = "tensor",
    accelerator: str = "ethos-u55-128",
    seed: int = 0,
    overrides: dict = {},
    skip: str = "",
):
    """Fine-tune a pruned and clustered model with fake quantization and keep both (PCQAT).

    Quantization-aware training in which every kernel keeps its zeros and its palette, one per deployed tensor.

    Args:
        parent: fp32 model of the parent stage.
        dataset: Output of load_dataset.
        stage: Name of the stage in the tree; also of its MLflow run.
        task: Import path of the task, `module:attribute`.
        epochs: Passes over the train split.
        batch_size: Samples per step.
        learning_rate: Initial learning rate; well below that of the original training.
        learning_rate_schedule: `cosine`, down to zero, or `constant`.
        optimizer: `adam`, `sgd`, `rmsprop` or `adamw`.
        distillation_weight: Share of the loss that compares outputs with the parent's, its teacher; 0 for labels alone,
            which is what the default comes to for tasks that have no `distillation`.
        distillation_temperature: Softens the outputs of both, from 1.
        representative_samples: Samples of the calibration split that set the activation ranges where some layer gets
            none from training.
        palette: `tensor` gives every deployed tensor one palette where the parent has one; `channel` scales every
            output channel by itself, which is finer, and splits the palette.
        accelerator: Arm Ethos-U that the footprint of the file is estimated for, as `ethos-u55-128` or `ethos-u85-512`.
        seed: Seeds shuffling and initialisation; the same seed gives the same bytes.
        overrides: Hyperparameters by name that take precedence over the inputs above.
        skip: Why the stage is not trained, which is then all that it says; empty to train it.

    Returns:
        model: Directory with `model.tflite`, packed `model.tflite.gz`, `model_data.cc/.h` and `report.json`.
        metrics: Scalars measured on the test split and in the outcome.
    """
    from collabopt.components.engine.stages import run_stage

    run_stage(
        "sparsity_cluster_preserving_qat",
        stage=stage,
        parent=parent.path,
        dataset=dataset.path,
        output=model.path,
        task=task,
        settings={
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "learning_rate_schedule": learning_rate_schedule,
            "optimizer": optimizer,
            "distillation_weight": distillation_weight,
            "distillation_temperature": distillation_temperature,
            "representative_samples": representative_samples,
            "palette": palette,
            "accelerator": accelerator,
            "seed": seed,
        },
        overrides=overrides,
        skip=skip,
    ).write_to(model, metrics)
