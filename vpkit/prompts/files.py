"""A learned prompt as a file: safetensors with the prompt, its mapping, and a card that describes them."""

import json
from copy import deepcopy
from importlib import resources
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from vpkit.files import read_safetensors, write_atomically

__all__ = ["load_prompt", "save_prompt", "study_prompts"]

_FORMAT = 1


def save_prompt(path: str | Path, prompt: nn.Module, mapping: nn.Module | None = None, **card) -> Path:
    """Write what was learned (prompt, and mapping if given) as safetensors, with `card` as its description."""
    tensors = {f"prompt.{name}": value.contiguous() for name, value in prompt.state_dict().items()}
    if mapping is not None:
        tensors |= {f"mapping.{name}": value.contiguous() for name, value in mapping.state_dict().items()}
    description = {"format": str(_FORMAT), "prompt": describe(prompt), "card": json.dumps(card)}
    return write_atomically(path, lambda part: save_file(tensors, part, metadata=description))


def load_prompt(path: str | Path, prompt: nn.Module, mapping: nn.Module | None = None) -> dict:
    """Fill `prompt` (and `mapping`) from a file of `save_prompt`; returns the card.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is cut short or not a prompt, or one made for other sizes or classes.
    """
    description, tensors = read_safetensors(path, "prompt", "card")
    if description.get("prompt") != describe(prompt):
        raise ValueError(
            f"{path} holds {description.get('prompt')}, not {describe(prompt)}: make the one it was saved as"
        )
    for part, module in (("prompt", prompt), ("mapping", mapping)):
        if module is not None:
            state = {name.removeprefix(f"{part}."): v for name, v in tensors.items() if name.startswith(f"{part}.")}
            try:
                module.load_state_dict(state)
            except RuntimeError as error:
                raise ValueError(f"{path}: its {part} does not fit: {error}") from error
    return description["card"]


def study_prompts(study: str, prompt: nn.Module) -> dict[str, nn.Module]:
    """The prompts learned in a stored study, by dataset: copies of `prompt`, filled.

    Raises:
        FileNotFoundError: a study that stored none.
        ValueError: as `load_prompt`.
    """
    with resources.as_file(resources.files("vpkit") / "data" / "studies" / study) as folder:
        paths = sorted(folder.glob("*.safetensors"))
        if not paths:
            raise FileNotFoundError(
                f"study {study!r} stored no prompts: expected one that did, such as 04_clip_template_mapping"
            )
        found = {path.stem: deepcopy(prompt) for path in paths}
        for path in paths:
            load_prompt(path, found[path.stem])
    return found


def describe(prompt: nn.Module) -> str:
    """A prompt's class and sizes, such as `PadPrompt(image_size=96, width=12)`."""
    sizes = {k: v for k, v in vars(prompt).items() if isinstance(v, int | str) and not k.startswith("_")}
    sizes.pop("training", None)
    return f"{type(prompt).__name__}({', '.join(f'{k}={v}' for k, v in sizes.items())})"
