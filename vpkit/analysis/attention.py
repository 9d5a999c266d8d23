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
    "class_attention",
    "look_at_pairs",
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
    classifiers: Mapping[str, DualPromptClassifier], pairs: Pairs, batch_size: int = 64
) -> tuple[dict[str, Tensor], "pd.DataFrame"]:
    """What methods say to images of two things, and where the class token of the last block looks meanwhile.

    Args:
        classifiers: by method, of the target classes, without prompts (zero-shot, CoOp) or with.
        pairs: `icon_pairs` or `pictogram_pairs`.
        batch_size: of images that go through the tower together.

    Returns:
        Maps (N, g, g) by method, each summing to 1; and means over images, a row a method. "right_larger" is the share
        of images whose target was named, of those whose target is the larger thing, "right_smaller" of the others, if
        there are any; "target_larger" and so on are the shares of the maps in the box of the target, and
        "distractor_larger" in that of the distractor. Of classifiers with class-aware tokens also "among", "own" and
        "others": whether the true class is among the candidates, and in these images the shares in the target's box of
        its own map (`candidate_attention`) and of the other candidates' maps, which ask for something that is not in
        the box.

    Raises:
        ValueError: a CNN image tower.

    Source: Xing et al. 2023, Figs. 1 and 7. Explained in chapter 6.
    """
    import pandas as pd

    maps, rows = {}, []
    sizes = {"larger": pairs.target_larger, "smaller": ~pairs.target_larger}
    for method, classifier in classifiers.items():
        maps[method], looks = _looks(classifier, pairs, batch_size)
        row: dict[str, object] = {"method": method}
        for what, values in looks.items():
            row |= {f"{what}_{size}": values[of].double().mean().item() for size, of in sizes.items() if of.any()}
        rows.append(row | _finds(classifier, pairs, batch_size))
    return maps, pd.DataFrame(rows)


def _looks(classifier: DualPromptClassifier, pairs: Pairs, batch_size: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Maps (N, g, g), and for each image "right" and the shares of its map in the two boxes, (N,) each."""
    answers: list[Tensor] = []
    clip, images = classifier.clip, pairs.images.to(classifier.clip.mean.device)
    maps = torch.cat([
        class_attention(clip, lambda x: answers.append(classifier(x).argmax(1)), batch)
        for batch, _ in images.batches(batch_size)
    ]).cpu()  # fmt: skip
    right = torch.cat(answers).cpu() == pairs.images.labels.cpu()
    on_target, on_distractor = (attention_in_box(maps, boxes, clip.image_size) for boxes in pairs.boxes.unbind(1))
    return maps, {"right": right, "target": on_target, "distractor": on_distractor}


def _finds(classifier: DualPromptClassifier, pairs: Pairs, batch_size: int) -> dict[str, float]:
    """Whether DPT's queries find their classes; nothing of a classifier without class-aware tokens."""
    if classifier.tokens is None or not len(classifier.tokens.class_aware):
        return {}
    images = pairs.images.to(classifier.clip.mean.device)
    found = [candidate_attention(classifier, batch) for batch, _ in images.batches(batch_size)]
    chosen, maps = (torch.cat(parts).cpu() for parts in zip(*found, strict=True))  # (N, K) and (N, K, g, g)
    boxes = pairs.boxes[:, 0].repeat_interleave(chosen.shape[1], 0)
    shares = attention_in_box(maps.flatten(0, 1), boxes, classifier.clip.image_size).view_as(chosen).double()
    own = chosen == pairs.images.labels.cpu()[:, None]
    among = own.any(1)
    # What is easily named is drawn larger: shares in images without the true class could not be compared.
    others = shares.where(~own, 0.0).sum(1) / (~own).sum(1)
    return {
        "among": among.double().mean().item(), "own": shares[own].mean().item(), "others": others[among].mean().item(),
    }  # fmt: skip


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
