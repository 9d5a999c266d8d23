"""DPT: the lines of chapter 6 beside the package, and the guided warm-up."""

from pathlib import Path

import nbformat
import open_clip
import torch
from small_clip import NAMES, SMALL_VIT, dpt

import vpkit
from vpkit.methods.dpt import guide
from vpkit.models import FrozenCLIP
from vpkit.prompts import ClassAwareTokens, cache_patches

ROOT = Path(__file__).resolve().parents[2]


def test_the_tokens_of_the_chapter_are_those_of_the_package():
    cells = nbformat.read(ROOT / "notebooks" / "06_dpt.ipynb", as_version=4).cells
    (source,) = (cell.source for cell in cells if "def class_aware(" in cell.source)
    names = {"torch": torch}
    exec(source, names)
    block = ClassAwareTokens(24, 32, 5)
    hidden, queries = torch.randn(3, 17, 32), torch.randn(3, 4, 24)
    tokens, class_logits = names["class_aware"](block, hidden, queries)
    expected = block(hidden, queries)
    assert torch.allclose(tokens, expected.tokens, atol=1e-6)
    assert torch.allclose(class_logits, expected.class_logits, atol=1e-6)


def test_only_the_first_epochs_are_guided():
    torch.manual_seed(0)
    clip = FrozenCLIP(open_clip.CLIP(**SMALL_VIT))
    images = vpkit.ImageSet(torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8), torch.arange(8) % 4, NAMES)
    train, classifier, seen = cache_patches(clip, images), dpt(clip), []
    usual = guide(2)

    def before_epoch(trained, epoch):
        usual(trained, epoch)
        seen.append(trained.guided)

    optimizer = torch.optim.SGD(classifier.parameters(), lr=0.01)
    vpkit.fit(classifier, train.batches(4, shuffle=True), None, optimizer, 4, before_epoch, show=False)
    assert seen == [True, True, False, False]


def test_a_classifier_moves_with_its_frozen_model():
    classifier = dpt(FrozenCLIP(open_clip.CLIP(**SMALL_VIT))).to("meta")
    assert {p.device.type for p in (*classifier.parameters(), *classifier.buffers())} == {"meta"}
    assert classifier.clip.mean.is_meta
    assert classifier.text.clip is classifier.tokens.clip is classifier.clip
    assert set(classifier.state_dict()) == {n for n, p in classifier.named_parameters()}
