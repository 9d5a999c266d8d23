"""For kernels of the rehearsal: every address leads to the server in `REHEARSAL`, whose files have sums of their own.

As `internet.internet` does within one process. Nothing else is replaced.
"""

import os

if "REHEARSAL" in os.environ:
    from importlib.abc import Loader, MetaPathFinder
    from importlib.util import find_spec
    from pathlib import Path
    from urllib.parse import quote
    from urllib.request import Request, urlopen

    def _to_the_server(request, timeout):
        local = f"{os.environ['REHEARSAL']}/{quote(request.full_url, safe='')}"
        return urlopen(
            Request(local, headers=dict(request.header_items()), method=request.get_method()), timeout=timeout
        )

    class _Any(str):
        def startswith(self, _wanted):
            return True

    def _vpkit(module):
        module.urlopen, module.sum_of = _to_the_server, lambda path, algorithm: _Any()

    def _torchvision(module):
        module.check_integrity = lambda path, md5=None: Path(path).is_file()

    PATCHES = {"vpkit.downloads": _vpkit, "torchvision.datasets.utils": _torchvision}

    class Patched(Loader):
        def __init__(self, loader, patch):
            self.loader, self.patch = loader, patch

        def create_module(self, spec):
            return self.loader.create_module(spec)

        def exec_module(self, module):
            self.loader.exec_module(module)
            self.patch(module)

    class Finder(MetaPathFinder):
        """Replaces what a module has, right after it is loaded and before anyone imports from it."""

        def __init__(self):
            self.looking = False

        def find_spec(self, name, path=None, target=None):
            if name not in PATCHES or self.looking:
                return None
            self.looking = True
            try:
                spec = find_spec(name)
            finally:
                self.looking = False
            if spec is not None and spec.loader is not None:
                spec.loader = Patched(spec.loader, PATCHES[name])
            return spec

    import sys

    sys.meta_path.insert(0, Finder())
