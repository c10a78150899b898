"""One wave of a search: pipelines grown from the tree for several trials, run level by level with kfp.local.

Finished stages are imported, so a stage is trained once however many trials and waves have it, and a wave that was cut
off goes on behind the last stage that ended. Between two levels what has been trained is looked at: below an fp32 model
that is too bad for any goal, nothing is grown.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from collabopt import components
from collabopt.components.engine.bindings import BINDINGS
from collabopt.components.engine.policy.policy import parse_policy
from collabopt.components.engine.prescreen.mode import OFF
from collabopt.components.engine.search.finished import Finished
from collabopt.components.engine.search.sharing import PlannedStage
from collabopt.pipelines.finished_stages import finished_stages
from collabopt.pipelines.grow import plant
from collabopt.pipelines.parameters import Parameters
from collabopt.pipelines.tree import ROOT, TREE


@dataclass(frozen=True)
class Wave:
    """What to run.

    Attributes:
        arguments: Arguments of a pipeline, as `collabopt run` has them.
        stages: What is to be trained or converted, parents first; what is finished is passed over.
        policy: Goals that an fp32 stage must leave within reach, as YAML; None for none.
        left_out: File that is given the stages that were not grown after all: name -> reason.
    """

    arguments: Mapping[str, Any]
    stages: Sequence[Mapping[str, Any]]
    policy: str | None
    left_out: str


def wave_of(
    arguments: Mapping[str, Any], stages: Sequence[PlannedStage], policy: str | None, left_out: Path
) -> dict[str, Any]:
    """A wave as JSON can hold it."""
    return asdict(Wave(arguments, [asdict(stage) for stage in stages], policy, str(left_out)))


def run_wave(root: str, wave: Mapping[str, Any]) -> None:
    """Runs a wave in this process, for which kfp.local has been set up.

    Args:
        root: Pipeline root.
        wave: See `wave_of`.

    Raises:
        RuntimeError: A task has failed.
    """
    given = Wave(**wave)
    finished = finished_stages(Path(root))
    if finished.dataset is None or ROOT not in finished.models:
        _planting(given.arguments)()
        finished = finished_stages(Path(root))
    waiting = [stage for stage in given.stages if stage["name"] not in finished.models]
    left_out: dict[str, str] = {}
    while waiting:
        ready = [stage for stage in waiting if stage["parent"] in finished.models]
        reasons = {stage["name"]: _why_not(stage, finished, given.policy) for stage in ready}
        left_out |= {name: reason for name, reason in reasons.items() if reason}
        grown = [stage for stage in ready if not reasons[stage["name"]]]
        if grown:
            _growing(given.arguments, grown, finished)()
            finished = finished_stages(Path(root))
        if not ready:
            raise RuntimeError(f"no parent is there for {', '.join(stage['name'] for stage in waiting)}")
        waiting = [stage for stage in waiting if stage not in ready]
        for stage in [each for each in waiting if each["parent"] in left_out]:
            left_out[stage["name"]] = left_out[stage["parent"]]
            waiting.remove(stage)
    Path(given.left_out).write_text(json.dumps(left_out), encoding="utf-8")


def _why_not(stage: Mapping[str, Any], finished: Finished, policy: str | None) -> str:
    if policy is None or stage["parent"] == ROOT:
        return ""
    from collabopt.components.engine.search.objectives import why_hopeless

    return why_hopeless(finished.records[stage["parent"]], finished.records[ROOT], parse_policy(policy))


def _planting(arguments: Mapping[str, Any]) -> Any:
    from kfp import dsl

    def search_baseline() -> None:
        plant(Parameters(**{**arguments, "prescreen": OFF}), TREE)  # the search itself predicts, for every trial

    return dsl.pipeline(name="search-baseline")(search_baseline)


def _growing(arguments: Mapping[str, Any], stages: Sequence[Mapping[str, Any]], finished: Finished) -> Any:
    from kfp import dsl

    def search_wave() -> None:
        data = dsl.importer(artifact_uri=str(finished.dataset), artifact_class=dsl.Dataset)
        parents = {
            name: dsl.importer(artifact_uri=str(finished.models[name]), artifact_class=dsl.Model)
            for name in dict.fromkeys(stage["parent"] for stage in stages)
        }
        for stage in stages:
            technique = stage["place"]["technique"]
            shared = {name: stage["settings"][name] for name in BINDINGS[technique]}
            own = {name: value for name, value in stage["settings"].items() if name not in shared}
            getattr(components, technique)(
                parent=parents[stage["parent"]].output,
                dataset=data.output,
                stage=stage["name"],
                task=Parameters(**arguments).task,
                overrides=own,
                **shared,
            ).set_display_name(stage["name"])

    return dsl.pipeline(name="search-wave")(search_wave)
