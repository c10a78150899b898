import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from collabopt.components.engine.gate.decision import Champion
from collabopt.components.engine.report.html import render_report

STRICT = "goals:\n- {figure: packed_bytes, threshold: 10}\n"
HOSTILE = "a<script>alert(1)</script>\"'&amp;{{7*7}}</svg>|`_x_"
SECTIONS = ("policy", "leaves", "tree", "pareto", "weights", "footprint", "contract", "lineage", "origin")
OUTSIDE = re.compile(r"https?:|src=|@import|url\(|<script|<link|<iframe|<img|javascript:|\son[a-z]+=|//[a-z]", re.I)


def test_every_leaf_with_its_figures_and_its_reason(make_case, parse):
    case = make_case("goals:\n- {figure: metric, max_drop: 0.01}\n")
    page = parse(render_report(*case.arguments))
    assert case.decision.outcome in page.text
    assert f"{case.decision.winner} ships" in page.text
    for verdict in case.decision.verdicts:
        assert f"{verdict.leaf} {verdict.pathway}" in page.text
        assert verdict.reason in page.text
        deployed = case.leaves[verdict.leaf].deployed
        for size in (deployed.packed_bytes, deployed.gzip_bytes, deployed.tflite_bytes):
            assert f"{size:,}" in page.text
        assert deployed.sha256 in page.text
        assert case.leaves[verdict.leaf].mlflow["run_id"] in page.text
        interval = case.leaves[verdict.leaf].interval
        assert f"{interval.low:.4f} - {interval.high:.4f}" in page.text
    for goal in case.decision.verdicts[0].goals:
        assert goal.goal in page.text
    assert all(section in page.ids for section in (*SECTIONS, "layers"))


def test_the_winners_layers_and_bytes(make_case, parse):
    case = make_case()
    page = parse(render_report(*case.arguments))
    deployed = case.leaves[case.decision.winner].deployed
    for tensor in deployed.weights:
        row = f"{tensor.layer} {tensor.op.lower()} int8 {' x '.join(map(str, tensor.shape))} "
        row += f"{100 * tensor.zero_fraction:.1f} % {tensor.distinct_values} "
        assert row in page.text
    for category, size in deployed.contents.items():
        assert f"{category} {size:,} " in page.text


def test_lineage_versions_and_tools(make_case, parse):
    case = make_case()
    page = parse(render_report(*case.arguments))
    assert "pruned_clustered from pruned sparsity_preserving_cluster 0.9" in page.text
    assert "learning_rate=0.0001" in page.text
    # The only package that stages disagree on says who used which.
    assert "numpy 2.4.5 (ptq); 2.4.6 (clustered_ptq, " in page.text
    assert "tensorflow 2.21.0 " in page.text
    assert "NPU figures are estimates for ethos-u55-128, ethos-u-vela 5.2.0." in page.text
    # The winner's tile, the note above, and the footprint of every leaf.
    assert page.text.count("ethos-u-vela 5.2.0") == 2 + len(case.leaves)
    assert page.text.count("ai-edge-litert 2.3.0") == 2 * len(case.leaves)
    assert "these kernels do not take the file" in page.text


def test_nothing_comes_from_outside(make_case):
    html = render_report(*make_case().arguments)
    without_text = re.sub(r">[^<]+<", "><", re.sub(r"<style>.*?</style>", "", html, flags=re.S))
    assert OUTSIDE.search(without_text) is None
    style = re.search(r"<style>(.*?)</style>", html, flags=re.S).group(1)
    assert OUTSIDE.search(style) is None
    assert "default-src 'none'" in html


def test_names_are_text(make_case, parse):
    """Names of leaves, layers, metrics, reasons and settings come from users."""
    case = make_case(rename={"pcqat": HOSTILE}, metric=f"{HOSTILE}-metric", broken=["qat"])
    html = render_report(*case.arguments)
    page = parse(html)
    assert "script" not in page.tags and "<script" not in html
    assert HOSTILE in page.text and f"{HOSTILE}-metric" in page.text
    assert "49" not in [word for word in page.text.split() if "{{" in word]
    assert len(page.ids) == len(set(page.ids))


def test_pictures_are_xml_with_name_and_description(make_case):
    case = make_case(rename={"pcqat": HOSTILE})
    html = render_report(*case.arguments)
    pictures = [ElementTree.fromstring(text) for text in re.findall(r"<svg.*?</svg>", html, flags=re.S)]
    named = [picture for picture in pictures if picture.get("role") == "img"]
    # Two layouts of the tree and of the chart, a histogram for each leaf, and one for each tensor of the winner.
    assert len(named) == 4 + 8 + 4
    for picture in named:
        described = {child.get("id"): child.text for child in picture if child.tag in ("title", "desc")}
        assert sorted(described) == sorted(picture.get("aria-labelledby").split())
        assert all(described.values())
    assert all(picture.get("aria-hidden") == "true" for picture in pictures if picture not in named)


def test_tables_name_their_headers(make_case, parse):
    page = parse(render_report(*make_case().arguments))
    assert page.tags.count("th") == len([1 for tag, name, _ in page.attributes if (tag, name) == ("th", "scope")])
    regions = [1 for tag, name, value in page.attributes if (tag, name, value) == ("div", "role", "region")]
    assert len(regions) == page.tags.count("table")
    labels = {value for _, name, value in page.attributes if name == "aria-labelledby" for value in value.split()}
    assert labels <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_the_same_arguments_give_the_same_bytes(make_case):
    case = make_case()
    html = render_report(*case.arguments)
    assert render_report(*case.arguments) == html
    backwards = dict(reversed(case.leaves.items()))
    assert render_report(case.decision, case.baseline, backwards, dict(reversed(case.tflites.items()))) == html


def test_nothing_ships(make_case, parse):
    case = make_case(STRICT)
    page = parse(render_report(*case.arguments))
    assert case.decision.winner is None
    assert "Nothing ships" in page.text
    assert case.decision.outcome in page.text
    assert "layers" not in page.ids
    assert "no leaf keeps it" in page.text
    assert "★ ships" not in page.text.replace("Legend", "")


def test_a_broken_leaf_is_marked_with_its_layer(make_case, parse):
    case = make_case(broken=["pcqat", "pruned_clustered_ptq"])
    page = parse(render_report(*case.arguments))
    assert case.decision.winner not in ("pcqat", "pruned_clustered_ptq")
    assert "broken in 1 of 3" in page.text
    assert "conv: 12 of 54 zeros are lost" in page.text
    assert page.text.count("✕ broken") >= 2


@pytest.mark.parametrize("leaf", ["ptq", "pcqat"])
def test_one_leaf(make_case, parse, leaf):
    page = parse(render_report(*make_case(leaves=[leaf]).arguments))
    assert f"{leaf} ships" in page.text


def test_what_was_not_measured_is_said(make_case, parse):
    case = make_case(measured=False)
    page = parse(render_report(*case.arguments))
    # Of each leaf: interval and NPU in the table of leaves, NPU and host in the footprint.
    assert page.text.count("not measured") >= 4 * len(case.leaves)
    assert "nan" not in page.text.lower().replace("tenant", "") and "None" not in page.text


def test_an_npu_that_takes_nothing_says_why(make_case, parse):
    case = make_case()
    for name, report in case.leaves.items():
        npu = report.footprint.npu.model_copy(
            update={
                "supported": False,
                "reason": "no operator fits",
                **dict.fromkeys(("latency_ms", "sram_bytes", "flash_bytes", "weight_bytes", "macs")),
            }
        )
        case.leaves[name] = report.model_copy(update={"footprint": report.footprint.model_copy(update={"npu": npu})})
    page = parse(render_report(*case.arguments))
    assert page.text.count("not on the NPU: no operator fits") == 2 * len(case.leaves)


def test_figures_that_are_no_numbers_are_dashes(make_case, parse):
    case = make_case(leaves=["ptq", "qat"])
    broken = case.leaves["qat"].model_copy(
        update={"metrics": {"accuracy": float("nan")}, "lineage": case.leaves["qat"].lineage}
    )
    leaves = {**case.leaves, "qat": broken}
    verdicts = tuple(
        verdict.model_copy(update={"metric": None, "drop": None}) if verdict.leaf == "qat" else verdict
        for verdict in case.decision.verdicts
    )
    decision = case.decision.model_copy(update={"verdicts": verdicts})
    page = parse(render_report(decision, case.baseline, leaves, case.tflites))
    assert re.search(r"\bnan\b", page.text, re.I) is None
    assert "Not in the chart, because size or accuracy is not known: qat." in page.text


def test_the_champion_is_named(make_case, parse):
    champion = Champion(sha256="c0ffee" * 10 + "c0ff", leaf="old", figures={"accuracy": 0.97, "packed_bytes": 4321})
    page = parse(render_report(*make_case(champion=champion).arguments))
    assert "the champion, old (accuracy 0.9700, 4,321 bytes packed, c0ffeec0ffee)" in page.text


def test_what_a_device_downloads(make_case, parse):
    champion = Champion(sha256="c0ffee" * 10 + "c0ff", leaf="old", figures={"accuracy": 0.97})
    leaves = list(make_case().leaves)
    page = parse(render_report(*make_case(champion=champion, deltas=dict.fromkeys(leaves, 321)).arguments))
    assert page.text.count("patch 321") == len(leaves)
    assert "321 B a device, a patch from the champion 'old' (c0ffeec0ffee); the packed file is" in page.text
    page = parse(render_report(*make_case("fleet_size: 2000000").arguments))
    assert "there is no champion yet to make a patch from" in page.text
    assert " GB for a fleet of 2,000,000" in page.text


def test_a_leaf_without_its_file_has_no_histogram(make_case, parse):
    case = make_case()
    page = parse(render_report(case.decision, case.baseline, case.leaves, {}))
    assert "No file is at hand." in page.text


_RENDER = """
import sys
from pathlib import Path
from collabopt.components.engine.gate.decision import Decision
from collabopt.components.engine.records import LeafReport, StageRecord
from collabopt.components.engine.report.html import render_report
files = Path(sys.argv[1])
decision = Decision.model_validate_json((files / "decision").read_bytes())
baseline = StageRecord.model_validate_json((files / "baseline").read_bytes())
leaves = {path.stem: LeafReport.model_validate_json(path.read_bytes()) for path in files.glob("*.json")}
render_report(decision, baseline, leaves, {path.stem: path.read_bytes() for path in files.glob("*.tflite")})
print("tensorflow" in sys.modules)
"""


def test_rendering_needs_no_tensorflow(make_case, tmp_path):
    decision, baseline, leaves, tflites = make_case().arguments
    (tmp_path / "decision").write_text(decision.model_dump_json())
    (tmp_path / "baseline").write_text(baseline.model_dump_json())
    for leaf, report in leaves.items():
        (tmp_path / f"{leaf}.json").write_text(report.model_dump_json())
        (tmp_path / f"{leaf}.tflite").write_bytes(tflites[leaf])
    command = [sys.executable, "-c", _RENDER, str(tmp_path)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "False\n"
