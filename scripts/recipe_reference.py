"""Write docs/recipe-reference.md: every key of a recipe, from the code that checks it.

::

    python scripts/recipe_reference.py
"""

from __future__ import annotations

import json
import types
import typing
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from training.systems import SYSTEMS, load

TARGET = Path(__file__).resolve().parents[1] / "docs" / "recipe-reference.md"


def type_name(annotation: Any) -> str:
    """Short name of a type, as a person would write it."""
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return " or ".join(f"`{a}`" for a in typing.get_args(annotation))
    if origin in (typing.Union, types.UnionType):
        parts = [type_name(a) for a in typing.get_args(annotation) if a is not type(None)]
        return " or ".join([*parts, "null"])
    if origin is tuple:
        parts = ["…" if a is ... else type_name(a) for a in typing.get_args(annotation)]
        return f"[{', '.join(parts)}]"
    if origin is dict:
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(f"`{member.value}`" for member in annotation)
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}.get(
        annotation.__name__, annotation.__name__
    )


def as_yaml(value: Any) -> str:
    """A default as it is written in a recipe."""
    if isinstance(value, Enum):
        return str(value.value)
    if value is None or isinstance(value, bool | list | tuple | dict):
        return json.dumps(value)
    return str(value)


def rows(model: type[BaseModel], prefix: str = "") -> list[str]:
    """One Markdown row a key, nested sections after their name."""
    found = []
    for name, field in model.model_fields.items():
        annotation: Any = field.annotation
        for part in typing.get_args(annotation):  # a section that may be left out
            if isinstance(part, type) and issubclass(part, BaseModel):
                found.append(
                    f"| `{prefix}{name}` | section or null | `null` | {field.description} |"
                )
                annotation = part
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found += rows(annotation, f"{prefix}{name}.")
            continue
        default = "required" if field.is_required() else f"`{as_yaml(field.default)}`"
        cells = (f"`{prefix}{name}`", type_name(annotation), default, field.description or "")
        found.append(f"| {' | '.join(cells)} |")
    return found


def section(system: str, model: type[BaseModel]) -> list[str]:
    """The keys of one system's recipe."""
    head = [f"## {system}", "", "| key | value | default | meaning |", "|---|---|---|---|"]
    return [*head, *rows(model), ""]


def reference() -> str:
    """The whole page."""
    return "\n".join(
        [
            "# Every key of a recipe",
            "",
            "Made by `python scripts/recipe_reference.py` from the code that checks recipes.",
            "The key `system` says whose recipe it is. An unknown key is an error; what is left",
            "out takes its default.",
            "",
            *(line for name, row in SYSTEMS.items() for line in section(name, load(row.recipe))),
        ]
    )


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
