"""VP on CLIP: sentences as source classes, and chapter 4's loop beside the package's."""

import ast
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


def test_the_loop_of_the_chapter_is_fit_with_remap(clip, images):
    """The cell of VP+TP+LM, run as it stands, beside one `fit`: equal to the bit."""
    cells = nbformat.read(ROOT / "notebooks" / "04_clip_template_mapping.ipynb", as_version=4).cells
    (source,) = (cell.source for cell in cells if "classifier, optimizer = trainable(sentences)" in cell.source)
    model = every_sentence(clip, NAMES, ("a photo of a {}.", "a {}.", "a sketch of a {}."))

    def trainable(model):
        torch.manual_seed(0)
        prompt = PadPrompt(32, 4)
        optimizer = torch.optim.SGD(prompt.parameters(), lr=1.0, momentum=0.9)
        return PromptedClassifier(prompt, model, identity_mapping(3)), optimizer

    names = {
        "trainable": trainable,
        "sentences": model,
        "seed": 0,
        "epochs": 3,
        "train": images,
        "batches": images.batches(4, shuffle=True),
        "checks": images.batches(12),
        "schedule": vpkit.training.schedules.cosine,
        "torch": torch,
        "methods": ["VP+TP+LM"],
        "History": vpkit.training.History,
        "epochs_left": vpkit.training.epochs_left,
        "count_predictions": count_predictions,
        "frequency_mapping": frequency_mapping,
        "evaluate": vpkit.evaluate,
        "vpkit": vpkit,
    }
    exec(compile(ast.parse(source), "chapter 4", "exec"), names)
    classifier, optimizer = trainable(model)
    schedule = vpkit.training.schedules.cosine
    batches = images.batches(4, shuffle=True)
    before_epoch = remap(images.batches(64))
    vpkit.fit(classifier, batches, images.batches(12), optimizer, 3, before_epoch, schedule=schedule)
    assert torch.equal(names["classifier"].prompt.pixels, classifier.prompt.pixels)
    assert torch.equal(names["classifier"].mapping.index, classifier.mapping.index)
