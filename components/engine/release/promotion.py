"""Makes the winner the champion, step by step, so that it can stop after any step and be run again."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.records import PACKED_FILE, REPORT_FILE, TFLITE_FILE, LeafReport
from collabopt.components.engine.release.checksums import sha256_of
from collabopt.components.engine.release.manifest import Manifest, facts_of
from collabopt.components.engine.release.names import check_model_name, manifest_object, pointer_object
from collabopt.components.engine.release.object_store import ObjectStore, conflict
from collabopt.components.engine.release.pointer import Pointer, champion_of, flip
from collabopt.components.engine.release.registry import MODEL_ID_TAG, crown, mirror, register
from collabopt.components.engine.release.releases import draft, to_upload, upload, verify, write_manifest
from collabopt.components.engine.session import PIPELINE_RUN_ID_VARIABLE
from collabopt.components.engine.tracking.stage import StageRun

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

C_ARRAY_FILES = ("model_data.cc", "model_data.h")
RELEASE_TAG = "release"
MANIFEST_TAG = "manifest"


@dataclass(frozen=True)
class Candidate:
    """A leaf that is to be shipped.

    Attributes:
        report: Its report.
        directory: Its directory.
        extra_files: What is published with it: file name -> file, as a model card.
    """

    report: LeafReport
    directory: Path
    extra_files: Mapping[str, Path] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Digest of its `.tflite` file, as the report gives it."""
        return self.report.deployed.sha256

    @property
    def tflite(self) -> Path:
        """Its `.tflite` file."""
        return self.directory / TFLITE_FILE

    def files(self) -> dict[str, Path]:
        """What is published: the model, its report, what the leaf has of packed model and C array, and the extras."""
        optional = (PACKED_FILE, *C_ARRAY_FILES)
        own = [TFLITE_FILE, REPORT_FILE, *(file for file in optional if (self.directory / file).is_file())]
        return {**{file: self.directory / file for file in own}, **self.extra_files}


class Promotion(BaseModel):
    """Where the winner is found.

    Attributes:
        model: Name of the release and of the registered model.
        version: Version in the registry.
        model_id: MLflow's id of the logged model behind the version.
        sha256: Digest of the `.tflite` file.
        store: Address of the store; "" where there is none.
        manifest: Object of the release's manifest; "" where there is no store.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    version: str
    model_id: str
    sha256: str
    store: str = ""
    manifest: str = ""


@dataclass(frozen=True)
class PromotionStep:
    """One step of a promotion. Doing it twice is doing it once.

    Attributes:
        name: What it does, for messages and tests.
        do: Does it.
    """

    name: str
    do: Callable[[], None]


def promote(
    candidate: Candidate,
    *,
    name: str,
    store: ObjectStore | None,
    seen: int,
    decision_digest: str,
    run: StageRun,
) -> Promotion:
    """Publishes a leaf, registers it as a version, and makes it the champion; the former champion is `previous`.

    In the order of `steps_of`: nothing points to a release before it is complete and registered. May be killed at any
    point; run again, it ends in the same state. Of several gates at once, one makes its winner the champion, and the
    others get a `Conflict`: then decide again, against the champion that there is now.

    Args:
        candidate: The winner.
        name: Name of the release and of the registered model.
        store: Where releases are kept; None for the registry alone.
        seen: Generation of the pointer that the decision was based on; 0 where there was none.
        decision_digest: Digest of what the decision was based on, kept in the pointer.
        run: Run that the model is logged to.

    Returns:
        Where the winner is found.

    Raises:
        Conflict: There is another champion than the one that the decision was based on.
        CollaboptError: The name is not legal, the leaf was rolled back before or is not the file that its report
            describes, or the store or MLflow refuses or cannot be reached.
    """
    attempt = Attempt(candidate, name, store, seen, decision_digest, run)
    perform(steps_of(attempt))
    return attempt.result()


def perform(steps: "list[PromotionStep]") -> None:
    """Does the steps, one after the other."""
    for step in steps:
        step.do()


@dataclass
class Attempt:
    """What the steps of one promotion share: the arguments of `promote`, and what earlier steps have found."""

    candidate: Candidate
    name: str
    store: ObjectStore | None
    seen: int
    decision_digest: str
    run: StageRun
    manifest: Manifest | None = None
    version: "ModelVersion | None" = None

    def result(self) -> Promotion:
        """Where the winner is found, once all steps are done."""
        assert self.version is not None
        return Promotion(
            model=self.name,
            version=str(self.version.version),
            model_id=self.version.tags.get(MODEL_ID_TAG, ""),
            sha256=self.candidate.sha256,
            store="" if self.store is None else self.store.uri,
            manifest="" if self.store is None else manifest_object(self.name, self.candidate.sha256),
        )


def steps_of(attempt: Attempt) -> list[PromotionStep]:
    """The steps of a promotion, in their order. Reads the store, changes nothing.

    Raises:
        Conflict: There is another champion than the one that the decision was based on.
        CollaboptError: See `promote`.
    """
    check_model_name(attempt.name)
    candidate, store = attempt.candidate, attempt.store
    if sha256_of(candidate.tflite) != candidate.sha256:
        raise CollaboptError(
            "the .tflite file is not the one that its report describes",
            where=str(candidate.tflite),
            todo="run the stage again",
        )
    if store is None:
        return [PromotionStep("register the version", lambda: _register(attempt)), _crown_step(attempt)]
    pointer = _next_pointer(attempt, store)
    files = candidate.files()
    run_id = os.environ.get(PIPELINE_RUN_ID_VARIABLE, "")
    manifest = draft(store, attempt.name, files, facts_of(candidate.report, run_id))
    attempt.manifest = manifest
    uploads = [_upload_step(store, manifest, file, files[file]) for file in to_upload(manifest, files)]
    steps = [
        *uploads,
        PromotionStep("write the manifest", lambda: _write_manifest(attempt, store)),
        PromotionStep("read the release back", lambda: _verify(attempt, store)),
        PromotionStep("register the version", lambda: _register(attempt)),
    ]
    if pointer is not None:
        steps.append(PromotionStep("flip the pointer", lambda: _flip(store, pointer, attempt.seen)))
    steps.append(PromotionStep("set the aliases", lambda: mirror(attempt.run.client, attempt.name, store)))
    return steps


def _next_pointer(attempt: Attempt, store: ObjectStore) -> Pointer | None:
    """The pointer that makes the candidate the champion; None where it is the champion already."""
    sha256 = attempt.candidate.sha256
    found = champion_of(store, attempt.name)
    if found is not None and found[0].champion == sha256:
        return None
    pointer, generation = (None, 0) if found is None else found
    if pointer is not None and sha256 in pointer.withdrawn:
        raise CollaboptError(
            f"the winner {sha256} was the champion of '{attempt.name}' and has been rolled back",
            where=f"{store.uri}/{pointer_object(attempt.name)}",
            todo="leave this leaf out, or train it anew; to ship it nevertheless, release it under another name",
        )
    if generation != attempt.seen:
        raise conflict(pointer_object(attempt.name), store.uri)
    if pointer is None:
        return Pointer(name=attempt.name, history=(sha256,), decision=attempt.decision_digest)
    return pointer.crowned(sha256, attempt.decision_digest)


def _upload_step(store: ObjectStore, manifest: Manifest, file: str, path: Path) -> PromotionStep:
    return PromotionStep(f"upload {file}", lambda: upload(store, manifest, file, path))


def _crown_step(attempt: Attempt) -> PromotionStep:
    def do() -> None:
        assert attempt.version is not None
        crown(attempt.run.client, attempt.name, attempt.version)

    return PromotionStep("set the aliases", do)


def _write_manifest(attempt: Attempt, store: ObjectStore) -> None:
    assert attempt.manifest is not None
    attempt.manifest = write_manifest(store, attempt.manifest)


def _verify(attempt: Attempt, store: ObjectStore) -> None:
    assert attempt.manifest is not None
    verify(store, attempt.manifest)


def _register(attempt: Attempt) -> None:
    candidate, store = attempt.candidate, attempt.store
    tags = {}
    if store is not None:
        tags = {RELEASE_TAG: store.uri, MANIFEST_TAG: manifest_object(attempt.name, candidate.sha256)}
    attempt.version = register(attempt.run, candidate.report, candidate.tflite, attempt.name, tags)


def _flip(store: ObjectStore, pointer: Pointer, generation: int) -> None:
    flip(store, pointer, generation)
