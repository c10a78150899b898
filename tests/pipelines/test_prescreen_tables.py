"""What a prescreen prints, on a terminal and elsewhere."""

import io
import re

import pytest
from rich.console import Console

from collabopt.components.engine.policy.policy import parse_policy
from collabopt.components.engine.prescreen.records import Comparison, Prediction, Prescreen
from collabopt.components.engine.records import BrokenLayer, Contract
from collabopt.pipelines.prescreen_tables import print_prescreen

COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def prediction(leaf, packed_bytes, sha256, **fields):
    figures = {"tflite_bytes": 23_664, "zip_bytes": packed_bytes + 1000, "packed_bytes": packed_bytes}
    return Prediction(**{"leaf": leaf, "accelerator": "ethos-u55-128", "sha256": sha256, "figures": figures, **fields})


def both(sparsity, clusters):
    return {"sparsity": sparsity, "clusters": clusters}


@pytest.fixture
def prescreen():
    missed = ["predicted 'packed_bytes' is 15,000 B; accepted is at most 9,000 B"]
    return Prescreen(
        model="m.keras",
        data="d.npz",
        dataset_digest="d",
        grid={"sparsity": [0.5, 0.8], "clusters": [8, 500]},
        baseline={"zip_bytes": 32_000},
        policy=parse_policy("goals: [{figure: packed_bytes, threshold: 9000}]"),
        predictions=[
            prediction("ptq", 15_000, "a", configuration={}, missed=missed),
            prediction("qat", 15_000, "a", configuration={}, missed=missed),
            prediction("pcqat", 9_200, "b", configuration=both(0.5, 8)),
            prediction("pcqat", 8_100, "c", configuration=both(0.8, 8)),
            prediction("pcqat", 0, "", figures={}, configuration=both(0.5, 500), infeasible="too many clusters"),
            prediction(
                *("pcqat", 8_700, "e"),
                configuration=both(0.8, 500),
                contract=Contract(layers=["conv"], broken=[BrokenLayer(layer="conv", what="7 zeros are lost")]),
            ),
        ],
        files=5,
        comparisons=[
            Comparison(
                **{"leaf": "pcqat", "configuration": both(0.5, 8), "figure": figure},
                **{"predicted": 10_000 * (1 + error), "trained": 10_000, "error": error},
            )
            for figure, error in {"packed_bytes": -0.08, "npu_weight_bytes": 0.01}.items()
        ],
        versions={},
    )


def printed(prescreen, terminal=False):
    stream = io.StringIO()
    console = Console(file=stream, width=150, force_terminal=terminal, color_system="truecolor" if terminal else None)
    print_prescreen(console, prescreen)
    return stream.getvalue()


def test_leaves_of_one_file_share_a_row_with_what_it_weighs_and_whether_the_policy_is_open(prescreen):
    shown = printed(prescreen)
    assert "5 files for 6 leaves" in shown
    first = next(line for line in shown.splitlines() if line.strip().startswith("ptq"))
    assert first.split() == ["ptq,", *"--", "23,664", "-", "16,000", "15,000", "2.0x", *"----", "-", "cannot"]
    opened = next(line for line in shown.splitlines() if "8,100" in line)
    assert opened.split()[-1] == "open"


def test_reasons_are_told(prescreen):
    shown = printed(prescreen)
    assert "predicted 'packed_bytes' is 15,000 B; accepted is at most 9,000 B" in shown
    assert re.search(r"pcqat +0.5 +500 +too many clusters", shown)
    assert re.search(r"pcqat +0.8 +500 +conv: 7 zeros are lost", shown)


def test_the_heat_map_has_the_smallest_leaf_of_every_point_and_is_readable_without_colour(prescreen):
    lines = printed(prescreen).split("packed bytes of the smallest leaf")[1].splitlines()
    rows = [line.split() for line in lines if re.match(r"\s+0\.[58] ", line)][:2]
    assert rows == [["0.5", "9,200", "15,000"], ["0.8", "8,100", "8,700"]]


def test_colour_only_where_there_is_a_terminal(prescreen):
    assert not COLOURS.search(printed(prescreen))
    coloured = printed(prescreen, terminal=True)
    assert "\x1b[37;48;2;46;160;67m  8,100\x1b[0m" in coloured  # the smallest, green
    assert "\x1b[37;48;2;218;54;51m  15,000\x1b[0m" in coloured  # the largest, red
    assert COLOURS.sub("", coloured) == printed(prescreen)


def test_one_point_has_no_heat_map(prescreen):
    single = prescreen.model_copy(update={"grid": {"sparsity": [0.5], "clusters": [8]}})
    assert "smallest leaf" not in printed(single)


def test_errors_against_trained_leaves_are_told(prescreen):
    shown = printed(prescreen)
    assert re.search(r"pcqat +0.5 +8 +9,200 / 10,000 +-8.0% +10,100 / 10,000 +\+1.0%", shown)
    assert "largest error: packed_bytes 8.0%, npu_weight_bytes 1.0%" in shown
