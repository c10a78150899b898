"""Read a data set, split it, and store it for every later stage."""

from kfp import dsl

from collabopt.components.image import component


@component
def load_dataset(
    dataset: dsl.Output[dsl.Dataset],
    source: str,
    source_digest: str = "",
    task: str = "collabopt.components.engine.training.classification:TASK",
    seed: int = 0,
    train_share: float = 1.0,
    test_share: float = 0.2,
    validation_share: float = 0.1,
    calibration_share: float = 0.1,
    calibration_samples: int = 500,
    scale: float = 1.0,
    offset: float = 0.0,
    image_height: int = 96,
    image_width: int = 96,
    image_channels: int = 3,
    feature_spec: dict = {},
    overrides: dict = {},
):
    """Read a data set, split it, and store it for every later stage.

    Args:
        source: `.npz` file, TFRecord file, glob or directory, image directory (`<class>/<image>`), each local or
            `gs://`; `example://digits`, `example://fashion-mnist`; or `task` when the task brings its own data.
        source_digest: The `data_digest` that configure has found; what is read must have it. It makes other content
            under the same name a miss of Kubeflow's cache. Empty: whatever lies there, and a hit by name alone.
        task: Import path of the task, `module:attribute`.
        seed: Seed of the splits.
        train_share: Share of the training samples that is used at all.
        test_share: Share held out for test where the source has no test split.
        validation_share: Share of the rest for validation where the source has none.
        calibration_share: Share of the rest for calibration, at most calibration_samples.
        calibration_samples: See calibration_share.
        scale: Models are fed `features * scale + offset`.
        offset: See scale.
        image_height: Height in pixels that image files are resized to.
        image_width: Width in pixels that image files are resized to.
        image_channels: 1 for grey, 3 for colour.
        feature_spec: Feature spec of TFRecord files.
        overrides: Inputs by name that take precedence over those above.

    Returns:
        dataset: Directory with train, calibration, validation and test splits and their element spec.
    """
    from collabopt.components.engine.stages import load_dataset_stage

    load_dataset_stage(
        source=source,
        source_digest=source_digest,
        output=dataset.path,
        task=task,
        settings={
            "seed": seed,
            "train_share": train_share,
            "test_share": test_share,
            "validation_share": validation_share,
            "calibration_share": calibration_share,
            "calibration_samples": calibration_samples,
            "scale": scale,
            "offset": offset,
            "image_height": image_height,
            "image_width": image_width,
            "image_channels": image_channels,
            "feature_spec": feature_spec,
        },
        overrides=overrides,
    ).write_to(dataset)
