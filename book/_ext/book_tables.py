"""Sphinx directives that print the package's own tables, so that a page cannot disagree with the code."""

from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

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
    app.add_directive("frozen-model-table", FrozenModelTable)
    app.add_directive("clip-model-table", ClipModelTable)
    return {"parallel_read_safe": True}
