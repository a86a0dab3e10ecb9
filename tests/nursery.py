"""A process that has imported what commands need, and forks the processes of `forked`.

python -m tests.nursery DESCRIPTOR

DESCRIPTOR: of a socket. A message on it asks for a process; the nursery ends when it is closed.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

# Descriptors that come with a message: its text, the three streams, and where answers go.
N_DESCRIPTORS = 5
_PRELOADED = (
    "hashsearch.commands.console",
    "hashsearch.commands.evaluate",
    "hashsearch.commands.index",
    "hashsearch.evaluation.evaluate",
    "hashsearch.exports.targets",
    "hashsearch.jobs.adding",
    "hashsearch.jobs.building",
    "hashsearch.jobs.reencoding",
    "hashsearch.jobs.verifying",
    "hashsearch.open_gallery",
    "hashsearch.retrieval.searcher",
    "service.app",
    "training.job",
    "uvicorn.main",
    "uvicorn.protocols.http.httptools_impl",
    "uvloop",
)
ANSWER = struct.Struct("=ii")  # the process's id, and its status as `os.waitpid` returns it


def serve(control: socket.socket) -> Callable[[], object] | None:
    """Fork the processes that are asked for; returns, in each of them, what it runs."""
    signals, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken)
    answers: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([control, signals], [], [])
        if signals in ready:
            os.read(signals, 1000)
            for pid in [*answers]:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    with answers.pop(pid) as answer:
                        answer.send(ANSWER.pack(pid, status))
        if control not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(control, 1, N_DESCRIPTORS)
        if not message:
            return None
        text, *streams, other = descriptors
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for descriptor in (other, signals, woken, control.detach()):
                os.close(descriptor)
            for answer in answers.values():
                answer.close()
            return become(text, streams)
        for descriptor in (text, *streams):
            os.close(descriptor)
        answers[pid] = socket.socket(fileno=other)
        answers[pid].send(ANSWER.pack(pid, 0))


def become(text: int, streams: list[int]) -> Callable[[], object]:
    """Make this process like a new one; returns what runs its program."""
    with os.fdopen(text, "rb") as file:
        asked: dict[str, Any] = json.loads(file.read())
    for target, descriptor in enumerate(streams):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    sys.stdin, sys.stdout, sys.stderr = (
        open(  # noqa: SIM115
            number,
            mode,
            buffering=1 if number == 2 else -1,
            encoding=former.encoding,
            errors=former.errors,
            closefd=False,
        )
        for number, mode, former in (
            (0, "r", sys.stdin),
            (1, "w", sys.stdout),
            (2, "w", sys.stderr),
        )
    )
    return program(asked["arguments"])


def program(arguments: list[str]) -> Callable[[], object]:
    """What runs the Python program that these arguments of an interpreter name."""
    path, *rest = arguments
    if path == "-m":
        sys.argv[:] = rest
        sys.path.insert(0, str(Path.cwd()))
        return lambda: runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    if path == "-c":
        source, *rest = rest
        sys.path.insert(0, "")
        code = compile(source, "<string>", "exec")
    else:
        main.__file__ = os.path.abspath(path)  # noqa: PTH100
        sys.path.insert(0, str(Path(path).resolve().parent))
        code = compile(Path(path).read_bytes(), path, "exec")
    sys.argv[:] = [path, *rest]
    return lambda: exec(code, vars(main))


def end_after(run: Callable[[], object]) -> NoReturn:
    """Run a program and end as Python does, but without clearing the modules, which takes long."""
    status: object = None
    try:
        run()
    except SystemExit as stopped:
        status = stopped.code
        if not isinstance(status, int | None):
            print(status, file=sys.stderr)
            status = 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = 1
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status or 0)


if __name__ == "__main__":
    for name in _PRELOADED:
        importlib.import_module(name)
    gc.freeze()
    nursery = sys.modules["__main__"]  # a process that is forked has another
    if run := serve(socket.socket(fileno=int(sys.argv[1]))):
        end_after(run)
