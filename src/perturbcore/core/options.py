"""Options of a method, checked where they are given, and presets of them in a YAML file."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, ValidationError

from perturbcore.core.errors import ParameterError, wrong_value
from perturbcore.core.files import read_yaml

Share = Annotated[float, Field(ge=0, lt=1)]


class Options(BaseModel, frozen=True, extra="forbid"):
    """Everything that decides what a method is; a wrong value raises `ParameterError`."""

    def __init__(self, **options: Any):
        try:
            super().__init__(**options)
        except ValidationError as error:
            kind = type(self)
            raise wrong_value(error, kind.__name__, list(kind.model_fields)) from None

    def changed(self, **changes: Any) -> Self:
        """Return a copy with some values changed."""
        return type(self)(**{**self.model_dump(), **changes})

    @classmethod
    def preset(cls, path, *names: str, **changes: Any) -> Self:
        """Return the options that a YAML file has under some names, some of them changed."""
        found = read_yaml(path)
        for name in names:
            if name not in found:
                raise ParameterError(f"no preset '{name}'; there are: {', '.join(found)}")
            found = found[name]
        return cls(**{**found, **changes})
