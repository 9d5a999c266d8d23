"""A frozen CLIP: [0, 1] images and sentences in, unit features out; the CLIP models of the book by name."""

import warnings
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vpkit.files import read_safetensors
from vpkit.interfaces import normalised
from vpkit.models.frozen import FrozenModel
from vpkit.models.hub import WeightFile, find_weights, hugging_face_file, named_errors
from vpkit.models.tiny_clip import load_tiny_clip

if TYPE_CHECKING:  # takes a second to load
    from open_clip import CLIP
    from open_clip.transformer import VisionTransformer

__all__ = ["CLIP_MODELS", "FrozenCLIP", "clip_image_size", "clip_logits", "encode_embedded", "load_clip"]

_OWN_FILES = resources.files("vpkit") / "data" / "clip"
OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


CLIP_MODELS = {  # name: (architecture and pretrained tag of open_clip, or the package's own file, what it is)
    "tiny": ("tiny.safetensors", "ours: a thin ModifiedResNet, 96 px"),
    "tiny-vit": ("tiny-vit.safetensors", "ours: a small VisionTransformer, 96 px, distilled from tiny"),
    "tiny-2": ("tiny-2.safetensors", "ours, second edition: EfficientNet-Lite0, 96 px"),
    "tiny-vit-2": ("tiny-vit-2.safetensors", "ours, second edition with a transformer: 4 blocks, 8 x 8 patches, 96 px"),
    "ViT-B-32": ("open_clip:ViT-B-32/openai", "OpenAI's, 224 px (VP, ILM-VP, DPT)"),
    "ViT-B-16": ("open_clip:ViT-B-16/openai", "OpenAI's, 224 px (LoGoPrompt)"),
    "RN50": ("open_clip:RN50/openai", "OpenAI's, 224 px (LoGoPrompt)"),
    "RN101": ("open_clip:RN101/openai", "OpenAI's, 224 px (VP, Fig. 9)"),
}


def clip_logits(features: Tensor, text: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """Image features (..., D) and class features (..., T, D) to scaled cosines (..., T), in full precision.

    Under autocast too: at CLIP's scale of 100 bf16 would round logits of 30 to eighths, and what compares them, such as
    LoGoPrompt's choice between an image with and without a name, would see ties.
    """
    device = features.device.type
    if device in ("cpu", "cuda") and torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            return scale * features.float() @ text.float().mT
    return scale * features @ text.mT


class _Cosines(nn.Linear):
    """A head whose rows are scaled class features."""

    def forward(self, features: Tensor) -> Tensor:
        return clip_logits(features, self.weight)


class FrozenCLIP(nn.Module):
    """A CLIP that is never trained: images and sentences to unit vectors of one space.

    It normalises pixels inside, stays in eval mode whatever `train()` is called with, and none of its parameters
    takes a gradient; gradients still flow through it, to images and to embedded text.

    Args:
        network: an `open_clip.CLIP` with its weights. It is frozen in place.
        mean, std: normalisation of [0, 1] pixels, one value a channel.
        known_tokens: (V,) bool, the tokens the model was trained on; None if all.
        reference_features: (N, D) unit features of images it was trained on, if any are known.

    Attributes:
        image_size: side of the images in pixels.
        context_length: tokens in a sentence, start and end included.
        embed_dim: length D of the features.
        text_width: length W of a token's embedding.

    Raises:
        ValueError: images of another shape, size or dtype; sentences that are empty or too long.

    Explained in chapter 4.
    """

    network: "CLIP"
    mean: Tensor
    std: Tensor
    known_tokens: Tensor | None
    reference_features: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float] = OPENAI_MEAN,
        std: Sequence[float] = OPENAI_STD,
        known_tokens: Tensor | None = None,
        reference_features: Tensor | None = None,
    ):
        from open_clip import CLIP
        from open_clip.tokenizer import SimpleTokenizer

        super().__init__()
        if not isinstance(network, CLIP):
            raise ValueError(f"{type(network).__name__} is not open_clip.CLIP: use a model with CLIP's own text tower")
        self.network = network.requires_grad_(False)
        size = network.visual.image_size
        self.image_size = size[0] if isinstance(size, tuple) else size
        self.image_tower = ImageTower(network.visual, self.image_size)
        self.context_length = network.context_length
        self.text_width, self.embed_dim = network.text_projection.shape
        self._tokenizer = SimpleTokenizer(context_length=network.context_length)
        device = next((weight.device for weight in network.parameters()), None)  # it may have been moved before
        for name, value in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32, device=device), persistent=False)
        self.register_buffer("known_tokens", known_tokens, persistent=False)
        self.register_buffer("reference_features", reference_features, persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> "FrozenCLIP":
        """Keeps eval mode."""
        return super().train(False)

    @property
    def logit_scale(self) -> Tensor:
        """What cosines are multiplied by to become logits (already exponentiated; about 100 for OpenAI's)."""
        return self.network.logit_scale.exp()

    def encode_image(self, images: Tensor) -> Tensor:
        """(B, 3, s, s) in [0, 1] to unit features (B, D)."""
        if not images.is_floating_point():
            raise ValueError(f"images are {images.dtype}: expected floats in [0, 1], as ImageSet.batches() yields them")
        # Convolutions take this layout a third faster, on CPUs as on tensor cores; transformers do not mind.
        images = images.to(memory_format=torch.channels_last) if images.ndim == 4 else images
        return self.image_tower(normalised(images, self))

    def image_transformer(self, needed_by: str = "tokens") -> "VisionTransformer":
        """The image tower, if it is a transformer; else a ValueError that says what needs one."""
        from open_clip.transformer import VisionTransformer

        visual = self.network.visual
        if not isinstance(visual, VisionTransformer):
            raise ValueError(
                f"the image tower is a {type(visual).__name__}: {needed_by} need a transformer, "
                "such as tiny-vit or ViT-B-32"
            )
        return visual

    def embed_patches(self, images: Tensor) -> Tensor:
        """Images (B, 3, s, s) in [0, 1] to tokens as the first block of the transformer gets, (B, 1 + N, d)."""
        return self.image_transformer()._embeds(normalised(images, self))

    def pool_tokens(self, hidden: Tensor) -> Tensor:
        """An image's own tokens after the last block (B, 1 + N, d) to unit features (B, D)."""
        visual = self.network.visual
        pooled, _ = visual._pool(hidden)
        return normalize((pooled if visual.proj is None else pooled @ visual.proj).float(), dim=-1)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str], batch_size: int = 512) -> Tensor:
        """N sentences to unit features (N, D)."""
        parts = [self._tokens_to_features(part) for part in self.tokenize(texts).split(batch_size)]
        return torch.cat(parts)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """N sentences to token ids (N, context_length): start, sentence, end, zeros.

        Raises:
            ValueError: no sentence, an empty one, or one that is longer than the context.
        """
        texts = list(texts)
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise ValueError(f"texts={texts[:5]!r}: expected sentences, none of them empty")
        lengths = [len(self._tokenizer.encode(text)) + 2 for text in texts]
        longest = max(range(len(texts)), key=lengths.__getitem__)
        if lengths[longest] > self.context_length:
            raise ValueError(
                f"{texts[longest]!r} has {lengths[longest]} tokens with start and end, "
                f"this model reads {self.context_length}: shorten it"
            )
        tokens = self._tokenizer(texts).to(self.mean.device)
        self._warn_of_unknown(texts, tokens)
        return tokens

    def embed(self, tokens: Tensor) -> Tensor:
        """Token ids (N, L) to embeddings (N, L, W), before positions are added."""
        return self.network.token_embedding(tokens)

    def encode_embedded(self, embedded: Tensor, end: Tensor, unit: bool = True, length: int | None = None) -> Tensor:
        """Embedded sentences (N, L, W) to features (N, D); this is where learned tokens enter (CoOp).

        Args:
            embedded: embeddings without positions, L at most `context_length`.
            end: (N,) position of the end token in each.
            unit: scale the features to length 1.
            length: position of the last end token, plus one; found by looking if None, which waits for a GPU.
        """
        return encode_embedded(self.network, embedded, end, unit, length)

    def zero_shot(self, texts: Sequence[str], class_names: Sequence[str] | None = None) -> FrozenModel:
        """A `FrozenModel` whose source classes are the sentences: logits are scaled cosines, (B, N).

        Its `features` are the unit image features. Text features are computed here, once.

        Args:
            texts: N sentences.
            class_names: shorter names for them; by default the sentences themselves.
        """
        features = self.encode_text(texts)
        head = _Cosines(self.embed_dim, len(features), bias=False, device=features.device)
        head.weight.data = self.logit_scale * features
        network = nn.Sequential(self.image_tower, head)
        names = texts if class_names is None else class_names
        model = FrozenModel(network, names, self.image_size, self.mean.tolist(), self.std.tolist(), head)
        return model.to(features.device)

    def _tokens_to_features(self, tokens: Tensor) -> Tensor:
        return self.encode_embedded(self.embed(tokens), tokens.argmax(1))  # the end token has the largest id

    def _warn_of_unknown(self, texts: list[str], tokens: Tensor) -> None:
        if self.known_tokens is None:
            return
        rows = (~self.known_tokens[tokens]).any(1)
        if rows.any():
            strange = [text for text, row in zip(texts, rows.tolist(), strict=True) if row]
            warnings.warn(
                f"{len(strange)} of {len(texts)} sentences have words this small model never met, such as "
                f"{strange[0]!r}: it cannot know what they mean; use a larger model (ViT-B-32) for them",
                stacklevel=4,
            )


class ImageTower(nn.Module):
    """open_clip's image tower, with its sizes checked and its features scaled to length 1."""

    def __init__(self, visual: nn.Module, image_size: int):
        super().__init__()
        self.visual, self.image_size = visual, image_size

    def forward(self, images: Tensor) -> Tensor:
        """Normalised pixels (B, 3, s, s) to (B, D)."""
        size = self.image_size
        if images.ndim != 4 or images.shape[1:] != (3, size, size) or not images.is_floating_point():
            raise ValueError(
                f"images are {tuple(images.shape)} {images.dtype}: this model takes (B, 3, {size}, {size}) floats; "
                f"load them with size={size}, use .resized({size}), or a prompt whose canvas has this side"
            )
        return normalize(self.visual(images).float(), dim=-1)


def encode_embedded(
    network: "CLIP", embedded: Tensor, end: Tensor, unit: bool = True, length: int | None = None
) -> Tensor:
    """What `FrozenCLIP.encode_embedded` computes, for an `open_clip.CLIP` that may still be training."""
    # The text tower is causal: what follows the last end token changes nothing, and costs time.
    length = int(end.max()) + 1 if length is None else length
    hidden = embedded[:, :length] + network.positional_embedding[:length]
    hidden = network.transformer(hidden, attn_mask=network.attn_mask[:length, :length])
    hidden = network.ln_final(hidden)[torch.arange(len(end), device=end.device), end]
    features = (hidden @ network.text_projection).float()
    return normalize(features, dim=-1) if unit else features


def load_clip(
    name: str,
    device: torch.device | str | None = None,
    *,
    weights: str | Path | None = None,
    download: bool | None = None,
) -> FrozenCLIP:
    """Load a row of `CLIP_MODELS`, frozen, on `device` (default: the CPU).

    Args:
        name: a row, or `open_clip:ARCHITECTURE/PRETRAINED` for any pair of `open_clip.list_pretrained()`.
        device: where to put it.
        weights: a weight file to use; otherwise it is looked for in `$VPKIT_WEIGHTS` (default: `weights` in the
            cache folder) and in the Hugging Face cache.
        download: fetch missing weights. Without it no network is used; None asks `$VPKIT_DOWNLOAD`, which a chapter's
            parameter sets.

    Raises:
        ValueError: an unknown name, or a file that does not fit the model or is cut short.
        FileNotFoundError: weights that are not on this machine; the message says what to put where.

    Explained in chapter 4.
    """
    target = CLIP_MODELS[name][0] if name in CLIP_MODELS else name
    if target.startswith("open_clip:") and target.count("/") == 1:
        architecture, tag = target.removeprefix("open_clip:").split("/")
        clip = _load_hub(architecture, tag, weights, download)
    elif name in CLIP_MODELS:
        clip = FrozenCLIP(*load_tiny_clip(weights or str(_OWN_FILES / target)))
    else:
        known = ", ".join(CLIP_MODELS)
        raise ValueError(f"unknown CLIP model {name!r}: expected one of {known}, or open_clip:ARCHITECTURE/PRETRAINED")
    return clip.to(device=device).to(memory_format=torch.channels_last)


def clip_image_size(name: str) -> int:
    """Side in pixels of the images that a row of `CLIP_MODELS` takes, without its weights.

    Raises:
        KeyError: no such row.
    """
    import open_clip

    target = CLIP_MODELS[name][0]
    if target.startswith("open_clip:"):
        config = open_clip.get_model_config(target.removeprefix("open_clip:").split("/")[0])
    else:
        metadata, _ = read_safetensors(str(_OWN_FILES / target), "CLIP", "config")
        config = metadata["config"]["model"]
    return config["vision_cfg"]["image_size"]


def open_clip_file(architecture: str, tag: str) -> WeightFile:
    """Of a pair of `open_clip.list_pretrained()`, on the Hugging Face hub.

    Raises:
        ValueError: a pair that open_clip does not have.
    """
    import open_clip

    pretrained = open_clip.get_pretrained_cfg(architecture, tag)
    if open_clip.get_model_config(architecture) is None or not pretrained:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "open_clip.list_pretrained()"
        raise ValueError(f"open_clip has no {architecture}/{tag}: expected one of {tags}")
    repository = pretrained.get("hf_hub", "").rstrip("/")
    files = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
    return hugging_face_file(f"{architecture}-{tag}.safetensors", repository, *files)


def _load_hub(architecture: str, tag: str, weights: str | Path | None, download: bool | None) -> FrozenCLIP:
    import open_clip

    path = find_weights(open_clip_file(architecture, tag), weights, download)
    config = open_clip.get_model_config(architecture)
    pretrained = open_clip.get_pretrained_cfg(architecture, tag)
    quick = bool(pretrained.get("quick_gelu") or config.get("quick_gelu"))  # OpenAI trained with this activation
    network = open_clip.create_model(architecture, pretrained=None, force_quick_gelu=quick, pretrained_text=False)
    with named_errors(path, type(network.visual).__name__):
        open_clip.load_checkpoint(network, str(path))
    return FrozenCLIP(network, pretrained.get("mean") or OPENAI_MEAN, pretrained.get("std") or OPENAI_STD)
