"""The C source, compiled, linked from two files and run."""

import shutil
import struct
import subprocess

import pytest

from collabopt.components.engine.deployed.c_array import write_c_array
from collabopt.components.engine.deployed.inspect import inspect_tflite

PRINT_ALL = """
#include <cstdint>
#include <cstdio>
#include <cstring>
#include "model_data.h"
static void bits(float value) { std::uint32_t b; std::memcpy(&b, &value, 4); std::printf("%u ", b); }
int main(int count, char**) {
  if (reinterpret_cast<std::uintptr_t>(g_pcqat) % 16 != 0) return 1;
  if (count > 1) return std::fwrite(g_pcqat, 1, g_pcqat_len, stdout) == g_pcqat_len ? 0 : 2;
  std::printf("%d %d ", G_PCQAT_INPUT_ELEMENTS, G_PCQAT_OUTPUT_ELEMENTS);
  bits(G_PCQAT_INPUT_SCALE); bits(G_PCQAT_OUTPUT_SCALE);
  std::printf("%d %d", 1 - G_PCQAT_INPUT_ZERO_POINT, 1 - G_PCQAT_OUTPUT_ZERO_POINT);
}
"""


@pytest.fixture(scope="module")
def program(nets, tmp_path_factory):
    """The path of a program that holds `int8`."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler on this machine")
    directory = tmp_path_factory.mktemp("c_array")
    source, _ = write_c_array(nets["int8"], inspect_tflite(nets["int8"]), directory, stage="pcqat")
    assert "\nalignas(16) const unsigned char g_pcqat[] = {\n" in source.read_text()
    (directory / "main.cc").write_text(PRINT_ALL)
    for name in ("main", "model_data"):
        command = [compiler, "-std=c++11", "-Wall", "-Wextra", "-Werror", "-c", f"{name}.cc"]
        subprocess.run(command, cwd=directory, check=True)
    subprocess.run([compiler, "-o", "program", "main.o", "model_data.o"], cwd=directory, check=True)
    return directory / "program"


def test_the_array_is_aligned_links_and_holds_the_file(program, nets):
    assert subprocess.run([program, "bytes"], check=True, capture_output=True).stdout == nets["int8"]


def test_the_macros_say_what_litert_says_of_input_and_output(program, nets):
    from ai_edge_litert.interpreter import Interpreter

    printed = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()
    interpreter = Interpreter(model_content=nets["int8"])
    ends = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    (scale_in, zero_in), (scale_out, zero_out) = (end["quantization"] for end in ends)
    assert zero_in != zero_out
    bits = [struct.unpack("I", struct.pack("f", scale))[0] for scale in (scale_in, scale_out)]
    assert [int(word) for word in printed] == [64, 6, *bits, 1 - zero_in, 1 - zero_out]


def test_a_float_model_has_shapes_but_no_scales(nets, tmp_path):
    _, header = write_c_array(nets["float"], inspect_tflite(nets["float"]), tmp_path, stage="base line")
    text = header.read_text()
    assert "#define G_BASE_LINE_INPUT_ELEMENTS 64\n" in text
    assert "#define G_BASE_LINE_OUTPUT_ELEMENTS 6\n" in text
    assert "SCALE" not in text
    assert "ZERO_POINT" not in text
