"""What the parameters of each chapter may be: JSON Schema in `data/parameters.json`, checked before anything runs."""

import json
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib import resources
from typing import Any

__all__ = ["chapter_parameters", "check_values", "known_chapters"]


@cache
def _declared() -> dict[str, dict]:
    return json.loads((resources.files("vpkit") / "data" / "parameters.json").read_text(encoding="utf-8"))


def known_chapters() -> tuple[str, ...]:
    """The chapters whose parameters are declared."""
    return tuple(_declared()["chapters"])


def chapter_parameters(chapter: str) -> dict[str, dict]:
    """The JSON Schema of each parameter of a chapter, such as "03_ilm_vp", in the order of its cell.

    Raises:
        ValueError: no such chapter.
    """
    declared = _declared()
    if chapter not in declared["chapters"]:
        raise ValueError(f"chapter={chapter!r}: expected one of {', '.join(declared['chapters'])}")
    own = declared["chapters"][chapter]
    return {name: declared["common"].get(name, {}) | schema for name, schema in own.items()}


def check_values(chapter: str, values: Mapping[str, Any]) -> None:
    """Refuse values that a chapter cannot be run with: another type, out of range, an unknown method.

    Args:
        chapter: such as "03_ilm_vp".
        values: by name; some may be missing, and names that the chapter does not have are passed over.

    Raises:
        ValueError: all that is wrong, a line each.
    """
    validator, wrong = _validator(), []
    for name, schema in chapter_parameters(chapter).items():
        if name in values:
            for error in validator(schema).iter_errors(values[name]):
                wrong.append(f"{name}={values[name]!r}: {_reason(error)}")
    if wrong:
        raise ValueError("\n".join(wrong))


@cache
def _validator():
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)  # 4.0 is none
    return extend(Draft202012Validator, type_checker=types)


def _reason(error) -> str:
    value = error.instance
    if error.validator == "enum":
        close = get_close_matches(str(value), map(str, error.validator_value), 1, cutoff=0.5)
        meant = f", did you mean {close[0]!r}?" if close else ";"
        return f"{value!r} is unknown{meant} expected {', '.join(map(repr, error.validator_value))}"
    if error.validator == "type" and isinstance(value, str) and _is_number(value):
        return f"this is text and not a number (YAML takes 1e-2 for text): write {float(value):g}"
    if error.validator == "type" and "array" in error.validator_value:
        return "expected a list; papermill takes one as -y 'methods: [first, second]'"
    return f"{error.message} ({error.schema.get('description', 'see the table of parameters')})"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
