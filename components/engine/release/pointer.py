"""The one object that says which release is the champion."""

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError, computed_field, model_validator

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.release.names import manifest_object, model_object, pointer_object
from collabopt.components.engine.release.object_store import ObjectStore


class Pointer(BaseModel):
    """Which releases have been champion, and which is it now.

    Releases are named by the SHA-256 of their `.tflite` file. Written as JSON it also carries the champion, the
    release before it, and the objects of the champion's model and manifest, for devices that read nothing else.

    Attributes:
        schema_version: Version of this record.
        name: Name of the release.
        history: Champions, oldest first, each once: the last one is the champion.
        withdrawn: Champions that were rolled back; they are not promoted again.
        decision: Digest of what the decision for the champion was based on; "" after a rollback.
        pending: `rollback` while MLflow's aliases may not have followed a rollback yet.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    name: str
    history: tuple[str, ...]
    withdrawn: tuple[str, ...] = ()
    decision: str = ""
    pending: Literal["", "rollback"] = ""

    @model_validator(mode="after")
    def _consistent(self) -> "Pointer":
        if not self.history:
            raise ValueError("it names no champion")
        if len({*self.history, *self.withdrawn}) != len(self.history) + len(self.withdrawn):
            raise ValueError("it names a release twice")
        return self

    @computed_field  # type: ignore[prop-decorator]
    @property
    def champion(self) -> str:
        """The release that is shipped."""
        return self.history[-1]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def previous(self) -> str | None:
        """The champion before it, if there was one."""
        return self.history[-2] if len(self.history) > 1 else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def model(self) -> str:
        """Object of the champion's `.tflite` file."""
        return model_object(self.name, self.champion)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def manifest(self) -> str:
        """Object of the champion's manifest."""
        return manifest_object(self.name, self.champion)

    def crowned(self, sha256: str, decision: str) -> "Pointer":
        """With another champion; one that has been champion before moves to the end."""
        history = (*(former for former in self.history if former != sha256), sha256)
        return self.model_copy(update={"history": history, "decision": decision, "pending": ""})

    def rolled_back(self) -> "Pointer":
        """With the champion withdrawn, and the one before it in its place; there must be one."""
        return self.model_copy(
            update={
                "history": self.history[:-1],
                "withdrawn": (*self.withdrawn, self.champion),
                "decision": "",
                "pending": "rollback",
            }
        )

    def settled(self) -> "Pointer":
        """With nothing pending."""
        return self.model_copy(update={"pending": ""})


def champion_of(store: ObjectStore, name: str) -> tuple[Pointer, int] | None:
    """The pointer of a release name and its generation; None where nothing has been promoted yet.

    Raises:
        CollaboptError: The store cannot be read, or the pointer is damaged.
    """
    found = store.read(pointer_object(name))
    if found is None:
        return None
    content, generation = found
    try:
        pointer = Pointer.model_validate_json(content)
        written = json.loads(content)
    except (ValidationError, ValueError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "it is not JSON"
        raise _damaged(store, name, reason) from error
    if pointer.name != name:
        raise _damaged(store, name, f"it is that of '{pointer.name}'")
    for key, value in pointer.model_dump(mode="json", include={"champion", "model", "manifest"}).items():
        if written.get(key) != value:
            raise _damaged(store, name, f"its {key} is not the one that its history ends with")
    return pointer, generation


def flip(store: ObjectStore, pointer: Pointer, generation: int) -> int:
    """Writes the pointer if it still is of the generation that was read, and returns the new generation.

    Raises:
        Conflict: Somebody else has written it.
        CollaboptError: The store cannot be written.
    """
    content = pointer.model_dump_json(indent=2) + "\n"
    return store.replace(pointer_object(pointer.name), content.encode("utf-8"), generation)


def _damaged(store: ObjectStore, name: str, reason: str) -> CollaboptError:
    return CollaboptError(
        f"the pointer to the champion is damaged, or of another version of collabopt: {reason}",
        where=f"{store.uri}/{pointer_object(name)}",
        todo="restore an earlier version of this object",
    )
