import pytest

from collabopt.components.engine.deployed.activation_memory import activation_bytes
from collabopt.components.engine.deployed.footprint import footprint_scalars, measure_footprint
from collabopt.components.engine.deployed.npu import estimate_npu
from collabopt.components.engine.errors import CollaboptError

NPU = {"npu_latency_ms", "npu_sram_bytes", "npu_flash_bytes", "npu_weight_bytes", "npu_macs", "npu_cpu_operators"}
HOST = {"host_latency_ms", "host_latency_p90_ms", "host_builtin_latency_ms"}


def test_a_footprint_is_of_the_accelerator_that_is_named(nets):
    footprint = measure_footprint(nets["int8"], "ethos-u55-256")
    assert footprint.npu == estimate_npu(nets["int8"], "ethos-u55-256")
    assert footprint.activation_bytes == activation_bytes(nets["int8"])
    scalars = footprint_scalars(footprint)
    assert scalars.keys() == NPU | HOST | {"activation_bytes"}
    assert all(type(value) is float for value in scalars.values())
    assert scalars["npu_latency_ms"] == footprint.npu.latency_ms
    assert scalars["npu_flash_bytes"] == footprint.npu.flash_bytes
    assert scalars["host_latency_ms"] == footprint.host[0].median_ms
    assert scalars["host_latency_p90_ms"] == footprint.host[0].p90_ms
    assert scalars["host_builtin_latency_ms"] == footprint.host[1].median_ms


def test_what_is_unsupported_is_left_out_and_not_zero(nets):
    assert footprint_scalars(measure_footprint(nets["float"])).keys() == HOST | {"activation_bytes"}


def test_where_xnnpack_refuses_a_file_its_latency_is_that_of_the_kernels_that_run_it(nets):
    footprint = measure_footprint(nets["dead"])
    assert not footprint.host[0].supported
    scalars = footprint_scalars(footprint)
    assert scalars["host_latency_ms"] == scalars["host_builtin_latency_ms"] == footprint.host[1].median_ms


def test_an_unknown_accelerator_is_refused(nets):
    with pytest.raises(CollaboptError, match="no accelerator 'ethos-u99'"):
        measure_footprint(nets["int8"], "ethos-u99")
