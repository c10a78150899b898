import json
import re

import pytest
import yaml

from collabopt.components.engine.gate.decision import Champion
from collabopt.components.engine.report.card import card_markdown, model_card

HOSTILE = "a|b\n# <script>*x*</script> `c` [l](x)"


@pytest.fixture
def made(make_case):
    def make(**changes):
        case = make_case(**changes)
        name = case.decision.winner or next(iter(case.leaves))
        return case, model_card(case.decision, case.leaves[name], case.tflites[name])

    return make


def test_the_card_says_what_the_report_says(made):
    case, card = made()
    report = case.leaves[case.decision.winner]
    assert (card["name"], card["sha256"]) == (case.decision.winner, report.deployed.sha256)
    assert [step["stage"] for step in card["lineage"]] == [step.stage for step in report.lineage]
    assert card["data"] == {"digest": report.dataset_digest, "split": "test"}
    assert card["metric"]["value"] == report.metrics["accuracy"]
    assert card["metric"]["interval"]["samples"] == 360
    assert {each["leaf"] for each in card["comparison"]} == set(case.leaves)
    assert card["decision"]["ships"] and card["decision"]["goals"][0]["met"]
    assert card["reproducibility"]["mlflow"] == report.mlflow
    assert card["reproducibility"]["seeds"][report.stage] == 3
    assert any("not measurements of silicon" in line and "1 operators" in line for line in card["limits"])
    assert {"pruned", "clustered", "quantized"} <= set(card["tags"])


def test_what_a_device_downloads(made):
    champion = Champion(sha256="c0ffee" * 10 + "c0ff", leaf="old", figures={"accuracy": 0.97})
    deltas = {name: 100 + number for number, name in enumerate(made()[0].leaves)}
    case, card = made(champion=champion, deltas=deltas)
    size = deltas[case.decision.winner]
    assert card["update"]["bytes"] == card["update"]["delta_bytes"] == size
    assert card["update"]["from_sha256"] == champion.sha256
    assert f"update: {size} B a device, a patch from the champion 'old'" in card_markdown(card)
    assert {each["leaf"]: each["update_bytes"] for each in card["comparison"]} == deltas


def test_the_interface_is_that_of_litert(made):
    from ai_edge_litert.interpreter import Interpreter

    case, card = made()
    interpreter = Interpreter(model_content=case.tflites[case.decision.winner])
    for side, details in (
        ("inputs", interpreter.get_input_details()),
        ("outputs", interpreter.get_output_details()),
    ):
        for given, expected in zip(card["interface"][side], details, strict=True):
            assert given["shape"] == expected["shape_signature"].tolist()
            assert given["dtype"] == expected["dtype"].__name__
            assert (given["scale"], given["zero_point"]) == pytest.approx(expected["quantization"])


def test_the_card_is_json_and_markdown_comes_from_it_alone(made):
    for changes in ({}, {"measured": False}, {"policy": "goals: [{figure: packed_bytes, threshold: 1}]"}):
        _, card = made(**changes)
        assert json.loads(json.dumps(card, allow_nan=False)) == card
        assert card_markdown(json.loads(json.dumps(card))) == card_markdown(card)


def test_front_matter_and_tables(made):
    case, card = made()
    text = card_markdown(card)
    _, front, body = text.split("---\n", 2)
    matter = yaml.safe_load(front)
    assert matter["metrics"] == ["accuracy"] and "tflite" in matter["tags"] and "license" not in matter
    for verdict in case.decision.verdicts:
        assert f"| {verdict.leaf} | {verdict.pathway} | {verdict.metric:.4f} |" in body
    assert card["sha256"] in body and "Wilson score, n = 360" in body
    assert "ethos-u-vela 5.2.0" in body
    _check_tables(body)


def test_what_is_not_known_is_said(made):
    _, card = made(measured=False)
    assert card["footprint"] is None and card["metric"]["interval"] is None and card["proof"] is None
    text = card_markdown(card)
    assert "interval not measured" in text and "Not measured." in text
    assert re.search(r"\b(None|nan)\b", text) is None


def test_a_metric_that_is_no_number_becomes_null(made, make_case):
    case = make_case(leaves=["ptq"])
    report = case.leaves["ptq"].model_copy(update={"metrics": {"accuracy": float("nan"), "loss": float("inf")}})
    card = model_card(case.decision, report, case.tflites["ptq"])
    assert (card["metric"]["value"], card["metric"]["drop"], card["metrics"]["loss"]) == (None, None, None)
    assert re.search(r"\b(nan|inf)\b", card_markdown(card)) is None


def test_names_cannot_break_the_markdown(made):
    _, card = made(rename={"pcqat": HOSTILE}, metric="accu|racy<b>")
    text = card_markdown(card)
    body = text.split("---\n", 2)[2]
    assert re.search(r"(?<!\\)<(script|b)", body) is None
    assert [line for line in body.splitlines() if line.startswith("# ")] == [
        r"# a\|b \# \<script\>\*x\*\</script\> \`c\` \[l\](x)"
    ]
    _check_tables(body)
    assert yaml.safe_load(text.split("---\n")[1])["metrics"] == ["accu|racy<b>"]


def test_a_broken_leaf_says_where(made, make_case):
    case = make_case(broken=["pcqat"])
    card = model_card(case.decision, case.leaves["pcqat"], case.tflites["pcqat"])
    assert not card["decision"]["ships"] and not card["contract"]["holds"]
    assert "conv: 12 of 54 zeros are lost" in card_markdown(card)


def test_the_leaf_that_ships_is_marked_among_the_others(make_case):
    case = make_case()
    winner = case.decision.winner
    text = card_markdown(model_card(case.decision, case.leaves[winner], case.tflites[winner]))
    assert text.count("| **ships**: every goal is met") == 1
    assert text.count("| qualifies: every goal is met") == len(case.leaves) - 1


def test_the_name_of_the_registry(make_case):
    case = make_case()
    winner = case.decision.winner
    card = model_card(case.decision, case.leaves[winner], case.tflites[winner], name="collabopt")
    assert "# collabopt\n" in card_markdown(card)


def _check_tables(text):
    """Every row of a table has as many cells as its head."""
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.M):
        cells = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(cells) == 1, table
