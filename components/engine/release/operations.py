"""What people do with releases: look at them, and take the champion back."""

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.release.names import check_model_name, pointer_object
from collabopt.components.engine.release.object_store import Conflict, ObjectStore
from collabopt.components.engine.release.pointer import Pointer, champion_of, flip
from collabopt.components.engine.release.registry import mirror
from collabopt.components.engine.release.releases import Release, read_release, releases, verify
from collabopt.components.engine.tracking.store import connect

_SHORTEST_DIGEST = 8


def list_releases(store: ObjectStore, name: str) -> list[Release]:
    """All releases of a name, newest first.

    Raises:
        CollaboptError: There is none, or the store cannot be read.
    """
    check_model_name(name)
    found = releases(store, name)
    if not found:
        raise _no_release(store, name)
    return found


def rollback(store: ObjectStore, name: str, withdraw: str = "") -> Pointer:
    """Withdraws the champion: the one before it is shipped again, and the gate does not promote the withdrawn one.

    The pointer first, because devices follow it, then MLflow's aliases. Killed or failing in between, the pointer
    says so, and running it again finishes that rollback instead of beginning another.

    Args:
        store: Where the releases are.
        name: Name of the release.
        withdraw: Digest of the champion to withdraw, or at least 8 characters of its beginning; "" for the present
            one. With it, running the rollback again never withdraws another release.

    Returns:
        The pointer as it is now.

    Raises:
        CollaboptError: There is no such release, nothing to roll back to, another champion than the one to withdraw,
            or the store or MLflow cannot be reached.
    """
    check_model_name(name)
    pointer, generation = _read(store, name)
    if not withdraw and pointer.pending:
        return _finish(store, pointer, generation)
    unwanted = _digest(store, pointer, withdraw)
    while unwanted not in pointer.withdrawn:
        if pointer.champion != unwanted:
            raise CollaboptError(
                f"the champion of '{name}' is {pointer.champion} by now, not {unwanted}",
                where=f"{store.uri}/{pointer_object(name)}",
                todo=f"look with `collabopt releases '{name}'` whether that is to be rolled back",
            )
        if pointer.previous is None:
            raise CollaboptError(
                f"'{name}' has nothing to roll back to: {unwanted} is its only champion",
                where=f"{store.uri}/{pointer_object(name)}",
                todo="promote another model",
            )
        verify(store, read_release(store, name, pointer.previous))
        try:
            pointer, generation = pointer.rolled_back(), flip(store, pointer.rolled_back(), generation)
        except Conflict:
            pointer, generation = _read(store, name)
    return _finish(store, pointer, generation)


def repair(store: ObjectStore, name: str) -> Pointer:
    """Makes MLflow's registry say what the pointer says, after a gate or a rollback that was killed and not run again.

    Returns:
        The pointer as it is now.

    Raises:
        CollaboptError: There is no such release, its champion is not registered, or the store or MLflow cannot be
            reached.
    """
    check_model_name(name)
    pointer, generation = _read(store, name)
    mirror(connect(), name, store)
    return _settled(store, pointer, generation)


def _finish(store: ObjectStore, pointer: Pointer, generation: int) -> Pointer:
    """Sets MLflow's aliases after a rollback."""
    try:
        mirror(connect(), pointer.name, store)
    except CollaboptError as error:
        raise CollaboptError(
            f"'{pointer.name}' is rolled back to {pointer.champion}, but not in MLflow: {error.what}",
            where=error.where,
            todo="devices get the right model; to set MLflow's aliases too, mend this and run the same rollback again: "
            "it finishes this one and withdraws nothing more",
        ) from error
    return _settled(store, pointer, generation)


def _settled(store: ObjectStore, pointer: Pointer, generation: int) -> Pointer:
    """Says in the pointer that MLflow's aliases have followed a rollback."""
    while pointer.pending:
        try:
            pointer, generation = pointer.settled(), flip(store, pointer.settled(), generation)
        except Conflict:
            pointer, generation = _read(store, pointer.name)
    return pointer


def _digest(store: ObjectStore, pointer: Pointer, withdraw: str) -> str:
    if not withdraw:
        return pointer.champion
    known = {*pointer.history, *pointer.withdrawn}
    matches = [sha256 for sha256 in known if sha256.startswith(withdraw)]
    if len(withdraw) < _SHORTEST_DIGEST or len(matches) != 1:
        raise CollaboptError(
            f"{withdraw!r} does not name a release that has been champion of '{pointer.name}'",
            where=f"{store.uri}/{pointer_object(pointer.name)}",
            todo=f"give the digest that `collabopt releases '{pointer.name}'` shows, or {_SHORTEST_DIGEST} or more "
            "characters of its beginning",
        )
    return matches[0]


def _read(store: ObjectStore, name: str) -> tuple[Pointer, int]:
    found = champion_of(store, name)
    if found is None:
        raise _no_release(store, name)
    return found


def _no_release(store: ObjectStore, name: str) -> CollaboptError:
    return CollaboptError(
        f"there is no release of '{name}'", where=store.uri, todo="check the name, and where the gate puts releases"
    )
