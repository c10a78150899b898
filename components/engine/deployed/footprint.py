"""What a `.tflite` costs where it runs."""

from collabopt.components.engine.deployed.accelerators import DEFAULT_ACCELERATOR
from collabopt.components.engine.deployed.activation_memory import activation_bytes
from collabopt.components.engine.deployed.latency import host_latency
from collabopt.components.engine.deployed.npu import estimate_npu
from collabopt.components.engine.records import Footprint


def measure_footprint(tflite: bytes, accelerator: str = DEFAULT_ACCELERATOR) -> Footprint:
    """Estimates a file on an NPU, times it on this machine, and counts its activations.

    Args:
        tflite: The flatbuffer.
        accelerator: One of `ACCELERATORS`.

    Raises:
        CollaboptError: There is no such accelerator, or the bytes are not a TFLite model.
    """
    return Footprint(
        npu=estimate_npu(tflite, accelerator),
        host=host_latency(tflite),
        activation_bytes=activation_bytes(tflite),
    )


def footprint_scalars(footprint: Footprint) -> dict[str, float]:
    """A footprint's figures by the names that they are logged and compared under; what is not known is left out.

    `host_latency_ms` is that of the kernels that predictions come from: XNNPACK's, or LiteRT's own where those refuse.
    """
    npu = footprint.npu
    host = {each.kernels: each for each in footprint.host if each.supported}
    used = host.get("xnnpack", host.get("builtin"))
    figures: dict[str, float | None] = {
        "npu_latency_ms": npu.latency_ms,
        "npu_sram_bytes": npu.sram_bytes,
        "npu_flash_bytes": npu.flash_bytes,
        "npu_weight_bytes": npu.weight_bytes,
        "npu_macs": npu.macs,
        "npu_cpu_operators": npu.cpu_operators if npu.supported else None,
        "activation_bytes": footprint.activation_bytes,
        "host_latency_ms": used.median_ms if used else None,
        "host_latency_p90_ms": used.p90_ms if used else None,
        "host_builtin_latency_ms": host["builtin"].median_ms if "builtin" in host else None,
    }
    return {name: float(value) for name, value in figures.items() if value is not None}
