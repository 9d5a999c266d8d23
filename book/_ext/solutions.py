"""Prints a chapter's exercises with their solutions: what was changed, what it printed, and how to read it."""

import json
import re

import nbformat
import yaml
from book_tables import ROOT, parsed
from docutils.parsers.rst import Directive

FOLDER = ROOT / "book" / "solutions"


def exercises(chapter: str) -> list[str]:
    """The texts of a chapter's exercises, in order."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", as_version=4)
    prose = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    listed = prose.split("## Exercises")[1].split("\n## ")[0]
    return re.findall(r"^\d+\. (.+)$", listed, flags=re.MULTILINE)


class Solutions(Directive):
    """`{solutions} CHAPTER`: each exercise, and under it its solution, folded."""

    required_arguments = 1

    def run(self):
        chapter = self.arguments[0]
        printed = json.loads((FOLDER / "printed.json").read_text(encoding="utf-8"))
        lines, texts = [], exercises(chapter)
        for solution in yaml.safe_load((FOLDER / f"{chapter}.yaml").read_text(encoding="utf-8")):
            number = solution["exercise"]
            lines += [f"**{number}.** {texts[number - 1]}", "", "::::{dropdown} Solution"]
            lines += how(solution.get("notebook", chapter), solution)
            text = printed.get(f"{chapter} {number}", {}).get("text", "")
            lines += ["```text", *text.strip().splitlines(), "```", ""] if text else []
            lines += [*solution["answer"].strip().splitlines(), "::::", ""]
        return parsed(self, lines)


def how(chapter: str, solution: dict) -> list[str]:
    """The parameters, the changed lines and the added cell, as Markdown."""
    runs = [command(chapter, parameters) for parameters in solution.get("runs", [])]
    changed = []
    for old, new in solution.get("edits", {}).items():
        changed += [f"-{line}" for line in old.splitlines()] + [f"+{line}" for line in new.splitlines()]
    lines = ["```bash", *runs, "```", ""] if runs else []
    lines += ["```bash", solution["elsewhere"], "```", ""] if "elsewhere" in solution else []
    lines += ["```diff", *changed, "```", ""] if changed else []
    return lines + (["```python", *solution["show"].strip().splitlines(), "```", ""] if "show" in solution else [])


def command(chapter: str, parameters: dict) -> str:
    lists = {name: value for name, value in parameters.items() if isinstance(value, list)}
    plain = "".join(f" -p {name} {value}" for name, value in parameters.items() if name not in lists)
    nested = "".join(f" -y '{name}: [{', '.join(map(str, value))}]'" for name, value in lists.items())
    return f"papermill notebooks/{chapter}.ipynb out.ipynb{plain}{nested}"


def setup(app):
    app.add_directive("solutions", Solutions)
    return {"parallel_read_safe": True}
