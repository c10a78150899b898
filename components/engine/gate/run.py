"""The deployment gate as a whole: it decides, proves the winner, releases it, and reports."""

import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from collabopt.components.engine.gate.candidates import Candidates, digest_of, with_accelerator
from collabopt.components.engine.gate.champion import Reigning, check_champion_is_kept, reigning
from collabopt.components.engine.gate.decision import Decision, decide
from collabopt.components.engine.gate.proof import prove_on
from collabopt.components.engine.gate.record import complete_parent, complete_stages
from collabopt.components.engine.gate.sample import TestSamples
from collabopt.components.engine.gate.update import delta_sizes, patches_between
from collabopt.components.engine.policy.policy import Policy, check_task
from collabopt.components.engine.prescreen.compare import compare
from collabopt.components.engine.prescreen.records import Prescreen
from collabopt.components.engine.records import (
    BASELINE_FILE,
    CARD_FILES,
    DECISION_FILE,
    GATE_FILES,
    HTML_FILE,
    PRESCREEN_FILE,
    PROOF_SAMPLES,
    RELEASED_FILES,
    SAMPLE_FILE,
)
from collabopt.components.engine.release.names import check_model_name, patch_file
from collabopt.components.engine.release.object_store import Conflict, open_store
from collabopt.components.engine.release.promotion import Candidate, promote
from collabopt.components.engine.tracking import StageRun, open_parent, stage_run
from collabopt.components.engine.training.task import load_task

STAGE = "deployment_gate"

_UNFINISHED = ".unfinished-"


@dataclass(frozen=True)
class Gate:
    """What a decision is taken on.

    Attributes:
        candidates: The baseline and the leaves.
        policy: What qualifies and what is preferred.
        samples: Reads the first so many test samples, or all for None; called when they are needed.
        name: Name of the registered model and of the releases.
        releases: Where releases are kept: `gs://bucket/prefix` or a directory; "" for the MLflow registry alone.
        predicted: What was predicted before training; None where nothing was.
    """

    candidates: Candidates
    policy: Policy
    samples: Callable[[int | None], TestSamples]
    name: str
    releases: str = ""
    predicted: Prescreen | None = None

    def decide(self) -> tuple[Decision, Reigning]:
        """Decides, and changes nothing.

        Returns:
            The decision, and what it was compared with.

        Raises:
            CollaboptError: The name is not legal, the policy contradicts the task or asks for a champion that nothing
                keeps, or the releases cannot be read.
        """
        check_model_name(self.name)
        check_task(self.policy, load_task(self.candidates.baseline.task))
        check_champion_is_kept(self.policy, self.releases)
        store = open_store(self.releases) if self.releases else None
        candidates = self.measured
        present = reigning(store, self.name, candidates, self.samples, self.policy.accelerator, self.digest)
        decision = decide(
            candidates.baseline,
            candidates.reports,
            self.policy,
            present.champion,
            withdrawn=present.withdrawn,
            delta_bytes=delta_sizes(present.tflite, candidates),
            untrained=candidates.skipped,
            predicted=self.predicted,
        )
        return decision, present

    @functools.cached_property
    def measured(self) -> Candidates:
        """The candidates with their footprint on the policy's target."""
        return with_accelerator(self.candidates, self.policy.accelerator)

    @functools.cached_property
    def compared(self) -> Prescreen | None:
        """The predictions beside what was trained."""
        if self.predicted is None:
            return None
        found = compare(self.predicted.predictions, self.measured.reports.values())
        return self.predicted.model_copy(update={"comparisons": found})

    @functools.cached_property
    def digest(self) -> str:
        """Names the decision by all that it depends on but the champion."""
        return digest_of(self.candidates, self.policy)


def run_gate(gate: Gate, output: Path, parameters: Mapping[str, object]) -> Decision:
    """Decides which leaf is shipped, proves it, makes it the champion, and completes the pipeline's MLflow run.

    Decides from the artifacts alone, never from MLflow. May be killed at any point: run again, it ends in the same
    state. `decision.json` is written last, so where it is, everything else has been done. Where another gate has
    changed the champion in the meantime, it decides again.

    Args:
        gate: What to decide on.
        output: Directory for `GATE_FILES`, made if missing; no other gate may be writing to it.
        parameters: The pipeline's parameters, to be shown on its MLflow run.

    Returns:
        The decision. Where it has `failed`, the pipeline's MLflow run has too, and it is for the caller to end with an
        error.

    Raises:
        CollaboptError: Policy, artifacts or name are not valid, the winner cannot be proven, or MLflow or the releases
            cannot be reached.
    """
    first = gate.decide()  # what is wrong with the input shows before anything is begun
    output.mkdir(parents=True, exist_ok=True)
    for stale in output.glob(f"{_UNFINISHED}*"):  # of a gate that was killed
        shutil.rmtree(stale)
    with tempfile.TemporaryDirectory(dir=output, prefix=_UNFINISHED) as unfinished:
        written = Path(unfinished)
        with stage_run(STAGE, required=True) as run:
            decision = _settle(gate, first, run, written)
            run.set_tags({"winner": decision.winner or "none"})
            for name in _present(written, (DECISION_FILE, PRESCREEN_FILE, *RELEASED_FILES)):
                run.log_artifact(written / name)
            parent = open_parent()
            if parent is not None:
                complete_stages(parent, gate.candidates)
                complete_parent(parent, decision, parameters)
                parent.log_artifact(written / HTML_FILE)
        if parent is not None:
            parent.fail() if decision.failed else parent.finish()
        _publish(written, output)
    return decision


def _settle(gate: Gate, first: tuple[Decision, Reigning], run: StageRun, written: Path) -> Decision:
    """Promotes what was decided; where another gate has come in between, decides again."""
    decision, present = first
    while True:
        _write_files(gate, decision, written)
        if decision.winner is None:
            return decision
        samples = gate.samples(PROOF_SAMPLES)
        prove_on(
            gate.measured.reports[decision.winner],
            gate.candidates.tflite(decision.winner),
            samples.inputs,
            samples.labels,
        )
        try:
            _promote(gate, decision.winner, present, run, written)
            return decision
        except Conflict:
            decision, present = gate.decide()


def _promote(gate: Gate, winner: str, present: Reigning, run: StageRun, written: Path) -> None:
    candidate = Candidate(
        gate.candidates.reports[winner],
        gate.candidates.directories[winner],
        {name: written / name for name in RELEASED_FILES} | _patches(gate, winner, present, written),
    )
    promotion = promote(
        candidate,
        name=gate.name,
        store=open_store(gate.releases) if gate.releases else None,
        seen=present.generation,
        decision_digest=gate.digest,
        run=run,
    )
    run.set_tags(
        {
            "registered_model": promotion.model,
            "registered_version": promotion.version,
            "release": f"{promotion.store}/{promotion.manifest}" if promotion.store else "none",
        }
    )


def _patches(gate: Gate, winner: str, present: Reigning, written: Path) -> dict[str, Path]:
    """The files to publish for devices that run the champion: the patches that are smaller than the packed file."""
    if present.champion is None or present.tflite is None:
        return {}
    packed = gate.candidates.reports[winner].deployed.packed_bytes
    files = {}
    for patch in patches_between(present.tflite, gate.candidates.tflite(winner)):
        if not packed or len(patch.content) < packed:
            path = written / patch_file(present.champion.sha256, patch.format)
            path.write_bytes(patch.content)
            files[path.name] = path
    return files


def _write_files(gate: Gate, decision: Decision, written: Path) -> None:
    from collabopt.components.engine.report.card import card_markdown, model_card
    from collabopt.components.engine.report.html import render_report

    candidates = gate.measured
    tflites = {leaf: candidates.tflite(leaf) for leaf in candidates.reports}
    files = {
        DECISION_FILE: decision.model_dump_json(indent=2) + "\n",
        HTML_FILE: render_report(
            decision, candidates.baseline, candidates.reports, tflites, candidates.skipped, gate.compared
        ),
        BASELINE_FILE: candidates.baseline.model_dump_json(indent=2) + "\n",
    }
    if gate.compared is not None:
        files[PRESCREEN_FILE] = gate.compared.model_dump_json(indent=2) + "\n"
    if decision.winner is not None:
        card = model_card(decision, candidates.reports[decision.winner], tflites[decision.winner], name=gate.name)
        files |= dict(zip(CARD_FILES, (card_markdown(card), json.dumps(card, indent=2) + "\n"), strict=True))
    for name in (*CARD_FILES, *files):
        (written / name).unlink(missing_ok=True)
    for name, text in files.items():
        (written / name).write_text(text, encoding="utf-8")
    gate.samples(PROOF_SAMPLES).write(written / SAMPLE_FILE)


def _publish(written: Path, output: Path) -> None:
    """Moves the files in; the decision, which says that all else is done, comes last and goes first."""
    for name in GATE_FILES:
        (output / name).unlink(missing_ok=True)
    for name in reversed(_present(written, GATE_FILES)):
        os.replace(written / name, output / name)


def _present(directory: Path, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if (directory / name).is_file()]
