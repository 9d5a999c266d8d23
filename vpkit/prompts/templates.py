"""Sentences about classes: CLIP's templates filled with class names."""

from collections.abc import Sequence
from functools import cache
from importlib import resources

__all__ = ["clip_templates", "fill_templates"]


@cache
def clip_templates() -> tuple[str, ...]:
    """The 81 templates of ILM-VP: CLIP's 80 for ImageNet after VP's `This is a photo of a {}.` (Appendix E)."""
    return tuple((resources.files("vpkit") / "data" / "clip_templates.txt").read_text().splitlines())


def fill_templates(templates: str | Sequence[str], class_names: Sequence[str]) -> list[str]:
    """Every template with every class name, template by template: sentence j * T + k is template j, class k.

    Args:
        templates: one or M templates, each with one `{}`.
        class_names: T names.

    Returns:
        M * T sentences.

    Raises:
        ValueError: a template without `{}` or with two, a name that is empty or holds braces.
    """
    templates = [templates] if isinstance(templates, str) else list(templates)
    for template in templates:
        if template.count("{}") != 1 or template.count("{") + template.count("}") != 2:
            raise ValueError(f"template {template!r}: expected exactly one {{}}, where the class name goes")
    check_class_names(class_names)
    if not templates or not class_names:
        raise ValueError(
            f"{len(templates)} templates and {len(class_names)} class names: expected at least one of each"
        )
    return [template.format(name) for template in templates for name in class_names]


def check_class_names(class_names: Sequence[str]) -> None:
    """Raise ValueError for a name that is empty or holds braces."""
    for name in class_names:
        if not isinstance(name, str) or not name.strip() or "{" in name or "}" in name:
            raise ValueError(f"class name {name!r}: expected words without braces")
