"""Opening a file beneath a folder, whatever links and other programs do."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path, PurePath


def open_beneath(root: Path, path: str) -> BufferedReader:
    """Open a regular file beneath a folder for reading; links out of the folder are refused.

    root: the folder; links in its own path are followed. path: relative to it, and not trusted.
    The path is resolved first; links within the folder are followed. The result is then opened
    folder by folder, each by the descriptor of the one before and without following links, so a
    link that another program puts there meanwhile leads nowhere. A pipe or a device is not opened.
    Raises OSError if there is no such file, and ValueError if the path holds a zero byte.
    """
    folder = os.path.realpath(root, strict=True)
    # os.path, since Path.resolve raises RuntimeError for links that lead back to themselves
    real = PurePath(os.path.realpath(os.path.join(folder, path), strict=True))  # noqa: PTH118
    if not real.is_relative_to(folder):
        raise OSError(errno.EXDEV, "it lies outside the folder of its source")
    *above, name = real.relative_to(folder).parts or (".",)
    # Without O_PATH, which Linux has, a folder that may be entered but not listed cannot be opened.
    of_folder = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW
    within = os.open(folder, of_folder)
    try:
        for one in above:
            inner = os.open(one, of_folder, dir_fd=within)
            os.close(within)
            within = inner
        _require_regular(os.stat(name, dir_fd=within, follow_symlinks=False))
        # Without O_NONBLOCK, opening a pipe waits until somebody writes into it.
        of_file = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        file = os.fdopen(os.open(name, of_file, dir_fd=within), "rb")
    finally:
        os.close(within)
    try:
        _require_regular(os.fstat(file.fileno()))  # again, of the file that was opened
    except OSError:
        file.close()
        raise
    return file


def _require_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
