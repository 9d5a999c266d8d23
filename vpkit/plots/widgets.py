"""Controls for a notebook: a slider or a list beside a picture or table that follows it, on a page without kernel too.

No `ipywidgets.Output` on purpose (which `interact` uses): while a notebook is run by papermill or nbval, the client
has to answer an Output widget on the socket it waits on, and now and then misses the cell's end and waits for ever.
"""

import base64
import html
import io
from collections.abc import Callable, Sequence

import ipywidgets
from matplotlib.figure import Figure
from PIL import Image

__all__ = ["browse", "slide"]

# Drawn in advance for the page that has no kernel; a notebook must stay small.
_MOST_PICTURES, _MOST_TABLES = 9, 40
# Shows the picture or table whose number the control gives.
_FOLLOW = (
    "const s=this.closest('.vpkit-frames');"
    "s.querySelectorAll('.vpkit-frame').forEach((f,i)=>f.hidden=i!=this.value);"
    "s.querySelector('output').value=s.querySelectorAll('.vpkit-frame')[this.value].dataset.value"
)


def slide(draw: Callable[[int], object], low: int, high: int, value: int, description: str = ""):
    """A slider from `low` to `high` over what `draw(position)` returns: a figure, or a pandas table.

    On a built page some positions are there, drawn in advance.
    """
    followed = _followed(ipywidgets.IntSlider(value, low, high, description=description), draw)
    positions = _some(list(range(low, high + 1)), _MOST_PICTURES, value)
    control = (
        f'<input type="range" min="0" max="{len(positions) - 1}" value="{positions.index(value)}" oninput="{_FOLLOW}">'
    )
    return followed.on_page(control, description, positions, value, draw)


def browse(draw: Callable[[str], object], options: Sequence[str], description: str = ""):
    """A list of `options` over what `draw(option)` returns: a figure, or a pandas table.

    On a built page some options are there, drawn in advance.
    """
    options = list(options)
    followed = _followed(ipywidgets.Dropdown(options=options, description=description), draw)
    most = _MOST_PICTURES if followed.draws_figures else _MOST_TABLES
    chosen = _some(options, most, options[0])
    items = "".join(f'<option value="{i}">{html.escape(option)}</option>' for i, option in enumerate(chosen))
    return followed.on_page(f'<select onchange="{_FOLLOW}">{items}</select>', description, chosen, options[0], draw)


class Followed(ipywidgets.VBox):
    """A control above what follows it; where widgets cannot be shown, the same as HTML, drawn in advance."""

    draws_figures, page = False, ""

    def on_page(self, control: str, description: str, values: list, shown, draw) -> "Followed":
        frames = "".join(_frame(draw(value), f"{description} {value}", str(value), value != shown) for value in values)
        self.page = (
            f'<div class="vpkit-frames"><label>{html.escape(description)} {control}</label> '
            f"<output>{html.escape(str(shown))}</output>{frames}</div>"
        )
        return self

    def _repr_mimebundle_(self, **options):
        return super()._repr_mimebundle_(**options) | {"text/html": self.page}


def _followed(control, draw) -> Followed:
    first = draw(control.value)
    figures = isinstance(first, Figure)
    shown = ipywidgets.Image(format="png") if figures else ipywidgets.HTML()

    def show(drawn):
        shown.value = _png(drawn) if figures else drawn.to_html(index=False)

    control.observe(lambda _change: show(draw(control.value)), names="value")
    show(first)
    box = Followed([control, shown])
    box.draws_figures = figures
    return box


def _some(values: list, most: int, always) -> list:
    """At most `most` of the values, evenly spaced, the ends and `always` among them, in order."""
    if len(values) <= most:
        return values
    picked = {round(i * (len(values) - 1) / (most - 2)) for i in range(most - 1)} | {values.index(always)}
    return [values[i] for i in sorted(picked)]


def _frame(drawn, alt: str, value: str, hidden: bool) -> str:
    attributes = " hidden" if hidden else ""
    if isinstance(drawn, Figure):
        picture = base64.b64encode(_png(drawn, colours=64, dpi=80)).decode()
        inside = f'<img src="data:image/png;base64,{picture}" alt="{html.escape(alt)}" style="max-width:100%">'
    else:  # a table may be wider than the page: the keyboard has to reach its scroll bar
        inside = drawn.to_html(index=False)
        attributes += f' role="region" aria-label="{html.escape(alt)}" tabindex="0"'
    return f'<div class="vpkit-frame" data-value="{html.escape(value)}"{attributes}>{inside}</div>'


def _png(figure: Figure, colours: int | None = None, dpi: float | str = "figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    if colours is None:
        return buffer.getvalue()
    small = io.BytesIO()
    Image.open(buffer).convert("RGB").quantize(colours).save(small, format="PNG", optimize=True)
    return small.getvalue()
