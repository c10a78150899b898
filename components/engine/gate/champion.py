"""What ships now, measured as the candidates are."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.gate.candidates import Candidates
from collabopt.components.engine.gate.decision import Champion
from collabopt.components.engine.gate.sample import TestSamples
from collabopt.components.engine.policy.figures import DELTA, figures_of
from collabopt.components.engine.policy.policy import Policy
from collabopt.components.engine.records import REPORT_FILE, TFLITE_FILE, LeafReport

if TYPE_CHECKING:
    from collabopt.components.engine.release.object_store import ObjectStore


@dataclass(frozen=True)
class Reigning:
    """What a decision is compared with.

    Attributes:
        champion: The leaf that ships now; None where there is none.
        withdrawn: Digests of what has been rolled back.
        generation: That of the pointer that was read; 0 where there is none.
        tflite: The champion's file; None where there is no champion.
    """

    champion: Champion | None = None
    withdrawn: tuple[str, ...] = ()
    generation: int = 0
    tflite: bytes | None = None


def reigning(
    store: "ObjectStore | None",
    name: str,
    candidates: Candidates,
    samples: Callable[[int | None], TestSamples],
    accelerator: str | None,
    decision_digest: str,
) -> Reigning:
    """Reads what ships now.

    A decision that is repeated (a retry after a crash, a second run of the gate on the same leaves) is compared with
    what had shipped before it, not with its own winner.

    Args:
        store: Where releases are kept; None for nowhere.
        name: Name of the releases.
        candidates: Whose data set and target the champion is measured on, where its own were others.
        samples: Reads the first so many test samples, or all for None.
        accelerator: NPU of the policy.
        decision_digest: Names the decision that is about to be taken.

    Raises:
        CollaboptError: The store cannot be read, or a release in it is damaged.
    """
    from collabopt.components.engine.release.releases import champion_of, read_file, read_release

    found = None if store is None else champion_of(store, name)
    if store is None or found is None:
        return Reigning()
    pointer, generation = found
    repeated = pointer.decision == decision_digest
    sha256 = pointer.previous if repeated else pointer.champion
    if sha256 is None:
        return Reigning(None, pointer.withdrawn, generation)
    manifest = read_release(store, name, sha256)
    report = LeafReport.model_validate_json(read_file(store, manifest, REPORT_FILE))
    tflite = read_file(store, manifest, TFLITE_FILE)
    measured = _measured_alike(report, tflite, candidates, samples, accelerator)
    champion = Champion(
        sha256=sha256,
        leaf=report.name,
        figures=figures_of(measured, accelerator),
        accelerator=None if measured.footprint is None else measured.footprint.npu.accelerator,
        dataset_digest=measured.dataset_digest,
    )
    return Reigning(champion, pointer.withdrawn, generation, tflite)


def check_champion_is_kept(policy: Policy, releases: str) -> None:
    """Refuses goals and priorities that need a champion which is kept nowhere.

    Raises:
        CollaboptError: The policy has one, and there is no place for releases.
    """
    compared = any(goal.reference == "champion" for goal in policy.goals)
    patched = any(each.figure == DELTA for each in (*policy.goals, *policy.priority))
    if not releases and (compared or patched):
        raise CollaboptError(
            "the policy compares with the champion, but releases are kept nowhere that it could be read from",
            todo="set `releases` to gs://bucket/prefix or a directory, or compare with the baseline",
        )


def _measured_alike(
    report: LeafReport,
    tflite: bytes,
    candidates: Candidates,
    samples: Callable[[int | None], TestSamples],
    accelerator: str | None,
) -> LeafReport:
    """The champion's report with its figures on the candidates' test split and target."""
    from collabopt.components.engine.deployed.evaluate import predict
    from collabopt.components.engine.deployed.npu import estimate_npu
    from collabopt.components.engine.training.task import load_task

    if report.dataset_digest != candidates.baseline.dataset_digest:
        task = load_task(candidates.baseline.task)
        test = samples(None)
        metrics = task.measure(predict(tflite, test.inputs), test.labels)
        report = report.model_copy(update={"metrics": metrics, "dataset_digest": candidates.baseline.dataset_digest})
    targets = {each.footprint.npu.accelerator for each in candidates.reports.values() if each.footprint is not None}
    wanted = accelerator or next(iter(sorted(targets)), None)
    footprint = report.footprint
    if wanted is not None and footprint is not None and footprint.npu.accelerator != wanted:
        npu = estimate_npu(tflite, wanted)
        report = report.model_copy(update={"footprint": footprint.model_copy(update={"npu": npu})})
    return report
