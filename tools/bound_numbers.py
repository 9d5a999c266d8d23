"""Numbers in the text that are computed: from stored runs, what chapters printed and the papers' tables, never typed.

    python tools/bound_numbers.py           # what differs, is bound to nothing, or claims what is not so
    python tools/bound_numbers.py --write   # put the computed numbers into the text (make numbers)

Behind a number stands a comment that no reader sees, with the expression it comes from; behind a claim one with its
condition; behind a number that nobody measured, a word on what it is:

    the frame reaches 68.9 %<!--= percent("01", method="padding", prompt_size=24) -->
    a fixed patch beats the frame<!--? percent("01", method="fixed patch") > percent("01", method="padding") -->
    momentum 0.9<!--: setting -->

What is stored are studies, the chapters' outputs, what solutions printed, measured times and tables of evaluations.
In BOUND files every number with a decimal point, and every number of per cent or points, must have such a comment;
and every bullet of a summary and every caption that compares must have a condition. Formulas, code, citations and
references to a section, an equation, a table or a figure are told apart by how they are written.
"""

import argparse
import ast
import csv
import json
import re
import statistics
import sys
from functools import cache
from pathlib import Path

import nbformat
from scipy.stats import t
from simpleeval import EvalWithCompoundTypes

import vpkit

ROOT = Path(__file__).resolve().parents[1]
BOUND = sorted(
    path
    for pattern in ("notebooks/*.ipynb", "book/solutions/*.yaml", "book/*.md", "README.md")
    for path in ROOT.glob(pattern)
)

WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()
NUMBER = r"(?:\d[\d,]*(?:\.\d+)?|\b(?:" + "|".join(WORDS) + r")\b)"
UNIT = r"(?: %| points?)"
_COMPUTED = re.compile(
    rf"(?P<number>(?:(?<=[\s(])-)?{NUMBER})(?P<unit>{UNIT}?)<!--= (?P<expression>.+?) -->", re.IGNORECASE
)
_CONDITION = re.compile(r"<!--\? (?P<expression>.+?) -->")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_TOLD_APART = re.compile(  # formulas, code, roles, links; then references to parts of a paper
    r"```.*?```|\$\$.*?\$\$|\$[^$]*\$|\{\w+\}`[^`]*`|`[^`]*`|\]\([^)]*\)|"
    r"\b(?:Sections?|Sec\.|Eqs?\.|Equation|Tables?|Figs?\.|Figures?|Appendix|Algorithm|version) [\dA-Z][\w.]*|"
    r"\b(?:Python|torch|torchvision|Apache|OFL) \d[\d.]*|doi\.org/\S+",  # then versions and addresses
    re.DOTALL,
)
_MEASURED = re.compile(rf"\d[\d,]*\.\d+{UNIT}?|{NUMBER}{UNIT}", re.IGNORECASE)
_COMPARES = re.compile(r"\b(beats?|ahead|behind|better|best|worse|worst|loses?|twice|above|below|fewer|more than)\b")


@cache
def _study(name: str):
    folder = ROOT / "vpkit/data/studies"
    (path,) = (p for p in folder.glob("*.json") if p.stem == name or p.stem.startswith(f"{name}_"))
    return vpkit.load_study(path.stem)


def runs(name: str, **where):
    """The stored runs of a study, "01" or its whole name, whose parameters have these values; None: those without one.

    Raises:
        ValueError: no such run.
    """
    rows = _study(name)
    for column, wanted in where.items():
        rows = rows[rows[column].isna() if wanted is None else rows[column] == wanted]
    if rows.empty:
        raise ValueError(f"no stored run of {name} has {where}")
    return rows


def percent(name: str, column: str = "test_accuracy", how: str = "mean", **where) -> float:
    """Mean ("min", "max") of an accuracy over stored runs, in per cent."""
    return 100 * float(getattr(runs(name, **where)[column], how)())


def each(name: str, by: str = "seed", column: str = "test_accuracy", **where) -> list[float]:
    """The mean for each value of a column, such as each seed, in per cent, in the order of the values."""
    return (100 * runs(name, **where).groupby(by)[column].mean().sort_index()).tolist()


def difference(name: str, method: str, other: str, column: str = "test_accuracy", **where) -> list[float]:
    """What a method has more than another, in points, for each seed."""
    return minus(*(each(name, column=column, method=m, **where) for m in (method, other)))


def minus(ours: list[float], theirs: list[float]) -> list[float]:
    """Seed by seed."""
    return [a - b for a, b in zip(ours, theirs, strict=True)]


def mean(values: list[float]) -> float:
    return statistics.fmean(values)


def margin(values: list[float]) -> float:
    """Half of the 95 % interval (Student's t) around the mean of what a few seeds gave."""
    return float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5


@cache
def _outputs(chapter: str) -> str:
    (path,) = (ROOT / "notebooks").glob(f"{chapter}*.ipynb")
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    shown = [output for cell in cells for output in cell.outputs]
    parts = [o.get("text") or o.get("data", {}).get("text/html") or "" for o in shown]
    plain = (re.sub(r"<style.*?</style>|<[^>]+>", " ", part, flags=re.DOTALL) for part in parts)
    return re.sub(r"\s+", " ", "\n".join(plain))


def _said(text: str, pattern: str, where: str) -> float:
    found = re.search(pattern, re.sub(r"\s+", " ", text))
    if found is None:
        raise ValueError(f"{where} has nothing like {pattern}")
    return float(found[1].replace(",", ""))


def printed(chapter: str, pattern: str) -> float:
    """A number in what the chapter's stored run printed: the first group of a pattern, white space as one space."""
    return _said(_outputs(chapter), pattern, f"what chapter {chapter} prints")


def solved(chapter: str, exercise: int, pattern: str) -> float:
    """A number in what the solution of an exercise printed, as `printed`."""
    stored = json.loads((ROOT / "book/solutions/printed.json").read_text(encoding="utf-8"))
    (text,) = (s["text"] for name, s in stored.items() if name.startswith(chapter) and name.endswith(f" {exercise}"))
    return _said(text, pattern, f"solution {exercise} of chapter {chapter}")


def reported(path: str, pattern: str) -> float:
    """A number in a stored table, as `printed`."""
    return _said((ROOT / path).read_text(encoding="utf-8"), pattern, path)


def counted(path: str, where: dict[str, str] | None = None) -> int:
    """How many rows a stored CSV table has, or how many with these values."""
    with (ROOT / path).open(encoding="utf-8", newline="") as file:
        return sum((where or {}).items() <= row.items() for row in csv.DictReader(file))


def tried(path: str, column: str, **where: str) -> list[float]:
    """A column of a stored CSV table in per cent, of the rows with these values, in the order of their seeds.

    Raises:
        ValueError: no such row.
    """
    with (ROOT / path).open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if {k: str(v) for k, v in where.items()}.items() <= row.items()]
    if not rows:
        raise ValueError(f"{path} has no row with {where}")
    return [100 * float(row[column]) for row in sorted(rows, key=lambda row: int(row["seed"]))]


def measured(ending: str, *keys) -> float:
    """A number of the newest file of `benchmarks/results` with this ending, such as "cpu.json", by the keys to it.

    A key of a list is what the wanted entry holds: {"seed": 0}.
    """
    found = json.loads(max((ROOT / "benchmarks/results").glob(f"*{ending}")).read_text(encoding="utf-8"))
    for key in keys:
        if isinstance(found, list):
            (found,) = (entry for entry in found if key.items() <= entry.items())
        else:
            found = found[key]
    return found


def megabytes(path: str) -> float:
    """The size of a file of the repository."""
    return (ROOT / path).stat().st_size / 1e6


def paper(name: str, table: str, **where) -> float:
    """A number the papers print, in per cent as printed; the mean if there are several."""
    rows = vpkit.load_paper_results(name, table)
    for column, wanted in where.items():
        rows = rows[rows[column].str.startswith(wanted)]
    if rows.empty:
        raise ValueError(f"{table} of {name} has no {where}")
    return float(rows["value"].mean())


_RESULTS = (runs, percent, each, difference, printed, solved, reported, counted, tried, measured, megabytes, paper)
STORED = {function.__name__: function for function in _RESULTS}
_OF_NUMBERS = (min, max, abs, len, sum, sorted, all, any, zip, round, mean, margin, minus)
KNOWN = STORED | {function.__name__: function for function in _OF_NUMBERS}


def computed(expression: str):
    """The value of an expression over stored results.

    Raises:
        ValueError: one that asks for no stored result, so that its value is only typed; or that cannot be computed.
    """
    try:
        tree = ast.parse(expression, mode="eval")
    except SyntaxError as error:
        raise ValueError(f"{expression}: not an expression ({error.msg})") from error
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    if not called & set(STORED):
        raise ValueError(f"{expression}: asks for no stored result; expected one of {', '.join(STORED)}")
    try:
        return EvalWithCompoundTypes(functions=KNOWN).eval(expression)
    except Exception as error:
        raise ValueError(f"{expression}: {error}") from error


def written(value: float, like: str) -> str:
    """A number as the text has it: with as many decimals, commas, or as a word."""
    if like.lower() in WORDS:
        word = WORDS[round(value)]
        return word.capitalize() if like[0].isupper() else word
    decimals = len(like.partition(".")[2])
    return f"{value:{',' if ',' in like else ''}.{decimals}f}"


def checked(text: str) -> tuple[str, list[str]]:
    """The text with its numbers computed, and what is wrong with the one given."""
    wrong: list[str] = []

    def replaced(match: re.Match) -> str:
        try:
            number = written(float(computed(match["expression"])), match["number"])
        except ValueError as error:
            wrong.append(f"{_sentence(text, match.start())}\n    {error}")
            return match[0]
        if number != match["number"]:
            wrong.append(f"{_sentence(text, match.start())}\n    says {match['number']}, the runs say {number}")
        return match[0].replace(match["number"], number, 1)

    for match in _CONDITION.finditer(text):
        try:
            if not computed(match["expression"]):
                wrong.append(f"{_sentence(text, match.start())}\n    is not so: {match['expression']}")
        except ValueError as error:
            wrong.append(f"{_sentence(text, match.start())}\n    {error}")
    wrong += [f"{_sentence(text, place)}\n    {number} is bound to nothing" for place, number in unbound(text)]
    for bullet in re.findall(r"^\* .+$", text.partition("## Summary")[2].partition("\n## ")[0], re.MULTILINE):
        if _COMPARES.search(_COMMENT.sub("", bullet)) and "<!--?" not in bullet:
            wrong.append(f"{_COMMENT.sub('', bullet)}\n    compares without a condition")
    return _COMPUTED.sub(replaced, text), wrong


def unbound(text: str) -> list[tuple[int, str]]:
    """Where numbers stand that look measured and have no comment, and these."""
    kept = _TOLD_APART.sub(lambda match: " " * len(match[0]), text)
    found = []
    for match in _MEASURED.finditer(_COMMENT.sub(lambda m: m[0][:5] + "." * (len(m[0]) - 5), kept)):
        if not kept[match.end() :].startswith("<!--"):
            found.append((match.start(), match[0]))
    return found


def _sentence(text: str, place: int) -> str:
    """The sentence around a place, without its comments."""
    before = [(text.rfind(mark, 0, place), len(mark)) for mark in (". ", "\n", "* ")]
    start = max((found + length for found, length in before if found >= 0), default=0)
    end = re.search(r"\.(?: |\n|$)|\n|$", text[place:])
    return _COMMENT.sub("", text[start : place + (end.end() if end else 0)]).strip()


READ = {  # of solutions the answers alone
    ".md": r"\A.*\Z",
    ".yaml": r"^  answer: >-\n(?:    .*?(?:\n|\Z))+?(?=- |\Z)",
}


def check_file(path: Path, write: bool = False) -> list[str]:
    """What is wrong in a file, each with its sentence; `write` puts the computed numbers in."""
    wrong: list[str] = []

    def part(match: re.Match) -> str:
        text, found = checked(match[0])
        wrong.extend(found)
        return text

    if path.suffix in READ:
        text = re.sub(READ[path.suffix], part, path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        if write:
            path.write_text(text, encoding="utf-8")
        return wrong
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source, found = checked(cell.source)
            wrong += found
        caption = cell.metadata.get("mystnb", {}).get("figure", {})
        if "caption" in caption:
            caption["caption"], found = checked(caption["caption"])
            wrong += found
            if _COMPARES.search(_COMMENT.sub("", caption["caption"])) and "<!--" not in caption["caption"]:
                wrong.append(f"{caption['caption']}\n    compares without a condition")
    if write:
        nbformat.write(notebook, path)
    return wrong


def main(write: bool = False) -> int:
    failed = 0
    for path in BOUND:
        for message in check_file(path, write):
            failed += 1
            print(f"{path.relative_to(ROOT)}: {message}")
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    sys.exit(min(main(parser.parse_args().write), 1))
