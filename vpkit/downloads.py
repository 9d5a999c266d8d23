"""Files of the internet: fetched with a progress bar, gone on with where they were cut off, checked by their sum.

Nothing here runs unless a download was asked for.
"""

import hashlib
import os
import sys
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

__all__ = ["download", "may_download", "size_of"]

_TRIES = 4


def may_download(asked: bool | None) -> bool:
    """Whether the network may be used: as asked, or as `$VPKIT_DOWNLOAD` says ("1": yes)."""
    return os.environ.get("VPKIT_DOWNLOAD") == "1" if asked is None else asked


def download(url: str, path: str | Path, md5: str = "", sha256: str = "") -> Path:
    """Fetch `url` to `path`, unless it is there. What was cut off lies beside it as `.part` and is gone on with.

    Args:
        md5, sha256: the sum, or how it begins.

    Raises:
        OSError: the server says no, or cannot be reached; the message names the address.
        ValueError: the file has another sum; it is removed.
    """
    path = Path(path)
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    for attempt in range(1, _TRIES + 1):
        try:
            if _go_on(url, part, path.name):
                break
        except HTTPError as error:
            raise OSError(f"{url}: the server says {error.code} {error.reason}") from error
        except (OSError, HTTPException) as error:
            if attempt == _TRIES:
                raise OSError(f"{url}: {_reason(error)}") from error
    else:
        raise OSError(f"{url}: cut off {_TRIES} times; the same command goes on where it stopped")
    for algorithm, wanted in (("md5", md5), ("sha256", sha256)):
        found = sum_of(part, algorithm) if wanted else ""
        if not found.startswith(wanted):
            part.unlink()
            raise ValueError(f"{url}: its {algorithm} sum is {found}, expected {wanted}: the file there has changed")
    return part.replace(path)


def _go_on(url: str, part: Path, name: str) -> bool:
    """Add to `part` what it lacks; gives whether it is whole."""
    have = part.stat().st_size if part.exists() else 0
    try:
        response = urlopen(_request(url, {"Range": f"bytes={have}-"} if have else {}), timeout=60)
    except HTTPError as error:
        if error.code == 416 and have:  # nothing is left to send
            return True
        raise
    with response:
        if response.status != 206:  # a server that always starts anew
            have = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=name, file=sys.stderr)
        with open(part, "ab" if have else "wb") as file, bar:
            while chunk := response.read(1 << 20):
                file.write(chunk)
                bar.update(len(chunk))
    return total is None or part.stat().st_size >= total


def size_of(url: str) -> int | None:
    """Bytes of the file at `url`, as its server says before sending it; None if it does not say.

    Raises:
        OSError: the server says no, or cannot be reached; the message names the address.
    """
    try:
        with urlopen(_request(url, {}, "HEAD"), timeout=30) as response:
            length = response.headers.get("Content-Length")
            return None if length is None else int(length)
    except HTTPError as error:
        raise OSError(f"{url}: the server says {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise OSError(f"{url}: {_reason(error)}") from error


def sum_of(path: Path, algorithm: str) -> str:
    """Hexadecimal, of the bytes of a file; `algorithm` as hashlib names it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _reason(error: Exception) -> object:
    return (error.reason if isinstance(error, URLError) else error) or type(error).__name__


def _request(url: str, headers: dict[str, str], method: str = "GET") -> Request:
    return Request(url, headers={"User-Agent": "vpkit", **headers}, method=method)
