"""What `collabopt releases` and `collabopt rollback` do and show."""

from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from collabopt.components.engine.errors import CollaboptError

if TYPE_CHECKING:
    from collabopt.components.engine.release.object_store import ObjectStore

_DIGEST_CHARACTERS = 12


def print_releases(name: str, uri: str, console: Console) -> None:
    """Prints all releases of a name, newest first.

    Args:
        name: Name of the release.
        uri: Where releases are kept: `gs://bucket/prefix` or a local directory.
        console: Where to.

    Raises:
        CollaboptError: There is none, the store cannot be read, or `collabopt[engine]` is not installed.
    """
    from collabopt.components.engine.release.operations import list_releases

    store = _open(uri)
    table = Table(box=SIMPLE, title=f"{name} in {store.uri}", title_justify="left")
    for column in ("release", "", "leaf", "created (UTC)"):
        table.add_column(column, no_wrap=True)
    for column in ("metric", "bytes"):
        table.add_column(column, justify="right", no_wrap=True)
    for release in list_releases(store, name):
        manifest, facts = release.manifest, release.manifest.facts
        value = "-" if facts.metric_value is None else f"{facts.metric_value:.4f}"
        table.add_row(
            manifest.sha256[:_DIGEST_CHARACTERS],
            Text(release.mark, style="bold" if release.mark == "champion" else ""),
            Text(facts.leaf),
            manifest.created[:19].replace("T", " "),
            Text(f"{facts.metric} {value}"),
            f"{manifest.files['model.tflite'].size_bytes:,}",
        )
    console.print(table)


def repair_releases(name: str, uri: str, console: Console) -> None:
    """Makes MLflow's registry say what the releases say, and prints that.

    Args:
        name: Name of the release.
        uri: Where releases are kept: `gs://bucket/prefix` or a local directory.
        console: Where to.

    Raises:
        CollaboptError: There is no such release, its champion is not registered, or the store or MLflow cannot be
            reached.
    """
    from collabopt.components.engine.release.operations import repair

    pointer = repair(_open(uri), name)
    marks = {"champion": pointer.champion, "previous": pointer.previous}
    shown = ", ".join(f"{mark} {sha256[:_DIGEST_CHARACTERS]}" for mark, sha256 in marks.items() if sha256)
    console.print(Text(f"MLflow's aliases say what the releases say: {shown}"))


def roll_back(name: str, uri: str, console: Console, withdraw: str = "") -> None:
    """Withdraws the champion and prints what is shipped now.

    Args:
        name: Name of the release.
        uri: Where releases are kept: `gs://bucket/prefix` or a local directory.
        console: Where to.
        withdraw: Digest of the champion to withdraw, or its beginning; "" for the present one.

    Raises:
        CollaboptError: There is nothing to roll back to, the champion is another one than is to be withdrawn, or the
            store or MLflow cannot be reached.
    """
    from collabopt.components.engine.release.operations import rollback

    pointer = rollback(_open(uri), name, withdraw)
    console.print(
        Text(
            f"'{name}': {pointer.champion[:_DIGEST_CHARACTERS]} is shipped again, "
            f"{pointer.withdrawn[-1][:_DIGEST_CHARACTERS]} is withdrawn"
        )
    )


def _open(uri: str) -> "ObjectStore":
    try:
        # Imported here because a bucket needs the engine extra.
        from collabopt.components.engine.release.object_store import open_store

        return open_store(uri)
    except ModuleNotFoundError as error:
        raise CollaboptError(
            "what reads releases is not installed",
            where=f"missing: {error.name}",
            todo="pip install 'collabopt[engine]'",
        ) from error
