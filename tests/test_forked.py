"""Processes that are forked look to their programs like new ones."""

import signal
import subprocess
import sys

import pytest

from tests import forked

SEEN = (
    "import os, sys\n"
    "print(__name__, globals().get('__file__'), sys.argv, os.getcwd(), sys.path[0])\n"
    "print(sorted(set(os.environ) - {'LC_CTYPE'}), sys.stdin.read())\n"
    "print([s.encoding for s in (sys.stdin, sys.stdout, sys.stderr)], file=sys.stderr)\n"
)


@pytest.mark.parametrize(
    ("program", "end"),
    [
        (SEEN, ""),
        (SEEN, "sys.exit(3)"),
        (SEEN, "sys.exit('a sentence')"),
        (SEEN, "import atexit; atexit.register(print, 'the end'); print('last', end='')"),
        ("import os, signal", "os.kill(os.getpid(), signal.SIGKILL)"),
    ],
)
@pytest.mark.parametrize("is_file", [True, False])
def test_a_program_sees_and_leaves_the_same(program, end, is_file, tmp_path):
    (tmp_path / "program.py").write_text(f"{program}\n{end}")
    words = ["program.py"] if is_file else ["-c", f"{program}\n{end}"]
    command = [sys.executable, *words, "a", "b c"]
    options = {"cwd": tmp_path, "env": {"PATH": "/bin", "A": "é"}, "input": "given"}
    found = forked.run(command, **options)
    wanted = subprocess.run(command, capture_output=True, text=True, **options)
    assert found.returncode == wanted.returncode
    assert (found.stdout, found.stderr) == (wanted.stdout, wanted.stderr)


def test_a_process_that_is_not_stopped_by_an_error_ends_with_its_traceback():
    done = forked.run([sys.executable, "-c", "1 / 0"])
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_the_process_that_it_is_sent_to(number):
    program = "import time; print('ready', flush=True); time.sleep(60)"
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with forked.Forked([sys.executable, "-c", program], text=True, **streams) as process:
        assert process.stdout.readline() == "ready\n"
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(10) == process.poll() == -number


def test_what_commands_import_is_there_already():
    program = "import sys; print([name for name in sys.argv[1:] if name not in sys.modules])"
    done = forked.run([sys.executable, "-c", program, *forked.PRELOADED, "torch"])
    assert done.stdout == "[]\n", done.stderr
