import platform
import time
from types import SimpleNamespace

import numpy as np
import pytest

from collabopt.components.engine.deployed import latency
from collabopt.components.engine.deployed.latency import host_latency


def test_both_kinds_of_kernels_are_timed(nets):
    measured = host_latency(nets["int8"], invokes=200)
    assert [each.kernels for each in measured] == ["xnnpack", "builtin"]
    for each in measured:
        assert each.supported
        assert each.invokes == 200
        assert 0 < each.median_ms <= each.p90_ms < 50
        assert each.tool.startswith("ai-edge-litert 2.")
        assert each.cpu


def test_at_least_a_thousand_invokes_are_timed_unless_others_are_wanted(nets):
    assert [each.invokes for each in host_latency(nets["float"])] == [1000, 1000]


def test_xnnpack_is_what_the_first_figure_is_about(nets):
    """It is several times as fast on a net whose time is its convolutions; here the order is enough."""
    xnnpack, builtin = host_latency(nets["int8"], invokes=500)
    assert xnnpack.median_ms < builtin.median_ms


def test_kernels_that_refuse_a_file_have_no_times(nets):
    xnnpack, builtin = host_latency(nets["dead"], invokes=20)
    assert (xnnpack.supported, xnnpack.median_ms, xnnpack.p90_ms) == (False, None, None)
    assert builtin.supported
    assert builtin.median_ms > 0


def test_median_and_90th_percentile_of_the_invokes_alone(nets, monkeypatch):
    """A net that takes 1 ms, and every fifth time 30 ms, but much longer at first, and to get ready."""
    calls = []

    def invoke():
        calls.append(1)
        number = len(calls)
        time.sleep(0.2 if number <= 5 else 0.03 if number % 5 == 0 else 0.001)

    def ready(tflite, kernels):
        calls.clear()
        time.sleep(0.2)
        return SimpleNamespace(invoke=invoke)

    monkeypatch.setattr(latency, "_ready", ready)
    monkeypatch.setattr(latency, "_WARM_UP", 5)
    xnnpack, _ = host_latency(nets["int8"], invokes=40)
    assert len(calls) == 45
    assert 1 <= xnnpack.median_ms < 15
    assert 30 <= xnnpack.p90_ms < 100


@pytest.mark.parametrize("name", ["int8", "float"])
def test_the_sample_is_zero_in_the_units_of_the_file(nets, name):
    interpreter = latency._ready(nets[name], "builtin")
    (source,) = interpreter.get_input_details()
    scale, zero_point = source["quantization"]
    assert source["shape"].tolist() == [1, 8, 8, 1]
    assert np.all((interpreter.get_tensor(source["index"]).astype(np.float32) - zero_point) * (scale or 1) == 0)


def test_a_machine_without_cpuinfo_is_named_all_the_same(monkeypatch, tmp_path):
    monkeypatch.setattr(latency, "Path", lambda _: tmp_path / "no such file")
    assert latency._cpu() == (platform.processor() or platform.machine())
