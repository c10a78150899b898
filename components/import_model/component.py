"""Accept a trained Keras model as the baseline of the tree."""

from kfp import dsl

from collabopt.components.image import component


@component
def import_model(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    source: str,
    source_digest: str = "",
    task: str = "collabopt.components.engine.training.classification:TASK",
    allow_lambda: bool = False,
    seed: int = 0,
    overrides: dict = {},
):
    """Accept a trained Keras model as the baseline of the tree.

    A Keras 3 file is rebuilt in tf_keras layer by layer and accepted only if its predictions match the original.

    Args:
        dataset: Output of load_dataset; the model must fit it.
        source: `.keras`, `.h5` or SavedModel, local or `gs://`; or `example://digits`, `example://fashion-mnist`.
        source_digest: The `model_digest` that configure has found; what is read must have it. It makes other content
            under the same name a miss of Kubeflow's cache. Empty: whatever lies there, and a hit by name alone.
        task: Import path of the task, `module:attribute`.
        allow_lambda: Accept Lambda layers, which run code that came with the file.
        seed: Seeds the training of an example's baseline.
        overrides: Inputs by name that take precedence over those above.

    Returns:
        model: Directory with the fp32 model and `stage.json`.
        metrics: Scalars measured on the test split.
    """
    from collabopt.components.engine.stages import import_model_stage

    import_model_stage(
        source=source,
        source_digest=source_digest,
        dataset=dataset.path,
        output=model.path,
        task=task,
        settings={"allow_lambda": allow_lambda, "seed": seed},
        overrides=overrides,
    ).write_to(model, metrics)
