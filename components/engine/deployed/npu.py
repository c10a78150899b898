"""What a `.tflite` costs on an Arm Ethos-U, as Arm's compiler Vela estimates it."""

import csv
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from collabopt.components.engine.deployed.accelerators import DEFAULT_ACCELERATOR, System, system_of
from collabopt.components.engine.records import NpuEstimate

_LIMIT_SECONDS = 600
_KIB = 1024
_LONGEST_REASON = 300


def estimate_npu(tflite: bytes, accelerator: str = DEFAULT_ACCELERATOR) -> NpuEstimate:
    """Compiles a model for an NPU and reads what the compiler expects of it.

    Vela runs in a process and a directory of its own: its core is C++, and a file that it cannot take may crash it.
    That is a result and not an error, as is a file of which every operator is left to the CPU: for such a file Vela
    itself says zero.

    Args:
        tflite: The flatbuffer.
        accelerator: One of `ACCELERATORS`.

    Returns:
        The estimate: the same for the same bytes. Operators and multiply-accumulates are what Vela counts: of a softmax
        it makes dozens of operators, and an activation of its own adds one multiply-accumulate a value.

    Raises:
        CollaboptError: There is no such accelerator.
    """
    system = system_of(accelerator)
    unsupported = NpuEstimate(
        accelerator=accelerator,
        system_config=system.system_config,
        memory_mode=system.memory_mode,
        tool=_tool(),
        supported=False,
    )
    with tempfile.TemporaryDirectory(prefix="collabopt-vela-") as directory:
        try:
            done = _run_vela(tflite, accelerator, system, directory)
        except subprocess.TimeoutExpired:
            return _because(unsupported, f"Vela has not finished within {_LIMIT_SECONDS} s")
        summaries = list(Path(directory).glob("*_summary_*.csv"))
        if done.returncode or not summaries:
            return _because(unsupported, _last_words(done))
        with summaries[0].open(encoding="utf-8", newline="") as file:
            summary = next(csv.DictReader(file), {})
    return _read(unsupported, summary, done.stdout)


def _run_vela(tflite: bytes, accelerator: str, system: System, directory: str) -> "subprocess.CompletedProcess[str]":
    (Path(directory) / "model.tflite").write_bytes(tflite)
    command = [
        *(sys.executable, "-m", "ethosu.vela", "model.tflite", "--output-dir", ".", "--config", "Arm/vela.ini"),
        *("--accelerator-config", accelerator),
        *("--system-config", system.system_config, "--memory-mode", system.memory_mode),
    ]
    # Byte code that is kept saves every leaf after the first the compilation of Vela's own modules.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run(
        command,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=_LIMIT_SECONDS,
        check=False,
    )


def _read(unsupported: NpuEstimate, summary: dict[str, str], said: str) -> NpuEstimate:
    operators = {where: int(count) for where, count in re.findall(r"^(CPU|NPU) operators = (\d+)", said, re.M)}
    try:
        counts = {"npu_operators": operators["NPU"], "cpu_operators": operators["CPU"]}
        figures = {
            "latency_ms": float(summary["inference_time"]) * 1e3,
            "sram_bytes": _bytes(summary["sram_memory_used"]),
            "flash_bytes": _bytes(summary["off_chip_flash_memory_used"]),
            "weight_bytes": int(summary["total_npu_encoded_weights"]),
            "macs": int(summary["nn_macs"]),
        }
    except (KeyError, ValueError, TypeError) as error:
        return _because(unsupported, f"the summary of this version of Vela does not read: {error}")
    if not counts["npu_operators"]:
        return _because(unsupported.model_copy(update=counts), _why_on_cpu(said))
    if not (math.isfinite(figures["latency_ms"]) and figures["latency_ms"] > 0):
        return _because(unsupported.model_copy(update=counts), "Vela gives no time for it")
    return unsupported.model_copy(update={**counts, **figures, "supported": True})


def _bytes(kib: str) -> int:
    return round(float(kib) * _KIB)


def _why_on_cpu(said: str) -> str:
    reasons = re.findall(r"^Reason: (.+)$", said, re.M)
    nothing = "no operator of it runs on the NPU"
    return f"{nothing}: {reasons[0]}" if reasons else nothing


def _last_words(done: "subprocess.CompletedProcess[str]") -> str:
    lines = [line.strip() for line in (*done.stdout.splitlines(), *done.stderr.splitlines()) if line.strip()]
    last = lines[-1] if lines else "it said nothing"
    if done.returncode < 0:
        return f"Vela crashed ({signal.Signals(-done.returncode).name}): {last}"
    return f"Vela refuses it: {last}"


def _because(estimate: NpuEstimate, reason: str) -> NpuEstimate:
    return estimate.model_copy(update={"reason": reason[:_LONGEST_REASON]})


def _tool() -> str:
    from importlib.metadata import version

    return f"ethos-u-vela {version('ethos-u-vela')}"
