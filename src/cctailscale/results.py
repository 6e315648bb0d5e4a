"""What the tools' results have in common, as types that load nothing heavy."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


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
