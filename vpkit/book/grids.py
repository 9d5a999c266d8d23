"""A grid of notebook parameters as a YAML file, and the points it stands for. One block, or a list of blocks:

notebook: ../notebooks/03_ilm_vp.ipynb    # relative to the grid's file, as is `base`
base: ../vpkit/data/params/full/03_ilm_vp.yaml   # optional file of parameters
parameters: {epochs: 200}                 # optional, over those of `base`
grid: {seed: [0, 1, 2]}                   # optional: every combination
points: [{dataset: cifar10}, {dataset: dtd, batch_size: 64}]   # optional: each with every combination
"""

import ast
import hashlib
import json
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import product
from pathlib import Path

import nbformat
import yaml

from vpkit.book.parameters import check_values, known_chapters

__all__ = ["Point", "read_grid"]

_KEYS = ("notebook", "base", "parameters", "grid", "points")


@dataclass(frozen=True)
class Point:
    """One run: a notebook, as text, and the parameters that differ from its own."""

    name: str
    notebook: str
    parameters: dict

    @property
    def key(self) -> str:
        """Names the run in `<name>-<hash>`: parameters, code cells and vpkit's code decide; prose does not."""
        content = json.dumps([self.parameters, _code_of(self.notebook), code_digest()], sort_keys=True)
        return f"{self.name}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def read_grid(path: str | Path) -> list[Point]:
    """The points of a grid file, in order, each once.

    Raises:
        ValueError: not a grid, a notebook that is not there, or parameters it does not have; the message names the
            file and what is wrong with it.
    """
    path, points = Path(path), []
    blocks = _read_yaml(path)
    for block in blocks if isinstance(blocks, list) else [blocks]:
        points += _block_points(path, block)
    return list({point.key: point for point in points}.values())


@cache
def code_digest() -> str:
    """Of the package's code, without comments and docstrings: a run made with other code is another run."""
    root, digest = Path(__file__).resolve().parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
                node.body = node.body[1:]
        digest.update(f"{path.relative_to(root).as_posix()} {ast.dump(tree)}".encode())
    return digest.hexdigest()


@lru_cache(maxsize=16)
def _code_of(notebook: str) -> list[str]:
    """The code cells of a notebook; read once for all points of a grid, and a notebook with pictures is large."""
    cells = nbformat.reads(notebook, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


def _read_yaml(path: Path):
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: not a readable YAML file ({error})") from error


def _block_points(path: Path, block) -> list[Point]:
    if not isinstance(block, dict) or "notebook" not in block or set(block) - set(_KEYS):
        found = sorted(map(str, block)) if isinstance(block, dict) else block
        raise ValueError(f"{path}: {found!r}: expected a block with notebook and some of {', '.join(_KEYS[1:])}")
    kinds = {"parameters": dict, "grid": dict, "points": list}
    for name, kind in kinds.items():
        if not isinstance(block.get(name, kind()), kind):
            raise ValueError(f"{path}: {name} is {block[name]!r}: expected a {kind.__name__}")
    if bad := [name for name, values in block.get("grid", {}).items() if not isinstance(values, list) or not values]:
        raise ValueError(f"{path}: grid: {bad[0]} is {block['grid'][bad[0]]!r}: expected a list of values")
    if bad := [point for point in block.get("points", []) if not isinstance(point, dict)]:
        raise ValueError(f"{path}: points: {bad[0]!r}: expected parameters, such as {{dataset: icons}}")
    notebook = path.parent / block["notebook"]
    if not notebook.is_file():
        raise ValueError(f"{path}: there is no notebook {notebook}; expected a path relative to this file")
    usual = _read_yaml(path.parent / block["base"]) if "base" in block else {}
    usual = usual | block.get("parameters", {})
    grid = block.get("grid", {})
    combinations = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    chosen = [usual | point | one for one in combinations for point in block.get("points", [{}])]
    _check_names(path, notebook, {name for parameters in chosen for name in parameters})
    _check_chapter(path, notebook.stem, chosen)
    text = notebook.read_text(encoding="utf-8")
    return [Point(notebook.stem, text, parameters) for parameters in chosen]


def _check_chapter(path: Path, chapter: str, chosen: list[dict]) -> None:
    if chapter in known_chapters():
        for parameters in chosen:
            try:
                check_values(chapter, parameters)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error


def _check_names(path: Path, notebook: Path, names: set[str]) -> None:
    import papermill

    known = set(papermill.inspect_notebook(str(notebook))) - {"results_dir"}
    if unknown := sorted(names - known):
        raise ValueError(
            f"{path}: {notebook.name} has no parameter {', '.join(unknown)}: "
            f"expected some of {', '.join(sorted(known))}"
        )
