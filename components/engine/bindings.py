"""Which pipeline parameter sets which hyperparameter of which technique."""

from collections.abc import Mapping
from typing import Any

_SEED = {"seed": "seed"}
_FINE_TUNING = {"epochs": "epochs", "learning_rate": "learning_rate", "batch_size": "batch_size", **_SEED}
_LEAF = {"accelerator": "accelerator", **_SEED}
_QAT = {"epochs": "qat_epochs", "learning_rate": "qat_learning_rate", "batch_size": "batch_size", **_LEAF}

BINDINGS: dict[str, dict[str, str]] = {
    "load_dataset": _SEED,
    "import_model": _SEED,
    "prune": {"target_sparsity": "sparsity", **_FINE_TUNING},
    "cluster": {"number_of_clusters": "clusters", **_FINE_TUNING},
    "sparsity_preserving_cluster": {"number_of_clusters": "clusters", **_FINE_TUNING},
    "post_training_quantize": _LEAF,
    "quantize_aware_train": _QAT,
    "sparsity_preserving_qat": _QAT,
    "cluster_preserving_qat": _QAT,
    "sparsity_cluster_preserving_qat": _QAT,
}


def inputs_of(technique: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters of a technique that come from pipeline parameters, by their own names."""
    return {name: parameters[parameter] for name, parameter in BINDINGS[technique].items()}
