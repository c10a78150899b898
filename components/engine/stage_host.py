"""Pays for TensorFlow's imports once where many stages run on one machine.

Every stage needs a process of its own, and importing TensorFlow, TFMOT and MLflow takes that process longer than most
of its work on a small model. The host imports them once, without starting TensorFlow's runtime, and forks a fresh
process for each stage that asks over a Unix socket. Without `COLLABOPT_STAGE_HOST`, as on Kubernetes, a stage just runs
where it is called. The outcome is the same either way.
"""

import contextlib
import dataclasses
import functools
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec

from collabopt.components.engine.answers import answer_of, result_of
from collabopt.components.engine.stage_result import StageResult

SOCKET_VARIABLE = "COLLABOPT_STAGE_HOST"
_PRELOADED = (
    "tensorflow",
    "tf_keras.layers",
    "tensorflow_model_optimization",
    "ai_edge_litert.interpreter",
    "mlflow",
    "mlflow.store.db.utils",
    "mlflow.store.tracking.sqlalchemy_store",
)

P = ParamSpec("P")


def hosted(stage_function: Callable[P, StageResult]) -> Callable[P, StageResult]:
    """Lets a stage function run in a process of the host, where there is one."""

    @functools.wraps(stage_function)
    def run(*args: P.args, **kwargs: P.kwargs) -> StageResult:
        path = os.environ.get(SOCKET_VARIABLE)
        if not path:
            return stage_function(*args, **kwargs)
        return _ask(path, stage_function, args, kwargs)

    return run


@contextlib.contextmanager
def stage_host() -> Iterator[None]:
    """Runs a host for the stages started inside the block by this process and its children."""
    # Not in TMPDIR, which may be too deep: the path of a Unix socket holds about 100 characters.
    with tempfile.TemporaryDirectory(prefix="collabopt-", dir="/tmp") as directory:
        path = f"{directory}/stages"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(path)
            listener.listen()
            descriptor = listener.fileno()
            command = [sys.executable, "-m", __name__, str(descriptor)]
            host = subprocess.Popen(command, pass_fds=[descriptor], stdin=subprocess.DEVNULL)
        os.environ[SOCKET_VARIABLE] = path
        try:
            yield
        finally:
            del os.environ[SOCKET_VARIABLE]
            host.terminate()
            host.wait()


def serve(listener: socket.socket) -> None:
    """Preloads the heavy modules, then forks one process per connection, for ever."""
    for module in _PRELOADED:
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            _run_requested(connection)
        connection.close()


def _ask(path: str, function: Callable[..., StageResult], args: tuple, kwargs: dict[str, Any]) -> StageResult:
    request = {
        "function": f"{function.__module__}:{function.__name__}",
        "args": args,
        "kwargs": kwargs,
        "directory": os.getcwd(),
        "environment": dict(os.environ),
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(path)
        stream = connection.makefile("rw", encoding="utf-8")
        stream.write(json.dumps(request) + "\n")
        stream.flush()
        answer = json.loads(stream.readline() or '{"crash": "the process of the stage ended without an answer"}')
    return StageResult(**result_of(answer))


def _run_requested(connection: socket.socket) -> None:
    """Runs in the forked process, and ends it."""
    stream = connection.makefile("rw", encoding="utf-8")
    request = json.loads(stream.readline())
    threading.Thread(target=_end_with, args=[connection], daemon=True).start()
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update({name: value for name, value in request["environment"].items() if name != SOCKET_VARIABLE})
    module, _, name = request["function"].partition(":")

    def stage() -> dict[str, Any]:
        result = getattr(importlib.import_module(module), name)(*request["args"], **request["kwargs"])
        return dataclasses.asdict(result)

    answer = answer_of(stage)
    stream.write(json.dumps(answer) + "\n")
    stream.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _end_with(connection: socket.socket) -> None:
    """Ends this process as soon as its caller is gone."""
    connection.recv(1, socket.MSG_PEEK)
    os._exit(1)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
