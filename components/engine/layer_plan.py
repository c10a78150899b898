"""The plan file: settings of single layers, for every stage of a run that prunes or clusters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import Field, ValidationError

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.settings import (
    LayerClustering,
    LayerName,
    LayerPruning,
    OwnOrExcluded,
    Settings,
    readable_path,
)
from collabopt.components.engine.yaml_lines import place_of, read_yaml

_EXAMPLE = 'prune: {"block1_*": {target_sparsity: 0.8}, conv: exclude}'


class LayerPlan(Settings):
    """What is done to which layers; see `settings_by_layer` for which pattern wins.

    Attributes:
        prune: Name or pattern of layers -> `target_sparsity`, or `exclude`.
        cluster: Name or pattern of layers -> `number_of_clusters`, or `exclude`; of plain and of sparsity-preserving
            clustering.
    """

    # Technique -> the section that speaks of it.
    TECHNIQUES: ClassVar[Mapping[str, str]] = {
        "prune": "prune",
        "cluster": "cluster",
        "sparsity_preserving_cluster": "cluster",
    }

    prune: dict[LayerName, OwnOrExcluded[LayerPruning]] = Field(default_factory=dict)
    cluster: dict[LayerName, OwnOrExcluded[LayerClustering]] = Field(default_factory=dict)

    def settings_of(self, technique: str) -> dict[str, Any]:
        """The `layers` of a technique's settings; empty where the plan says nothing of it."""
        return self.model_dump()[self.TECHNIQUES[technique]] if technique in self.TECHNIQUES else {}


def read_layer_plan(path: Path) -> LayerPlan:
    """Reads a plan file.

    Raises:
        CollaboptError: It cannot be read, or is no plan, or an empty one.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CollaboptError(f"the plan cannot be read: {error}", where=str(path), todo="correct --plan") from error
    values, lines = read_yaml(text, str(path), "the plan", _EXAMPLE)
    plan = layer_plan(values, str(path), (), lines)
    if not plan.prune and not plan.cluster:
        raise CollaboptError("the plan says nothing", where=str(path), todo=f"write it like `{_EXAMPLE}`")
    return plan


def layer_plan(values: object, source: str, above: tuple[str, ...], lines: Mapping[tuple[str, ...], int]) -> LayerPlan:
    """A plan of what was read.

    Args:
        values: What was read.
        source: Where it comes from, for messages.
        above: Keys that lead to it there.
        lines: Keys -> line, of the whole text.

    Raises:
        CollaboptError: It is no plan.
    """
    try:
        return LayerPlan.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise CollaboptError(
            f"the plan is not valid: {'.'.join(map(str, readable_path(first['loc'])))}: {first['msg']}",
            where=place_of(source, (*above, *first["loc"]), lines),
            todo=f"write it like `{_EXAMPLE}`",
        ) from error


def plan_yaml(plan: LayerPlan, comments: Mapping[str, str]) -> str:
    """A plan as the text of a file.

    Args:
        plan: The plan.
        comments: `` -> lines for the top of the file; other keys are sections, for the line above them.
    """
    lines = [f"# {line}" for line in comments.get("", "").splitlines()]
    for section, layers in plan.model_dump().items():
        if layers:
            lines += [f"# {line}" for line in comments.get(section, "").splitlines()]
            lines.append(yaml.safe_dump({section: layers}, sort_keys=False, default_flow_style=None).rstrip())
    return "\n".join(lines) + "\n"
