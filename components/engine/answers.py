"""What a process tells another of the work it was given: a result, an error for the user, or a crash; as JSON."""

import traceback
from collections.abc import Callable, Mapping
from typing import Any

from collabopt.components.engine.errors import CollaboptError


def answer_of(work: Callable[[], Any]) -> dict[str, Any]:
    """Does the work, whose result JSON can hold; whatever ends it is the answer."""
    try:
        return {"result": work()}
    except CollaboptError as error:
        return {"error": {"what": error.what, "where": error.where, "todo": error.todo}}
    except BaseException:  # noqa: BLE001 - whatever ends the work is told to whoever wants it, who raises it
        return {"crash": traceback.format_exc()}


def result_of(answer: Mapping[str, Any]) -> Any:
    """The result.

    Raises:
        CollaboptError: The work has raised it.
        RuntimeError: Something else has ended the work; the message is its traceback.
    """
    if "error" in answer:
        raise CollaboptError(**answer["error"])
    if "crash" in answer:
        raise RuntimeError(answer["crash"])
    return answer["result"]
