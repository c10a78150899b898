"""The figures of a predicted file, by the names that the gate has for those of a leaf."""

from collabopt.components.engine.deployed.activation_memory import activation_bytes
from collabopt.components.engine.deployed.inspect import inspect_tflite
from collabopt.components.engine.deployed.leaf import Leaf
from collabopt.components.engine.deployed.npu import estimate_npu
from collabopt.components.engine.policy.figures import file_figures, finite, npu_figures
from collabopt.components.engine.prescreen.records import PREDICTABLE, PredictedFile


def measure(leaf: Leaf, accelerator: str) -> PredictedFile:
    """Inspects a file and lets Vela estimate it.

    Args:
        leaf: The file, and what it keeps.
        accelerator: One of `ACCELERATORS`.
    """
    deployed, npu = inspect_tflite(leaf.tflite), estimate_npu(leaf.tflite, accelerator)
    figures = {
        **file_figures(deployed),
        "activation_bytes": activation_bytes(leaf.tflite),
        **npu_figures(npu),
    }
    return PredictedFile(
        sha256=deployed.sha256,
        figures={name: value for name, value in finite(figures).items() if name in PREDICTABLE},
        contract=leaf.contract,
        accelerator=accelerator,
        npu_gap="" if npu.supported else npu.reason,
        npu_tool=npu.tool,
    )
