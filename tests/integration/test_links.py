"""The repository's address: one command sets it everywhere, and takes it out without a trace."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tree(tmp_path):
    for name in ("_config.yml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", symlinks=True, ignore=shutil.ignore_patterns("params"))
    run_links(tmp_path, "")  # this checkout may have links of its own
    return tmp_path


def run_links(folder, *url):
    command = [sys.executable, ROOT / "tools" / "links.py", "--root", folder]
    command += ["--url", *url] if url else []
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts}


def test_links_come_and_go_without_a_trace(tree):
    before = contents(tree)
    assert "https://github.com/someone/book" in run_links(tree, "git@github.com:someone/book.git")
    config = yaml.safe_load((tree / "_config.yml").read_text())
    assert config["repository"]["url"] == "https://github.com/someone/book"
    assert config["launch_buttons"]["colab_url"] == "https://colab.research.google.com"
    assert config["html"]["use_repository_button"] is True
    colab = "https://colab.research.google.com/github/someone/book/blob/main/notebooks/"
    assert colab in (tree / "README.md").read_text()
    for path in (tree / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        assert f"[Open in Colab]({colab}{path.name})" in cells[0].source
        assert sum('repository = "https://github.com/someone/book@main"' in cell.source for cell in cells) == 1
    once = contents(tree)
    run_links(tree, "https://github.com/someone/book")
    assert contents(tree) == once
    run_links(tree, "")
    assert contents(tree) == before


def test_the_address_is_that_of_the_remote_without_its_password(tree):
    subprocess.run(["git", "init", "-q", "-b", "trunk"], cwd=tree, check=True)
    assert "links are off" in run_links(tree)
    subprocess.run(["git", "remote", "add", "origin", "https://me:secret@github.com/a/b.git"], cwd=tree, check=True)
    assert "https://github.com/a/b" in run_links(tree)
    assert "blob/trunk/notebooks" in (tree / "README.md").read_text()
    assert "https://github.com/a/b@trunk" in (tree / "notebooks" / "01_visual_prompting.ipynb").read_text()
    assert not [name for name, content in contents(tree).items() if b"secret" in content]


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("ssh://git@gitlab.com:22/group/sub/book.git", "https://gitlab.com/group/sub/book"),
        ("https://example.org/book/", "https://example.org/book"),
        ("/srv/git/book.git", ""),
        ("../book", ""),
        ("", ""),
    ],
)
def test_addresses_of_other_hosts_and_of_this_machine(tree, remote, address):
    subprocess.run(["git", "init", "-q"], cwd=tree, check=True)
    if remote:
        subprocess.run(["git", "remote", "add", "origin", remote], cwd=tree, check=True)
    run_links(tree)
    config = yaml.safe_load((tree / "_config.yml").read_text())
    assert config["repository"]["url"] == address
    assert config["launch_buttons"]["colab_url"] == ""  # Colab opens notebooks of GitHub only
    assert "Open in Colab" not in (tree / "README.md").read_text()
