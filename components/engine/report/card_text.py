"""A model card as Markdown, from its dictionary and nothing else."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from collabopt.components.engine.report.formats import (
    NOT_MEASURED,
    count,
    milliseconds,
    number,
    plain,
    setting,
    shape,
    signed,
)

# What Markdown, or the HTML within it, would take for markup; `_` within a word is none.
_MARKUP = re.compile(r"([\\`*{}\[\]<>#|~&!$@]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")


def as_markdown(card: Mapping[str, Any]) -> str:
    """Writes the card; what comes from users is escaped."""
    metric = card["metric"]
    sections = [
        _front_matter(card),
        f"# {_plain(card['name'])}\n\n{_plain(card['decision']['outcome'])}",
        _section("Model", _facts(card)),
        _section("Metrics", _metrics(card)),
        _section("Goals", _goals(card["decision"])),
        _section("Compared with the other leaves", _comparison(card["comparison"], metric["name"])),
        _section("Input and output", _interface(card["interface"])),
        _section("On the target", _footprint(card["footprint"])),
        _section("Contract", _contract(card["contract"])),
        _section("How it was made", _lineage(card["lineage"], metric["name"])),
        _section("Reproducibility", _reproducibility(card)),
        _section("Limits", _bullets(_plain(line) for line in card["limits"])),
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(card: Mapping[str, Any]) -> str:
    matter = {"tags": list(card["tags"]), "metrics": [card["metric"]["name"]]}
    return f"---\n{yaml.safe_dump(matter, sort_keys=False, allow_unicode=True)}---"


def _facts(card: Mapping[str, Any]) -> str:
    sizes = card["sizes"]
    way = " > ".join(_plain(step["stage"]) for step in card["lineage"])
    return _bullets(
        [
            f"leaf: {_plain(card['leaf'])} ({card['pathway']} pathway: {way})",
            f"SHA-256 of model.tflite: {_code(card['sha256'])}",
            f"size: {count(sizes['tflite_bytes'])} bytes, gzip {count(sizes['gzip_bytes'])}, "
            f"packed {count(sizes['packed_bytes'])}",
            f"update: {_plain(card['update']['in_words'] or '-')}",
            f"task: {_code(card['task'])}",
            f"data set: SHA-256 {_code(card['data']['digest'])}",
        ]
    )


def _metrics(card: Mapping[str, Any]) -> str:
    metric = card["metric"]
    interval = metric["interval"]
    sure = f"interval {NOT_MEASURED}"
    if interval:
        sure = (
            f"{100 * interval['confidence']:g} % interval {number(interval['low'])} to {number(interval['high'])} "
            f"({_plain(interval['method'])}, n = {count(interval['samples'])})"
        )
    deciding = (
        f"{_plain(metric['name'])} on the test split: **{number(metric['value'])}**, {sure}; "
        f"fp32 baseline {number(metric['baseline'])}, drop {signed(metric['drop'])}."
    )
    return f"{deciding}\n\n" + _table(
        ("metric", "value"), [(_plain(name), plain(value)) for name, value in card["metrics"].items()], "-:"
    )


def _goals(decision: Mapping[str, Any]) -> str:
    judged = "It ships" if decision["ships"] else "It does not ship"
    lines = [
        f"{'met' if each['met'] else 'missed'}: {_plain(each['goal'])} ({_plain(each['reason'])})"
        for each in decision["goals"]
    ]
    ranked = "; then ".join(_plain(line) for line in decision["priority"])
    goals = _bullets(lines) if lines else "The policy sets no goal."
    reason = _plain(decision["reason"] or "-")
    return f"{judged}: {reason}.\n\n{goals}\n\nOf the leaves that meet them, ships the one with the {ranked}."


def _comparison(leaves: Sequence[Mapping[str, Any]], metric: str) -> str:
    head = ("leaf", "pathway", _plain(metric), "drop", "bytes", "gzip", "packed", "update", "NPU ms", "verdict")
    rows = [
        (
            _plain(each["leaf"]),
            each["pathway"],
            number(each["metric"]),
            signed(each["drop"]),
            count(each["tflite_bytes"]),
            count(each["gzip_bytes"]),
            count(each["packed_bytes"]),
            count(each["update_bytes"]),
            milliseconds(each["npu_latency_ms"]),
            f"{_judged(each)}: {_plain(each['reason'])}" if each["trained"] else _plain(each["reason"]),
        )
        for each in leaves
    ]
    return _table(head, rows, "--:::::::-")


def _judged(leaf: Mapping[str, Any]) -> str:
    if leaf["ships"]:
        return "**ships**"
    return "qualifies" if leaf["qualified"] else "refused"


def _interface(interface: Mapping[str, Any]) -> str:
    rows = [
        (
            kind,
            _plain(each["name"]),
            shape(each["shape"]),
            each["dtype"],
            "-" if each["scale"] is None else f"{each['scale']:.9g}",
            "-" if each["zero_point"] is None else str(each["zero_point"]),
        )
        for kind, tensors in (("input", interface["inputs"]), ("output", interface["outputs"]))
        for each in tensors
    ]
    table = _table(("", "name", "shape", "type", "scale", "zero point"), rows, "----::")
    return f"{table}\n\nreal value = scale \\* (stored value - zero point)"


def _footprint(footprint: Mapping[str, Any] | None) -> str:
    if footprint is None:
        return f"{NOT_MEASURED.capitalize()}."
    npu = footprint["npu"]
    where = f"{npu['accelerator']} ({npu['system_config']}, {npu['memory_mode']})"
    rows = [
        (
            _plain(where),
            milliseconds(npu["latency_ms"]) if npu["supported"] else f"not on the NPU: {_plain(npu['reason'])}",
            count(npu["sram_bytes"]),
            count(npu["flash_bytes"]),
            _plain(npu["tool"]),
        ),
        *(
            (
                _plain(f"host, {host['kernels']}, {host['cpu']}"),
                f"{milliseconds(host['median_ms'])} (p90 {milliseconds(host['p90_ms'])})"
                if host["supported"]
                else "not supported",
                "-",
                "-",
                _plain(host["tool"]),
            )
            for host in footprint["host"]
        ),
    ]
    table = _table(("where", "latency, ms", "SRAM, bytes", "flash, bytes", "tool"), rows, "-:::-")
    return f"{table}\n\nActivations: {count(footprint['activation_bytes'])} bytes at most alive at once."


def _contract(contract: Mapping[str, Any]) -> str:
    if contract["broken"]:
        lines = (f"{_plain(each['layer'])}: {_plain(each['what'])}" for each in contract["broken"])
        return f"**Broken.**\n\n{_bullets(lines)}"
    if not contract["layers"]:
        return "No claims: nothing was pruned or clustered on its way."
    names = ", ".join(_plain(name) for name in contract["layers"])
    return f"Holds: what its ancestors won is in the file, checked for {names}."


def _lineage(lineage: Sequence[Mapping[str, Any]], metric: str) -> str:
    rows = [
        (
            _plain(step["stage"]),
            _plain(step["technique"]),
            number(step["metric_value"]),
            ", ".join(f"{_plain(name)}={_plain(setting(value))}" for name, value in sorted(step["settings"].items()))
            or "-",
        )
        for step in lineage
    ]
    return _table(("stage", "technique", _plain(metric), "hyperparameters"), rows, "--:-")


def _reproducibility(card: Mapping[str, Any]) -> str:
    origin, proof = card["reproducibility"], card["proof"]
    lines = [f"seed of {_plain(stage)}: {_plain(setting(seed))}" for stage, seed in origin["seeds"].items()]
    lines += [f"{_plain(package)} {_plain(version)}" for package, version in sorted(origin["versions"].items())]
    lines += [f"MLflow {_plain(name)}: {_code(value)}" for name, value in sorted(origin["mlflow"].items())]
    if proof:
        figures = ", ".join(f"{_plain(name)} {number(value)}" for name, value in sorted(proof["metrics"].items()))
        lines.append(f"proof: the first {count(proof['samples'])} samples of the test split give {figures}")
    return _bullets(lines) if lines else "-"


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}"


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], sides: str) -> str:
    """A table; `:` in `sides` stands for a column of numbers."""
    marks = ["--:" if side == ":" else "---" for side in sides]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, marks, *rows))


def _plain(text: str) -> str:
    return _MARKUP.sub(r"\\\1", " ".join(str(text).split()))


def _code(text: str) -> str:
    """Within backticks, where nothing can be escaped."""
    return f"`{re.sub(r'[`|]', ' ', ' '.join(str(text).split()))}`"
