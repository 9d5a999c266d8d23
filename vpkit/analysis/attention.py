"""Where the class token of CLIP's image transformer looks."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vpkit.datasets.pairs import Pairs
from vpkit.methods.dpt import DualPromptClassifier
from vpkit.models.clip import FrozenCLIP
from vpkit.prompts.tokens import ClassAwareTokens

if TYPE_CHECKING:  # takes a second to load
    import pandas as pd

__all__ = [
    "attention_in_box",
    "candidate_attention",
    "candidates_in_pairs",
    "class_attention",
    "look_at_pairs",
    "mean_looks",
]


@torch.no_grad()
def class_attention(
    clip: FrozenCLIP, encode: Callable[[Tensor], object], images: Tensor, block: int | None = None
) -> Tensor:
    """Attention of the class token to the patches in one block, mean over heads: (B, g, g), each summing to 1.

    Prompt tokens get their share of attention too; it is left out and the rest scaled to 1, so that models with and
    without prompts can be compared.

    Args:
        clip: a CLIP whose image tower is a transformer.
        encode: what runs the images through it: `clip.encode_image`, or a classifier with tokens around `clip`.
        images: (B, 3, s, s) in [0, 1].
        block: 1..L; None is the last.

    Raises:
        ValueError: a CNN image tower, a block that does not exist, or an `encode` that does not run this tower.

    Source: Xing et al. 2023, Figs. 1 and 7. Explained in chapter 6.
    """
    visual = clip.image_transformer("attention maps")
    blocks, inputs = visual.transformer.resblocks, []
    if block is not None and not 1 <= block <= len(blocks):
        raise ValueError(f"block={block}: this image tower has blocks 1..{len(blocks)}")
    looking = blocks[-1 if block is None else block - 1]
    handle = looking.ln_1.register_forward_hook(lambda _module, _inputs, output: inputs.append(output))
    try:
        encode(images)
    finally:
        handle.remove()
    if not inputs:
        raise ValueError("encode(images) did not run this CLIP's image tower: pass a function that does")
    hidden = inputs[-1]  # a classifier may run the plain image first; its own pass is last
    _, weights = looking.attn(hidden[:, :1], hidden, hidden, need_weights=True)  # (B, 1, n), mean over heads
    return _patch_maps(weights[:, 0], visual)


@torch.no_grad()
def look_at_pairs(
    classifier: DualPromptClassifier, pairs: Pairs, batch_size: int = 64
) -> tuple[Tensor, "pd.DataFrame"]:
    """What a classifier says to images of two things, and where the class token of the last block looks meanwhile.

    Args:
        classifier: of the target classes, without prompts (zero-shot, CoOp) or with.
        pairs: `icon_pairs` or `pictogram_pairs`.
        batch_size: of images that go through the tower together.

    Returns:
        Maps (N, g, g), each summing to 1; and a row for each image: "right", whether the target was named; "target" and
        "distractor", the shares in [0, 1] of the map in their boxes; "larger", whether the target is the larger thing.

    Raises:
        ValueError: a CNN image tower.
    """
    import pandas as pd

    answers: list[Tensor] = []
    clip, device = classifier.clip, classifier.clip.mean.device
    maps = torch.cat([
        class_attention(clip, lambda x: answers.append(classifier(x).argmax(1)), images)
        for images, _ in pairs.images.to(device).batches(batch_size)
    ]).cpu()  # fmt: skip
    shares = (attention_in_box(maps, boxes, clip.image_size) for boxes in pairs.boxes.unbind(1))
    on_target, on_distractor = (share.tolist() for share in shares)
    right = (torch.cat(answers).cpu() == pairs.images.labels.cpu()).tolist()
    columns = {"right": right, "target": on_target, "distractor": on_distractor, "larger": pairs.target_larger.tolist()}
    return maps, pd.DataFrame(columns)


def mean_looks(looks: Mapping[str, "pd.DataFrame"]) -> "pd.DataFrame":
    """Means of what `look_at_pairs` found, a row a method: "right_larger" over images whose target is the larger thing,
    "right_smaller" over the others, if there are any, and so of "target" and "distractor".

    Args:
        looks: method to its rows.
    """
    import pandas as pd

    found = pd.concat(looks, names=["method"]).groupby(["method", "larger"], sort=False).mean()
    wide = found.unstack().rename(columns={True: "larger", False: "smaller"})
    wide.columns = ["_".join(column) for column in wide.columns]
    return wide


@torch.no_grad()
def candidate_attention(classifier: DualPromptClassifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Where DPT looks for each candidate class: candidates (B, K), the likeliest first, and maps (B, K, g, g).

    The maps are the attention of the class-aware queries to the patches in the first class-aware block; the class
    token, other tokens and the learned bank get their share too, it is left out and the rest scaled to 1.

    Args:
        images: (B, 3, s, s) in [0, 1].

    Raises:
        ValueError: no class-aware block.

    Source: Xing et al. 2023, Eqs. 6 and 7. Explained in chapter 6.
    """
    images = images.to(classifier.clip.mean.device)  # sets that do not fit the device stay behind
    tokens = classifier.tokens
    if tokens is None or not len(tokens.class_aware):
        raise ValueError("this classifier has no class-aware block, and so no candidates to look for")
    block, seen = tokens.class_aware[0], []
    assert isinstance(block, ClassAwareTokens)
    handle = block.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs))
    try:
        classifier(images)
    finally:
        handle.remove()
    maps = _patch_maps(block.attention(*seen[0]), classifier.clip.image_transformer())
    return classifier.choose(classifier.clip.encode_image(images)), maps


@torch.no_grad()
def candidates_in_pairs(classifier: DualPromptClassifier, pairs: Pairs, batch_size: int = 64) -> "pd.DataFrame":
    """Whether DPT's queries find their classes: a row for each image of two things.

    Columns: "among", whether the true class is one of the K candidates; "own", the share in [0, 1] of its map
    (`candidate_attention`) in the target's box; "others", the mean share there of the other candidates' maps, which ask
    for something that is not in the box. Both are NaN where the true class is no candidate: what is easily named is
    drawn larger, so shares over other images could not be compared.

    Args:
        classifier: with a class-aware block.
        pairs: `icon_pairs` or `pictogram_pairs`.
        batch_size: of images that go through the tower together.

    Raises:
        ValueError: no class-aware block.
    """
    import pandas as pd

    device, size = classifier.clip.mean.device, classifier.clip.image_size
    found = [candidate_attention(classifier, images) for images, _ in pairs.images.to(device).batches(batch_size)]
    chosen, maps = (torch.cat(parts).cpu() for parts in zip(*found, strict=True))  # (N, K) and (N, K, g, g)
    boxes = pairs.boxes[:, 0].repeat_interleave(chosen.shape[1], 0)
    shares = attention_in_box(maps.flatten(0, 1), boxes, size).view_as(chosen)
    own = chosen == pairs.images.labels.cpu()[:, None]
    means = [shares.where(mask, 0.0).sum(1) / mask.sum(1) for mask in (own, ~own)]  # 0 / 0 is NaN
    means[1] = means[1].where(own.any(1), float("nan"))  # of the same images as `own`
    columns = {"among": own.any(1).tolist(), "own": means[0].tolist(), "others": means[1].tolist()}
    return pd.DataFrame(columns)


def _patch_maps(attention: Tensor, visual: Any) -> Tensor:
    """Attention (..., n) to all tokens as maps (..., g, g) of the patches, each summing to 1."""
    patches = visual.positional_embedding.shape[0] - 1
    found = attention[..., 1 : 1 + patches].float()
    side = round(patches**0.5)
    return (found / found.sum(-1, keepdim=True)).unflatten(-1, (side, side))


def attention_in_box(maps: Tensor, boxes: Tensor, image_size: int) -> Tensor:
    """Share of each map (B, g, g) inside its box (B, 4): left, top, right, bottom in pixels; (B,) in [0, 1].

    Cells that the box cuts count by the part inside.
    """
    cell = image_size / maps.shape[-1]
    edges = torch.arange(maps.shape[-1], device=maps.device) * cell

    def covered(low: Tensor, high: Tensor) -> Tensor:  # (B, g): part of each cell within [low, high]
        inside = torch.minimum(high[:, None], edges + cell) - torch.maximum(low[:, None], edges)
        return inside.clamp(min=0) / cell

    left, top, right, bottom = boxes.to(maps).T
    return torch.einsum("bij,bi,bj->b", maps, covered(top, bottom), covered(left, right))
