"""VP on CLIP: sentences as source classes, one a class (VP+TP) or every template of every class (VP+TP+LM)."""

from collections.abc import Sequence

from vpkit.models.clip import FrozenCLIP
from vpkit.models.frozen import FrozenModel
from vpkit.prompts.templates import clip_templates, fill_templates

__all__ = ["every_sentence", "text_prompt"]


def text_prompt(clip: FrozenCLIP, class_names: Sequence[str], template: str) -> FrozenModel:
    """CLIP with one sentence a class: zero-shot logits (B, T). With a prompt and `identity_mapping` it is VP+TP.

    Source: Bahng et al. 2022, Sec. 3.2. Explained in chapter 4.
    """
    return clip.zero_shot(fill_templates(template, class_names), class_names)


def every_sentence(clip: FrozenCLIP, class_names: Sequence[str], templates: Sequence[str] | None = None) -> FrozenModel:
    """CLIP with every template for every class: logits (B, J T), those of template j and class t at j T + t.

    With a prompt and `remap` it is VP+TP+LM: a sentence for each class, chosen anew as ILM chooses source classes.

    Args:
        templates: J sentences with a place for the name; by default the 81 of CLIP.

    Source: Chen et al. 2023, Sec. 4.3. Explained in chapter 4.
    """
    return clip.zero_shot(fill_templates(clip_templates() if templates is None else templates, class_names))
