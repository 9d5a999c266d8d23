"""LoGoPrompt: class names rendered as images are the prompts; the true class must win with and without its name."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, nll_loss

from vpkit.datasets.batches import Batches
from vpkit.datasets.encoded_set import AugmentedBatches, EncodedSet, cache_features, crop_and_flip
from vpkit.datasets.image_set import ImageSet
from vpkit.mappings.one_to_one import identity_mapping
from vpkit.methods.baselines import TipAdapter
from vpkit.methods.coop import KgCoOp, TextPromptedClassifier
from vpkit.methods.protocols import base_to_new
from vpkit.methods.vp import PromptedClassifier
from vpkit.models.clip import FrozenCLIP, clip_logits
from vpkit.prompts.context import ContextPrompt, GeneratedContext, MetaNet, WrittenText, coop_context
from vpkit.prompts.name_strips import paste, render_class_names, strip_offsets
from vpkit.prompts.pixels import PadPrompt
from vpkit.prompts.templates import fill_templates

if TYPE_CHECKING:  # takes a second to load
    import pandas as pd

__all__ = [
    "LEARNERS",
    "LoGoPromptClassifier",
    "NamePastedImages",
    "NamesAsDataClassifier",
    "PastedFeatureCache",
    "PastedImages",
    "PixelClassifier",
    "Selection",
    "TunableLoGoPromptClassifier",
    "attack_table",
    "base_to_new_table",
    "classifier_for",
    "hard_negatives",
    "min_max_loss",
    "of_the_same_text",
    "reselect",
    "variants",
]


LEARNERS = ("CoOp", "CoOp, class-specific", "LoGoPrompt", "LoGoPrompt, shared")  # of few shots of every class


def hard_negatives(logits: Tensor, labels: Tensor, count: int = 5) -> Tensor:
    """The most probable wrong classes of each image: (B, T) logits and (B,) labels to (B, min(count, T - 1)).

    No gradient passes through the ranking. `count` is cut to the wrong classes there are (EuroSAT's halves have 4).

    Raises:
        ValueError: a count below 1, fewer than two classes.
    """
    if count < 1:
        raise ValueError(f"count={count}: the loss needs at least 1 negative class")
    if logits.shape[1] < 2:
        raise ValueError(f"{logits.shape[1]} class: there is no wrong one to tell it from")
    wrong = logits.detach().scatter(1, labels[:, None], float("-inf"))
    return wrong.topk(min(count, logits.shape[1] - 1), dim=1).indices


def min_max_loss(plain: Tensor, with_name: Tensor, named: Tensor, include_positive: bool = True) -> Tensor:
    """The min-max contrastive loss, mean over the batch, from *log* probabilities.

    Args:
        plain: (B, T) log p(c | x).
        with_name: (B, 1 + K) log p(c | x_c), each class with its own name on the image.
        named: (B, 1 + K) the classes c: first the true one, then K wrong ones.
        include_positive: InfoNCE with the positive in the denominator, log(1 + e^L). False is Eq. 3 as printed, which
            is not bounded below.

    Source: Shi & Yang 2023, Eq. 3. Explained in chapter 5.
    """
    without = plain.gather(1, named)
    positive = torch.minimum(without[:, 0], with_name[:, 0])
    negative = torch.maximum(without[:, 1:], with_name[:, 1:]).logsumexp(1)
    printed = negative - positive
    return (torch.nn.functional.softplus(printed) if include_positive else printed).mean()


class Selection(NamedTuple):
    """What `reselect` decided: predictions (B,), candidates (B, K), their scores (B, K), and where the pasted names
    changed the plain prediction (B,) bool."""

    prediction: Tensor
    candidates: Tensor
    scores: Tensor
    changed: Tensor


def reselect(plain: Tensor, pasted, count: int = 5) -> Selection:
    """Inference: the best of the top candidates by max(p(c | x), p(c | x_c)).

    Args:
        plain: (B, T) log p(c | x).
        pasted: function from candidates (B, K) to log p(c_k | x_{c_k}) (B, K).
        count: number K of candidates, cut to T.

    Raises:
        ValueError: a count below 1.

    Source: Shi & Yang 2023, Sec. 3.2.2. Explained in chapter 5.
    """
    if count < 1:
        raise ValueError(f"count={count}: selection needs at least 1 candidate")
    top = plain.topk(min(count, plain.shape[1]), dim=1)
    scores = torch.maximum(top.values, pasted(top.indices))
    prediction = top.indices.gather(1, scores.argmax(1, keepdim=True))[:, 0]
    return Selection(prediction, top.indices, scores, prediction != top.indices[:, 0])


class PastedFeatureCache:
    """Features of image i with the name of class c pasted on it, computed when first asked for and then kept.

    With frozen strips, fixed locations and no augmentation these never change, so training touches only text.

    Args:
        encode: (B, 3, H, W) in [0, 1] to (B, D), such as `clip.encode_image`.
        images: (N, 3, H, W) uint8; may stay on the CPU if they are many.
        strips: (T, 3, h, W) uint8, from `render_class_names`, on the device of `encode`.
        tops: (N,) row of the strip on each image, on that device.
        batch_size: pasted images encoded at a time.

    Attributes:
        encoded: how many pairs have been computed.
    """

    def __init__(
        self, encode: Callable[[Tensor], Tensor], images: Tensor, strips: Tensor, tops: Tensor, batch_size: int = 64
    ):
        self.encode, self.images, self.strips, self.tops, self.batch_size = encode, images, strips, tops, batch_size
        self.row = torch.full((len(images) * len(strips),), -1, dtype=torch.int64)  # of pair image * T + class
        self.table: Tensor | None = None  # (room, D), the first `encoded` rows are filled
        self.encoded = 0

    @torch.no_grad()
    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """Indices of images (B,) and classes (B, K) to features (B, K, D)."""
        wanted = (image[:, None] * len(self.strips) + target).cpu()  # waits for a GPU: what is missing must be known
        missing = wanted.unique()
        missing = missing[self.row[missing] < 0]
        for part in missing.split(self.batch_size) if len(missing) else ():  # an empty tensor splits into one part
            i, c = part // len(self.strips), part % len(self.strips)
            self._keep(part, self.encode(paste(self.pixels(i), self.strips[c], self.tops[i])))
        if self.table is None:  # nothing was asked for, so nothing is known of the features
            raise ValueError("no image and class was ever asked for: expected at least one of each")
        return self.table[self.row[wanted].to(self.table.device)]

    def pixels(self, image: Tensor) -> Tensor:
        """Indices (B,) to images (B, 3, H, W) in [0, 1], beside the strips."""
        return self.images[image.to(self.images.device)].to(self.strips.device).float() / 255

    def _keep(self, pairs: Tensor, features: Tensor) -> None:
        """Room is doubled when it runs out: copying the table for every batch would cost more than the batch."""
        end = self.encoded + len(pairs)
        if self.table is None:
            self.table = features.new_empty(1024, features.shape[1])
        while end > len(self.table):
            self.table = torch.cat([self.table, torch.empty_like(self.table)])
        self.table[self.encoded : end] = features
        self.row[pairs] = torch.arange(self.encoded, end)
        self.encoded = end


@dataclass(frozen=True)
class PastedImages:
    """A batch of images on which names may be pasted: positions in a split, whose features are looked up.

    Attributes:
        features: (B, D) unit features of the plain images.
        positions: (B,) in the split.
        pairs: of the whole split.
    """

    features: Tensor
    positions: Tensor
    pairs: PastedFeatureCache

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, rows) -> "PastedImages":
        return PastedImages(self.features[rows], self.positions[rows], self.pairs)

    @property
    def device(self) -> torch.device:
        return self.features.device

    @property
    def pixels(self) -> Tensor:
        """(B, 3, H, W) in [0, 1]."""
        return self.pairs.pixels(self.positions)

    def with_names(self, classes: Tensor) -> Tensor:
        """Features (B, K, D) of each image with the name of each of its classes (B, K) on it."""
        return self.pairs(self.positions, classes)

    def pixels_with_names(self, classes: Tensor, strips: Tensor | None = None, tops: Tensor | None = None) -> Tensor:
        """The images themselves (B, K, 3, H, W) in [0, 1], with the name of each of their classes (B, K) on them.

        Args:
            strips: (T, 3, h, W), the split's own by default.
            tops: (B K,) row of each strip; by default an image's own place.
        """
        strips = self.pairs.strips if strips is None else strips
        classes, count = classes.to(strips.device), classes.shape[1]
        images = self.pixels.repeat_interleave(count, 0)  # (B K, 3, H, W)
        if tops is None:
            tops = self.pairs.tops[self.positions].repeat_interleave(count, 0)
        return paste(images, strips[classes.flatten()], tops).unflatten(0, (-1, count))

    def with_strips(self, classes: Tensor, strips: Tensor, tops: Tensor | None = None) -> Tensor:
        """Features as `with_names`, from strips (T, 3, h, W) in [0, 1] that may take gradients: encoded anew."""
        images = self.pixels_with_names(classes, strips, tops)  # (B, K, 3, H, W)
        return self.pairs.encode(images.flatten(0, 1)).unflatten(0, images.shape[:2])


class NamePastedImages:
    """A split with the features of its images, and with the rendered names of its classes to paste on them.

    Args:
        clip: the frozen model.
        images: as large as the model takes.
        ratio: height of the strips as a share of the side.
        location: of the strip: "random" (drawn once for each image), "top" or "bottom".
        seed: of the places. The colours of the names do not depend on it.
        augment: batches are made from the images in each pass, cropped and mirrored (`crop_and_flip`), the strips at
            new places; then every image, plain and with each name, goes through the tower again.

    Attributes:
        inputs, labels: `PastedImages` and (N,), not augmented.
        strips: (T, 3, h, s) uint8.
        pairs: `PastedFeatureCache`.

    Raises:
        ValueError: as `render_class_names` and `strip_offsets`.

    Source: Shi & Yang 2023, Sec. 3.2.1. Explained in chapter 5.
    """

    def __init__(
        self,
        clip: FrozenCLIP,
        images: ImageSet,
        ratio: float = 1 / 7,
        location: str = "random",
        seed: int = 0,
        augment: bool = False,
    ):
        self.encode, self.location, self.augment = clip.encode_image, location, augment
        self.images, self.labels, self.class_names = images, images.labels, images.class_names
        pixels = images.images
        side = pixels.shape[3]
        self.strips = render_class_names(self.class_names, side, round(ratio * side)).to(self.labels.device)
        tops = strip_offsets(len(images), side, self.strips.shape[2], location, seed).to(self.labels.device)
        self.pairs = PastedFeatureCache(clip.encode_image, pixels, self.strips, tops)
        positions = torch.arange(len(images), device=self.labels.device)
        self.inputs = PastedImages(cache_features(clip.encode_image, images).inputs, positions, self.pairs)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def encoded(self) -> EncodedSet:
        """The features of the plain images, not augmented, and their labels."""
        return EncodedSet(self.inputs.features, self.labels, self.class_names)

    def batches(
        self, batch_size: int | None = None, shuffle: bool = False, generator: torch.Generator | None = None
    ) -> Batches | AugmentedBatches:
        """Batches of (`PastedImages`, labels); see `Batches`."""
        if self.augment:
            return AugmentedBatches(self.images.batches(batch_size, shuffle, generator), self._anew, crop_and_flip)
        return Batches(self.inputs, self.labels, self.class_names, batch_size, shuffle, generator)

    def _anew(self, x: Tensor) -> PastedImages:
        """Images (B, 3, H, W) in [0, 1] that were changed, with strips at new places."""
        tops = strip_offsets(len(x), x.shape[3], self.strips.shape[2], self.location).to(x.device)
        pairs = PastedFeatureCache(self.encode, x.mul(255).round().byte(), self.strips, tops)
        positions = torch.arange(len(x), device=x.device)
        return PastedImages(self.encode(pairs.pixels(positions)), positions, pairs)

    @torch.no_grad()
    def attacked(self, text: Tensor, wrong: Tensor) -> "pd.DataFrame":
        """What a written name does: shares of the images, for the plain ones, with the true name, with a wrong one.

        Args:
            text: (T, D) unit text features.
            wrong: (N,) a wrong class for each image.

        Returns:
            Columns "plain", "true name" and "wrong name": the shares that are "right", have their "true score raised"
            above that of the plain image, and are "called by the wrong name".

        Source: Shi & Yang 2023, Fig. 1b; the attack is that of Goh et al. 2021.
        """
        import pandas as pd

        features, rows = self.inputs.features, {}
        before = (features * text[self.labels]).sum(1)
        for view, written in {"plain": None, "true name": self.labels, "wrong name": wrong}.items():
            shown = features if written is None else self.inputs.with_names(written[:, None])[:, 0]
            said, raised = (shown @ text.T).argmax(1), (shown * text[self.labels]).sum(1) > before
            shares = {
                "right": said == self.labels,
                "true score raised": raised,
                "called by the wrong name": said == wrong,
            }
            rows[view] = {name: float(share.float().mean()) for name, share in shares.items()}
        return pd.DataFrame(rows)


class LoGoPromptClassifier(nn.Module):
    """`PastedImages` to log probabilities (B, T): learned text, tested with the candidates' names on the image.

    Trained with the min-max contrastive loss; in evaluation the best of the top candidates wins (`reselect`).

    Args:
        prompt: gives the text features: `ContextPrompt`, shared or class-specific, or `GeneratedContext` (the first of
            two stages; the second is a classifier around its `fixed()`).
        logit_scale: `clip.logit_scale`.
        num_candidates: number K of negatives in training and of candidates at test, cut to what there is.
        include_positive: see `min_max_loss`.
        adapter: `TipAdapter` whose votes are added to the logits.

    Source: Shi & Yang 2023, Sec. 3.2. Explained in chapter 5.
    """

    logit_scale: Tensor

    def __init__(
        self,
        prompt: nn.Module,
        logit_scale: Tensor,
        num_candidates: int = 5,
        include_positive: bool = True,
        adapter: TipAdapter | None = None,
    ):
        super().__init__()
        self.prompt, self.adapter = prompt, adapter
        self.num_candidates, self.include_positive = num_candidates, include_positive
        self.register_buffer("logit_scale", logit_scale.detach().clone(), persistent=False)

    def forward(self, images: PastedImages) -> Tensor:
        """Log probabilities (B, T), those of the candidates the larger of the two: without and with the name."""
        plain = self._log_p(images.features, self.prompt())
        chosen = self.select(images)
        scores = plain.scatter(1, chosen.candidates, chosen.scores)
        best = chosen.scores.amax(1, keepdim=True)  # of equals the likelier one without a name wins, as in `reselect`
        return scores.scatter(1, chosen.prediction[:, None], torch.nextafter(best, torch.full_like(best, torch.inf)))

    def select(self, images: PastedImages) -> Selection:
        """The best of the top candidates, with and without their names; see `reselect`."""
        text = self.prompt()

        def pasted(candidates: Tensor) -> Tensor:
            return self._log_p_of_named(images, candidates, text)

        return reselect(self._log_p(images.features, text), pasted, self.num_candidates)

    @torch.no_grad()
    def asked(self, images: PastedImages, count: int | None = None) -> "pd.DataFrame":
        """How the first of some images is decided: a row a candidate, the likeliest on the plain image first.

        Columns: "class"; "plain" p(c | x) and "with its name" p(c | x_c), in [0, 1]; the "smaller" of the two, by which
        a true class is trained; the "larger", which decides; and whether the class is "chosen".

        Args:
            images: at least one.
            count: of candidates; `num_candidates` by default.
        """
        import pandas as pd

        text, one = self.prompt(), images[:1]
        plain, with_names = self._log_p(one.features, text), []

        def pasted(candidates: Tensor) -> Tensor:
            with_names.append(self._log_p_of_named(one, candidates, text))
            return with_names[0]

        chosen = reselect(plain, pasted, count or self.num_candidates)
        candidates, named = chosen.candidates[0], with_names[0][0].exp()
        plain = plain[0, candidates].exp()
        columns = {
            "class": candidates, "plain": plain, "with its name": named, "smaller": plain.minimum(named),
            "larger": plain.maximum(named), "chosen": candidates == chosen.prediction,
        }  # fmt: skip
        return pd.DataFrame({name: values.tolist() for name, values in columns.items()})

    def loss(self, images: PastedImages, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The min-max loss and the plain log probabilities; in evaluation the loss of what `forward` gives."""
        if not self.training:
            scores = self(images)
            return nll_loss(scores, labels), scores
        text = self.prompt()  # (T, D), once for both
        plain = self._log_p(images.features, text)  # (B, T)
        wrong = hard_negatives(plain, labels, self.num_candidates)  # (B, K), what it is confused with now
        named = torch.cat([labels[:, None], wrong], 1)  # (B, 1 + K)
        with_name = self._log_p_of_named(images, named, text)
        return min_max_loss(plain, with_name, named, self.include_positive), plain

    def _log_p(self, features: Tensor, text: Tensor) -> Tensor:
        """Image features (..., D) to log probabilities (..., T)."""
        logits = clip_logits(features, text, self.logit_scale)
        return (logits if self.adapter is None else logits + self.adapter.votes(features)).log_softmax(-1)

    def _log_p_of_named(self, images: PastedImages, classes: Tensor, text: Tensor) -> Tensor:
        """Classes (B, K) to the log probability (B, K) of each on the image that has its name."""
        return self._log_p(self._encode_named(images, classes), text).gather(2, classes[..., None])[..., 0]

    def _encode_named(self, images: PastedImages, classes: Tensor) -> Tensor:
        return images.with_names(classes)


class TunableLoGoPromptClassifier(LoGoPromptClassifier):
    """LoGoPrompt whose rendered names are learned too, pixel by pixel.

    K + 1 images go through the image tower for each one, in training each at a new place.

    Args:
        strips: (T, 3, h, W) uint8 to start from, such as `NamePastedImages.strips`.
        location: of the strips in training; a test image keeps its own place.
        options: as for `LoGoPromptClassifier`.

    Source: Shi & Yang 2023, Sec. 4.4 (tunable visual prompts). Explained in chapter 5.
    """

    def __init__(self, prompt: nn.Module, logit_scale: Tensor, strips: Tensor, location: str = "random", **options):
        super().__init__(prompt, logit_scale, **options)
        self.strips, self.location = nn.Parameter(strips.float() / 255), location

    def _encode_named(self, images: PastedImages, classes: Tensor) -> Tensor:
        if not self.training:
            return images.with_strips(classes, self.strips.clamp(0, 1))
        height, side = self.strips.shape[2:]
        tops = strip_offsets(classes.numel(), side, height, self.location)
        return images.with_strips(classes, self.strips, tops)


class NamesAsDataClassifier(TextPromptedClassifier):
    """CoOp with class names as more training images, which teach it less than selection does.

    Args:
        name_features: (T, D) features of images that show only a name; None pastes the true name on each image.
        num_images: of the training split, with which the names are mixed as one more image a class: a batch of B gets
            T B / N of them. None adds all T to every batch.

    Source: Shi & Yang 2023, Table 4a, rows 1 and 2. Explained in chapter 5.
    """

    name_features: Tensor | None

    def __init__(
        self,
        prompt: nn.Module,
        logit_scale: Tensor,
        name_features: Tensor | None = None,
        num_images: int | None = None,
    ):
        super().__init__(prompt, logit_scale)
        self.num_images = num_images
        self.register_buffer("name_features", name_features, persistent=False)

    def loss(self, images: PastedImages, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self(images)
        if not self.training:
            return cross_entropy(logits, labels), logits
        if self.name_features is None:
            more, named = images.with_names(labels[:, None])[:, 0], labels
        else:
            count = len(self.name_features)
            share = count if self.num_images is None else max(1, round(count * len(labels) / self.num_images))
            named = torch.randperm(count)[:share].to(labels.device)
            more = self.name_features[named]
        both = torch.cat([logits, self(more)])
        return cross_entropy(both, torch.cat([labels, named])), logits


class PixelClassifier(nn.Module):
    """A classifier of images, given `PastedImages`: it looks at their pixels."""

    def __init__(self, classifier: PromptedClassifier):
        super().__init__()
        self.classifier = classifier

    def loss(self, images: PastedImages, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.classifier.loss(images.pixels, labels)


def of_the_same_text(
    learned: LoGoPromptClassifier, train: EncodedSet, written: Tensor
) -> dict[str, TextPromptedClassifier | LoGoPromptClassifier]:
    """Two more ways to use what LoGoPrompt has learned, nothing trained: no name pasted, and with Tip-Adapter's votes.

    Args:
        train: features of the training images, the adapter's keys, with the alpha and beta of ImageNet.
        written: (T, D) unit features of the hand-written text.

    Source: Shi & Yang 2023, Table 2 (the adapter without its search).
    """
    adapter = TipAdapter(train.inputs, train.labels, written, learned.logit_scale)
    kept: dict[str, Any] = {key: getattr(learned, key) for key in ("num_candidates", "include_positive")}
    return {
        "LoGoPrompt, name not pasted": TextPromptedClassifier(learned.prompt, learned.logit_scale),
        "LoGoPrompt + adapter": LoGoPromptClassifier(learned.prompt, learned.logit_scale, adapter=adapter, **kept),
    }


def classifier_for(
    method: str,
    class_names: Sequence[str],
    clip: FrozenCLIP,
    template: str = "a photo of a {}.",
    context_length: int = 4,
    num_candidates: int = 5,
    seed: int = 0,
) -> TextPromptedClassifier | LoGoPromptClassifier:
    """An untrained classifier of chapter 5 by the name of its method.

    Args:
        method: "zero-shot", "CoOp", "CoOp, class-specific", "CoCoOp", "KgCoOp", "LoGoPrompt" (class-specific),
            "LoGoPrompt, shared", "LoGoPrompt, first stage" (contexts that are generated from the names), or, as
            controls, "zero-shot, names pasted" and "LoGoPrompt, first stage, not pasted".
        class_names: T of them.
        template: of zero-shot, and what generated contexts start from.
        context_length: learned words; four start as "a photo of a", others at random.
        num_candidates: K, see `LoGoPromptClassifier`.
        seed: of what starts at random, set anew for each prompt.

    Raises:
        ValueError: another method.
    """

    def context(class_specific: bool = False) -> ContextPrompt:
        torch.manual_seed(seed)
        return coop_context(clip, class_names, context_length, class_specific)

    def generated() -> GeneratedContext:
        return GeneratedContext(context(), written())

    written, scale = WrittenText(clip, class_names, template), clip.logit_scale
    coop = partial(TextPromptedClassifier, logit_scale=scale)
    logo = partial(LoGoPromptClassifier, logit_scale=scale, num_candidates=num_candidates)
    made: dict[str, Callable[[], TextPromptedClassifier | LoGoPromptClassifier]] = {
        "zero-shot": lambda: coop(written),
        "zero-shot, names pasted": lambda: logo(written),
        "CoOp": lambda: coop(context()),
        "CoOp, class-specific": lambda: coop(context(class_specific=True)),
        "CoCoOp": lambda: coop(context(), shift=MetaNet(clip.embed_dim, clip.text_width).to(clip.mean.device)),
        "KgCoOp": lambda: KgCoOp(context(), scale, written(), weight=1.0),
        "LoGoPrompt": lambda: logo(context(class_specific=True)),
        "LoGoPrompt, shared": lambda: logo(context()),
        "LoGoPrompt, first stage": lambda: logo(generated()),
        "LoGoPrompt, first stage, not pasted": lambda: coop(generated()),
    }
    if method not in made:
        raise ValueError(f"method={method!r}: expected one of {', '.join(made)}")
    return made[method]()


def variants(
    methods: Sequence[str],
    clip: FrozenCLIP,
    train: NamePastedImages,
    make: Callable[[str, Sequence[str]], Any],
    learn: Callable[..., Any],
    epochs: int,
    location: str = "random",
    template: str = "a photo of a {}.",
    learned: LoGoPromptClassifier | None = None,
) -> dict[str, nn.Module]:
    """The paper's other rows, trained: what LoGoPrompt's text does otherwise used, and what `methods` names.

    Args:
        methods: any of "Table 4a", "two stages", "CoCoOp", "VP+TP", "tunable".
        train: shows the classes, their strips and the number of pixels.
        make: `make(method, class_names)`, such as `classifier_for`.
        learn: `learn(classifier, train, epochs, name)`, such as `train_text`.
        epochs: of LoGoPrompt. CoCoOp, which needs sentences for every image, and tunable strips get a sixth.
        location: of the strips.
        template: of VP+TP's sentences.
        learned: LoGoPrompt as trained (`of_the_same_text`), from which tunable strips go on; None: an untrained one.

    Source: Shi & Yang 2023, Tables 2, 4a and Secs. 3.2.3, 4.4. Explained in chapter 5.
    """
    names, scale, few = train.class_names, clip.logit_scale, max(1, epochs // 6)
    found: dict[str, Any] = {}
    if learned is not None:
        found |= of_the_same_text(learned, train.encoded, WrittenText(clip, names, template)())
    if "CoCoOp" in methods:
        found["CoCoOp"] = learn(make("CoCoOp", names), train, few, "CoCoOp")
    if "VP+TP" in methods:
        frame = PadPrompt(clip.image_size, clip.image_size // 8, scale=clip.std.cpu())
        sentences = clip.zero_shot(fill_templates(template, names), names)
        pixels = PromptedClassifier(frame, sentences, identity_mapping(len(names)))
        found["VP+TP"] = learn(PixelClassifier(pixels.to(train.labels.device)), train, epochs, "VP+TP", lr=3.0)
    if "two stages" in methods:
        first = learn(make("LoGoPrompt, first stage", names), train, 2 * epochs, "LoGoPrompt, first stage")
        second = LoGoPromptClassifier(first.prompt.fixed(), scale, first.num_candidates, first.include_positive)
        found["LoGoPrompt, first stage"] = first
        found["LoGoPrompt, two stages"] = learn(second, train, epochs, "LoGoPrompt, two stages")
    if "tunable" in methods:
        usual = make("LoGoPrompt", names) if learned is None else learned
        options: dict[str, Any] = {"num_candidates": usual.num_candidates, "include_positive": usual.include_positive}
        tunable = TunableLoGoPromptClassifier(deepcopy(usual.prompt), scale, train.strips, location, **options)
        found["LoGoPrompt tunable"] = learn(tunable, train, few, "LoGoPrompt tunable")
    if "Table 4a" in methods:
        only_names = render_class_names(names, clip.image_size, clip.image_size).to(train.labels.device)
        for method, features in (("names as images", clip.encode_image(only_names / 255)), ("names pasted", None)):
            prompt = make("CoOp, class-specific", names).prompt
            as_data = NamesAsDataClassifier(prompt, scale, features, len(train))
            found[method] = learn(as_data, train, epochs, method)
    return found


def base_to_new_table(
    make: Callable[[str, Sequence[str]], Any],
    learn: Callable[..., Any],
    named: Callable[..., NamePastedImages],
    images: tuple[ImageSet, ImageSet],
    epochs: int,
    methods: Sequence[str] = ("base to new",),
    without: Sequence[str] = (),
    augment: bool = False,
) -> "pd.DataFrame":
    """Columns base, new, H of zero-shot, CoOp, LoGoPrompt shared and generated, and what else `methods` names.

    Args:
        make: `make(method, class_names)`, such as `classifier_for`.
        learn: `learn(classifier, train, epochs, name)`; a name ends in ", base".
        named: images to `NamePastedImages`.
        images: training and test images of all classes.
        epochs: CoCoOp gets a sixth.
        methods: without "base to new" among them the result is empty; "KgCoOp" and "CoCoOp" are trained, too.
        without: of these names, not to be trained.
        augment: of the training images.

    Source: Shi & Yang 2023, Table 1. Explained in chapter 5.
    """
    import pandas as pd

    if "base to new" not in methods:
        return pd.DataFrame(columns=["base", "new", "H"]).rename_axis("method")
    train = named(images[0].base_new_split()[0], augment=augment)
    halves = dict(zip(("base", "new"), map(named, images[1].base_new_split()), strict=True))
    rows = {
        method: base_to_new(partial(make, method), id, halves) for method in ("zero-shot", "zero-shot, names pasted")
    }
    more = [method for method in ("KgCoOp", "CoCoOp") if method in methods]
    for method in ("CoOp", "LoGoPrompt, shared", *more):
        if method not in without:
            rounds = max(1, epochs // 6) if method == "CoCoOp" else epochs
            rows[method] = base_to_new(
                partial(make, method), partial(learn, split=train, epochs=rounds, name=f"{method}, base"), halves
            )
    first, state = "LoGoPrompt, first stage", {}
    if first not in without:

        def learn_and_keep(stage: Any) -> None:
            state.update(learn(stage, split=train, epochs=epochs, name=f"{first}, base").state_dict())

        rows[first] = base_to_new(partial(make, first), learn_and_keep, halves)
        plain = f"{first}, not pasted"
        rows[plain] = base_to_new(partial(make, plain), lambda stage: stage.load_state_dict(state), halves)
    return pd.DataFrame(rows).T.rename_axis("method")


@torch.no_grad()
def attack_table(classifiers: Mapping[str, Any], split: NamePastedImages, wrong: Tensor) -> "pd.DataFrame":
    """Who follows a wrong name written on the image: rows of method, right_if_misnamed, called_as_written in [0, 1].

    Args:
        classifiers: by method; looked at are zero-shot and `LEARNERS`, with their text as `.prompt`.
        wrong: (N,) a wrong class for each image.
    """
    import pandas as pd

    rows = []
    for method in ("zero-shot", *LEARNERS):
        if method not in classifiers:
            continue
        found = split.attacked(classifiers[method].prompt(), wrong)["wrong name"]
        rows.append((method, found["right"], found["called by the wrong name"]))
    return pd.DataFrame(rows, columns=["method", "right_if_misnamed", "called_as_written"])
