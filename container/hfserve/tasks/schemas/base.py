"""What a schema is made of."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class Parameters(BaseModel):
    """What a request may choose; an unknown name is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    """An object in an answer."""

    model_config = ConfigDict(extra="forbid", serialize_by_alias=True)


@dataclass(frozen=True, slots=True)
class AtMost:
    """A bound that the settings choose, on a number or on the length of a list."""

    setting: str
    """The name of a field of `settings.Options`."""


@dataclass(frozen=True, slots=True)
class Schema:
    """The types of a task; `inputs` and `answer` are for one input, `answers` for a list of them."""

    inputs: Any
    answer: Any
    parameters: type[Parameters] = Parameters
    answers: Any = None
    """None: a list with the answer of each input."""


Score = Annotated[float, Field(description="How sure the model is; higher is surer.")]
Base64 = Annotated[str, Field(description="Bytes in base64.", json_schema_extra={"contentEncoding": "base64"})]
ImageInput = Annotated[
    str,
    Field(
        description="A picture in base64, as a data URL, or by its URL where HFSERVE_ALLOW_URLS lets it be fetched.",
        json_schema_extra={"contentEncoding": "base64", "contentMediaType": "image/*"},
    ),
]
AudioInput = Annotated[
    str,
    Field(
        description="A sound in base64, as a data URL, or by its URL where HFSERVE_ALLOW_URLS lets it be fetched.",
        json_schema_extra={"contentEncoding": "base64", "contentMediaType": "audio/*"},
    ),
]
