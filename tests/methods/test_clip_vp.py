"""VP on CLIP: sentences as source classes, and chapter 4's loop beside the package's."""

import ast
from functools import partial
from pathlib import Path

import nbformat
import open_clip
import pytest
import torch
from small_clip import SMALL

import vpkit
from vpkit.mappings import count_predictions, frequency_mapping, identity_mapping
from vpkit.methods import PromptedClassifier, remap
from vpkit.methods.clip_vp import every_sentence, text_prompt
from vpkit.models import FrozenCLIP
from vpkit.prompts import PadPrompt, clip_templates

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("cat", "dog", "cow")


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    return FrozenCLIP(open_clip.CLIP(**SMALL))


@pytest.fixture
def images():
    pixels = torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8)
    return vpkit.ImageSet(pixels, torch.arange(12) % 3, NAMES)


def test_a_text_prompt_is_one_sentence_a_class(clip, images):
    model = text_prompt(clip, NAMES, "a photo of a {}.")
    assert model.class_names == NAMES
    pixels = images.images.float() / 255
    sentences = [f"a photo of a {name}." for name in NAMES]
    expected = clip.logit_scale * clip.encode_image(pixels) @ clip.encode_text(sentences).T
    assert torch.allclose(model(pixels), expected, atol=1e-4)


def test_every_sentence_stands_at_its_template_and_class(clip, images):
    templates = ("a photo of a {}.", "a sketch of a {}.")
    model = every_sentence(clip, NAMES, templates)
    assert model.class_names[1 * 3 + 2] == "a sketch of a cow."
    pixels = images.images.float() / 255
    one = text_prompt(clip, NAMES, templates[1])
    assert torch.allclose(model(pixels)[:, 3:], one(pixels), atol=1e-4)
    assert len(every_sentence(clip, NAMES).class_names) == 3 * len(clip_templates())


def test_the_lines_of_the_chapter_are_remap(clip, images):
    """The cell that chooses sentences, run as it stands between the epochs of a `fit`, beside the package's: equal."""
    cells = nbformat.read(ROOT / "notebooks" / "04_clip_template_mapping.ipynb", as_version=4).cells
    (source,) = (cell.source for cell in cells if "def choose_sentences" in cell.source)
    model = every_sentence(clip, NAMES, ("a photo of a {}.", "a {}.", "a sketch of a {}."))
    names = {
        "sentences": model, "train": images, "count_predictions": count_predictions, "names": NAMES,
        "frequency_mapping": frequency_mapping, "partial": partial, "vpkit": vpkit, "warmup_steps": None,
    }  # fmt: skip
    exec(compile(ast.parse(source), "chapter 4", "exec"), names)

    def trained(before_epoch):
        torch.manual_seed(0)
        classifier = PromptedClassifier(PadPrompt(32, 4), model, identity_mapping(3))
        optimizer = torch.optim.SGD(classifier.prompt.parameters(), lr=1.0, momentum=0.9)
        batches = images.batches(4, shuffle=True), images.batches(12)
        vpkit.fit(classifier, *batches, optimizer, 3, before_epoch, schedule=names["plan"])
        return classifier

    ours, packaged = trained(names["choose_sentences"]), trained(remap(images.batches(64)))
    assert torch.equal(ours.prompt.pixels, packaged.prompt.pixels)
    assert torch.equal(ours.mapping.index, packaged.mapping.index)
    assert not torch.equal(ours.mapping.index, torch.arange(3))
