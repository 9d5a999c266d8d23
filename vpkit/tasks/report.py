"""One HTML file about a prompted classifier: the prompt, its mapping, the confusions and the worst mistakes."""

import base64
import io
from datetime import date
from importlib import resources
from pathlib import Path

import torch
from jinja2 import Environment
from PIL import Image
from torch import Tensor

from vpkit.datasets import ImageSet
from vpkit.files import write_atomically
from vpkit.interfaces import PixelPrompt
from vpkit.plots import plot_confusion
from vpkit.tasks.task import PromptedTask, evaluate_task, probabilities_of

__all__ = ["write_report"]

_MISTAKES = 12


def write_report(path: str | Path, task: PromptedTask, test: ImageSet, card: dict | None = None) -> Path:
    """Test `task` on `test` and write what was found to one HTML file that needs no other file and no network.

    The test split is read here, once; whatever was chosen was chosen on validation before.

    Args:
        test: images of the task's classes, of any size.
        card: printed at the end.

    Raises:
        ValueError: test images of other classes.
    """
    if tuple(test.class_names) != task.class_names:
        raise ValueError(
            f"the test images have the classes {', '.join(test.class_names)}, the prompt was made for "
            f"{', '.join(task.class_names)}"
        )
    test = test.to(next(task.classifier.prompt.parameters()).device)
    found = evaluate_task(task, test)
    images = task.sized(test).images
    probabilities = torch.cat([probabilities_of(task, part) for part in images.split(64)]).cpu()
    sources = task.source_classes()
    rows = [
        {"name": name, "sources": ", ".join(sources[t]), "accuracy": float(found.per_class[t]), "n": int(count)}
        for t, (name, count) in enumerate(zip(task.class_names, found.confusion.sum(1), strict=True))
    ]
    text = _template().render(
        title=f"{len(task.class_names)} classes, {task.settings['model']}",
        date=date.today(),
        accuracy=found.accuracy,
        n=found.n,
        val_accuracy=task.val_accuracy,
        settings=task.settings,
        prompt=_png(_shown_prompt(task)),
        example=_png(_prompted(task, images[:1])),
        rows=rows,
        confusion=_figure(found.confusion, task.class_names),
        mistakes=_worst(test, probabilities, task.class_names),
        card=card or {},
    )
    return write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def _worst(test: ImageSet, probabilities: Tensor, names) -> list[dict]:
    """The wrong predictions the classifier was surest of."""
    sure, predicted = probabilities.max(1)
    labels = test.labels.cpu()
    order = torch.where(predicted != labels, sure, -1).argsort(descending=True)[: int((predicted != labels).sum())]
    return [
        {
            "image": _png(test.images[i].cpu()),
            "is": names[labels[i]],
            "called": names[predicted[i]],
            "p": float(sure[i]),
        }
        for i in order[:_MISTAKES].tolist()
    ]


@torch.no_grad()
def _shown_prompt(task: PromptedTask) -> Tensor:
    prompt = task.classifier.prompt
    assert isinstance(prompt, PixelPrompt)
    picture = prompt.picture().cpu()
    # A frame is added to the image and may be negative: grey stands for nothing.
    return (255 * (picture if task.settings["prompt"] == "border" else picture + 0.5)).clamp(0, 255).byte()


@torch.no_grad()
def _prompted(task: PromptedTask, images: Tensor) -> Tensor:
    return (255 * task.classifier.prompt(images.float() / 255)[0].cpu()).clamp(0, 255).byte()


def _figure(confusion: Tensor, names) -> str:
    buffer = io.BytesIO()
    plot_confusion(confusion, names).savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()


def _png(image: Tensor) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).cpu().numpy()).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _template():
    # Class names come from folders: autoescape keeps what they hold from becoming part of the page.
    return Environment(autoescape=True).from_string((resources.files("vpkit") / "data" / "report.html").read_text())
