"""What all groups of settings share."""

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Settings(BaseModel):
    """Base of all settings: immutable, and an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )

    @field_validator("*", mode="wrap")
    @classmethod
    def _is_of_its_kind(
        cls, value: Any, validate: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Any:
        """Refuse what pydantic takes for a number or a list: `yes`, and what has no order."""
        valid = validate(value)
        field = cls.model_fields[info.field_name or ""]
        other = None
        if isinstance(value, bool) and field.annotation is not bool:
            other = f"is {str(value).lower()}, but it must be a number"
        elif isinstance(value, set | frozenset):
            other = f"is the set {sorted(value, key=str)}, but it must be a list, in an order"
        if other is not None:
            raise ValueError(other)
        return valid
