"""Two things an image: where the boxes say, in one colour, target from the first half of the classes."""

import pytest
import torch

from vpkit.datasets import icon_pairs, pictogram_pairs
from vpkit.datasets.icons import ICON_NAMES
from vpkit.datasets.pictograms import designs_of, pictogram_table

both = pytest.mark.parametrize("make", [icon_pairs, pictogram_pairs])


def sides_inside(pairs):
    """The longer sides of the boxes (N, 2), after a look whether all that is drawn is inside them."""
    images = pairs.images.images.int()
    background = images[:, :, :1, :1]  # a corner
    drawn = (images - background).abs().sum(1) > 6
    for mask, boxes in zip(drawn, pairs.boxes.tolist(), strict=True):
        inside = torch.zeros_like(mask)
        for left, top, right, bottom in boxes:
            inside[top:bottom, left:right] = True
            assert mask[top:bottom, left:right].any()
        assert not (mask & ~inside).any()
    return (pairs.boxes[..., 2:] - pairs.boxes[..., :2]).amax(2)


def test_both_icons_are_inside_their_boxes_and_nothing_else_is():
    pairs = icon_pairs("train", 2, size=48)
    assert len(pairs.images) == 2 * 33
    assert pairs.images.class_names[0] == "house"
    assert pairs.images.class_names + pairs.distractor_names == ICON_NAMES
    assert not set(pairs.distractor_names) & set(pairs.images.class_names)
    assert pairs.target_larger.all()
    for target, distractor in sides_inside(pairs).tolist():
        assert 0.4 * 48 <= target <= 0.85 * 48
        assert 0.2 * 48 <= distractor <= 0.5 * 48


def test_both_pictograms_are_inside_their_boxes_and_nothing_else_is():
    pairs = pictogram_pairs("train", 2, size=48)
    assert len(pairs.images) == 2 * 61
    assert pairs.images.class_names == tuple(pictogram_table())[:61]
    assert not set(pairs.distractor_names) & set(pairs.images.class_names)
    for sides in sides_inside(pairs).tolist():
        small, large = sorted(sides)
        assert 0.2 * 48 <= small <= 0.5 * 48
        assert 0.4 * 48 <= large <= 0.8 * 48


def test_of_pictograms_neither_size_nor_place_says_which_is_asked_for():
    """Every class is as often the larger as the smaller, and what is said of the size is so."""
    pairs = pictogram_pairs("val", 4, size=48)
    sides = (pairs.boxes[..., 2:] - pairs.boxes[..., :2]).amax(2)  # (N, 2)
    assert torch.equal(sides[:, 0] > sides[:, 1], pairs.target_larger)
    for target in range(61):
        assert pairs.target_larger[pairs.images.labels == target].tolist() == [True, False, True, False]


@pytest.mark.slow
@both
def test_targets_lie_on_every_side_and_boxes_hardly_overlap(make):
    boxes = make("val", 8, size=96).boxes.float()
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    apart = centres[:, 0] - centres[:, 1]
    for axis in (0, 1):
        assert (apart[:, axis] > 24).float().mean() > 0.15
        assert (apart[:, axis] < -24).float().mean() > 0.15
    low, high = boxes[..., :2].amax(1), boxes[..., 2:].amin(1)
    assert ((high - low).clamp(min=0).prod(1) < 0.25 * (boxes[:, 0, 2:] - boxes[:, 0, :2]).prod(1)).all()


def test_the_test_split_of_pictograms_shows_other_designs():
    for trained, tested in zip(designs_of("train"), designs_of("test"), strict=True):
        assert trained
        assert tested
        assert not set(trained) & set(tested)
    assert designs_of("val") == designs_of("train")


@both
def test_splits_and_seeds_differ_and_runs_do_not(make):
    one = make("train", 1, size=32)
    assert torch.equal(one.images.images, make("train", 1, size=32).images.images)
    assert not torch.equal(one.images.images, make("val", 1, size=32).images.images)
    assert not torch.equal(one.images.images, make("train", 1, size=32, seed=1).images.images)


@both
@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("dev", 1), "unknown split 'dev'"), (("val", 0), "per_class=0"), (("val", 1, 16), "size=16")],
)
def test_bad_input(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(*arguments)
