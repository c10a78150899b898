"""The file of the evidence, and how it is shown: a table of means over seeds, and size against accuracy."""

import io
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fashion_networks import NETWORKS

from collabopt.components.engine.whole_file import written_whole
from collabopt.pipelines.tree import TREE

LEAVES = tuple(stage.name for stage in TREE.leaves())
COLUMNS = (
    *("network", "leaf", "by", "accuracy", "drop, points", "zip", "packed", "zip / zip", "zip / packed"),
    *("entropy bound", "NPU ms", "NPU flash", "claims"),
)
# The leaf that has won everything.
MOST_COMPRESSED = "pcqat"
# What the zip of the float `.tflite` is divided by.
_RATIOS = {"zip_ratio": "zip_bytes", "packed_ratio": "packed_bytes", "bound_ratio": "weight_entropy_bytes"}
# Those of Okabe and Ito, which colour-blind readers can tell apart.
COLOURS = {"ours": "#0072b2", "searched": "#009e73", "stock": "#d55e00"}
MARKERS = dict(zip(LEAVES, "osD^vPX*", strict=True))


class Results:
    """The file of results: a list of runs, one for a network, a scheme and a seed; and of searches, by network."""

    def __init__(
        self, path: Path, conditions: dict[str, Any] | None, schemes: Sequence[str], machine: Mapping[str, Any]
    ) -> None:
        """Opens the file, which need not exist; what was made under other conditions is left out, and lost at a write.

        Args:
            path: The file.
            conditions: What results depend on; under a scheme's name, what only those of this scheme depend on. None
                for those of the file, whatever they are.
            schemes: Names of the schemes.
            machine: What else is written down: of what results depend on little, or not at all.
        """
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        before = content.get("conditions", {})
        conditions = before if conditions is None else conditions
        self._path, self._conditions, self._machine = path, conditions, machine
        shared = [name for name in conditions if name not in schemes]
        same = [
            scheme for scheme in schemes if all(before.get(key) == conditions.get(key) for key in (*shared, scheme))
        ]
        self.runs: list[dict[str, Any]] = [run for run in content.get("runs", []) if run["scheme"] in same]
        self.left_out = len(content.get("runs", [])) - len(self.runs)
        self.searches: dict[str, dict[str, Any]] = content.get("searches", {}) if "searched" in same else {}

    def has(self, network: str, scheme: str, seed: int) -> bool:
        """Whether such a run is there."""
        return any((run["network"], run["scheme"], run["seed"]) == (network, scheme, seed) for run in self.runs)

    def add(
        self, network: str, scheme: str, seed: int, baseline: dict[str, Any], stages: dict[str, Any], measured: str
    ) -> None:
        """Adds a run, and writes the file in one piece."""
        run = {"network": network, "scheme": scheme, "seed": seed, "measured": measured}
        self.runs.append({**run, "baseline": baseline, "stages": stages})
        self._write()

    def add_search(self, network: str, found: dict[str, Any]) -> None:
        """Adds what a search has found, and writes the file."""
        self.searches[network] = found
        self._write()

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "conditions": self._conditions,
            "machine": self._machine,
            "searches": self.searches,
            "runs": self.runs,
        }
        with written_whole(self._path) as written:
            written.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def rows(self, network: str, scheme: str, leaf: str) -> list[dict[str, Any]]:
        """What the seeds have made of a leaf, where they have made it."""
        return [
            {
                **run["stages"][leaf],
                "drop": run["baseline"]["accuracy"] - run["stages"][leaf]["accuracy"],
                **{ratio: run["baseline"]["zip_bytes"] / run["stages"][leaf][size] for ratio, size in _RATIOS.items()},
            }
            for run in self.runs
            if (run["network"], run["scheme"]) == (network, scheme) and "accuracy" in run["stages"].get(leaf, {})
        ]

    def failures(self, network: str, scheme: str, leaf: str) -> list[str]:
        """Why seeds have not made a leaf that the scheme grows."""
        runs = [run for run in self.runs if (run["network"], run["scheme"]) == (network, scheme)]
        rows = [run["stages"][leaf] for run in runs if leaf in run["stages"]]
        return [row.get("error", row["status"]) for row in rows if "accuracy" not in row]

    def schemes(self) -> list[str]:
        """Those that there are results of."""
        return [scheme for scheme in COLOURS if any(run["scheme"] == scheme for run in self.runs)]


def summary(results: Results) -> str:
    """Of the most compressed leaf: how much smaller, how much worse, and how many layers break their claims."""
    lines = [f"| `{MOST_COMPRESSED}` | {' | '.join(NETWORKS)} |", "| --- " + "| --: " * len(NETWORKS) + "|"]
    for scheme in results.schemes():
        for label, cell in _SUMMARY.items():
            of_networks = [results.rows(network, scheme, MOST_COMPRESSED) for network in NETWORKS]
            cells = [cell(rows) if rows else "-" for rows in of_networks]
            lines.append(f"| {scheme}: {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cost(results: Results) -> str:
    """What measuring has taken."""
    stages = sum(stage.get("cpu_seconds", 0) for run in results.runs for stage in run["stages"].values()) / 60
    searches = sum(search["used"]["minutes"] for search in results.searches.values())
    return f"stages: {stages:.0f} minutes of processor time; searches: {searches:.0f} minutes on one core"


def baselines(results: Results) -> str:
    """Whether schemes have begun with baselines of one accuracy: two machines make other ones of one seed."""
    of_case: dict[tuple[str, int], list[float]] = {}
    for run in results.runs:
        of_case.setdefault((run["network"], run["seed"]), []).append(run["baseline"]["accuracy"])
    apart = [max(accuracies) - min(accuracies) for accuracies in of_case.values()]
    return (
        f"baselines: the same for all schemes in {apart.count(0)} of {len(apart)} cases, "
        f"at most {100 * max(apart, default=0):.2f} points apart in the others"
    )


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    return statistics.mean(row[name] for row in rows)


_SUMMARY: dict[str, Callable[[Sequence[Mapping[str, Any]]], str]] = {
    "smaller than the float zip, packed": lambda rows: f"{_mean(rows, 'packed_ratio'):.2f}x",
    "the same, by plain zip": lambda rows: f"{_mean(rows, 'zip_ratio'):.2f}x",
    "the same, by the entropy of the weights alone": lambda rows: f"{_mean(rows, 'bound_ratio'):.2f}x",
    "bytes packed above that bound": lambda rows: (
        f"{_mean(rows, 'packed_bytes') - _mean(rows, 'weight_entropy_bytes'):,.0f}"
    ),
    "points below fp32": lambda rows: _spread([100 * row["drop"] for row in rows], "{:+.2f}".format),
    "layers that break their claims": lambda rows: f"{statistics.mean(len(row['broken']) for row in rows):.3g}",
}


def markdown(results: Results) -> str:
    """Mean and standard deviation over the seeds, a line for every network, leaf and scheme.

    Sizes in bytes; zip / zip and zip / packed are the zip of the float `.tflite` over that of the leaf, and over the
    packed leaf; claims are the layers that break theirs.
    """
    lines = [f"| {' | '.join(COLUMNS)} |", "| --- | --- | --- " + "| --: " * (len(COLUMNS) - 3) + "|"]
    for network in NETWORKS:
        for leaf in LEAVES:
            for scheme in results.schemes():
                cells = _cells(results, network, leaf, scheme)
                if cells:
                    lines.append(f"| {network} | `{leaf}` | {scheme} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(results: Results, network: str, leaf: str, scheme: str) -> list[str]:
    rows, failures = results.rows(network, scheme, leaf), results.failures(network, scheme, leaf)
    if not rows:
        return [failures[0], *["-"] * (len(COLUMNS) - 4)] if failures else []
    broken = statistics.mean(len(row["broken"]) for row in rows)
    return [
        _spread([row["accuracy"] for row in rows], "{:.4f}".format),
        _spread([100 * row["drop"] for row in rows], "{:+.2f}".format),
        *(_spread([row[name] for row in rows], "{:,.0f}".format) for name in ("zip_bytes", "packed_bytes")),
        *(_spread([row[name] for row in rows], "{:.2f}x".format) for name in ("zip_ratio", "packed_ratio")),
        _spread([row["weight_entropy_bytes"] for row in rows], "{:,.0f}".format),
        *(_known([row[name] for row in rows], form) for name, form in _NPU.items()),
        "hold" if not broken else f"{broken:.0f} broken",
    ]


_NPU: dict[str, Callable[[float], str]] = {"npu_latency_ms": "{:.3f}".format, "npu_flash_bytes": "{:,.0f}".format}


def _known(values: Sequence[float | None], form: Callable[[float], str]) -> str:
    known = [value for value in values if value is not None]
    return _spread(known, form) if known else "-"


def _spread(values: Sequence[float], form: Callable[[float], str]) -> str:
    """The mean, and the standard deviation where there is one to speak of."""
    if len(values) < 2:
        return form(values[0])
    deviation = form(statistics.stdev(values)).lstrip("+")
    return f"{form(statistics.mean(values))} ± {deviation.rstrip('x')}"


def plot(results: Results) -> str:
    """Packed size against accuracy as SVG, a panel for every network: means, with the deviation of the seeds."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    networks = [network for network in NETWORKS if any(run["network"] == network for run in results.runs)]
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "evidence", "font.family": "sans-serif"}):
        figure = Figure(figsize=(4.6 * max(1, len(networks)), 4.4), layout="constrained")
        for axes, network in zip(figure.subplots(1, max(1, len(networks)), squeeze=False)[0], networks, strict=False):
            _panel(axes, results, network)
        legend = [Line2D([], [], color=COLOURS[name], lw=6, label=name) for name in results.schemes()]
        legend += [Line2D([], [], color="grey", marker=MARKERS[leaf], ls="", label=leaf) for leaf in LEAVES]
        figure.legend(handles=legend, loc="outside lower center", ncols=6, frameon=False, fontsize=8)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()


def _panel(axes: Any, results: Results, network: str) -> None:
    baselines = [run["baseline"]["accuracy"] for run in results.runs if run["network"] == network]
    axes.axhline(statistics.mean(baselines), color="grey", lw=0.8, ls="--")
    for scheme in results.schemes():
        for leaf in LEAVES:
            rows = results.rows(network, scheme, leaf)
            if rows:
                sizes, accuracies = ([row[name] for row in rows] for name in ("packed_bytes", "accuracy"))
                axes.errorbar(
                    statistics.mean(sizes) / 1000,
                    statistics.mean(accuracies),
                    yerr=statistics.stdev(accuracies) if len(rows) > 1 else None,
                    marker=MARKERS[leaf],
                    color=COLOURS[scheme],
                    ms=6,
                    lw=0.8,
                )
    axes.set(title=network, xlabel="packed size, kB", ylabel="accuracy (dashed: fp32)")
    axes.grid(lw=0.3)
