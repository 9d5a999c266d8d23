"""Sphinx directives that print the package's own tables, so that a page cannot disagree with the code."""

from pathlib import Path

import nbformat
from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

from vpkit.book.parameters import chapter_parameters
from vpkit.book.session import declared_values
from vpkit.datasets import DATASETS
from vpkit.models.clip import CLIP_MODELS
from vpkit.models.frozen import FROZEN_MODELS

# The book may be built from a copy below the repository (make book): look for it, do not count folders.
ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").is_file())


class DatasetTable(Directive):
    """A row per entry of `vpkit.datasets.DATASETS`."""

    def run(self):
        rows = [
            (f"`{name}`", f"{row.classes:,}", f"{row.native_size}", row.source, row.split)
            for name, row in DATASETS.items()
        ]
        return table_of(self, ("name", "classes", "side", "images from", "splits"), rows)


class FrozenModelTable(Directive):
    """A row per entry of `vpkit.models.FROZEN_MODELS`."""

    def run(self):
        rows = [
            (f"`{name}`", f"{row.classes:,}", f"{row.image_size}", "yes" if row.offline else "no", row.source)
            for name, row in FROZEN_MODELS.items()
        ]
        return table_of(self, ("name", "source classes", "side", "offline", "trained on; weights"), rows)


class ClipModelTable(Directive):
    """A row per entry of `vpkit.models.CLIP_MODELS`."""

    def run(self):
        rows = [(f"`{name}`", f"`{target}`", about) for name, (target, about) in CLIP_MODELS.items()]
        return table_of(self, ("name", "weights", "what it is"), rows)


class ParameterTable(Directive):
    """A row per parameter of the chapter given: its value in the notebook, and what `vpkit.book.parameters` allows."""

    required_arguments = 1

    def run(self):
        (chapter,) = self.arguments
        values = declared_values(nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", as_version=4))
        rows = [
            (f"`{name}`", schema["description"], _allowed(schema), _shown(values[name]))
            for name, schema in chapter_parameters(chapter).items()
        ]
        return table_of(self, ("name", "what it is", "allowed", "default"), rows)


class GridCosts(Directive):
    """A row per grid of a paper: its points, floating-point operations, and hours on a GPU that reaches 60 TFLOP/s."""

    def run(self):
        from vpkit.book.costs import point_flops
        from vpkit.book.grids import read_grid

        rows = []
        for path in sorted((ROOT / "grids").glob("*.yaml")):
            points = [] if path.stem == "offline" else read_grid(path)
            if points:
                total = sum(point_flops(point).total for point in points)
                hours = total / 60e12 / 3600
                rows.append((f"`{path.stem}`", f"{len(points)}", f"{total:.1e}", f"{hours:,.1f}"))
        return table_of(self, ("grid", "points", "operations", "GPU hours"), rows)


def _shown(value) -> str:
    if isinstance(value, list):  # each in a box of its own, so that a line can end between two
        return ", ".join(f"`{item}`" for item in value) or "none of them"
    return "none" if value is None else "empty" if value == "" else f"`{value}`"  # a dictionary cannot be a key


def _allowed(schema: dict) -> str:
    """A JSON Schema in words."""
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "items" in schema:
        return f"a list of {_allowed(schema['items'])}"
    kinds = {
        "integer": "whole number",
        "number": "number",
        "string": "text",
        "boolean": "true or false",
        "null": "none",
    }
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[key]:,}" for key, sign in signs.items() if key in schema]
    return " ".join([" or ".join(kinds.get(kind, kind) for kind in types), ", ".join(bounds)]).strip()


def table_of(directive, header, rows):
    lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return parsed(directive, lines)


def parsed(directive, lines):
    """Lines of Markdown as what stands on the page."""
    parent = nodes.container()
    directive.state.nested_parse(StringList(lines, source="vpkit"), directive.content_offset, parent)
    return parent.children


def setup(app):
    app.add_directive("dataset-table", DatasetTable)
    app.add_directive("parameter-table", ParameterTable)
    app.add_directive("frozen-model-table", FrozenModelTable)
    app.add_directive("grid-costs", GridCosts)
    app.add_directive("clip-model-table", ClipModelTable)
    return {"parallel_read_safe": True}
