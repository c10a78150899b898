"""Which models are accepted as a baseline, and in what form."""

from typing import Any

from collabopt.components.engine.datasets.store import StoredDataset
from collabopt.components.engine.fetch import EXAMPLE_SCHEME
from collabopt.components.engine.settings import ImportSettings
from collabopt.components.engine.training.task import Task


def accepted_model(source: str, data: StoredDataset, task: Task, settings: ImportSettings) -> Any:
    """Loads a trained model and checks that the tree can take it and that it fits data and task.

    Args:
        source: Where the model is; see the import_model component.
        data: The data set that it must fit.
        task: Checks labels against outputs.
        settings: What to accept.

    Returns:
        A plain tf_keras model in the form that all techniques work on.

    Raises:
        CollaboptError: A model that is missing, broken, unsafe, or does not fit the data.
    """
    from collabopt.components.engine.models.canonical import canonical_form
    from collabopt.components.engine.models.checks import check_fits, check_model
    from collabopt.components.engine.models.examples import example_model
    from collabopt.components.engine.models.flatten import pin_input_shape
    from collabopt.components.engine.models.load import load_model

    if source.startswith(EXAMPLE_SCHEME):
        model = example_model(source.removeprefix(EXAMPLE_SCHEME), data, settings.seed)
    else:
        model = load_model(source, allow_lambda=settings.allow_lambda, seed=settings.seed)
    check_model(model, allow_lambda=settings.allow_lambda)
    check_fits(model, data.spec)
    model = pin_input_shape(model, data.spec.feature_shape)
    if task.check is not None:
        for split in data.spec.sizes:
            task.check(data.labels(split), tuple(model.output_shape[1:]))
    return canonical_form(model)
