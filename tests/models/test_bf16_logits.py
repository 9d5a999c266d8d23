"""Logits of CLIP under bf16 autocast, as a GPU trains: they are compared with each other, so they are not rounded."""

import pytest
import torch
from torch.nn.functional import normalize

import vpkit
from vpkit.methods import LoGoPromptClassifier
from vpkit.methods.baselines import TipAdapter
from vpkit.methods.coop import TextPromptedClassifier
from vpkit.methods.dpt import DualPromptClassifier
from vpkit.models.clip import clip_logits

SCALE = torch.tensor(100.0)


class Fixed(torch.nn.Module):
    """A text prompt that gives what it was given."""

    def __init__(self, text):
        super().__init__()
        self.text = torch.nn.Parameter(text)

    def forward(self, unit=True):
        return self.text


@pytest.fixture
def vectors():
    torch.manual_seed(0)
    return normalize(torch.randn(16, 512), dim=1), normalize(torch.randn(10, 512), dim=1)


def under_bf16(call):
    with torch.autocast("cpu", torch.bfloat16):
        return call()


def test_logits_are_in_full_precision_under_autocast(vectors):
    features, text = vectors
    exact = SCALE * features @ text.T
    assert torch.equal(under_bf16(lambda: clip_logits(features, text, SCALE)), exact)
    assert (under_bf16(lambda: SCALE * features @ text.T) - exact).abs().max() > 0.01  # what it is for
    double = clip_logits(features.double(), text.double(), SCALE.double())
    assert double.dtype == torch.float64


@pytest.mark.parametrize(
    "method",
    [
        lambda text: TextPromptedClassifier(Fixed(text), SCALE),
        lambda text: TipAdapter(text, torch.arange(len(text)), text, SCALE),
    ],
    ids=["CoOp", "Tip-Adapter"],
)
def test_what_learns_on_features_is_not_rounded(method, vectors):
    features, text = vectors
    classifier = method(text)
    assert torch.equal(under_bf16(lambda: classifier(features)), classifier(features))


def test_many_votes_for_a_class_are_summed_unrounded(vectors):
    features, text = vectors
    keys = text.repeat_interleave(16, dim=0)
    adapter = TipAdapter(keys, torch.arange(len(text)).repeat_interleave(16), text, SCALE)
    assert torch.equal(under_bf16(lambda: adapter.votes(features)), adapter.votes(features))


def test_a_text_of_its_own_for_every_image_is_compared_unrounded(vectors):
    features, text = vectors
    shifted = text + 0.1 * torch.randn(len(features), *text.shape)  # CoCoOp: (B, T, D)
    found = under_bf16(lambda: clip_logits(features[:, None], shifted)[:, 0])
    assert torch.allclose(found, torch.einsum("bd,btd->bt", features, shifted), atol=1e-6)


def test_dpt_chooses_classes_by_unrounded_cosines(vectors):
    features, text = vectors
    classifier = DualPromptClassifier(vpkit.load_clip("tiny-vit"), None, text, None)
    classifier.candidates = len(text)
    near = torch.cat([text, text[:1] + 1e-4 * text[1:2]])  # two that bf16 does not tell apart
    classifier.written = torch.nn.functional.normalize(near)
    assert torch.equal(under_bf16(lambda: classifier._logits(features, text)), classifier._logits(features, text))
    assert torch.equal(under_bf16(lambda: classifier.choose(features)), classifier.choose(features))


def test_logoprompt_compares_unrounded_scores(vectors):
    features, text = vectors
    classifier = LoGoPromptClassifier(Fixed(text), SCALE)
    assert torch.equal(under_bf16(lambda: classifier._log_p(features, text)), classifier._log_p(features, text))


def test_zero_shot_logits_are_not_rounded():
    clip = vpkit.load_clip("tiny")
    model = clip.zero_shot(["a photo of a dog", "a photo of a cat"])
    head = model.network[-1]
    features = normalize(torch.randn(4, clip.embed_dim), dim=1)
    assert torch.equal(under_bf16(lambda: head(features)), head(features))
