"""Learned context tokens in front of, around or behind a class name: CoOp, and CoCoOp's shift by the image."""

from collections.abc import Callable, Sequence
from copy import copy

import torch
from torch import Tensor, nn

from vpkit.models.clip import FrozenCLIP
from vpkit.models.frozen import HoldsFrozen
from vpkit.prompts.templates import check_class_names, fill_templates

__all__ = ["ContextPrompt", "GeneratedContext", "MetaNet", "WrittenText", "coop_context"]

POSITIONS = ("end", "middle", "front")


def remembered(prompt: nn.Module, unit: bool, encode: Callable[[], Tensor]) -> Tensor:
    """Text features that are encoded anew only if a parameter of `prompt` has changed, or gradients are wanted.

    So the text tower runs once for a whole test, not once a batch.
    """
    if torch.is_grad_enabled():
        return encode()
    # A step, load_state_dict or .to() changes the version or the place; the parameters kept here cannot be replaced
    # by others at the same place.
    parameters = list(prompt.parameters())
    state = [unit, *((parameter._version, parameter.data_ptr()) for parameter in parameters)]
    last = getattr(prompt, "_remembered", None)
    if last is None or last[1] != state:
        last = parameters, state, encode()
        object.__setattr__(prompt, "_remembered", last)  # not a submodule
    return last[2]


class ContextPrompt(HoldsFrozen):
    """CoOp's text prompt: M learned tokens and a class name, through the frozen text tower to (T, D) features.

    Args:
        clip: the frozen model.
        class_names: T names.
        context_length: number M of learned tokens; ignored if `words` are given.
        words: start from the embeddings of these words ("a photo of a") in place of N(0, 0.02^2). The features
            then equal those of the sentence `f"{words} {name}."`.
        class_specific: a context for each class instead of one for all.
        position: where the class name stands: "end", "middle" (half of the context before it) or "front".

    Raises:
        ValueError: names that are empty or hold braces, an unknown position, no context, a sentence longer than the
            model reads.

    Source: Zhou et al. 2022 (CoOp), Sec. 3.2; layouts as in the released code. Explained in chapter 5.
    """

    clip: FrozenCLIP
    embedded: Tensor
    slots: Tensor
    end: Tensor

    def __init__(
        self,
        clip: FrozenCLIP,
        class_names: Sequence[str],
        context_length: int = 16,
        *,
        words: str | None = None,
        class_specific: bool = False,
        position: str = "end",
    ):
        super().__init__()
        if position not in POSITIONS:
            raise ValueError(f"position={position!r}: expected one of {', '.join(POSITIONS)}")
        check_class_names(class_names)
        if not class_names:
            raise ValueError("class_names is empty: expected at least one name")
        self.hold("clip", clip)
        encode, device = clip._tokenizer.encode, clip.mean.device
        started = encode(words) if words else []
        length = len(started) if words else context_length
        if length < 1:
            raise ValueError(f"context_length={context_length}: expected at least 1 learned token")
        self.class_names, self.position = tuple(class_names), position
        first, last = clip._tokenizer.sot_token_id, clip._tokenizer.eot_token_id
        rows, slots = [], []
        for name in class_names:
            # Name and period are encoded together: a name that ends in a period joins it to another token.
            said = encode(f"{name}.") if position == "end" else encode(name)
            before = {"end": length, "middle": length // 2, "front": 0}[position]
            stop = [] if position == "end" else encode(".")
            rows.append([first, *[0] * before, *said, *[0] * (length - before), *stop, last])
            slots.append([*range(1, 1 + before), *range(1 + before + len(said), 1 + length + len(said))])
        longest = max(range(len(rows)), key=lambda k: len(rows[k]))
        if len(rows[longest]) > clip.context_length:
            raise ValueError(
                f"{length} context tokens and {class_names[longest]!r} make {len(rows[longest])} tokens with start and "
                f"end, this model reads {clip.context_length}: use fewer context tokens or a shorter name"
            )
        width = len(rows[longest])
        tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
        self.register_buffer("embedded", clip.embed(tokens).detach(), persistent=False)  # (T, L, W)
        self.register_buffer("slots", torch.tensor(slots, device=device), persistent=False)  # (T, M)
        self.register_buffer("end", torch.tensor([len(row) - 1 for row in rows], device=device), persistent=False)
        shape = (len(rows), length, clip.text_width) if class_specific else (length, clip.text_width)
        if words:
            start = clip.embed(torch.tensor(started, device=device)).detach().expand(shape).clone()
        else:
            start = 0.02 * torch.randn(shape, device="cpu").to(device)
        self.context = nn.Parameter(start)  # (M, W) or (T, M, W)

    def forward(self, context: Tensor | None = None, unit: bool = True) -> Tensor:
        """Text features (T, D), of the learned context or of another one; of length 1 if `unit`.

        Args:
            context: (M, W), (T, M, W), or with one for each image (B, 1, M, W) or (B, T, M, W): then (B, T, D).
        """
        if context is None:
            return remembered(self, unit, lambda: self(self.context, unit))
        images, classes = context.shape[:-3] if context.ndim == 4 else (), len(self.slots)
        slots = self.slots[..., None].expand(*images, -1, -1, self.embedded.shape[-1])
        context = context.expand(slots.shape).to(self.embedded.dtype)
        embedded = self.embedded.expand(*images, -1, -1, -1).scatter(-2, slots, context)
        end = self.end.expand(*images, -1).flatten()
        length = self.embedded.shape[1]  # the longest sentence ends there
        return self.clip.encode_embedded(embedded.flatten(0, -3), end, unit, length).view(*images, classes, -1)


def coop_context(
    clip: FrozenCLIP, class_names: Sequence[str], context_length: int = 4, class_specific: bool = False
) -> ContextPrompt:
    """A `ContextPrompt` that starts as CoOp's does: four words as "a photo of a", any other number at random.

    Source: Zhou et al. 2022 (CoOp), Sec. 4.1 and released code.
    """
    words = "a photo of a" if context_length == 4 else None
    return ContextPrompt(clip, class_names, context_length, words=words, class_specific=class_specific)


class WrittenText(nn.Module):
    """Hand-written text in place of a `ContextPrompt`: unit features (T, D) of one sentence a class, computed once.

    Args:
        clip: the frozen model.
        class_names: the T names.
        template: the sentence, with `{}` for the name.
    """

    features: Tensor

    def __init__(self, clip: FrozenCLIP, class_names: Sequence[str], template: str = "a photo of a {}."):
        super().__init__()
        self.class_names = tuple(class_names)
        self.register_buffer("features", clip.encode_text(fill_templates(template, class_names)), persistent=False)

    def forward(self) -> Tensor:
        """Unit text features (T, D)."""
        return self.features


class MetaNet(nn.Module):
    """CoCoOp's meta-net: an image feature (B, D) to one vector (B, W) that is added to every context token.

    Source: Zhou et al. 2022 (CoCoOp), Sec. 3.2: Linear, ReLU, Linear with a bottleneck of D / 16.
    """

    def __init__(self, embed_dim: int, text_width: int):
        super().__init__()
        hidden = max(1, embed_dim // 16)
        self.layers = nn.Sequential(nn.Linear(embed_dim, hidden), nn.ReLU(), nn.Linear(hidden, text_width))

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)


class GeneratedContext(HoldsFrozen):
    """LoGoPrompt's class-specific contexts, in two stages: first an MLP makes them, then they are tuned themselves.

    Stage one is this module: the hand-written text features of each class (D) become its context (M, W), so that
    classes without training images get one too. Stage two is what `fixed()` returns.

    Args:
        prompt: shows where the context goes, and what it starts from.
        written: (T, D) text features of the hand-written sentences, for the same T names.
        residual: the MLP says what is *added* to the context of `prompt`, at first nothing: its last layer starts at
            zero, and with "a photo of a" as words the features start as those of the sentences. False: it makes the
            whole context, and starts as noise.

    Raises:
        ValueError: another number of features than of names; a residual on class-specific contexts.

    Source: Shi & Yang 2023, Sec. 3.2.3, which leaves both open: the width of the MLP, D / 4, and the start are our
    choice. Explained in chapter 5.
    """

    prompt: ContextPrompt
    written: Tensor
    start: Tensor

    def __init__(self, prompt: ContextPrompt, written: Tensor, residual: bool = True):
        super().__init__()
        if len(written) != len(prompt.class_names):
            raise ValueError(
                f"{len(written)} text features for {len(prompt.class_names)} class names: expected one each"
            )
        if residual and prompt.context.ndim == 3:
            raise ValueError("the prompt has a context for each class, new classes have none: use a shared one")
        self.hold("prompt", prompt)  # only its frozen parts are used
        self.register_buffer("written", written.detach(), persistent=False)
        hidden, context = max(1, written.shape[1] // 4), prompt.slots.shape[1] * prompt.embedded.shape[2]
        layers = nn.Linear(written.shape[1], hidden), nn.ReLU(), nn.Linear(hidden, context)
        self.layers = nn.Sequential(*layers).to(written.device)
        if residual:
            nn.init.zeros_(layers[-1].weight)
            nn.init.zeros_(layers[-1].bias)
            start = prompt.context.detach().clone()  # belongs to what is learned: it may be random
        else:
            nn.init.normal_(layers[-1].weight, std=0.02)
            start = torch.zeros_like(prompt.embedded[0, :1])  # (1, W)
        self.register_buffer("start", start, persistent=residual)

    def contexts(self) -> Tensor:
        """(T, M, W)."""
        return self.start + self.layers(self.written).unflatten(1, (self.prompt.slots.shape[1], -1))

    def forward(self) -> Tensor:
        """Unit text features (T, D)."""
        return remembered(self, True, lambda: self.prompt(self.contexts()))

    def fixed(self) -> ContextPrompt:
        """A class-specific `ContextPrompt` that starts from the contexts as they are now."""
        prompt = copy(self.prompt)
        prompt._parameters = {"context": nn.Parameter(self.contexts().detach())}
        return prompt
