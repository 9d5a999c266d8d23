"""Figures are checked for what they show; how they look is looked at in the built book."""

import re

import matplotlib.text
import numpy as np
import pandas as pd
import pytest
import torch

import vpkit
from vpkit import plots
from vpkit.datasets import pictogram_pairs
from vpkit.prompts import ExpandPrompt, PadPrompt
from vpkit.training import History


@pytest.fixture
def history():
    rows = [{"epoch": e, "val_accuracy": e / 10, "train_loss": 1 / e, "moved": 4 - e} for e in (1, 2, 3)]
    return History(rows)


def test_images_are_shown_as_they_are_with_their_titles():
    images = torch.zeros(3, 3, 4, 4)
    images[1], images[2] = 0.5, 2.0
    figure = plots.show_images(images, ["a", "b", "c"], columns=2)
    shown = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in shown] == ["a", "b", "c"]
    assert [float(axis.images[0].get_array().max()) for axis in shown] == [0, 0.5, 1]
    bytes_shown = plots.show_images(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8))
    assert bytes_shown.axes[0].images[0].get_array().max() == 1


def test_examples_are_evenly_spaced_and_named():
    stored = (25 * torch.arange(9)).byte()[:, None, None, None].expand(9, 3, 2, 2)
    images = vpkit.ImageSet(stored, torch.arange(9) % 2, ("even", "odd"))
    axes = [axis for axis in plots.show_examples(images, 3).axes if axis.images]
    assert [axis.get_title() for axis in axes] == ["even"] * 3
    assert [round(255 * float(axis.images[0].get_array().max())) for axis in axes] == [0, 100, 200]
    assert len([axis for axis in plots.show_examples(images[:2], 16).axes if axis.images]) == 2  # all there are


def test_a_table_is_formatted_by_what_its_columns_hold():
    table = pd.DataFrame({
        "method": ["FLM", "CoOp"], "test_accuracy": [0.5, None], "parameters": [20736, 1], "sent": [6000.0, None],
        "moved": [1.25, 3.0], "right": [True, False],
    }).astype({"test_accuracy": object})  # fmt: skip
    html = re.sub(r"<style.*?</style>|<[^>]+>", " ", plots.show_table(table).to_html(), flags=re.DOTALL).split()
    assert html[6:] == ["FLM", "50.0%", "20,736", "6,000", "1.2", "True", "CoOp", "1", "3.0", "False"]
    assert "50%" in plots.show_table(table, digits=0).to_html()
    named = plots.show_table(table.set_index("method")).to_html()
    assert "row_heading" in named
    assert "row_heading" not in plots.show_table(table).to_html()


def test_a_prompt_is_shown_three_ways(model):
    image = torch.full((3, 16, 16), 0.5)
    prompt = PadPrompt(16, 2)
    alone, on_image, seen = (axis.images[0].get_array() for axis in plots.show_prompt(prompt, image, model).axes)
    assert torch.allclose(torch.tensor(alone[8, 8]), torch.tensor(0.5))  # nothing added: middle grey
    assert torch.allclose(torch.tensor(on_image[8, 8]), torch.tensor(0.5))
    assert (seen.min(), seen.max()) == (0, 1)
    border = plots.show_prompt(ExpandPrompt(8, 16), image[:, :8, :8]).axes
    assert len(border) == 2
    assert border[0].images[0].get_array()[0, 0].tolist() == [0.5] * 3


def test_curves_are_the_histories(history):
    axis = plots.plot_history({"ILM": history, "other": history}, chance=0.1).axes[0]
    assert [line.get_label() for line in axis.lines[:2]] == ["ILM", "other"]
    assert axis.lines[0].get_ydata().tolist() == [0.1, 0.2, 0.3]
    assert axis.lines[0].get_color() == plots.METHOD_COLORS["ILM"]


def test_bars_are_means_over_runs_in_a_panel_per_dataset():
    table = pd.DataFrame(
        {"method": ["FLM", "FLM", "ILM", "ILM"], "dataset": ["a", "a", "a", "b"], "test_accuracy": [0.2, 0.4, 0.5, 0.6]}
    )
    first, second = plots.plot_accuracies(table, by="dataset").axes
    assert [round(bar.get_width(), 6) for bar in first.patches] == [0.3, 0.5]
    assert [text.get_text().strip() for text in first.texts] == ["30.0%", "50.0%"]
    assert [text.get_text().strip() for text in second.texts] == ["60.0%"]


def test_methods_come_in_the_books_order_whatever_the_tables():
    table = pd.DataFrame(
        {"method": ["mine", "FLM", "linear probe", "unprompted"], "test_accuracy": [0.1, 0.2, 0.3, 0.4]}
    )
    labels = [label.get_text() for label in plots.plot_accuracies(table).axes[0].get_yticklabels()]
    assert labels == ["unprompted", "linear probe", "FLM", "mine"]


def test_sizes_show_mean_and_range():
    table = pd.DataFrame(
        {"method": ["padding"] * 4, "parameters": [3, 3, 30, 30], "test_accuracy": [0.1, 0.3, 0.5, 0.9]}
    )
    axis = plots.plot_sizes(table).axes[0]
    assert axis.lines[0].get_xdata().tolist() == [3, 30]
    assert axis.lines[0].get_ydata().tolist() == pytest.approx([0.2, 0.7])
    assert axis.get_ylim()[0] == 0  # a curve that starts elsewhere exaggerates


def test_the_heat_map_frames_the_mapped_cell_of_every_column():
    counts = torch.tensor([[4, 0], [1, 3], [0, 9], [7, 0]])
    index = vpkit.mappings.frequency_mapping(counts).index
    axis = plots.plot_mapping(counts, list("wxyz"), ["a", "b"], index).axes[0]
    rows = [label.get_text() for label in axis.get_yticklabels()]
    framed = [(int(frame.get_x()), rows[int(frame.get_y())]) for frame in axis.patches]
    assert framed == [(0, "z"), (1, "y")]


def test_dynamics_show_every_epoch(history):
    indices = [[0, 1, 2], [3, 4, 2], [3, 4, 1]]
    seen = [(vpkit.mappings.LabelMapping(index), torch.rand(3, 8, 8)) for index in indices]
    figure = plots.plot_dynamics(seen, history, {"cat": 0}, ["tabby", "otter", "seal", "lynx", "vole"])
    labels = [axis.get_xlabel() for axis in figure.axes[:3]]
    assert labels == ["tabby", "lynx", "lynx"]
    assert any("source classes of cat" in text.get_text() for text in figure.findobj(matplotlib.text.Text))
    assert figure.axes[-1].lines[0].get_ydata().tolist() == [0, 2, 1]
    later = plots.plot_dynamics(seen[1:], history, {"cat": 0}, list("abcde"))  # after a cut-off run has gone on
    assert later.axes[-2].lines[0].get_ydata().tolist() == [0.2, 0.3]


def test_explanations_show_the_surest_image_of_the_best_classes():
    stored = (50 * torch.arange(4)).byte()[:, None, None, None].expand(4, 3, 2, 2)
    images = vpkit.ImageSet(stored, torch.tensor([0, 0, 1, 1]), ("die", "moon", "none"))
    read = torch.tensor([[0.2, 0.9, 0.0], [0.6, 0.0, 0.0], [0.0, 0.3, 0.0], [0.9, 0.1, 0.0]])
    figure = plots.show_explanations(images, read, torch.tensor([0.5, 1.0, float("nan")]), ["clock", "lamp", "x"], 2)
    assert [axis.get_title() for axis in figure.axes] == ["moon\nlamp\n20.0%", "die\nclock\n40.0%"]
    assert [round(255 * float(axis.images[0].get_array().max())) for axis in figure.axes] == [100, 50]


def test_gains_are_ordered_and_starred():
    gain = torch.tensor([0.1, 0.5, float("nan"), -0.2])
    axis = plots.plot_gains(gain, torch.tensor([False, True, False, False]), list("abcd"), most=2).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["b *", "a"]
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([0.5, 0.1])


def test_a_slider_redraws_what_stands_below_it():
    drawn = []

    def draw(width):
        drawn.append(width)
        return plots.show_images(torch.full((1, 3, 4, 4), width / 10))

    control, shown = plots.slide(draw, 1, 9, 3, "width").children
    before = bytes(shown.value)
    assert before.startswith(b"\x89PNG")
    control.value = 7
    assert drawn[-1] == 7
    assert bytes(shown.value).startswith(b"\x89PNG")
    assert bytes(shown.value) != before


def test_a_list_shows_tables():
    control, shown = plots.browse(lambda name: pd.DataFrame({"called": [name + "!"]}), ["a", "b"]).children
    assert "a!" in shown.value
    control.value = "b"
    assert "b!" in shown.value


def test_a_page_without_a_kernel_has_some_positions_drawn_in_advance():
    draw = lambda i: plots.show_images(torch.full((1, 3, 4, 4), i / 100))  # noqa: E731
    page = plots.slide(draw, 0, 99, 42, "image")._repr_mimebundle_()["text/html"]
    values = [int(value) for value in re.findall(r'data-value="(\d+)"', page)]
    assert len(values) <= 9
    assert {0, 42, 99} <= set(values)
    assert values == sorted(set(values))
    assert page.count(" hidden>") == len(values) - 1
    assert page.count("data:image/png;base64,") == len(values)
    assert 'alt="image 42"' in page
    assert f'max="{len(values) - 1}" value="{values.index(42)}"' in page


def test_a_page_shows_tables_and_names_as_text():
    draw = lambda name: pd.DataFrame({"called": [name]})  # noqa: E731
    page = plots.browse(draw, ["a<b", "c"], "class")._repr_mimebundle_()["text/html"]
    assert '<option value="0">a&lt;b</option>' in page
    assert "a<b" not in page


def test_no_widget_needs_an_answer_from_whoever_runs_the_notebook():
    import ipywidgets

    box = plots.slide(lambda i: pd.DataFrame({"i": [i]}), 0, 1, 0)
    assert not any(isinstance(child, ipywidgets.Output) for child in box.children)


def test_the_spread_marks_the_default_which_is_first():
    axis = plots.plot_spread([0.25, 0.5, 0.75], "accuracy").axes[0]
    assert sum(bar.get_height() for bar in axis.patches) == 3
    assert [line.get_xdata()[0] for line in axis.lines] == [0.25]


def test_attention_is_shown_below_its_image_with_both_boxes():
    pairs = pictogram_pairs("train", 1, size=32)
    pairs.boxes[5] = torch.tensor([[0, 0, 8, 16], [16, 4, 30, 20]])
    maps = {method: torch.rand(61, 4, 4) for method in ("zero-shot", "DPT")}
    figure = plots.show_attention(pairs, maps, [2, 5])
    axes = [axis for axis in figure.axes if axis.images]
    assert [axis.get_ylabel() for axis in axes[::2]] == ["image", "zero-shot", "DPT"]
    assert [axis.get_title() for axis in axes[:2]] == [pairs.images.class_names[t] for t in (2, 5)]
    assert np.array_equal(axes[1].images[0].get_array(), pairs.images.images[5].permute(1, 2, 0) / 255)
    assert torch.allclose(torch.as_tensor(axes[-1].images[0].get_array().data), maps["DPT"][5])
    dotted = axes[-1].patches[1]
    assert (*dotted.get_xy(), dotted.get_width(), dotted.get_height()) == (16, 4, 14, 16)
    assert axes[-1].images[0].get_extent() == [0, 32, 32, 0]


def test_a_difference_of_attention_is_white_where_it_is_zero():
    maps = {"plain": torch.rand(1, 4, 4), "less": torch.tensor([[[-0.5, 0.25], [0.0, 0.25]]])}
    figure = plots.show_attention(pictogram_pairs("train", 1, size=32), maps, [0])
    plain, less = (axis.images[0] for axis in figure.axes[1:])
    assert (plain.cmap.name, plain.norm.vmin) == ("magma", 0)
    assert (less.cmap.name, less.norm.vmin, less.norm.vmax) == ("RdBu_r", -0.5, 0.5)


def test_queries_are_drawn_on_a_log_axis_with_dashed_ceilings():
    rows = [
        {"method": method, "budget": budget, "sent": budget - 10 * seed, "test_accuracy": 0.5 + budget / 10_000}
        for method in ("SPSA-GC", "linear map") for budget in (100, 1000) for seed in range(3)
    ] + [{"method": "linear probe", "budget": 1000, "sent": 0, "test_accuracy": 0.9}]  # fmt: skip
    figure = plots.plot_queries(pd.DataFrame(rows), ["linear probe"])
    (axis,) = figure.axes
    assert axis.get_xscale() == "log"
    assert [line.get_label() for line in axis.lines] == ["SPSA-GC", "linear map", "linear probe"]
    assert list(axis.lines[0].get_xdata()) == [90, 990]
    assert axis.lines[2].get_linestyle() == "--"
