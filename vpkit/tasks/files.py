"""A classifier of your own images as a file, and as a classifier again in another process."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from vpkit.datasets.folder import image_files
from vpkit.datasets.source import content_digest
from vpkit.files import read_safetensors, write_atomically
from vpkit.methods.vp import PromptedClassifier
from vpkit.models.frozen import FrozenModel
from vpkit.prompts.files import describe
from vpkit.tasks.task import MAPPINGS, METHODS, PROMPTS, SMALLEST_READ, FittedTask, build_classifier

__all__ = ["changes_since", "folder_state", "load_task", "save_task"]


def save_task(path: str | Path, task: FittedTask, **card) -> Path:
    """Write what was learned to `path` (.safetensors), and a card beside it (.json) for people to read.

    Args:
        card: anything to keep with it, such as the folder it was trained on.

    Raises:
        ValueError: another ending.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: expected a file name ending in .safetensors")
    described = {
        "settings": task.settings, "class_names": list(task.class_names), "val_accuracy": task.val_accuracy,
        "source_classes": dict(zip(task.class_names, task.source_classes(), strict=True)), **card,
    }  # fmt: skip
    prompt = describe(task.classifier.prompt) if isinstance(task.classifier, PromptedClassifier) else ""
    whole = {"format": "1", "prompt": prompt, "card": json.dumps(described | {"trained_on": sorted(task.trained_on)})}
    tensors = {name: value.detach().contiguous() for name, value in task.classifier.state_dict().items()}
    write_atomically(path, lambda part: save_file(tensors, part, metadata=whole))
    text = json.dumps(readable(described), indent=1, ensure_ascii=False) + "\n"
    write_atomically(path.with_suffix(".json"), lambda part: part.write_text(text, encoding="utf-8"))
    return path


def load_task(
    path: str | Path, device: str | torch.device = "cpu", model: FrozenModel | None = None
) -> tuple[FittedTask, dict]:
    """What `save_task` wrote, ready to use, and its card.

    Args:
        model: the frozen model, if it was one of your own.

    Raises:
        FileNotFoundError: no such file, or a model whose weights are not on this machine.
        ValueError: a file that is no saved task, or is cut short.
    """
    description, tensors = read_safetensors(path, "prompt", "card")
    card = description["card"]
    try:
        settings, names = _checked(card["settings"]), tuple(map(str, card["class_names"]))
        trained_on = frozenset(map(str, card.get("trained_on", ())))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: a prompt, but not a task saved by vpkit.tasks.save_task ({error})") from error
    classifier = build_classifier(settings, names, device, model)
    try:
        classifier.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path}: what it holds does not fit {len(names)} classes: {error}") from error
    card.pop("trained_on", None)
    return FittedTask(classifier.eval(), names, settings, card.get("val_accuracy"), trained_on=trained_on), card


def folder_state(folder: str | Path) -> dict[str, str]:
    """Every image below `folder`, as a path from there, and a digest of its content."""
    return {str(path.relative_to(folder)): content_digest(path) for path in image_files(Path(folder))[0]}


def changes_since(before: dict[str, str], now: dict[str, str]) -> str:
    """What has happened to a folder since an earlier `folder_state`, in a sentence; "" if nothing. A move is not."""
    known, left = set(before.values()), set(now.values())
    changed = sum(path in before and before[path] != digest for path, digest in now.items())
    new = sum(path not in before and digest not in known for path, digest in now.items())
    gone = sum(path not in now and digest not in left for path, digest in before.items())
    if not (changed or new or gone):
        return ""
    return f"Since it was fitted, {new} images of the folder are new, {gone} are gone and {changed} have changed."


def readable(card: dict) -> dict:
    """A card for people: how many files, and not each of them."""
    return {name: f"{len(value)} files" if name == "files" else value for name, value in card.items()}


def _checked(settings: dict) -> dict:
    """The settings of a card, if they can be those of a classifier: sizes that fit, and few enough pixels to be one."""
    # Files of version 0.1 say neither: they hold a prompt, and `vpkit fit` read at 160 px.
    settings = {"read_size": SMALLEST_READ, "method": "prompt"} | settings
    sizes = {name: settings[name] for name in ("read_size", "image_size", "canvas_size", "prompt_size")}
    if not all(type(side) is int and 0 < side <= 4096 for side in sizes.values()):
        raise ValueError(f"sizes {sizes}: expected whole numbers up to 4096")
    for name, known in (("prompt", PROMPTS), ("method", METHODS), ("mapping", MAPPINGS)):
        if settings[name] not in known:
            raise ValueError(f"{name} {settings[name]!r}: expected one of {', '.join(known)}")
    if not isinstance(settings["model"], str):
        raise ValueError(f"model {settings['model']!r}: expected a name")
    return settings
