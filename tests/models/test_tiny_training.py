"""What `tiny` was never shown, as its training code has it, and the space it is trained towards."""

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from tiny_clip.distil import Student
from tiny_clip.held_out import HELD_OUT, copies, cut_out, is_refused, kept_designs
from tiny_clip.icon_sets import OTHER_NAMES, class_names_by_icon, words_of
from tiny_clip.space import CONTENT, EMBED, LETTERS_AT, STYLES_AT, Space, spelling

from vpkit.datasets.icons import ICONS
from vpkit.datasets.pictograms import FAMILIES, glyph, pictogram_table


def test_forty_concepts_are_refused_whatever_a_designer_calls_them():
    table, classes = pictogram_table(), class_names_by_icon()
    assert len(HELD_OUT) == 40
    assert set(HELD_OUT) < set(table)
    assert not set(HELD_OUT) & set(ICONS)  # `icons` asks for what was shown in other fonts
    for concept in HELD_OUT:
        assert is_refused(concept), concept
        called = {
            words_of(icon.removeprefix("regular/")) for family in FAMILIES for icon in table[concept].get(family, ())
        }
        called -= {words for words in called if classes.get(words) == concept}  # refused by the concept's own name
        assert [words for words in called if not is_refused(words)] == [], concept


def test_all_other_things_of_the_book_may_be_shown():
    assert [name for name in (*ICONS, *pictogram_table()) if is_refused(name) and name not in HELD_OUT] == []
    assert [name for name in OTHER_NAMES.values() if is_refused(name) and name not in HELD_OUT] == []


@pytest.mark.parametrize(
    "name", ["keycap 7", "digit nine", "1st place medal", "buses", "mountain bike", "Birthday cake"]
)
def test_digits_and_what_stands_for_a_kept_concept_are_refused(name):
    assert is_refused(name)


@pytest.mark.parametrize("name", ["keyboard", "chess king", "business", "truck", "bicep"])
def test_words_that_only_begin_alike_are_not(name):
    assert not is_refused(name)


def test_an_icon_is_named_without_the_words_for_a_variant():
    assert words_of("bell-ringing-24-filled") == "bell ringing"
    assert words_of("ios-alarm-outline") == "alarm"
    assert words_of("outline") == "outline"


def drawn(family, icon, size):
    path, character = glyph(family, icon)
    mask = Image.new("L", (2 * size, 2 * size))
    ImageDraw.Draw(mask).text((size, size), character, fill=255, font=ImageFont.truetype(path, size), anchor="mm")
    mask = mask.crop(mask.getbbox()).resize((96, 96))  # as large as the pictures of training are
    return torch.frombuffer(bytearray(mask.tobytes()), dtype=torch.uint8).view(96, 96)


def test_a_copy_of_a_kept_design_is_found_and_another_drawing_is_not():
    inks, limits = kept_designs()
    assert len(inks) == len(limits) > 500
    kept = [("phosphor", "umbrella-fill"), ("remix", "rocket-line"), ("mdi", "bicycle"), ("fontawesome", "trophy")]
    shown = [("mdi", "umbrella"), ("fontawesome", "scissors"), ("mdi", "airplane")]
    found = copies(torch.stack([drawn(*design, 150) for design in kept + shown]))
    assert found.tolist() == [True] * 4 + [False] * 3
    assert not cut_out(Image.new("L", (9, 9))).any()


def test_a_spelling_is_a_unit_vector_of_letters_and_their_order():
    names = ["star", "Star", "rats", "moon", "red star"]
    codes = spelling(names)
    assert torch.allclose(codes.norm(dim=1), torch.ones(5), atol=1e-5)
    assert torch.equal(codes[0], codes[1])
    near = codes[0] @ codes.T
    assert near[1] > near[4] > near[3]  # a part of it is nearer than another word
    assert near[2] < 0.9  # the same letters in another order


def test_a_sentence_has_a_part_for_content_style_and_letters():
    torch.manual_seed(0)
    space = Space.of_nouns(torch.randn(400, 384))
    content, letters = space.content(torch.randn(3, 384)), spelling(["cat", "dog", "cow"])
    plain, styled = space.text(content, letters), space.text(content, letters, torch.tensor([0, 2, 5]))
    assert plain.shape == (3, EMBED)
    assert torch.allclose(plain.norm(dim=1), torch.ones(3), atol=1e-5)
    assert torch.equal(plain[0], styled[0])  # style 0 asks for nothing
    assert (plain[:, STYLES_AT:LETTERS_AT] == 0).all()
    assert styled[1, STYLES_AT:LETTERS_AT].argmax() == 2
    assert torch.allclose(torch.nn.functional.cosine_similarity(plain[:, :CONTENT], content), torch.ones(3), atol=1e-5)


def checkpoint_of(network, path, add: float):
    """A file as `Training` leaves it, whose averaged weights are those of `network` plus a number."""
    averaged = {f"module.{k}": v + add if v.is_floating_point() else v for k, v in network.state_dict().items()}
    torch.save({"averaged": averaged}, path)
    return path


def test_a_tower_starts_from_the_mean_of_two_checkpoints(tmp_path, monkeypatch):
    import train_tiny_clip as training

    monkeypatch.setattr(training, "update_bn", lambda batches, network: None)  # needs pictures
    tower = training.Tower()
    paths = [checkpoint_of(tower, tmp_path / f"{add}.pt", add) for add in (0.0, 1.0)]
    other = training.Tower()
    training.load_mean(other, paths, banks=None, batch=4)
    assert torch.allclose(other.log_scale, tower.log_scale + 0.5)
    training.load_mean(other, paths[1:], banks=None, batch=4)
    assert torch.allclose(other.log_scale, tower.log_scale + 1)


def test_a_student_that_goes_on_takes_the_convolutions_of_its_new_teacher(tmp_path):
    import train_tiny_clip as training

    teachers = [training.Tower().visual.eval() for _ in range(2)]
    students = [Student(training.tiny_vit(teacher).visual, teacher.trunk) for teacher in teachers]
    path = checkpoint_of(students[0], tmp_path / "vit.pt", 1.0)
    training.go_on_from(students[1], path)
    for name, value in teachers[1].trunk.conv_stem.state_dict().items():
        assert torch.equal(students[1].visual.conv1[0].state_dict()[name], value)
    assert torch.allclose(students[1].visual.proj, students[0].visual.proj + 1)
