"""Estimates of the real Vela, and what becomes of files that it cannot take."""

import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from collabopt.components.engine.deployed import npu
from collabopt.components.engine.deployed.npu import estimate_npu
from collabopt.components.engine.errors import CollaboptError

FIGURES = ("latency_ms", "sram_bytes", "flash_bytes", "weight_bytes", "macs")


def figures(estimate):
    return {name: getattr(estimate, name) for name in FIGURES}


@pytest.fixture
def instead_of_vela(monkeypatch):
    """Lets a Python program stand in for Vela; it is called with Vela's arguments, in Vela's directory."""

    def put(program):
        run = subprocess.run

        def call(command, **options):
            return run([command[0], "-c", program, *command[3:]], **options)

        monkeypatch.setattr(npu.subprocess, "run", call)

    return put


def test_an_int8_net_has_an_estimate_with_its_tool(nets):
    estimate = estimate_npu(nets["int8"])
    assert (estimate.supported, estimate.reason) == (True, "")
    assert estimate.accelerator == "ethos-u55-128"
    assert (estimate.system_config, estimate.memory_mode) == ("Ethos_U55_High_End_Embedded", "Shared_Sram")
    assert estimate.tool.startswith("ethos-u-vela 5.")
    # Conv 6*6*4*9, its ReLU 6*6*4, depthwise 4*4*4*9, Dense 64*64 and 64*6.
    assert estimate.macs == 1296 + 144 + 576 + 4096 + 384
    assert 4516 < estimate.weight_bytes <= estimate.flash_bytes < 20_000
    assert 144 + 64 <= estimate.sram_bytes < 20_000
    assert 0.001 < estimate.latency_ms < 0.1
    assert estimate.npu_operators >= 4
    assert estimate.cpu_operators == 0


def test_the_same_bytes_have_the_same_estimate(nets):
    assert estimate_npu(nets["elu"]) == estimate_npu(nets["elu"])


def test_zeros_in_the_weights_show_in_the_encoded_weights_and_nowhere_in_the_work(nets):
    plain, pruned = estimate_npu(nets["int8"]), estimate_npu(nets["pruned"])
    assert pruned.weight_bytes < plain.weight_bytes / 2
    assert pruned.macs == plain.macs


@pytest.mark.parametrize("accelerator", ["ethos-u55-32", "ethos-u65-256", "ethos-u85-256"])
def test_every_family_of_accelerators_is_estimated(nets, accelerator):
    estimate = estimate_npu(nets["int8"], accelerator)
    assert estimate.supported, estimate.reason
    assert estimate.accelerator == accelerator
    assert all(value > 0 for value in figures(estimate).values())
    assert figures(estimate) != figures(estimate_npu(nets["int8"]))


def test_a_float_net_is_unsupported_and_not_free(nets):
    estimate = estimate_npu(nets["float"])
    assert not estimate.supported
    assert estimate.reason.startswith("no operator of it runs on the NPU: ")
    assert "Float32" in estimate.reason
    assert set(figures(estimate).values()) == {None}
    assert (estimate.npu_operators, estimate.cpu_operators) == (0, 5)


def test_operators_that_are_left_to_the_cpu_are_counted(nets):
    estimate = estimate_npu(nets["elu"])
    assert estimate.supported
    assert estimate.cpu_operators == 3  # DEQUANTIZE, ELU, QUANTIZE
    assert estimate.npu_operators >= 3


def test_a_crash_of_vela_is_a_result(nets):
    estimate = estimate_npu(nets["int8"][:1000])
    assert not estimate.supported
    assert estimate.reason.startswith("Vela crashed (SIGSEGV): Failed to load TfLite model")
    assert set(figures(estimate).values()) == {None}


def test_a_refusal_of_vela_is_a_result_in_its_own_words():
    estimate = estimate_npu(b"no model at all")
    assert not estimate.supported
    assert estimate.reason.startswith("Vela refuses it: RuntimeError: Compilation failed")


def test_a_vela_that_does_not_end_is_a_result(nets, instead_of_vela, monkeypatch):
    monkeypatch.setattr(npu, "_LIMIT_SECONDS", 1)
    instead_of_vela("import time; time.sleep(60)")
    start = time.monotonic()
    assert estimate_npu(nets["int8"]).reason == "Vela has not finished within 1 s"
    assert time.monotonic() - start < 8


@pytest.mark.parametrize(
    ("summary", "reason"),
    [
        ("inference_time,sram_memory_used\n0.001,2\n", "the summary of this version of Vela does not read"),
        ("", "the summary of this version of Vela does not read"),
        ("nn_macs,sram_memory_used,inference_time\n1\n", "the summary of this version of Vela does not read"),
        (
            "inference_time,sram_memory_used,off_chip_flash_memory_used,total_npu_encoded_weights,nn_macs\n0,0,0,0,0\n",
            "Vela gives no time for it",
        ),
    ],
)
def test_a_summary_that_says_nothing_is_no_estimate(nets, instead_of_vela, summary, reason):
    instead_of_vela(f"open('m_summary_x.csv', 'w').write({summary!r}); print('CPU operators = 0\\nNPU operators = 3')")
    estimate = estimate_npu(nets["int8"])
    assert not estimate.supported
    assert estimate.reason.startswith(reason)
    assert set(figures(estimate).values()) == {None}


def test_a_vela_that_fails_at_the_end_gives_no_estimate(nets, instead_of_vela):
    names = "inference_time,sram_memory_used,off_chip_flash_memory_used,total_npu_encoded_weights,nn_macs"
    instead_of_vela(
        f"open('m_summary_x.csv', 'w').write('{names}\\n1,1,1,1,1\\n')\n"
        "print('CPU operators = 0\\nNPU operators = 3\\nout of memory'); raise SystemExit(3)"
    )
    estimate = estimate_npu(nets["int8"])
    assert (estimate.supported, estimate.reason) == (False, "Vela refuses it: out of memory")
    assert set(figures(estimate).values()) == {None}


def test_a_silent_death_is_told_by_its_signal(nets, instead_of_vela):
    instead_of_vela("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert estimate_npu(nets["int8"]).reason == f"Vela crashed ({signal.SIGKILL.name}): it said nothing"


def test_nothing_is_left_behind_and_nothing_is_written_elsewhere(nets, tmp_path, monkeypatch):
    home, temporary, here = tmp_path / "home", tmp_path / "temporary", tmp_path / "here"
    for directory in (home, temporary, here):
        directory.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.chdir(here)
    assert estimate_npu(nets["int8"]).supported
    assert [path for path in Path(tmp_path).rglob("*") if path not in (home, temporary, here)] == []


def test_an_unknown_accelerator_is_refused_before_anything_runs(nets, instead_of_vela):
    instead_of_vela("raise SystemExit('Vela must not run')")
    with pytest.raises(CollaboptError, match="no accelerator 'u55'") as refusal:
        estimate_npu(nets["int8"], "u55")
    assert "ethos-u55-128" in refusal.value.todo
