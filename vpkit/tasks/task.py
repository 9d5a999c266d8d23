"""A folder of images to a classifier on a frozen model: fitted, chosen on validation, asked."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
import scipy  # its parts load when they are used
import torch
from torch import Tensor, nn

from vpkit.datasets import ImageSet
from vpkit.datasets.batches import resized
from vpkit.datasets.source import content_digest, read_image
from vpkit.mappings.one_to_one import LabelMapping
from vpkit.methods.baselines import LinearProbe, gaussian_discriminant, linear_probe
from vpkit.methods.clip_vp import every_sentence, text_prompt
from vpkit.methods.dpt import DualPromptClassifier
from vpkit.methods.ilm_vp import MAPPINGS, empty_mapping, remap
from vpkit.methods.vp import PromptedClassifier, count_parameters
from vpkit.models.clip import CLIP_MODELS, clip_image_size, load_clip
from vpkit.models.frozen import FROZEN_MODELS, FrozenModel, load_frozen
from vpkit.prompts.pixels import ExpandPrompt, PadPrompt
from vpkit.tasks.on_clip import ON_CLIP, OnImages, build_on_clip, fit_on_clip
from vpkit.training.history import History
from vpkit.training.loop import Evaluation, evaluate, fit
from vpkit.training.schedules import multistep

__all__ = [
    "MAPPINGS", "METHODS", "PROMPTS", "FittedTask", "choose", "choose_task", "evaluate_task", "fit_task",
    "interval_of_share", "predict_images", "table_of_tasks",
]  # fmt: skip

PROMPTS = ("border", "frame")
# From the simplest on: nothing learned, then a closed formula, then a convex fit, then what needs gradients.
METHODS = ("unprompted", "zero-shot", "GDA", "linear probe", "CoOp", "prompt", "LoGoPrompt", "DPT")
OWN_MODEL = "a model of your own"
TEMPLATE = "a photo of a {}."  # of zero-shot, and of GDA on a CLIP
DEFAULT_CANVAS = 112  # side of the input of a model that is no CLIP
SMALLEST_READ = 160  # side in pixels at which the command reads images, at least


TaskClassifier = PromptedClassifier | LinearProbe | OnImages | DualPromptClassifier


@dataclass
class FittedTask:
    """A classifier of your own images and everything needed to build it again.

    Attributes:
        classifier: takes images of side `settings["image_size"]`.
        class_names: the T target classes.
        settings: model, method, mapping, prompt, canvas_size and prompt_size as `fit_task` was given them; image_size,
            the side that the classifier takes; read_size, the side at which the training images were read.
        val_accuracy: in [0, 1], after the last epoch; None if unknown.
        history: of the training, empty for what is not trained by steps.
        seconds: what fitting took.
        trained_on: digests of the files that were trained and validated on, if they were files.
    """

    classifier: TaskClassifier
    class_names: tuple[str, ...]
    settings: dict
    val_accuracy: float | None = None
    history: History = field(default_factory=History)
    seconds: float | None = None
    trained_on: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """In a few words: "GDA", or "ILM soft + Hungarian, border"."""
        return named(self.settings)

    @property
    def device(self) -> torch.device:
        return next(self.classifier.parameters()).device

    def sized(self, images: ImageSet) -> ImageSet:
        """The images at the side that the classifier takes."""
        return images.resized(self.settings["image_size"])

    def source_classes(self) -> list[list[str]]:
        """For each target class the source classes it is read from, the heaviest first; at most three, [] for none."""
        if not isinstance(self.classifier, PromptedClassifier):
            return [[] for _ in self.class_names]
        names: Sequence[str] = getattr(self.classifier.model, "class_names", ())
        mapping = self.classifier.mapping
        if isinstance(mapping, LabelMapping):
            return [[names[s]] for s in mapping.index.tolist()]
        matrix = mapping.matrix
        assert isinstance(matrix, Tensor)
        return [[names[s] for s in column] for column in matrix.topk(3, dim=0).indices.T.tolist()]


def named(settings: dict) -> str:
    return f"{settings['mapping']}, {settings['prompt']}" if settings["method"] == "prompt" else settings["method"]


def fit_task(
    train: ImageSet,
    val: ImageSet,
    model: str | FrozenModel = "efficientnet_lite0",
    mapping: str = "ILM soft + Hungarian",
    prompt: str = "border",
    *,
    method: str = "prompt",
    canvas_size: int | None = None,
    prompt_size: int | None = None,
    epochs: int = 5,
    lr: float = 0.05,
    batch_size: int = 16,
    seed: int = 0,
    device: str | torch.device = "cpu",
    checkpoint: str | Path | None = None,
) -> FittedTask:
    """Learn on `train` what `method` says; `val` chooses a penalty or a scale, and judges.

    Args:
        model: a row of `FROZEN_MODELS`, or of `CLIP_MODELS`: then the source classes are 81 sentences for each name; or
            a `FrozenModel` around a network of your own, which `load_task` has to be given, too.
        mapping: of a prompt, one of `vpkit.methods.ilm_vp.MAPPINGS`; made before the first or before every epoch.
        prompt: "border" shrinks the image and learns what surrounds it (ILM-VP); "frame" learns what is added to the
            outermost pixels of the full image (VP).
        method: "prompt"; "linear probe" or "GDA" on the frozen features; "unprompted", the mapping alone; "zero-shot",
            a CLIP's sentences alone; "CoOp", "LoGoPrompt" and "DPT" on a CLIP, DPT on one with a transformer.
        canvas_size: side of the model's input; by default 112, for CLIP and a model of your own theirs.
        prompt_size: width of the border or frame in pixels; by default 15 % of the canvas.
        epochs: passes over the training images, for what is trained by steps.
        lr, batch_size: of a prompt; lr of Adam, on pixels in units of the model's standard deviation for a frame.
        checkpoint: a `.safetensors` file from which an interrupted training goes on.

    Raises:
        ValueError: an unknown model, method, mapping or prompt, a method that reads text without a CLIP, a canvas that
            the model does not take, or a prompt_size that leaves nothing of it.

    Explained in chapter 9.
    """
    for what, given, known in (
        ("mapping", mapping, MAPPINGS),
        ("prompt", prompt, PROMPTS),
        ("method", method, METHODS),
    ):
        if given not in known:
            raise ValueError(f"unknown {what} {given!r}: expected one of {', '.join(known)}")
    own = None if isinstance(model, str) else _own_model(model)
    called = model if isinstance(model, str) else OWN_MODEL
    if own is None and called not in (*FROZEN_MODELS, *CLIP_MODELS) and not called.startswith("timm:"):
        models = ", ".join((*FROZEN_MODELS, *CLIP_MODELS))
        raise ValueError(f"unknown model {called!r}: expected one of {models}, timm:NAME, or a FrozenModel")
    started = perf_counter()
    side = clip_image_size(called) if called in CLIP_MODELS else DEFAULT_CANVAS
    canvas_size = canvas_size or (side if own is None else own.image_size)
    if called in CLIP_MODELS and canvas_size != side:
        raise ValueError(f"canvas_size={canvas_size}: {called} takes images of {side} px only")
    settings = _sizes(method, prompt, canvas_size, prompt_size, train.shape[2])
    settings = {"model": called, "method": method, "mapping": mapping, "prompt": prompt} | settings
    names = tuple(train.class_names)
    torch.manual_seed(seed)
    classifier = build_classifier(settings, names, device, own)
    task = FittedTask(classifier, names, settings, trained_on=digests_of(train, val))
    train, val = (task.sized(images).to(device) for images in (train, val))
    if isinstance(classifier, PromptedClassifier):
        before_epoch = remap(train.batches(), **MAPPINGS[mapping])
        if method == "unprompted":
            before_epoch(classifier, 1)
        else:
            batches = train.batches(batch_size, shuffle=True), val.batches()
            optimizer = torch.optim.Adam(classifier.prompt.parameters(), lr=lr)
            task.history = fit(
                classifier, *batches, optimizer, epochs, before_epoch,
                schedule=multistep, name=task.name, checkpoint=checkpoint,
            )  # fmt: skip
    elif isinstance(classifier, OnImages | DualPromptClassifier):
        task.history = fit_on_clip(classifier, train, val, epochs, name=task.name, checkpoint=checkpoint)
    elif method != "zero-shot":
        batches = train.batches(), val.batches()
        if method == "GDA":
            zero_shot = classifier.weight.detach() if called in CLIP_MODELS else None
            task.classifier = gaussian_discriminant(classifier.model, *batches, zero_shot)
        else:
            task.classifier = linear_probe(classifier.model, *batches)
    # `fit` has evaluated after its last epoch
    found = task.history["val_accuracy"][-1] if len(task.history) else None
    task.val_accuracy = evaluate(task.classifier, val.batches()).accuracy if found is None else found
    task.seconds = perf_counter() - started
    return task


def _sizes(method: str, prompt: str, canvas_size: int, prompt_size: int | None, read_size: int) -> dict:
    """Sides in pixels, checked against each other."""
    prompt_size = round(0.15 * canvas_size) if prompt_size is None else prompt_size
    image_size = canvas_size
    if method in ("prompt", "unprompted"):
        if not 1 <= prompt_size < canvas_size / 2:
            raise ValueError(
                f"prompt_size={prompt_size}: expected 1..{(canvas_size - 1) // 2} on a {canvas_size} px canvas"
            )
        image_size = canvas_size - 2 * prompt_size if prompt == "border" else canvas_size
    if read_size < image_size:
        raise ValueError(
            f"images of {read_size} px, but this {method} takes {image_size} px: load them with size={image_size} "
            "or more, so that files are not enlarged from thumbnails"
        )
    return {
        "prompt_size": prompt_size, "canvas_size": canvas_size, "image_size": image_size, "read_size": read_size,
    }  # fmt: skip


def choose_task(
    train: ImageSet, val: ImageSet, options: Sequence[dict], within_error: bool = False, **usual
) -> tuple[FittedTask, pd.DataFrame]:
    """Fit each of `options` (arguments of `fit_task`, over `usual`) and `choose`; with the `table_of_tasks`.

    Raises:
        ValueError: no options.
    """
    if not options:
        raise ValueError("options is empty: expected at least one dict of fit_task's arguments, such as {}")
    tasks = [fit_task(train, val, **usual | option) for option in options]
    return choose(tasks, len(val), within_error), table_of_tasks(tasks, len(val))


def choose(tasks: Sequence[FittedTask], n_val: int, within_error: bool = False) -> FittedTask:
    """The first of `tasks` with the highest validation accuracy.

    Args:
        within_error: the first that is not worse than the best by more than its standard error instead. With the
            simplest first this is the one-standard-error rule: what is more complicated has to earn it.
    """
    accuracies = [task.val_accuracy or 0.0 for task in tasks]
    best = max(accuracies)
    slack = (best * (1 - best) / n_val) ** 0.5 if within_error else 0.0
    return next(task for task, accuracy in zip(tasks, accuracies, strict=True) if accuracy >= best - slack)


def table_of_tasks(tasks: Iterable[FittedTask], n_val: int) -> pd.DataFrame:
    """What was tried: method, validation accuracy with its 95 % interval in [0, 1], learned numbers, seconds."""
    rows = []
    for task in tasks:
        accuracy = task.val_accuracy or 0.0
        low, high = interval_of_share(round(accuracy * n_val), n_val)
        learned = 0 if task.settings["method"] in ("unprompted", "zero-shot") else count_parameters(task.classifier)
        rows.append((task.name, accuracy, low, high, learned, task.seconds))
    return pd.DataFrame(rows, columns=["method", "val_accuracy", "low", "high", "learned", "seconds"])


def interval_of_share(right: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, in [0, 1]."""
    found = scipy.stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


@torch.no_grad()
def predict_images(task: FittedTask, paths: Sequence[str | Path], batch_size: int = 64) -> pd.DataFrame:
    """The class of each image file and its probability: columns `image`, `predicted`, `probability`, `error`.

    Files become pixels as those trained on did: read at `read_size`, then resized to what the classifier takes. One
    that is not a readable image has its `error` in words, and neither class nor probability. The probabilities of all
    classes are in `found.attrs["probabilities"]`, (files, T).
    """
    side, names = task.settings["image_size"], np.array(task.class_names, dtype=object)
    probabilities, errors = np.full((len(paths), len(names)), np.nan), [""] * len(paths)
    for start in range(0, len(paths), batch_size):
        read: dict[int, np.ndarray] = {}
        for i in range(start, min(start + batch_size, len(paths))):
            try:
                read[i] = read_image(paths[i], task.settings["read_size"])
            except ValueError as error:
                errors[i] = str(error)
        if read:
            images = torch.from_numpy(np.stack(list(read.values()))).permute(0, 3, 1, 2).to(task.device)
            images = images if images.shape[2] == side else resized(images, side)
            probabilities[list(read)] = probabilities_of(task, images).cpu().numpy()
    best = np.nan_to_num(probabilities, nan=-1.0).argmax(1)
    failed = np.array(errors, dtype=object) != ""
    found = pd.DataFrame(
        {
            "image": [str(path) for path in paths],
            "predicted": np.where(failed, None, names[best]),
            "probability": probabilities[np.arange(len(paths)), best],
            "error": errors,
        }
    )
    found.attrs["probabilities"] = probabilities.tolist()
    return found


@torch.no_grad()
def probabilities_of(task: FittedTask, images: Tensor) -> Tensor:
    """(B, 3, h, w) uint8 to (B, T) probabilities of the target classes."""
    return task.classifier.eval()(images.float() / 255).softmax(1)


def evaluate_task(task: FittedTask, images: ImageSet) -> Evaluation:
    """`evaluate` on images of any size."""
    return evaluate(task.classifier, task.sized(images).batches())


def reading_size(model: str, canvas_size: int | None = None) -> int:
    """The side at which images are read so that every method on `model`, at this canvas, gets enough pixels."""
    usual = clip_image_size(model) if model in CLIP_MODELS else DEFAULT_CANVAS
    return max(SMALLEST_READ, canvas_size or usual)


def digests_of(*parts: ImageSet) -> frozenset[str]:
    """Of the contents of all files that the parts were read from."""
    return frozenset(content_digest(path) for part in parts for path in part.files)


def fingerprint(task_settings: dict, trained_on: Iterable[str]) -> str:
    """8 hexadecimal digits that say what would be trained on what."""
    text = f"{sorted(task_settings.items())} {sorted(trained_on)}"
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _own_model(model: nn.Module) -> FrozenModel:
    if not isinstance(model, FrozenModel):
        raise ValueError(
            f"model is a {type(model).__name__}: wrap it, so that its classes and its normalisation are known: "
            "vpkit.models.FrozenModel(network, class_names, image_size, mean, std)"
        )
    return model


def build_classifier(
    settings: dict, class_names: Sequence[str], device: str | torch.device, own: FrozenModel | None = None
) -> TaskClassifier:
    """The classifier of `settings` before it has learned anything, on `device`.

    Args:
        own: the model, if `settings` do not name one that can be loaded.

    Raises:
        ValueError: a method that reads text without a CLIP, DPT on a CNN, an unknown model, or one of your own that is
            not given.
    """
    model, method = settings["model"], settings["method"]
    if model == OWN_MODEL and own is None:
        raise ValueError("this was fitted to a model of your own: give it, load_task(path, model=...)")
    if method in ("prompt", "unprompted"):
        frozen = source_model(model, class_names, device) if own is None else own.to(device)
        if settings["prompt"] == "border":
            prompt: nn.Module = ExpandPrompt(settings["image_size"], settings["canvas_size"])
        else:
            prompt = PadPrompt(settings["canvas_size"], settings["prompt_size"], scale=frozen.std)
            if method == "unprompted":
                nn.init.zeros_(prompt.pixels)
        return PromptedClassifier(
            prompt, frozen, empty_mapping(settings["mapping"], len(frozen.class_names), len(class_names))
        ).to(device)
    if method in ON_CLIP and model in CLIP_MODELS:
        return build_on_clip(method, load_clip(model, device), class_names).to(device)
    unit = method != "linear probe"  # which standardises features instead
    if model in CLIP_MODELS:
        frozen = text_prompt(load_clip(model, device), class_names, TEMPLATE)
        weight = frozen._head[0].weight
        assert isinstance(weight, Tensor)
        return LinearProbe(frozen, weight.detach().clone(), weight.new_zeros(len(class_names)), unit=unit).to(device)
    if method in ("zero-shot", *ON_CLIP):
        raise ValueError(f"{model} reads no text: {method} needs one of {', '.join(CLIP_MODELS)}")
    frozen = load_frozen(model, device) if own is None else own.to(device)
    side = settings["image_size"]
    width = frozen.features(torch.zeros(1, 3, side, side, device=frozen.mean.device)).shape[1]
    weight = torch.zeros(len(class_names), width)
    return LinearProbe(frozen, weight, torch.zeros(len(class_names)), unit=unit).to(device)


def source_model(name: str, class_names: Sequence[str], device: str | torch.device) -> FrozenModel:
    return every_sentence(load_clip(name, device), class_names) if name in CLIP_MODELS else load_frozen(name, device)
