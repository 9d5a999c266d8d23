"""A Sphinx directive that draws how the rooms of the package lie above one another, from their imports."""

import ast
from html import escape
from pathlib import Path

from book_tables import ROOT, table_of
from docutils import nodes
from docutils.parsers.rst import Directive

WIDTH, HEIGHT, STEP = 132, 34, 84  # of a box, and from one floor to the next, in pixels


def imported_rooms(package: Path) -> dict[str, set[str]]:
    """Rooms and single files of `package`, each with those it imports, also within functions."""
    rooms: dict[str, set[str]] = {}
    for path in package.rglob("*.py"):
        room = path.relative_to(package).with_suffix("").parts[0]
        if room == "__init__":
            continue
        found = rooms.setdefault(room, set())
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found |= {name.split(".")[1] for name in names if name.startswith("vpkit.")}
        found.discard(room)
    return rooms


def floors(rooms: dict[str, set[str]]) -> list[list[str]]:
    """Floors from the ground up: each room as low as its imports allow, and at the top what no other imports.

    Raises:
        ValueError: rooms that import each other.
    """
    left, found = dict(rooms), []
    while left:
        floor = sorted(room for room, needs in left.items() if not needs & set(left))
        if not floor:
            raise ValueError(f"these rooms import each other: {', '.join(sorted(left))}")
        found.append(floor)
        left = {room: needs for room, needs in left.items() if room not in floor}
    top = set(rooms) - set().union(*rooms.values())
    return [*filter(None, ([room for room in floor if room not in top] for floor in found)), sorted(top)]


def not_implied(rooms: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Imports that do not follow from others: of a room and what it needs, without what that needs itself."""
    below: dict[str, set[str]] = {}
    for room in (room for floor in floors(rooms) for room in floor):
        below[room] = rooms[room].union(*(below[need] for need in rooms[room]))
    return [
        (room, need)
        for room, needs in rooms.items()
        for need in sorted(needs)
        if not any(need in below[other] for other in needs - {need})
    ]


def drawing(rooms: dict[str, set[str]]) -> str:
    """An SVG: a box a room, the ground floor at the bottom."""
    stories = floors(rooms)
    widest = max(map(len, stories))
    width, height = widest * (WIDTH + 16), len(stories) * STEP
    needs, place = not_implied(rooms), {}
    for number, floor in enumerate(stories):

        def middle(room):  # of what it stands on, so that few lines cross
            below = [place[need][0] for start, need in needs if start == room]
            return sum(below) / len(below) if below else 0.0

        for i, room in enumerate(sorted(floor, key=middle)):
            x = width / 2 + (i - (len(floor) - 1) / 2) * (WIDTH + 16)
            place[room] = x, height - STEP / 2 - number * STEP
    lines = [
        f'<line x1="{place[room][0]}" y1="{place[room][1] + HEIGHT / 2}" '
        f'x2="{place[need][0]}" y2="{place[need][1] - HEIGHT / 2}" stroke="currentColor" opacity="0.45"/>'
        for room, need in needs
    ]
    boxes = [
        f'<rect x="{x - WIDTH / 2}" y="{y - HEIGHT / 2}" width="{WIDTH}" height="{HEIGHT}" rx="5" '
        f'fill="var(--pst-color-background, white)" stroke="currentColor"/>'
        f'<text x="{x}" y="{y + 5}" text-anchor="middle" fill="currentColor" font-size="14">{escape(room)}</text>'
        for room, (x, y) in place.items()
    ]
    label = "Rooms of vpkit from the ground floor up: " + "; ".join(", ".join(floor) for floor in stories)
    return (
        f'<svg viewBox="0 0 {width} {height}" style="max-width: {width}px; width: 100%" role="img" '
        f'aria-label="{escape(label)}">{"".join(lines + boxes)}</svg>'
    )


class Rooms(Directive):
    """The drawing, and a row a room: its floor, what lives there, what it imports."""

    def run(self):
        package = ROOT / "vpkit"
        rooms = imported_rooms(package)
        rows = []
        for number, floor in enumerate(floors(rooms), 1):
            for room in floor:
                path = package / room / "__init__.py"
                source = (path if path.is_file() else package / f"{room}.py").read_text()
                about = (ast.get_docstring(ast.parse(source)) or "").split("\n")[0]
                rows.append((f"{number}", f"`{room}`", about, ", ".join(sorted(rooms[room])) or "nothing"))
        table = table_of(self, ("floor", "room", "what lives there", "imports"), rows[::-1])
        return [nodes.raw("", drawing(rooms), format="html"), *table]


def setup(app):
    app.add_directive("rooms", Rooms)
    return {"parallel_read_safe": True}
