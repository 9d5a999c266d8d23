"""What prompting is compared with: linear probe (chapter 1), full fine-tuning (chapter 3), Tip-Adapter (chapter 5)."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, one_hot, pad

from vpkit.datasets.encoded_set import EncodedSet
from vpkit.datasets.image_set import ImageSet
from vpkit.interfaces import LabelledBatches
from vpkit.models.clip import clip_logits
from vpkit.models.frozen import FrozenModel, HoldsFrozen
from vpkit.training import schedules
from vpkit.training.history import History
from vpkit.training.loop import fit

CONTROLS = ("linear probe", "GDA", "ZS-LP", "CLAP", "Tip-Adapter", "Tip-Adapter-F")  # of `feature_controls`
REGULARISATION = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


class LinearProbe(HoldsFrozen):
    """A linear classifier on the frozen model's penultimate features.

    Args:
        weight, bias: (T, D) and (T,).
        chosen: the penalty C, or the scale, that validation chose.
        unit: features are scaled to length 1 first.
    """

    model: FrozenModel

    def __init__(self, model: FrozenModel, weight: Tensor, bias: Tensor, chosen: float = 1.0, unit: bool = False):
        super().__init__()
        self.hold("model", model)
        self.chosen, self.unit = chosen, unit
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)

    def forward(self, images: Tensor) -> Tensor:
        features = self.model.features(images)
        return (normalize(features, dim=1) if self.unit else features) @ self.weight.T + self.bias

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self(images)
        return cross_entropy(logits, labels), logits


def linear_probe(model: FrozenModel, train: LabelledBatches, val: LabelledBatches) -> LinearProbe:
    """Logistic regression (L-BFGS) on features computed once; the penalty is the best of five on validation.

    Features on the CPU are fitted by scikit-learn, those on a GPU there, in float32 by torch's L-BFGS: one optimum.

    Args:
        model: the frozen model.
        train, val: `ImageSet.batches(...)`; every class must occur in `train`.

    Raises:
        ValueError: a class without training images.
    """
    (features, labels), (val_features, val_labels) = _features(model, train), _features(model, val)
    _check_classes(labels, train.class_names)
    fit = _logistic_regression if features.device.type == "cpu" else _logistic_regression_there
    mean, scale = features.mean(0), features.std(0, correction=0) + 1e-6
    x, held_out = (features - mean) / scale, (val_features - mean) / scale

    def fitted(c: float) -> tuple[float, float, Tensor, Tensor]:
        weight, bias = fit(x, labels, len(train.class_names), c)
        hits = ((held_out @ weight.T + bias).argmax(1) == val_labels).float().mean()
        return float(hits), c, weight, bias

    _, c, weight, bias = max(map(fitted, REGULARISATION), key=lambda found: found[0])  # of equals the first
    weight = weight / scale  # the standardisation joins the weights
    bias = bias - weight @ mean
    like = model.mean
    return LinearProbe(model, weight.to(like), bias.to(like), c)


def _logistic_regression(x: Tensor, labels: Tensor, num_classes: int, c: float) -> tuple[Tensor, Tensor]:
    """Weights (T, D) and biases (T,) that minimise c times the summed cross-entropy plus half the squared weights."""
    from sklearn.linear_model import LogisticRegression

    probe = LogisticRegression(C=c, max_iter=500, tol=1e-3).fit(x.numpy(), labels.numpy())
    weight, bias = torch.from_numpy(probe.coef_), torch.from_numpy(probe.intercept_)
    if num_classes == 2:  # scikit-learn keeps one row for two classes
        return torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    return weight, bias


def _logistic_regression_there(x: Tensor, labels: Tensor, num_classes: int, c: float) -> tuple[Tensor, Tensor]:
    """The same where the features are."""
    weight, bias = x.new_zeros(num_classes, x.shape[1]), x.new_zeros(num_classes)
    optimizer = torch.optim.LBFGS(
        [weight.requires_grad_(), bias.requires_grad_()],
        max_iter=500,
        tolerance_grad=1e-5,
        line_search_fn="strong_wolfe",
    )
    # Half the penalty for two classes: theirs is that of one row for both, w and -w, as scikit-learn has it.
    penalty = (1 if num_classes == 2 else 0.5) / (c * len(x))

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(x @ weight.T + bias, labels) + penalty * weight.square().sum()
        loss.backward()
        return loss

    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # the line search compares losses that differ in the sixth digit
    try:
        optimizer.step(objective)
    finally:
        torch.set_float32_matmul_precision(precision)
    return weight.detach(), bias.detach()


def gaussian_discriminant(
    model: FrozenModel, train: LabelledBatches, val: LabelledBatches, zero_shot: Tensor | None = None
) -> LinearProbe:
    """GDA: one Gaussian a class over unit features, with a covariance in common. Nothing is trained.

    With class means m, pooled covariance S of n features and P = D pinv((n - 1) S + tr(S) I) the logits are
    zero-shot + a (x W + b), W = m P, b = -1/2 m P m. Of the scales a, the one with the highest likelihood on validation
    is taken.

    Args:
        model: its `features` (B, D) are used.
        train, val: `ImageSet.batches(...)`; every class must occur in `train`.
        zero_shot: (T, D) scaled text features, for a CLIP: `clip.logit_scale * clip.encode_text(...)`.

    Raises:
        ValueError: a class without training images.

    Source: Wang et al. 2024 (A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation), Eqs. 3 to 6.
    """
    (features, y), (val_features, targets) = (_features(model, batches) for batches in (train, val))
    _check_classes(y, train.class_names)
    x, held_out = normalize(features, dim=1), normalize(val_features, dim=1)
    means = torch.stack([x[y == t].mean(0) for t in range(len(train.class_names))])  # (T, D)
    centred, length = x - means[y], x.shape[1]
    scatter = centred.T @ centred  # (n - 1) S
    trace = (scatter.trace() / max(len(x) - 1, 1)).clamp(min=1e-12)
    precision = length * torch.linalg.pinv(scatter + trace * torch.eye(length).to(x), hermitian=True)
    weight = means @ precision
    bias = -0.5 * (weight * means).sum(1)
    usual = torch.zeros_like(weight) if zero_shot is None else zero_shot.detach().to(x)

    def likelihood(scale: float) -> float:
        logits = held_out @ (usual + scale * weight).T + scale * bias
        return -float(cross_entropy(logits, targets))

    best = max((10.0**power for power in np.arange(-4, 2.1, 0.25)), key=likelihood)
    like = model.mean
    return LinearProbe(model, (usual + best * weight).to(like), (best * bias).to(like), best, unit=True)


class FineTuned(nn.Module):
    """A trainable copy of a frozen model, with a new T-way head unless its own is to be kept: full fine-tuning.

    Training images are shifted by up to 1/8 of their side and, if `flip`, mirrored every other time; evaluation
    sees them as they are. (ILM-VP's released code keeps the 1000-way head and crops test images too.)

    Args:
        model: the frozen model, which stays as it is.
        num_target: number of target classes T; None keeps the head, such as CLIP's zero-shot one (chapter 4).
        flip: mirroring keeps the class; not so for digits or letters.
        batch_statistics: batch normalisation learns the statistics of the new images, as in training from scratch.
            False keeps those of the frozen model: where the head is kept and images are few, new statistics alone
            can cost more than a third of the accuracy before a weight has moved (`tiny-2` on `pictograms`).

    Source: Chen et al. 2023, Appendix D (FF). Explained in chapter 3.
    """

    def __init__(self, model: FrozenModel, num_target: int | None, flip: bool = True, batch_statistics: bool = True):
        super().__init__()
        self.model, self.flip, self.batch_statistics = deepcopy(model), flip, batch_statistics
        self.model.requires_grad_(True)
        if num_target is not None:
            self.model.replace_head(num_target)

    def train(self, mode: bool = True) -> "FineTuned":
        super().train(mode)
        self.model.network.train(mode)  # a FrozenModel would keep it in eval mode
        if not self.batch_statistics:
            for module in self.model.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        return self.model(augmented(images, self.flip) if self.training else images)

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self(images)
        return cross_entropy(logits, labels), logits


def fine_tune(
    model: FrozenModel,
    train: ImageSet,
    val: ImageSet,
    epochs: int,
    batch_size: int,
    lr: float = 1e-4,
    weight_decay: float = 0.0,
    *,
    new_head: bool = True,
    **options,
) -> tuple[FineTuned, History]:
    """Full fine-tuning of a copy of a frozen model by Adam with a cosine schedule, and how it went.

    Args:
        train, val: images as large as the model shall see them.
        new_head: a head for the classes of `train`; False keeps the model's own, and its batch statistics too.
        options: of `FineTuned`.

    Source: Chen et al. 2023, Appendix D (FF), has a learning rate of 1e-4. Explained in chapter 3.
    """
    head = len(train.class_names) if new_head else None
    tuned = FineTuned(model, head, **{"batch_statistics": new_head} | options).to(train.labels.device)
    adam = torch.optim.Adam(tuned.parameters(), lr=lr, weight_decay=weight_decay)
    batches = train.batches(batch_size, shuffle=True), val.batches()
    return tuned, fit(tuned, *batches, adam, epochs, schedule=schedules.cosine, name="full fine-tuning")


def augmented(images: Tensor, flip: bool = True) -> Tensor:
    """Each image (B, 3, h, w) shifted by up to 1/8 of its side in both directions (edges reflected), and mirrored."""
    count, _, height, width = images.shape
    down, right = height // 8, width // 8
    rows = torch.arange(height) + torch.randint(2 * down + 1, (count, 1))  # (B, h), in the padded image
    columns = torch.arange(width) + torch.randint(2 * right + 1, (count, 1))
    if flip:
        columns = torch.where(torch.rand(count, 1) < 0.5, columns, columns.flip(1))
    padded = pad(images, (right, right, down, down), mode="reflect")
    rows, columns = rows.to(images.device), columns.to(images.device)
    each = torch.arange(count, device=images.device)[:, None, None]
    return padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@torch.no_grad()
def _features(model: FrozenModel, batches: LabelledBatches) -> tuple[Tensor, Tensor]:
    """(N, D), as float64 on the CPU, and labels (N,)."""
    parts = [(model.features(images), labels) for images, labels in batches]
    features, labels = (torch.cat(part) for part in zip(*parts, strict=True))
    return features.double() if features.device.type == "cpu" else features.float(), labels


def _check_classes(labels: Tensor, class_names: Sequence[str]) -> None:
    missing = sorted(set(range(len(class_names))) - set(labels.tolist()))
    if missing:
        names = ", ".join(class_names[i] for i in missing)
        raise ValueError(f"no training image of: {names}; a probe needs at least one of each class")


class KnownFeatures(nn.Module):
    """A frozen model whose features are already there: what `linear_probe` and `gaussian_discriminant` ask of one.

    Args:
        like: a tensor on the device, and of the type, that classifiers shall have.
    """

    mean: Tensor

    def __init__(self, like: Tensor):
        super().__init__()
        self.register_buffer("mean", like.new_zeros(1), persistent=False)

    def features(self, images: Any) -> Tensor:
        """Features (B, D), or what has them as ``features``, as they are."""
        return getattr(images, "features", images)


def feature_controls(
    train: EncodedSet,
    val: Callable[[], EncodedSet],
    text: Tensor,
    logit_scale: Tensor,
    without: Sequence[str] = (),
) -> dict[str, nn.Module]:
    """What can be had from few images without any prompt, each as published: what a prompt has to beat.

    "linear probe" and "GDA" choose a number on validation, "Tip-Adapter" and "Tip-Adapter-F" (AdamW at 1e-3, 20
    epochs) two (`tune_votes`), "ZS-LP" and "CLAP" (SGD at 0.1, 300 epochs) nothing.

    Args:
        train: unit features, and labels.
        val: gives the same of validation images; called only if something is fitted.
        text: (T, D) unit text features, from which all but the probe start.
        logit_scale: `clip.logit_scale`.
        without: of these names, not to be fitted.

    Raises:
        ValueError: a class without training images.
    """
    found: dict[str, nn.Module] = {}
    if not set(CONTROLS) - set(without):
        return found
    features, labels, held_out = train.inputs, train.labels, val()
    model: Any = KnownFeatures(text)
    if "linear probe" not in without:
        found["linear probe"] = linear_probe(model, train.batches(), held_out.batches())
    if "GDA" not in without:
        found["GDA"] = gaussian_discriminant(model, train.batches(), held_out.batches(), logit_scale * text)
    for name, held in (("ZS-LP", False), ("CLAP", True)):
        if name not in without:
            probe = found[name] = CLAP(features, labels, text, logit_scale, held)
            sgd = torch.optim.SGD(probe.parameters(), lr=0.1, momentum=0.9)
            batches = train.batches(256, shuffle=True)
            fit(probe, batches, None, sgd, 300, schedule=schedules.cosine, show=False)
    for name in ("Tip-Adapter", "Tip-Adapter-F"):
        if name not in without:
            adapter = found[name] = TipAdapter(features, labels, text, logit_scale)
            if name == "Tip-Adapter-F":
                adam = torch.optim.AdamW(adapter.parameters(), lr=1e-3, eps=1e-4)
                batches = train.batches(256, shuffle=True)
                fit(adapter, batches, None, adam, 20, schedule=schedules.cosine, show=False)
            tune_votes(adapter, held_out.inputs, held_out.labels)
    return found


class TipAdapter(nn.Module):
    """Tip-Adapter: zero-shot logits plus the votes of the training images that a test image resembles.

    Trained (`fit`), its keys move and it is Tip-Adapter-F. The paper trains them by AdamW at 1e-3 for 20 epochs, then
    chooses alpha and beta on validation: `tune_votes`.

    Args:
        keys: (N, D) unit features of the training images.
        labels: (N,) their classes.
        text: (T, D) unit text features.
        logit_scale: `clip.logit_scale`.
        sharpness: beta; the default is the paper's for ImageNet.
        share: alpha, what a vote counts beside the zero-shot logits; the default is the paper's for ImageNet.

    Source: Zhang et al. 2022 (Tip-Adapter), Eqs. 4 and 5. Explained in chapter 5.
    """

    classes: Tensor
    text: Tensor
    logit_scale: Tensor

    def __init__(
        self,
        keys: Tensor,
        labels: Tensor,
        text: Tensor,
        logit_scale: Tensor,
        sharpness: float = 5.5,
        share: float = 1.0,
    ):
        super().__init__()
        self.keys, self.sharpness, self.share = nn.Parameter(keys.clone()), sharpness, share
        classes = one_hot(labels, len(text)).to(keys.dtype)  # (N, T)
        for name, value in (("classes", classes), ("text", text), ("logit_scale", logit_scale)):
            self.register_buffer(name, value.detach(), persistent=False)

    def votes(self, features: Tensor) -> Tensor:
        """Features (..., D) to votes (..., T): a key of class c adds exp(-sharpness (1 - cosine)) to class c."""
        near = torch.exp(-self.sharpness * (1 - clip_logits(features, self.keys)))  # (..., N)
        return clip_logits(near, self.classes.T)

    def forward(self, images: Any) -> Tensor:
        """Features (B, D), or what has them as ``features``, to logits (B, T)."""
        features = getattr(images, "features", images)
        return clip_logits(features, self.text, self.logit_scale) + self.share * self.votes(features)

    def loss(self, images: Any, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self(images)
        return cross_entropy(logits, labels), logits


@torch.no_grad()
def tune_votes(adapter: TipAdapter, features: Tensor, labels: Tensor, steps: int = 20) -> float:
    """Give a `TipAdapter` the alpha and beta that are best on validation; returns the accuracy there, in [0, 1].

    Args:
        features, labels: (N, D) unit features of validation images, and (N,).
        steps: of a grid over beta in [1, 7] and, at each, over alpha on a log scale from 0.01 to 100; of equals the
            smallest alpha wins, which trusts the training images least.

    Source: Zhang et al. 2022 (Tip-Adapter), Sec. 4 and the search in its released code, whose alphas end at 3.
    """
    zero_shot, best = clip_logits(features, adapter.text, adapter.logit_scale), (-1.0, 0.0, 0.0)
    for beta in torch.linspace(1, 7, steps).tolist():
        adapter.sharpness = beta
        votes = adapter.votes(features)
        for alpha in torch.logspace(-2, 2, steps).tolist():
            accuracy = float(((zero_shot + alpha * votes).argmax(1) == labels).float().mean())
            best = max(best, (accuracy, -alpha, beta))
    accuracy, minus_alpha, adapter.sharpness = best
    adapter.share = -minus_alpha
    return accuracy


class CLAP(nn.Module):
    """A linear probe on image features that starts at the text features and is held near them, class by class.

    With `held=False` it is ZS-LP, the same without the penalty. No validation set is needed for either.

    Args:
        features: (N, D) unit features of the training images, by which the penalties are set.
        labels: (N,) their classes.
        text: (T, D) unit text features t.
        logit_scale: `clip.logit_scale`.
        held: whether the penalty counts.

    The loss is cross-entropy + mean over k of lambda_k ||w_k - t_k||^2. lambda_k is the mean zero-shot probability of
    class k on its own training images: where the text is right, it is trusted; 0 for a class without images.

    Source: Silva-Rodriguez et al. 2024 (A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models),
    Secs. 4 and 5; SGD at 0.1 over 300 epochs there.
    """

    text: Tensor
    logit_scale: Tensor
    penalties: Tensor

    def __init__(self, features: Tensor, labels: Tensor, text: Tensor, logit_scale: Tensor, held: bool = True):
        super().__init__()
        self.weight, self.held = nn.Parameter(text.detach().clone()), held
        likely = clip_logits(features, text, logit_scale).softmax(1)  # (N, T)
        own = one_hot(labels, len(text)).to(likely)
        penalties = (own * likely).sum(0) / own.sum(0).clamp(min=1)
        for name, value in (("text", text), ("logit_scale", logit_scale), ("penalties", penalties)):
            self.register_buffer(name, value.detach(), persistent=False)

    def forward(self, images: Any) -> Tensor:
        """Features (B, D), or what has them as ``features``, to logits (B, T)."""
        return clip_logits(getattr(images, "features", images), normalize(self.weight, dim=1), self.logit_scale)

    def loss(self, images: Any, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self(images)
        away = (self.penalties * (self.weight - self.text).square().sum(1)).mean()
        return cross_entropy(logits, labels) + (away if self.held else 0), logits
