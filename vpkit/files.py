"""Where decoded data is kept, and how a file is written so that a reader never sees half of it."""

import contextlib
import errno
import glob
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import platformdirs
from safetensors import SafetensorError, safe_open
from torch import Tensor


def cache_folder() -> Path:
    """The folder for decoded datasets: `$VPKIT_CACHE` if set, else the user's cache folder."""
    folder = os.environ.get("VPKIT_CACHE")
    return Path(folder).expanduser() if folder else platformdirs.user_cache_path("vpkit")


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Call `write(temporary_path)` and move the finished file to `path`.

    The temporary file lies in the same folder, so the move is one atomic rename: another process (or the
    next run after a crash) sees the old file, the whole new file, or none. Two writers may race; the last wins. What
    a killed writer of the same file left behind is removed once nothing was added to it for an hour.

    Raises:
        OSError: the disk is full, or the folder cannot be written; the message names `path`, which is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    _remove_left_by_the_killed(Path(name), glob.escape(f".{path.name}.") + "*.part")
    try:
        write(Path(name))
        with open(name, "rb+") as written:  # the rename must not reach the disk before the bytes do
            os.fsync(written.fileno())
        os.chmod(name, 0o666 & ~_umask())  # mkstemp makes private files; caches and results are ordinary ones
        os.replace(name, path)
    except (OSError, SafetensorError) as error:
        # safetensors says "No space left on device (os error 28)" in an exception of its own
        code = getattr(error, "errno", None) or (errno.ENOSPC if "os error 28" in str(error) else errno.EIO)
        raise OSError(code, getattr(error, "strerror", None) or str(error), str(path)) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
    return path


def check_writable(folder: str | Path) -> None:
    """Make `folder`, unless it is "", and see that files can be written there, before hours are spent on them.

    Raises:
        OSError: it cannot be made or written; the message names it.
    """
    if folder:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise OSError(error.errno, f"results cannot be written there: {error.strerror}", str(folder)) from error


def read_safetensors(path: str | Path, kind: str, key: str) -> tuple[dict, dict[str, Tensor]]:
    """The metadata of a safetensors file that vpkit wrote, `key` of it decoded from JSON, and the tensors.

    Args:
        kind: what it should be, such as "prompt", for the messages.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is cut short or lacks `key`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such {kind} file")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            # Copies: the file may be replaced while they are in use.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
            return metadata | {key: json.loads(metadata[key])}, tensors
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: not a {kind} file of vpkit, or cut short ({error})") from error


def _remove_left_by_the_killed(own: Path, pattern: str) -> None:
    now = own.stat().st_mtime  # by the clock of the file system, which may be another machine's
    for part in own.parent.glob(pattern):
        with contextlib.suppress(OSError):  # another process may do the same
            if part.stat().st_mtime < now - 3600:
                part.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
