"""What predictions start from: the trained model as the tree would accept it, and its data."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collabopt.components.engine.forked import run_forked
from collabopt.components.engine.policy.policy import Policy
from collabopt.components.engine.prescreen.predict import preload
from collabopt.components.engine.settings import DatasetSettings, ImportSettings

_DATASET, _MODEL = "dataset", "baseline"


@dataclass(frozen=True)
class BaselineSource:
    """A baseline and its data, as a user names them.

    Attributes:
        model: Where the model is; see the import_model component.
        data: Where the data are; see the load_dataset component.
        task: Import path of the task.
        dataset_settings: How to read and split the data.
        import_settings: How to accept the model.
    """

    model: str
    data: str
    task: str
    dataset_settings: DatasetSettings
    import_settings: ImportSettings


@dataclass(frozen=True)
class Accepted:
    """A baseline and its data on disk.

    Attributes:
        directory: Of the fp32 model.
        dataset: `Dataset` directory.
        dataset_digest: SHA-256 of the dataset's content.
        sizes: Sizes of the baseline's float `.tflite`, in bytes.
    """

    directory: Path
    dataset: Path
    dataset_digest: str
    sizes: Mapping[str, float]


def accept_baseline(
    source: BaselineSource, directory: Path, *, policy: Policy | None = None, log: Path | None = None
) -> Accepted:
    """Loads data and model as the stages of a pipeline do, in a forked process.

    Args:
        source: Where they are, and how to read them.
        directory: Where to write both.
        policy: What leaves are judged by; None for nothing.
        log: File for what the process prints; None to let it print.

    Raises:
        CollaboptError: Model or data are missing or broken, or do not fit each other, or the policy is not about this
            task, or the process has died.
    """
    preload(log)
    ((_, found),) = run_forked([functools.partial(_accept, source, directory, policy)], 1, log)
    return Accepted(directory / _MODEL, directory / _DATASET, **found)


def _accept(source: BaselineSource, directory: Path, policy: Policy | None) -> dict[str, Any]:
    from collabopt.components.engine.datasets.load import load_dataset
    from collabopt.components.engine.datasets.store import StoredDataset
    from collabopt.components.engine.deployed.file_sizes import float_file_sizes
    from collabopt.components.engine.models.accept import accepted_model
    from collabopt.components.engine.models.store import save_model
    from collabopt.components.engine.policy.policy import check_task
    from collabopt.components.engine.session import make_deterministic
    from collabopt.components.engine.training.task import load_task

    purpose = load_task(source.task)
    if policy is not None:
        check_task(policy, purpose)
    spec = load_dataset(source.data, directory / _DATASET, source.dataset_settings, purpose)
    make_deterministic(source.import_settings.seed)
    accepted = accepted_model(source.model, StoredDataset(directory / _DATASET), purpose, source.import_settings)
    save_model(accepted, directory / _MODEL)
    return {
        "dataset_digest": spec.digest,
        "sizes": float_file_sizes(accepted),
    }
