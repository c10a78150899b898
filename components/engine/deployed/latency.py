"""How long LiteRT takes for a `.tflite` on the machine at hand."""

import platform
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np

from collabopt.components.engine.records import HostLatency

_WARM_UP = 50


def host_latency(tflite: bytes, invokes: int = 1000) -> list[HostLatency]:
    """Times single invokes on one thread, with XNNPACK's kernels and with LiteRT's own.

    The sample is zero everywhere; a network of convolutions takes as long for any other.

    Args:
        tflite: The flatbuffer.
        invokes: How many to time, after a warm-up.

    Returns:
        One entry for `xnnpack` and one for `builtin`; kernels that refuse the file are not `supported`.
    """
    return [_timed(tflite, "xnnpack", invokes), _timed(tflite, "builtin", invokes)]


def _timed(tflite: bytes, kernels: Literal["xnnpack", "builtin"], invokes: int) -> HostLatency:
    latency = HostLatency(kernels=kernels, supported=False, invokes=invokes, tool=_tool(), cpu=_cpu())
    try:
        interpreter = _ready(tflite, kernels)
        for _ in range(_WARM_UP):
            interpreter.invoke()
    except RuntimeError:  # XNNPACK refuses some legal files, as `evaluate` says
        return latency
    milliseconds = _times(interpreter, invokes) / 1e6
    times = {"median_ms": float(np.median(milliseconds)), "p90_ms": float(np.percentile(milliseconds, 90))}
    return latency.model_copy(update={"supported": True, **times})


def _ready(tflite: bytes, kernels: str) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    types = {"xnnpack": OpResolverType.AUTO, "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}
    interpreter = Interpreter(model_content=tflite, num_threads=1, experimental_op_resolver_type=types[kernels])
    interpreter.allocate_tensors()
    for source in interpreter.get_input_details():
        _, zero_point = source["quantization"]
        interpreter.set_tensor(source["index"], np.full(source["shape"], zero_point, source["dtype"]))
    return interpreter


def _times(interpreter: Any, invokes: int) -> np.ndarray:
    """Nanoseconds of every invoke, `[invokes]`."""
    times = np.empty(invokes)
    for number in range(invokes):
        start = time.perf_counter_ns()
        interpreter.invoke()
        times[number] = time.perf_counter_ns() - start
    return times


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _tool() -> str:
    from importlib.metadata import version

    return f"ai-edge-litert {version('ai-edge-litert')}"
