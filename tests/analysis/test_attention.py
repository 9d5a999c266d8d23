"""Attention of the class token against torch's own weights, and shares inside boxes against counting."""

import open_clip
import pytest
import torch
from small_clip import NAMES, SMALL_VIT, dpt

from vpkit.analysis import attention_in_box, candidate_attention, class_attention, look_at_pairs
from vpkit.datasets import icon_pairs, pictogram_pairs
from vpkit.methods import DualPromptClassifier
from vpkit.models.clip import FrozenCLIP
from vpkit.prompts import ClassAwareTokens, ContextPrompt, TokenPrompt


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    return FrozenCLIP(open_clip.CLIP(**SMALL_VIT))


@pytest.mark.parametrize("block", [None, 1, 2])
def test_it_is_what_the_attention_layer_itself_says(clip, block):
    images, seen = torch.rand(2, 3, 32, 32), []
    layer = clip.network.visual.transformer.resblocks[-1 if block is None else block - 1].attn
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    found = class_attention(clip, clip.encode_image, images, block)
    handle.remove()
    _, weights = layer(seen[0], seen[0], seen[0], need_weights=True)
    expected = weights[:, 0, 1:]
    assert found.shape == (2, 4, 4)
    assert torch.allclose(found.flatten(1), expected / expected.sum(1, keepdim=True), atol=1e-6)


def test_a_grid_with_an_odd_number_of_patches_is_whole():
    vision = {**SMALL_VIT["vision_cfg"], "image_size": 24}
    clip, images = FrozenCLIP(open_clip.CLIP(**{**SMALL_VIT, "vision_cfg": vision})), torch.rand(2, 3, 24, 24)
    assert class_attention(clip, TokenPrompt(clip, 2), images).shape == (2, 3, 3)
    assert class_attention(clip, clip.encode_image, images).shape == (2, 3, 3)


def test_tokens_move_the_attention_and_are_left_out_of_it(clip):
    images = torch.rand(2, 3, 32, 32)
    plain = class_attention(clip, clip.encode_image, images)
    assert torch.allclose(class_attention(clip, TokenPrompt(clip, 0), images), plain, atol=1e-6)
    tokens = TokenPrompt(clip, 5)
    torch.nn.init.normal_(tokens.tokens["1"])
    moved = class_attention(clip, tokens, images)
    assert moved.shape == plain.shape
    assert torch.allclose(moved.sum((1, 2)), torch.ones(2))
    assert not torch.allclose(moved, plain, atol=1e-3)


def test_of_a_classifier_the_prompted_pass_counts(clip):
    """DPT runs the plain image too, to choose its candidates."""
    model, images = dpt(clip), torch.rand(2, 3, 32, 32)
    queries = model.text(unit=False)[(clip.encode_image(images) @ model.written.T).topk(2, dim=1).indices]
    expected = class_attention(clip, lambda x: model.tokens(x, queries), images)
    assert torch.allclose(class_attention(clip, model, images), expected, atol=1e-6)
    assert len(NAMES) == 4


def test_each_candidate_is_looked_for_by_its_own_query(clip):
    model, images = dpt(clip), torch.rand(2, 3, 32, 32)
    chosen, maps = candidate_attention(model, images)
    assert torch.equal(chosen, (clip.encode_image(images) @ model.written.T).topk(2, dim=1).indices)
    assert maps.shape == (2, 2, 4, 4)
    assert torch.allclose(maps.sum((2, 3)), torch.ones(2, 2))
    seen = []
    block = model.tokens.class_aware[0]
    handle = block.register_forward_hook(lambda module, inputs, output: seen.append(inputs))
    model(images)
    handle.remove()
    hidden, queries = seen[0]
    asked = block.to_query(block.query(queries))  # written out for the second candidate of the first image
    logits = torch.cat([hidden[0], block.bank]) @ block.to_key.weight.T @ asked[0, 1] / 32**0.5
    share = logits.softmax(0)[1:17]
    assert torch.allclose(maps[0, 1].flatten(), share / share.sum(), atol=1e-5)
    with pytest.raises(ValueError, match="no class-aware block"):
        candidate_attention(DualPromptClassifier(clip, TokenPrompt(clip, 2), model.written), images)


def test_what_cannot_be_looked_into_is_refused(clip):
    with pytest.raises(ValueError, match=r"block=9: this image tower has blocks 1\.\."):
        class_attention(clip, clip.encode_image, torch.rand(1, 3, 32, 32), block=9)
    with pytest.raises(ValueError, match="did not run this CLIP's image tower"):
        class_attention(clip, lambda images: images, torch.rand(1, 3, 32, 32))
    cnn = open_clip.CLIP(
        embed_dim=8,
        vision_cfg={"layers": [1, 1, 1, 1], "width": 8, "head_width": 8, "image_size": 32, "patch_size": None},
        text_cfg=SMALL_VIT["text_cfg"],
    )
    with pytest.raises(ValueError, match="ModifiedResNet: attention maps need a transformer"):
        class_attention(FrozenCLIP(cnn), cnn, torch.rand(1, 3, 32, 32))


def test_shares_by_hand():
    maps = torch.full((3, 4, 4), 1 / 16)
    boxes = torch.tensor([[0, 0, 32, 32], [0, 0, 16, 8], [4, 0, 12, 32]])  # cells of 8 px
    assert attention_in_box(maps, boxes, 32).tolist() == pytest.approx([1.0, 2 / 16, 4 / 16])
    maps[0] = 0
    maps[0, 1, 2] = 1.0  # row 1, column 2: 16..24 across, 8..16 down
    assert attention_in_box(maps[:1], torch.tensor([[16, 8, 24, 16]]), 32).item() == pytest.approx(1.0)
    assert attention_in_box(maps[:1], torch.tensor([[8, 16, 16, 24]]), 32).item() == 0.0


def test_what_is_said_and_looked_at_in_pairs_is_what_each_image_gives_alone(clip):
    pairs = pictogram_pairs("train", 2, size=32)
    names = pairs.images.class_names
    written = torch.nn.functional.normalize(torch.randn(len(names), clip.embed_dim), dim=1)
    classifier = DualPromptClassifier(clip, TokenPrompt(clip, 3), written)
    found, table = look_at_pairs({"zero-shot": DualPromptClassifier(clip, None, written), "VPT": classifier}, pairs, 7)
    assert list(found) == table["method"].tolist() == ["zero-shot", "VPT"]
    assert "among" not in table
    maps, images = found["VPT"], pairs.images.images / 255
    assert torch.allclose(maps, class_attention(clip, classifier, images), atol=1e-5)
    each = {"right": (classifier(images).argmax(1) == pairs.images.labels).float()}
    for number, thing in enumerate(("target", "distractor")):
        each[thing] = attention_in_box(maps, pairs.boxes[:, number], 32)
    for what, values in each.items():
        for first, size in enumerate(("larger", "smaller")):  # they take turns
            assert table[f"{what}_{size}"][1] == pytest.approx(float(values[first::2].mean()), abs=1e-5)


def test_pairs_whose_target_is_always_the_larger_have_no_other_mean(clip):
    written = torch.nn.functional.normalize(torch.randn(33, clip.embed_dim), dim=1)
    _, table = look_at_pairs({"zero-shot": DualPromptClassifier(clip, None, written)}, icon_pairs("train", 1, size=32))
    assert list(table) == ["method", "right_larger", "target_larger", "distractor_larger"]


def test_queries_are_scored_in_the_box_of_the_target(clip):
    pairs = pictogram_pairs("train", 1, size=32)
    names, labels = pairs.images.class_names, pairs.images.labels
    torch.manual_seed(0)
    block = ClassAwareTokens(clip.embed_dim, 32, len(names))
    tokens, text = TokenPrompt(clip, 3, class_aware={3: block}), ContextPrompt(clip, names, 4)
    written = torch.nn.functional.normalize(torch.randn(len(names), clip.embed_dim), dim=1)
    classifier = DualPromptClassifier(clip, tokens, written, text, candidates=20)
    _, table = look_at_pairs({"DPT": classifier}, pairs, batch_size=7)
    (row,) = table.to_dict("records")
    chosen, maps = candidate_attention(classifier, pairs.images.images / 255)
    among, own, others = (chosen == labels[:, None]).any(1), [], []
    assert row["among"] == pytest.approx(float(among.float().mean()))
    assert 0 < among.sum() < len(labels)
    for i in among.nonzero().flatten().tolist():  # both are of the same images, or their means could not be compared
        shares, true = attention_in_box(maps[i], pairs.boxes[[i], 0].expand(20, -1), 32), chosen[i] == labels[i]
        own.append(float(shares[true]))
        others.append(float(shares[~true].mean()))
    assert row["own"] == pytest.approx(sum(own) / len(own), abs=1e-5)
    assert row["others"] == pytest.approx(sum(others) / len(others), abs=1e-5)
