"""Processes of Python that start at once, since a process that has imported torch forks them.

For tests that need a process of its own, and not the start of an interpreter. To its program it
looks like a new process, apart from the modules that are imported already.
"""

import atexit
import os
import runpy
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

COMMAND = Path(sys.executable).with_name("hashsearch")
# What the commands import; tests/conftest.py has it imported by the process that forks.
PRELOADED = (
    "hashsearch.commands.console",
    "hashsearch.commands.evaluate",
    "hashsearch.commands.index",
    "hashsearch.evaluation.evaluate",
    "hashsearch.exports.targets",
    "hashsearch.jobs.adding",
    "hashsearch.jobs.building",
    "hashsearch.jobs.index.prepare",
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


class Forked(subprocess.Popen):
    """`subprocess.Popen` of COMMAND, or of what `sys.executable` runs.

    Of Popen's options, only those of streams, `cwd` and `env` are possible.
    """

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest):
        ends = rest[3:9]  # the child's and our end of each stream, or -1
        words = [os.fspath(word) for word in args]
        if words[0] == sys.executable:
            del words[0]
        else:
            assert words[0] == str(COMMAND), words
        streams = [
            Connection(os.dup(number if end == -1 else end))  # which can be sent
            for number, end in enumerate((ends[0], ends[3], ends[5]))
        ]
        environment = dict(os.environ if env is None else env)
        self._process = get_context("forkserver").Process(
            target=_run, args=(words, environment, os.fspath(cwd or Path.cwd()), streams)
        )
        self._process.start()
        self._close_pipe_fds(*ends)
        self.pid, self._child_created = self._process.pid, True

    def _internal_poll(self, _deadstate=None):
        self.returncode = self._process.exitcode
        return self.returncode

    def _wait(self, timeout):
        self._process.join(timeout)
        if self._internal_poll() is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode


def run(arguments: Sequence[Any], *, input: str | None = None, **options: Any):
    """`subprocess.run` by `Forked`, with its output as text."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    if input is not None:
        options["stdin"] = subprocess.PIPE
    with Forked(arguments, text=True, **options) as process:
        output, errors = process.communicate(input, timeout=300)
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def _run(
    words: list[str], environment: Mapping[str, str], folder: str, streams: list[Connection]
) -> NoReturn:
    """Make this process like a new one, and run a program in it."""
    for target, stream in enumerate(streams):
        os.dup2(stream.fileno(), target)
        stream.close()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, size, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115
        for number, mode, size, errors in (
            (0, "r", -1, "strict"),
            (1, "w", -1, "strict"),
            (2, "w", 1, "backslashreplace"),
        )
    )
    _end_after(_program(words))


def _program(words: list[str]) -> Callable[[], object]:
    """What runs the Python program that these arguments of an interpreter name."""
    path, *rest = words
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


def _end_after(run: Callable[[], object]) -> NoReturn:
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
