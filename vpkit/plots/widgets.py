"""Controls for a running notebook: a slider or a list beside a picture or table that follows it.

No `ipywidgets.Output` on purpose (which `interact` uses): while a notebook is run by papermill or nbval, the client
has to answer an Output widget on the socket it waits on, and now and then misses the cell's end and waits for ever.
"""

import io
from collections.abc import Callable, Sequence

import ipywidgets
from matplotlib.figure import Figure

__all__ = ["browse", "slide"]


def slide(draw: Callable[[int], object], low: int, high: int, value: int, description: str = ""):
    """A slider from `low` to `high` over what `draw(position)` returns: a figure, or a pandas table."""
    return _followed(ipywidgets.IntSlider(value, low, high, description=description), draw)


def browse(draw: Callable[[str], object], options: Sequence[str], description: str = ""):
    """A list of `options` over what `draw(option)` returns: a figure, or a pandas table."""
    return _followed(ipywidgets.Dropdown(options=list(options), description=description), draw)


def _followed(control, draw):
    shown = ipywidgets.Image(format="png") if isinstance(draw(control.value), Figure) else ipywidgets.HTML()

    def update(_change=None):
        drawn = draw(control.value)
        shown.value = _png(drawn) if isinstance(drawn, Figure) else drawn.to_html(index=False)

    control.observe(update, names="value")
    update()
    return ipywidgets.VBox([control, shown])


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
