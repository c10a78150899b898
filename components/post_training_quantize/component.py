"""Quantize a model to full-integer int8 without training."""

from kfp import dsl

from collabopt.components.image import component


@component
def post_training_quantize(
    parent: dsl.Input[dsl.Model],
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    stage: str,
    task: str = "collabopt.components.engine.training.classification:TASK",
    representative_samples: int = 200,
    palette: str = "tensor",
    accelerator: str = "ethos-u55-128",
    seed: int = 0,
    overrides: dict = {},
    skip: str = "",
):
    """Quantize a model to full-integer int8 without training.

    Activation ranges come from the calibration split; sparsity and clusters of the parent stay.

    Args:
        parent: fp32 model of the parent stage.
        dataset: Output of load_dataset.
        stage: Name of the stage in the tree; also of its MLflow run.
        task: Import path of the task, `module:attribute`.
        representative_samples: Samples of the calibration split that set the activation ranges.
        palette: `tensor` gives every deployed tensor one palette where the parent has one; `channel` scales every
            output channel by itself, which is finer, and splits the palette.
        accelerator: Arm Ethos-U that the footprint of the file is estimated for, as `ethos-u55-128` or `ethos-u85-512`.
        seed: Kept for a uniform interface; calibration takes the first samples of its split.
        overrides: Hyperparameters by name that take precedence over the inputs above.
        skip: Why the leaf is not made, which is then all that it says; empty to make it.

    Returns:
        model: Directory with `model.tflite`, packed `model.tflite.gz`, `model_data.cc/.h` and `report.json`.
        metrics: Scalars measured on the test split and in the outcome.
    """
    from collabopt.components.engine.stages import run_stage

    run_stage(
        "post_training_quantize",
        stage=stage,
        parent=parent.path,
        dataset=dataset.path,
        output=model.path,
        task=task,
        settings={
            "representative_samples": representative_samples,
            "palette": palette,
            "accelerator": accelerator,
            "seed": seed,
        },
        overrides=overrides,
        skip=skip,
    ).write_to(model, metrics)
