"""The book's frame: links that must be relative, pages that must exist, tables that come from the code."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import vpkit

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import rooms  # noqa: E402


@pytest.mark.parametrize("name", ["_config.yml", "_toc.yml", "notebooks"])
def test_the_book_folder_links_to_the_root_relatively(name):
    link = ROOT / "book" / name
    assert link.is_symlink()
    assert str(link.readlink()) == f"../{name}"
    assert link.exists()


def test_every_page_of_the_contents_exists_and_every_page_is_in_it():
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = {contents["root"], *(c["file"] for part in contents["parts"] for c in part["chapters"])}
    pages = {path.stem for path in (ROOT / "book").glob("*.md")}
    chapters = {f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    assert listed == pages | chapters


def test_buttons_are_off_while_there_is_no_address():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert config["execute"]["execute_notebooks"] == "off"
    if not config["repository"]["url"]:
        assert not any(config["html"][f"use_{kind}_button"] for kind in ("issues", "repository", "edit_page"))
    assert config["repository"]["path_to_book"] == ""


def test_every_citation_is_in_the_bibliography():
    known = set(re.findall(r"@\w+\{(\w+),", (ROOT / "book" / "references.bib").read_text()))
    texts = [*(ROOT / "book").glob("*.md"), *(ROOT / "notebooks").glob("[0-9]*.ipynb")]
    cited = {key for path in texts for key in re.findall(r"\{cite\}`(\w+)`", path.read_text())}
    assert cited <= known
    assert {"bahng2022exploring", "chen2023understanding", "shi2023logoprompt", "xing2023dual"} <= known


def test_every_public_name_is_on_the_page_of_functions():
    """By itself, or by the module it lives in, whose members the page lists."""
    listed = set(re.findall(r"auto(?:module|function):: (\S+)", (ROOT / "book" / "api.md").read_text()))
    tables = {"CLIP_MODELS", "DATASETS", "FROZEN_MODELS", "METHOD_COLORS", "SPLITS"}  # have pages of their own
    rooms = [vpkit, *(value for name in vpkit.__all__ if hasattr(value := getattr(vpkit, name), "__path__"))]
    assert len(rooms) == 11
    for room in rooms:
        for name in set(room.__all__) - tables:
            value = getattr(room, name)
            assert isinstance(value, ModuleType) or {f"vpkit.{name}", getattr(value, "__module__", "")} & listed, name


def test_readme_names_the_two_commands_and_every_chapter():
    readme = (ROOT / "README.md").read_text()
    assert "make book" in readme
    assert "make test" in readme
    for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"):
        assert path.stem in readme


def test_the_examples_of_the_extending_page_run():
    """One after the other in one namespace, as a reader would type them."""
    text = (ROOT / "book" / "extending.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    namespace: dict = {}
    try:
        for block in blocks:
            exec(block, namespace)
    finally:
        namespace["DATASETS"].pop("stripes", None)
    assert len(blocks) == 7
    (own,) = (block for block in blocks if "DataLoader" in block)
    algorithm = [line for line in own.splitlines() if line.strip() and not line.startswith(("import ", "from "))]
    assert len(algorithm) <= 15
    assert len(namespace["found"]) == 2
    assert vpkit.count_parameters(namespace["ilm"]) == 3 * (64**2 - 32**2)
    assert namespace["history"]["train_loss"][-1] < namespace["history"]["train_loss"][0]
    assert namespace["stripes"].class_names == ("horizontal", "vertical")


def test_every_test_named_on_the_page_on_speed_is_one():
    written = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", (ROOT / "book" / "performance.md").read_text())
    assert len(named) > 12
    assert [name for name in named if f"def {name}(" not in written] == []


def test_the_drawing_of_the_rooms_has_every_room_and_no_line_that_goes_up():
    found = rooms.imported_rooms(ROOT / "vpkit")
    stories = rooms.floors(found)
    assert len(stories) <= 6
    floor = {room: number for number, story in enumerate(stories) for room in story}
    assert set(floor) >= {"datasets", "models", "prompts", "mappings", "training", "methods", "tasks", "book"}
    lines = rooms.not_implied(found)
    assert all(floor[need] < floor[room] for room, need in lines)
    reached = {room: set() for room in floor}
    for story in stories:  # following the lines leads to every import
        for room in story:
            for need in (need for start, need in lines if start == room):
                reached[room] |= {need} | reached[need]
            assert found[room] <= reached[room]
    assert all(f">{room}<" in rooms.drawing(found) for room in floor)
    with pytest.raises(ValueError, match="import each other: a, b"):
        rooms.floors({"a": {"b"}, "b": {"a"}})
