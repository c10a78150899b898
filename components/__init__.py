"""The catalogue: every component of the tree by name, ready for a Kubeflow pipeline.

`from collabopt.components import prune, pqat` works in any pipeline; a component is imported, and with it Kubeflow
Pipelines, when it is first asked for.
"""

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

CATALOGUE = (
    "configure",
    "load_dataset",
    "import_model",
    "prescreen",
    "propose_trials",
    "prune",
    "cluster",
    "sparsity_preserving_cluster",
    "post_training_quantize",
    "quantize_aware_train",
    "sparsity_preserving_qat",
    "cluster_preserving_qat",
    "sparsity_cluster_preserving_qat",
    "assess_leaves",
    "deployment_gate",
)

SHORT_NAMES = {
    "ptq": "post_training_quantize",
    "qat": "quantize_aware_train",
    "pqat": "sparsity_preserving_qat",
    "cqat": "cluster_preserving_qat",
    "pcqat": "sparsity_cluster_preserving_qat",
}
"""What TensorFlow's collaborative-optimization guide calls the techniques, for pipelines written by hand."""


if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


class _Catalogue(types.ModuleType):
    """Lets `collabopt.components.prune` be the component, not the package of that name that holds it.

    Python binds a package to its parent whenever it is imported; here that binding is passed over.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in CATALOGUE and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        name = SHORT_NAMES.get(name, name)
        if name not in CATALOGUE:
            known = ", ".join([*CATALOGUE, *SHORT_NAMES])
            raise AttributeError(f"collabopt.components has no '{name}'; components: {known}")
        return getattr(importlib.import_module(f"{__name__}.{name}.component"), name)

    def __dir__(self) -> list[str]:
        return sorted([*super().__dir__(), *CATALOGUE, *SHORT_NAMES])


sys.modules[__name__].__class__ = _Catalogue
