"""A prompted classifier as a file, and as a classifier again in another process."""

import json
from pathlib import Path

import torch
from torch import nn

from vpkit.files import read_safetensors, write_atomically
from vpkit.mappings.one_to_one import identity_mapping
from vpkit.mappings.weighted import WeightedMapping
from vpkit.methods.vp import PromptedClassifier
from vpkit.prompts.files import load_prompt, save_prompt
from vpkit.tasks.task import PROMPTS, SMALLEST_READ, PromptedTask, build_prompt, source_model

__all__ = ["load_task", "save_task"]


def save_task(path: str | Path, task: PromptedTask, **card) -> Path:
    """Write prompt and mapping to `path` (.safetensors), and a card beside it (.json) for people to read.

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
    save_prompt(path, task.classifier.prompt, task.classifier.mapping, **described)
    text = json.dumps(described, indent=1, ensure_ascii=False) + "\n"
    write_atomically(path.with_suffix(".json"), lambda part: part.write_text(text, encoding="utf-8"))
    return path


def load_task(path: str | Path, device: str | torch.device = "cpu") -> tuple[PromptedTask, dict]:
    """What `save_task` wrote, ready to use, and its card.

    Raises:
        FileNotFoundError: no such file, or a model whose weights are not on this machine.
        ValueError: a file that is no saved task, or is cut short.
    """
    description, tensors = read_safetensors(path, "prompt", "card")
    card = description["card"]
    try:
        settings, names = _checked(card["settings"]), tuple(map(str, card["class_names"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: a prompt, but not a task saved by vpkit.tasks.save_task ({error})") from error
    frozen = source_model(settings["model"], names, device)
    prompt, mapping = build_prompt(settings, frozen), _empty_mapping(path, tensors, len(names))
    load_prompt(path, prompt, mapping)
    classifier = PromptedClassifier(prompt, frozen, mapping).to(device).eval()
    return PromptedTask(classifier, names, settings, card.get("val_accuracy")), card


def _checked(settings: dict) -> dict:
    """The settings of a card, if they can be those of a prompt: sizes that fit, and few enough pixels to be one."""
    settings = {"read_size": SMALLEST_READ} | settings  # files of version 0.1 do not say: `vpkit fit` read at 160 px
    sizes = {name: settings[name] for name in ("read_size", "image_size", "canvas_size", "prompt_size")}
    if not all(type(side) is int and 0 < side <= 4096 for side in sizes.values()):
        raise ValueError(f"sizes {sizes}: expected whole numbers up to 4096")
    if settings["prompt"] not in PROMPTS or not isinstance(settings["model"], str):
        raise ValueError(f"prompt {settings['prompt']!r} on {settings['model']!r}: expected {' or '.join(PROMPTS)}")
    return settings


def _empty_mapping(path: str | Path, tensors: dict[str, torch.Tensor], num_target: int) -> nn.Module:
    if "mapping.index" in tensors and tensors["mapping.index"].shape == (num_target,):
        return identity_mapping(num_target)
    if "mapping.matrix" in tensors and tensors["mapping.matrix"].ndim == 2:
        return WeightedMapping(torch.zeros_like(tensors["mapping.matrix"]))
    raise ValueError(f"{path}: its mapping does not fit {num_target} classes")
