import open_clip
import torch
from small_clip import NAMES, SMALL
from torch.nn.functional import cross_entropy, normalize

import vpkit
from vpkit.methods import KgCoOp
from vpkit.models import FrozenCLIP
from vpkit.prompts import ContextPrompt


def test_kgcoop_is_cross_entropy_and_what_the_text_has_moved():
    torch.manual_seed(0)
    clip = FrozenCLIP(open_clip.CLIP(**SMALL))
    written = clip.encode_text([f"a photo of a {name}." for name in NAMES])
    features, labels = normalize(torch.randn(8, clip.embed_dim), dim=1), torch.arange(8) % 4
    classifier = KgCoOp(ContextPrompt(clip, NAMES, 3), clip.logit_scale, written, weight=2.0)
    loss, logits = classifier.loss(features, labels)
    text = classifier.prompt()
    expected = cross_entropy(logits, labels) + 2 * (1 - torch.nn.functional.cosine_similarity(text, written).mean())
    assert torch.allclose(loss, expected, atol=1e-5)
    assert torch.allclose(logits, clip.logit_scale * features @ text.T, atol=1e-4)


def test_the_heavier_the_weight_the_nearer_the_text_stays():
    torch.manual_seed(0)
    clip = FrozenCLIP(open_clip.CLIP(**SMALL))
    written = clip.encode_text([f"a photo of a {name}." for name in NAMES])
    features, labels = normalize(torch.randn(16, clip.embed_dim), dim=1), torch.arange(16) % 4
    data, near = vpkit.datasets.EncodedSet(features, labels, NAMES), []
    for weight in (0.0, 50.0):
        torch.manual_seed(1)
        classifier = KgCoOp(ContextPrompt(clip, NAMES, 3), clip.logit_scale, written, weight)
        optimizer = torch.optim.SGD(classifier.parameters(), lr=0.05)
        vpkit.fit(classifier, data.batches(16), None, optimizer, 10, show=False)
        near.append(float((classifier.prompt() * written).sum(1).mean()))
    assert near[1] > near[0]
