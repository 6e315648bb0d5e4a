"""What the tools' results have in common: their form, and how much fits. It loads nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

T = TypeVar("T")


class Compact(BaseModel):
    """A result that leaves out optional parts that are empty, so that it stays short."""

    model_config = ConfigDict(defer_build=True)  # with the catalogue of tools, which comes after `initialize`

    @model_serializer(mode="wrap")
    def _without_empty(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        return {
            name: value
            for name, value in dump(self).items()
            if fields[name].is_required() or (value is not None and value != [])
        }


def fitting(items: Iterable[T], size: Callable[[T], int], room: int) -> list[T]:
    """The first of `items`, and those after it for which there is room; `size` and `room` count the same."""
    fit: list[T] = []
    for item in items:
        room -= size(item)
        if fit and room < 0:
            break
        fit.append(item)
    return fit
