"""Processes of Python that start at once, since a process that has imported torch forks them.

For tests that need a process of its own, and not the start of an interpreter. To its program it
looks like a new process, apart from the modules that are imported already.
"""

import atexit
import json
import os
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from tests import nursery

COMMAND = Path(sys.executable).with_name("hashsearch")


@cache
def _control() -> socket.socket:
    """The socket of this process's nursery, which is started."""
    ours, theirs = socket.socketpair()
    with theirs:
        number = theirs.fileno()
        started = subprocess.Popen(
            [sys.executable, "-m", "tests.nursery", str(number)],
            pass_fds=[number],
            cwd=Path(__file__).parents[1],
        )
    atexit.register(started.wait)
    atexit.register(ours.close)  # before it is waited for
    return ours


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
        asked = {
            "arguments": words,
            "environment": dict(os.environ if env is None else env),
            "folder": os.fspath(cwd or Path.cwd()),
        }
        streams = (ends[0], ends[3], ends[5])
        text = os.memfd_create("asked")
        os.write(text, json.dumps(asked).encode())
        os.lseek(text, 0, os.SEEK_SET)
        self._answers, theirs = socket.socketpair()
        given = [number if end == -1 else end for number, end in enumerate(streams)]
        socket.send_fds(_control(), [b"."], [text, *given, theirs.fileno()])
        theirs.close()
        os.close(text)
        self._close_pipe_fds(*ends)
        self.pid, _ = self._answer(0)
        self._child_created = True

    def _answer(self, flags: int) -> tuple[int, int]:
        data = self._answers.recv(nursery.ANSWER.size, flags | socket.MSG_WAITALL)
        assert data, "the nursery has ended"
        return nursery.ANSWER.unpack(data)

    def _try_wait(self, flags):
        try:
            found = self._answer(socket.MSG_DONTWAIT if flags & os.WNOHANG else 0)
        except BlockingIOError:
            return 0, 0
        self._answers.close()
        return found

    def _internal_poll(self, _deadstate=None):
        if self.returncode is None and self._waitpid_lock.acquire(False):
            try:
                if self.returncode is None:
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid:
                        self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode


def run(arguments: list[Any], *, input: str | None = None, **options: Any):
    """`subprocess.run` by `Forked`, with its output as text."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    if input is not None:
        options["stdin"] = subprocess.PIPE
    with Forked(arguments, text=True, **options) as process:
        output, errors = process.communicate(input, timeout=300)
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)
