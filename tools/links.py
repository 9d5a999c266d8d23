"""Write the repository's address into everything that links to it; without one, take the links out again.

    python tools/links.py               the address of the git remote `origin` (make links)
    python tools/links.py --url URL     another; --url "" takes the links out

Set are: the repository and Colab buttons of the built book, the badge above the README's commands, a Colab link in
each chapter, and the address from which a chapter installs vpkit when it runs on Colab. Colab opens notebooks of
GitHub only: for another host its links stay off, and the rest works.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
COLAB = "https://colab.research.google.com"
BADGE = f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]"
LINK = "[Open in Colab]"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help='the address; "" for none')
    parser.add_argument("--branch", help="that Colab opens; by default the one checked out")
    parser.add_argument("--root", type=Path, default=ROOT, help="the working tree to change")
    options = parser.parse_args()
    url = public_address(_git(options.root, "remote", "get-url", "origin") if options.url is None else options.url)
    set_links(options.root, url, options.branch or _git(options.root, "branch", "--show-current") or "main")
    print(f"links to {url}" if url else "no remote that others can reach: the links are off")
    return 0


def public_address(remote: str) -> str:
    """A git remote as the address others use: https, without user and password; "" for a folder of this machine.

    A `file://` address is kept: it is only ever given on purpose.
    """
    remote = remote.strip().removesuffix("/").removesuffix(".git")
    if remote.startswith("file://"):
        return remote
    found = re.fullmatch(r"(?:https?://|ssh://|git://)?(?:[^@/]+@)?([\w.-]+\.\w+)(?::\d+)?[:/]+(.+)", remote)
    return f"https://{found[1]}/{found[2]}" if found else ""


def colab_address(url: str, branch: str, notebook: str) -> str:
    """Where Colab opens a notebook of the repository; "" where it cannot."""
    repository = url.removeprefix("https://github.com/")
    return f"{COLAB}/github/{repository}/blob/{branch}/notebooks/{notebook}" if repository != url else ""


def set_links(root: Path, url: str, branch: str) -> None:
    on_colab = colab_address(url, branch, "")
    config = (root / "_config.yml").read_text(encoding="utf-8")
    for key, value in (
        ("  url", f'"{url}"'),
        ("  branch", branch if url else "main"),
        ("  colab_url", f'"{COLAB if on_colab else ""}"'),
        ("  use_repository_button", "true" if url.startswith("https") else "false"),
    ):
        config, count = re.subn(rf"^{key}: .*$", f"{key}: {value}", config, flags=re.MULTILINE)
        assert count == 1, f"_config.yml: expected one line {key.strip()}, found {count}"
    (root / "_config.yml").write_text(config, encoding="utf-8")

    readme = (root / "README.md").read_text(encoding="utf-8")
    readme = re.sub(rf"^{re.escape(BADGE)}.*\n\n", "", readme, flags=re.MULTILINE)
    if on_colab:
        first = colab_address(url, branch, "01_visual_prompting.ipynb")
        readme = readme.replace("## Two commands\n", f"{BADGE}({first})\n\n## Two commands\n")
    (root / "README.md").write_text(readme, encoding="utf-8")

    source = f"{url}@{branch}" if url else ""  # as pip reads it after git+: the branch whose notebook it is
    for path in sorted((root / "notebooks").glob("[0-9]*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        title, *rest = notebook.cells[0].source.split("\n\n")
        rest = [part for part in rest if not part.startswith(LINK)]
        link = [f"{LINK}({colab_address(url, branch, path.name)})"] if on_colab else []
        notebook.cells[0].source = "\n\n".join([title, *link, *rest])
        for cell in notebook.cells:
            cell.source = re.sub(r'^repository = ".*"', f'repository = "{source}"', cell.source, flags=re.MULTILINE)
        nbformat.write(notebook, path)


def _git(root: Path, *command: str) -> str:
    found = subprocess.run(["git", *command], cwd=root, capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main())
