"""A folder of images to a prompted classifier: fitted, chosen on validation, asked."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from vpkit.datasets import ImageSet
from vpkit.datasets.batches import resized
from vpkit.datasets.source import read_image
from vpkit.mappings.one_to_one import LabelMapping, identity_mapping
from vpkit.methods.ilm_vp import MAPPINGS, remap
from vpkit.methods.vp import PromptedClassifier
from vpkit.models.clip import CLIP_MODELS, load_clip
from vpkit.models.frozen import FrozenModel, load_frozen
from vpkit.prompts.pixels import ExpandPrompt, PadPrompt
from vpkit.prompts.templates import clip_templates, fill_templates
from vpkit.training.history import History
from vpkit.training.loop import Evaluation, evaluate, fit
from vpkit.training.schedules import multistep

__all__ = ["MAPPINGS", "PROMPTS", "PromptedTask", "choose_task", "evaluate_task", "fit_task", "predict_images"]


PROMPTS = ("border", "frame")
DEFAULT_CANVAS = 112  # side of the input of a model that is no CLIP
SMALLEST_READ = 160  # side in pixels at which the command reads images, at least


@dataclass
class PromptedTask:
    """A prompted classifier and everything needed to build it again.

    Attributes:
        classifier: takes images of side `settings["image_size"]`.
        class_names: the T target classes.
        settings: model, mapping, prompt, canvas_size and prompt_size as `fit_task` was given them; image_size, the side
            that the prompt takes; read_size, the side at which the training images were read from their files.
        val_accuracy: in [0, 1], after the last epoch; None if unknown.
        history: of the training.
    """

    classifier: PromptedClassifier
    class_names: tuple[str, ...]
    settings: dict
    val_accuracy: float | None = None
    history: History = field(default_factory=History)

    def sized(self, images: ImageSet) -> ImageSet:
        """The images at the side that the prompt takes."""
        return images.resized(self.settings["image_size"])

    def source_classes(self) -> list[list[str]]:
        """For each target class the source classes it is read from, the heaviest first; at most three."""
        names: Sequence[str] = getattr(self.classifier.model, "class_names", ())
        mapping = self.classifier.mapping
        if isinstance(mapping, LabelMapping):
            return [[names[s]] for s in mapping.index.tolist()]
        matrix = mapping.matrix
        assert isinstance(matrix, Tensor)
        return [[names[s] for s in column] for column in matrix.topk(3, dim=0).indices.T.tolist()]


def fit_task(
    train: ImageSet,
    val: ImageSet,
    model: str = "efficientnet_lite0",
    mapping: str = "ILM soft + Hungarian",
    prompt: str = "border",
    *,
    canvas_size: int | None = None,
    prompt_size: int | None = None,
    epochs: int = 5,
    lr: float = 0.05,
    batch_size: int = 16,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> PromptedTask:
    """Learn a prompt on `train`; the mapping is made before the first or before every epoch.

    Args:
        model: a row of `FROZEN_MODELS`, or of `CLIP_MODELS`: then the source classes are 81 sentences for each name.
        mapping: one of `vpkit.methods.ilm_vp.MAPPINGS`.
        prompt: "border" shrinks the image and learns what surrounds it (ILM-VP); "frame" learns what is added to the
            outermost pixels of the full image (VP).
        canvas_size: side of the model's input; by default 112, for CLIP its own.
        prompt_size: width of the border or frame in pixels; by default 15 % of the canvas.
        lr: of Adam, on pixels in units of the model's standard deviation for a frame.

    Raises:
        ValueError: an unknown model, mapping or prompt, or a prompt_size that leaves nothing of the canvas.

    Explained in chapter 8.
    """
    if mapping not in MAPPINGS:
        raise ValueError(f"unknown mapping {mapping!r}: expected one of {', '.join(MAPPINGS)}")
    if prompt not in PROMPTS:
        raise ValueError(f"unknown prompt {prompt!r}: expected one of {', '.join(PROMPTS)}")
    torch.manual_seed(seed)
    frozen = source_model(model, train.class_names, device)
    canvas_size = canvas_size or (frozen.image_size if model in CLIP_MODELS else DEFAULT_CANVAS)
    prompt_size = round(0.15 * canvas_size) if prompt_size is None else prompt_size
    if not 1 <= prompt_size < canvas_size / 2:
        raise ValueError(
            f"prompt_size={prompt_size}: expected 1..{(canvas_size - 1) // 2} on a {canvas_size} px canvas"
        )
    image_size = canvas_size - 2 * prompt_size if prompt == "border" else canvas_size
    if train.shape[2] < image_size:
        raise ValueError(
            f"images of {train.shape[2]} px, but this prompt takes {image_size} px: load them with size={image_size} "
            "or more, so that files are not enlarged from thumbnails"
        )
    settings = {
        "model": model, "mapping": mapping, "prompt": prompt, "prompt_size": prompt_size, "canvas_size": canvas_size,
        "image_size": image_size, "read_size": train.shape[2],
    }  # fmt: skip
    learned = build_prompt(settings, frozen)
    classifier = PromptedClassifier(learned, frozen, identity_mapping(len(train.class_names))).to(device)
    task = PromptedTask(classifier, tuple(train.class_names), settings)
    train, val = (task.sized(images).to(device) for images in (train, val))
    before_epoch = remap(train.batches(64), **MAPPINGS[mapping])
    batches = train.batches(batch_size, shuffle=True), val.batches(64)
    optimizer = torch.optim.Adam(learned.parameters(), lr=lr)
    name = f"{mapping}, {prompt}"
    task.history = fit(classifier, *batches, optimizer, epochs, before_epoch, schedule=multistep, name=name)
    task.val_accuracy = task.history["val_accuracy"][-1]
    return task


def choose_task(train: ImageSet, val: ImageSet, options: Sequence[dict], **usual) -> tuple[PromptedTask, pd.DataFrame]:
    """Fit each of `options` (arguments of `fit_task`, over `usual`); the one with the best validation accuracy.

    Ties go to the earlier one. Also gives a table with a row for each, in their order.

    Raises:
        ValueError: no options.
    """
    if not options:
        raise ValueError("options is empty: expected at least one dict of fit_task's arguments, such as {}")
    rows = []

    def fitted(option: dict) -> PromptedTask:
        task = fit_task(train, val, **usual | option)
        rows.append({k: task.settings[k] for k in ("model", "mapping", "prompt")} | {"val_accuracy": task.val_accuracy})
        return task

    best = max(map(fitted, options), key=lambda task: task.history["val_accuracy"][-1])  # of equals the first
    return best, pd.DataFrame(rows)


@torch.no_grad()
def predict_images(task: PromptedTask, paths: Sequence[str | Path], batch_size: int = 64) -> pd.DataFrame:
    """The class of each image file and its probability: columns `image`, `predicted`, `probability`.

    Files become pixels as those trained on did: read at `read_size`, then resized to what the prompt takes.

    Raises:
        ValueError: a file that is not a readable image; the message names it.
    """
    rows: list[tuple[str, int, float]] = []
    device = next(task.classifier.prompt.parameters()).device
    for start in range(0, len(paths), batch_size):
        part = paths[start : start + batch_size]
        read = np.stack([read_image(path, task.settings["read_size"]) for path in part])  # (B, s, s, 3)
        images = torch.from_numpy(read).permute(0, 3, 1, 2).to(device)
        images = (
            images if images.shape[2] == task.settings["image_size"] else resized(images, task.settings["image_size"])
        )
        probabilities = probabilities_of(task, images)
        best = probabilities.max(1)
        rows += zip(map(str, part), best.indices.tolist(), best.values.tolist(), strict=True)
    found = pd.DataFrame(rows, columns=["image", "predicted", "probability"])
    return found.assign(predicted=[task.class_names[t] for t in found.predicted])


@torch.no_grad()
def probabilities_of(task: PromptedTask, images: Tensor) -> Tensor:
    """(B, 3, h, w) uint8 to (B, T) probabilities of the target classes."""
    return task.classifier.eval()(images.float() / 255).softmax(1)


def evaluate_task(task: PromptedTask, images: ImageSet) -> Evaluation:
    """`evaluate` on images of any size."""
    return evaluate(task.classifier, task.sized(images).batches(64))


def reading_size(model: str) -> int:
    """The side at which images are read so that every prompt for `model`, at its default canvas, gets enough pixels."""
    return max(SMALLEST_READ, load_clip(model).image_size if model in CLIP_MODELS else DEFAULT_CANVAS)


def source_model(name: str, class_names: Sequence[str], device: str | torch.device) -> FrozenModel:
    if name in CLIP_MODELS:
        sentences = [text for template in clip_templates() for text in fill_templates(template, class_names)]
        return load_clip(name, device).zero_shot(sentences)
    return load_frozen(name, device)


def build_prompt(settings: dict, frozen: FrozenModel) -> nn.Module:
    if settings["prompt"] == "border":
        return ExpandPrompt(settings["image_size"], settings["canvas_size"])
    return PadPrompt(settings["canvas_size"], settings["prompt_size"], scale=frozen.std)
