"""Prompts that have a text side, an image side, or both: which method has which, and their training, each side at a
learning rate of its own."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from vpkit.interfaces import Classifier
from vpkit.methods.coop import KgCoOp
from vpkit.methods.dpt import DualPromptClassifier, guide
from vpkit.methods.promptsrc import GaussianAverage, PromptSRC
from vpkit.methods.protocols import base_to_new
from vpkit.methods.vp import count_parameters
from vpkit.models.clip import FrozenCLIP
from vpkit.prompts.context import coop_context
from vpkit.prompts.patch_embeddings import cache_patches
from vpkit.prompts.templates import fill_templates
from vpkit.prompts.tokens import ClassAwareTokens, TokenPrompt
from vpkit.training.loop import fit
from vpkit.training.schedules import coop, of_each_group

if TYPE_CHECKING:  # takes a second to load
    import pandas as pd

__all__ = ["base_to_new_rows", "classifier_for", "train_sides"]

_WITH_TEXT = ("CoOp", "KgCoOp", "VLP", "DPT", "PromptSRC")
_WITH_TOKENS = ("VPT shallow", "VPT", "VLP", "DPT", "PromptSRC")
Trained = TypeVar("Trained", bound=Classifier)


def classifier_for(
    clip: FrozenCLIP,
    method: str,
    names: Sequence[str],
    *,
    template: str = "a photo of a {}.",
    context_length: int = 4,
    num_tokens: int = 10,
    candidates: int = 10,
    alpha: float = 0.3,
    aware_blocks: Sequence[int] | None = None,
    seed: int = 0,
) -> DualPromptClassifier | KgCoOp:
    """A method's untrained classifier of the classes `names`, on the device of `clip`, after `torch.manual_seed(seed)`.

    Learned words are in CoOp, KgCoOp, VLP, DPT and PromptSRC, learned tokens in VPT shallow, VPT, VLP, DPT and
    PromptSRC; "zero-shot" has neither. DPT's tokens are class-aware in some blocks.

    Args:
        clip: the frozen model; for tokens its image tower has to be a transformer.
        method: one of these names.
        names: of the classes.
        template: the hand-written sentence, with `{}` for the name.
        context_length: learned words M; four start from "a photo of a", others at random.
        num_tokens: learned tokens P a block.
        candidates, alpha: see `DualPromptClassifier`.
        aware_blocks: of DPT, blocks 1..L with class-aware tokens; None: the last.
        seed: of everything random in it.

    Raises:
        ValueError: an unknown method, tokens in a CNN; and as `ContextPrompt` and `TokenPrompt`.

    Source: Xing et al. 2023, Sec. III and IV-B. Explained in chapter 6.
    """
    if method not in ("zero-shot", *_WITH_TEXT, *_WITH_TOKENS):
        known = dict.fromkeys(("zero-shot", *_WITH_TEXT, *_WITH_TOKENS))
        raise ValueError(f"method={method!r}: expected one of {', '.join(known)}")
    torch.manual_seed(seed)
    text, tokens, device = None, None, clip.mean.device
    written = clip.encode_text(fill_templates(template, names))
    if method in _WITH_TEXT:
        text = coop_context(clip, names, context_length)
        if method == "KgCoOp":
            return KgCoOp(text, clip.logit_scale, written).to(device)
    if method in _WITH_TOKENS:
        visual, aware = clip.image_transformer("learned tokens"), {}
        if method == "DPT":
            blocks = [len(visual.transformer.resblocks)] if aware_blocks is None else aware_blocks
            width = visual.positional_embedding.shape[1]
            aware = {block: ClassAwareTokens(clip.embed_dim, width, len(names)) for block in blocks}
        tokens = TokenPrompt(clip, num_tokens, deep=method != "VPT shallow", class_aware=aware)
    kind = PromptSRC if method == "PromptSRC" else DualPromptClassifier
    return kind(clip, tokens, written, text, candidates, alpha).to(device)


def train_sides(
    classifier: Trained,
    train: Any,
    val: Any,
    name: str = "",
    *,
    epochs: int,
    lr: float,
    text_lr: float,
    guided_epochs: int = 0,
    warmup_epochs: int = 0,
    batch_size: int = 32,
) -> Trained:
    """Train what a classifier has of learned tokens and learned text, in place, by SGD with momentum 0.9; returns it.

    Without either, as zero-shot CLIP is, nothing happens. PromptSRC ends with the mean of its weights over the epochs,
    weighed by a bell around three quarters of them, one epoch wide (`GaussianAverage`).

    Args:
        classifier: `DualPromptClassifier`, `PromptSRC` or `KgCoOp`.
        train, val: as `cache_patches` makes them; anything with `.batches(...)`.
        name: of the run, see `fit`.
        epochs: over the training images.
        lr: of the tokens and class-aware blocks.
        text_lr: of the learned words.
        guided_epochs: the first ones, of Eq. 12.
        warmup_epochs: of the image side at a rate of 1e-5, and at most one of the text side; with any, weights decay by
            5e-4.
        batch_size: of the training images.

    Source: Xing et al. 2023, Sec. IV-B and released code; Khattak et al. 2023, Sec. 3.2. Explained in chapter 6.
    """
    if not count_parameters(classifier):  # type: ignore[arg-type]
        return classifier
    rates = {"tokens": (lr, warmup_epochs), "text": (text_lr, min(1, warmup_epochs))}
    rates["prompt"] = rates["text"]  # as KgCoOp calls it
    sides = [(getattr(classifier, side, None), *how) for side, how in rates.items()]
    there = [(side, rate, warmup) for side, rate, warmup in sides if side is not None and list(side.parameters())]
    optimizer = torch.optim.SGD(
        [{"params": list(side.parameters()), "lr": rate} for side, rate, _ in there],
        momentum=0.9,
        weight_decay=5e-4 if warmup_epochs else 0,
    )
    average = GaussianAverage(0.75 * epochs, 1.0) if isinstance(classifier, PromptSRC) else None
    hook: Callable[[Any, int], object] = average or guide(guided_epochs)
    schedule = of_each_group(*(coop(rate, warmup) for _, rate, warmup in there))
    batches, held_out = train.batches(batch_size, shuffle=True), val.batches(64)
    fit(classifier, batches, held_out, optimizer, epochs, hook, schedule=schedule, name=name)
    if isinstance(classifier, PromptSRC) and average is not None:
        average.load(classifier)
    return classifier


def base_to_new_rows(
    clip: FrozenCLIP,
    methods: Sequence[str],
    make: Callable[[str, Sequence[str]], Any],
    learn: Callable[..., object],
    splits: Sequence[Any],
    augment: bool = False,
) -> "pd.DataFrame":
    """Accuracies in [0, 1] of zero-shot and of each method, trained on the first half of the classes.

    Columns: method; base, new and H, their harmonic mean.

    Args:
        clip: the frozen model.
        methods: names; without any nothing is embedded, and there are no rows.
        make: `make(method, class_names)` gives an untrained classifier, see `classifier_for`.
        learn: `learn(classifier, train, val, name)` trains in place, see `train_sides`.
        splits: image sets for training, validation and testing.
        augment: of the training images, see `cache_patches`.

    Source: Zhou et al. 2022 (CoCoOp), Sec. 4.1; see `base_to_new`.
    """
    import pandas as pd

    rows = []
    if methods:
        train, val, test = (images.base_new_split() for images in splits)
        base = cache_patches(clip, train[0], augment=augment), cache_patches(clip, val[0])
        tests = {half: cache_patches(clip, images) for half, images in zip(("base", "new"), test, strict=True)}

        def on_base(method: str, made: Any) -> object:
            return learn(made, *base, f"{method}, base")

        for method in ("zero-shot", *methods):
            found = base_to_new(partial(make, method), partial(on_base, method), tests)
            rows.append({"method": method} | found)
    return pd.DataFrame(rows, columns=["method", "base", "new", "H"])
