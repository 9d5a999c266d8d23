"""A server on the loopback that plays the internet: any address it was given bytes for, in part if asked, cut off if
told to."""

import hashlib
import io
import tarfile
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote
from urllib.request import Request, urlopen

from vpkit import downloads


class Internet:
    """What each address answers, and what was asked.

    Attributes:
        files: bytes by address.
        asked: (method, address, first byte asked for).
        cuts: how often an answer is still cut off half-way.
    """

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, int]] = []
        self.cuts = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_arguments):
                pass

            def answer(self):
                url = unquote(self.path[1:])
                url = url if url.startswith("http") else f"https://huggingface.co/{url}"
                start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
                outer.asked.append((self.command, url, start))
                content = outer.files.get(url)
                if content is None:
                    self.send_error(404)
                    return
                if start >= len(content) > 0:
                    self.send_error(416)
                    return
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(content) - start))
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("Accept-Ranges", "bytes")
                self.end_headers()
                if self.command == "HEAD":
                    return
                if outer.cuts:
                    outer.cuts -= 1
                    self.wfile.write(content[start : start + (len(content) - start) // 2])
                    self.close_connection = True
                    self.connection.close()
                    return
                self.wfile.write(content[start:])

            do_GET = do_HEAD = answer

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # a cut connection is no news
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"

    def open(self, request, timeout):
        """For `urlopen`: whatever the address, this server answers."""
        local = f"{self.address}/{quote(request.full_url, safe='')}"
        return urlopen(
            Request(local, headers=dict(request.header_items()), method=request.get_method()), timeout=timeout
        )


@contextmanager
def internet(monkeypatch):
    """An `Internet` that vpkit's downloads, torchvision's and the Hugging Face hub's reach, and nothing else."""
    import huggingface_hub.constants as hub
    import torchvision.datasets.utils as tv

    web = Internet()
    monkeypatch.setattr(downloads, "urlopen", web.open)
    for name in ("ENDPOINT", "HUGGINGFACE_CO_URL_TEMPLATE"):
        monkeypatch.setattr(hub, name, getattr(hub, name).replace("https://huggingface.co", web.address))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    # Archives made here have other sums than the published ones.
    monkeypatch.setattr(downloads, "sum_of", lambda path, algorithm: _Any())
    monkeypatch.setattr(tv, "check_integrity", lambda path, md5=None: Path(path).is_file())
    thread = threading.Thread(target=web.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        web.server.shutdown()
        web.server.server_close()


class _Any(str):
    """A sum that every wanted one begins."""

    def startswith(self, _wanted):
        return True


def tar(folder: Path, *names: str) -> bytes:
    """Files and folders below `folder` as .tar.gz."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name in names:
            archive.add(folder / name, name)
    return stream.getvalue()


def zipped(folder: Path, *names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            for path in [folder / name, *sorted((folder / name).rglob("*"))]:
                if path.is_file():
                    archive.write(path, path.relative_to(folder))
    return stream.getvalue()


def published(name: str, root: Path, archives) -> dict[str, bytes]:
    """The bytes at each address of a torchvision set, whose unpacked files lie below `root`, as its authors pack it."""
    packed = {
        "cifar-10-python.tar.gz": lambda: tar(root, "cifar-10-batches-py"),
        "cifar-100-python.tar.gz": lambda: tar(root, "cifar-100-python"),
        "train_32x32.mat": lambda: (root / "svhn" / "train_32x32.mat").read_bytes(),
        "test_32x32.mat": lambda: (root / "svhn" / "test_32x32.mat").read_bytes(),
        "GTSRB-Training_fixed.zip": lambda: zipped(root / "gtsrb", "GTSRB/Training"),
        "GTSRB_Final_Test_Images.zip": lambda: zipped(root / "gtsrb", "GTSRB/Final_Test"),
        "GTSRB_Final_Test_GT.zip": lambda: zipped(root / "gtsrb", "GT-final_test.csv"),
        "102flowers.tgz": lambda: tar(root / "flowers-102", "jpg"),
        "imagelabels.mat": lambda: (root / "flowers-102" / "imagelabels.mat").read_bytes(),
        "setid.mat": lambda: (root / "flowers-102" / "setid.mat").read_bytes(),
        "dtd-r1.0.1.tar.gz": lambda: tar(root / "dtd", "dtd"),
        "food-101.tar.gz": lambda: tar(root, "food-101"),
        "EuroSAT.zip": lambda: zipped(root / "eurosat", "2750"),
        "images.tar.gz": lambda: tar(root / "oxford-iiit-pet", "images"),
        "annotations.tar.gz": lambda: tar(root / "oxford-iiit-pet", "annotations"),
        "caltech-101.zip": lambda: _caltech(root / "caltech101"),
        "fgvc-aircraft-2013b.tar.gz": lambda: tar(root, "fgvc-aircraft-2013b"),
        "CLEVR_v1.0.zip": lambda: zipped(root / "clevr", "CLEVR_v1.0"),
    }
    return {a.url: packed[a.path.name]() for a in archives if a.path.name in packed}


def _caltech(folder: Path) -> bytes:
    """A zip with an archive of the images and one of the outlines in it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("caltech-101/101_ObjectCategories.tar.gz", tar(folder, "101_ObjectCategories"))
    return stream.getvalue()
