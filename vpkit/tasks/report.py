"""One HTML file about a classifier: what was tried, the prompt, its mapping, the confusions and the worst mistakes."""

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
from vpkit.datasets.source import content_digest
from vpkit.files import write_atomically
from vpkit.interfaces import PixelPrompt
from vpkit.methods.vp import PromptedClassifier
from vpkit.plots import plot_confusion
from vpkit.tasks.files import readable
from vpkit.tasks.task import FittedTask, evaluate_task, interval_of_share, probabilities_of

__all__ = ["write_report"]

_MISTAKES = 12
_OF_PROMPTS = ("mapping", "prompt", "prompt_size")


def write_report(path: str | Path, task: FittedTask, test: ImageSet, card: dict | None = None) -> Path:
    """Test `task` on `test` and write what was found to one HTML file that needs no other file and no network.

    The test split is read here, once; whatever was chosen was chosen on validation before. Images that the task was
    trained or validated on, by the content of their files, are left out.

    Args:
        test: images of the task's classes, of any size.
        card: printed at the end; its `tried`, rows of `table_of_tasks`, becomes a table, and `notes`, lines, stand at
            the top.

    Raises:
        ValueError: test images of other classes, or none that was not trained on.
    """
    if tuple(test.class_names) != task.class_names:
        raise ValueError(
            f"the test images have the classes {', '.join(test.class_names)}, the prompt was made for "
            f"{', '.join(task.class_names)}"
        )
    test, left_out = untouched(task, test)
    test = test.to(task.device)
    found = evaluate_task(task, test)
    images = task.sized(test).images
    probabilities = torch.cat([probabilities_of(task, part) for part in images.split(64)]).cpu()
    sources = task.source_classes()
    rows = [
        {"name": name, "sources": ", ".join(sources[t]), "accuracy": float(found.per_class[t]), "n": int(count)}
        for t, (name, count) in enumerate(zip(task.class_names, found.confusion.sum(1), strict=True))
    ]
    low, high = interval_of_share(int(found.confusion.trace()), found.n)
    prompted = isinstance(task.classifier, PromptedClassifier)
    card = dict(card or {})
    text = _template().render(
        title=f"{task.name} on {task.settings['model']}, {len(task.class_names)} classes",
        date=date.today(),
        accuracy=found.accuracy,
        low=low,
        high=high,
        chance=int(found.confusion.sum(1).max()) / found.n,
        calibration=calibration_error(probabilities, test.labels.cpu()),
        confidence=float(probabilities.max(1).values.mean()),
        left_out=left_out,
        notes=card.pop("notes", []),
        tried=card.get("tried", []),
        n=found.n,
        val_accuracy=task.val_accuracy,
        settings={k: v for k, v in task.settings.items() if prompted or k not in _OF_PROMPTS},
        prompt=_png(_shown_prompt(task)) if prompted else "",
        example=_png(_prompted(task, images[:1])) if prompted else "",
        rows=rows,
        confusion=_figure(found.confusion, task.class_names),
        mistakes=_worst(test, probabilities, task.class_names),
        card=readable(card),
    )
    return write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def untouched(task: FittedTask, test: ImageSet) -> tuple[ImageSet, int]:
    """The images of `test` that `task` was not trained on, by the content of their files; and how many were left out.

    Raises:
        ValueError: none is left.
    """
    if not test.files or not task.trained_on:
        return test, 0
    kept = torch.tensor([content_digest(path) not in task.trained_on for path in test.files])
    if not kept.any():
        raise ValueError(
            f"all {len(test)} test images are among those that were trained on: give other ones, or fit again"
        )
    return test[kept.to(test.labels.device)], int((~kept).sum())


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 10) -> float:
    """Expected calibration error in [0, 1]: how far confidence and accuracy lie apart, over bins of confidence.

    Args:
        probabilities: (N, T).
        labels: (N,).

    Source: Guo et al. 2017 (On Calibration of Modern Neural Networks), Eq. 3.
    """
    confidence, predicted = probabilities.double().max(1)
    apart = confidence - (predicted == labels).double()
    which = (confidence * bins).long().clamp(max=bins - 1)
    return float(torch.zeros(bins, dtype=torch.float64).index_add(0, which, apart).abs().sum() / len(labels))


def _worst(test: ImageSet, probabilities: Tensor, names) -> list[dict]:
    """The wrong predictions the classifier was surest of."""
    sure, predicted = probabilities.max(1)
    labels, files = test.labels.cpu(), test.files
    order = torch.where(predicted != labels, sure, -1).argsort(descending=True)[: int((predicted != labels).sum())]
    return [
        {
            "image": _png(test.images[i].cpu()),
            "is": names[labels[i]],
            "called": names[predicted[i]],
            "p": float(sure[i]),
            "file": files[i].name if files else "",
        }
        for i in order[:_MISTAKES].tolist()
    ]


@torch.no_grad()
def _shown_prompt(task: FittedTask) -> Tensor:
    prompt = _pixel_prompt(task)
    picture = prompt.picture().cpu()
    # A frame is added to the image and may be negative: grey stands for nothing.
    return (255 * (picture if task.settings["prompt"] == "border" else picture + 0.5)).clamp(0, 255).byte()


@torch.no_grad()
def _prompted(task: FittedTask, images: Tensor) -> Tensor:
    return (255 * _pixel_prompt(task)(images.float() / 255)[0].cpu()).clamp(0, 255).byte()


def _pixel_prompt(task: FittedTask) -> PixelPrompt:
    prompt = getattr(task.classifier, "prompt", None)
    assert isinstance(prompt, PixelPrompt)
    return prompt


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
