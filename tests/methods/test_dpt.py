"""DPT: the lines of chapter 6 beside the package, and the guided warm-up."""

from pathlib import Path

import nbformat
import open_clip
import torch
from small_clip import NAMES, SMALL_VIT, dpt

import vpkit
from vpkit.methods import DualPromptClassifier
from vpkit.methods.dpt import class_aware_loss, guide
from vpkit.models import FrozenCLIP
from vpkit.prompts import ClassAwareTokens, ContextPrompt, TokenPrompt, cache_patches

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


def test_the_auxiliary_loss_is_the_mean_over_blocks():
    torch.manual_seed(0)
    clip = FrozenCLIP(open_clip.CLIP(**SMALL_VIT))
    images, labels = torch.rand(8, 3, 32, 32), torch.arange(8) % 4
    written = clip.encode_text([f"a photo of a {name}." for name in NAMES])
    blocks = {block: ClassAwareTokens(clip.embed_dim, 32, len(NAMES)) for block in (2, 3)}
    tokens, text = TokenPrompt(clip, 2, class_aware=blocks), ContextPrompt(clip, NAMES, 3)
    classifier = DualPromptClassifier(clip, tokens, written, text, candidates=4, alpha=0.5)
    loss, logits = classifier.loss(images, labels)
    _, _, class_logits, chosen, _ = classifier._features(images)
    each = [class_aware_loss(found, chosen, labels) for found in class_logits]
    assert len(each) == 2
    expected = torch.nn.functional.cross_entropy(logits, labels) + 0.5 * (each[0] + each[1]) / 2
    assert torch.allclose(loss, expected, atol=1e-6)


def test_the_auxiliary_loss_looks_at_the_rows_of_the_true_class_only():
    class_logits = torch.randn(3, 2, 4, requires_grad=True)
    chosen, labels = torch.tensor([[0, 1], [2, 3], [1, 0]]), torch.tensor([1, 0, 1])
    rows = torch.stack([class_logits[0, 1], class_logits[2, 0]])
    expected = torch.nn.functional.cross_entropy(rows, torch.tensor([1, 1]))
    assert torch.allclose(class_aware_loss(class_logits, chosen, labels), expected, atol=1e-6)
    none = class_aware_loss(class_logits, chosen, torch.tensor([3, 0, 2]))
    assert none == 0
    none.backward()  # no NaN where no image has its class among the candidates
    assert class_logits.grad.abs().sum() == 0
