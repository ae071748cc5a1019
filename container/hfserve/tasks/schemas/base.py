"""What a schema is made of."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError


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


def between_commas(labels: Any) -> Any:
    """The labels that a string holds between commas; what is no string stays as it is."""
    return [label.strip() for label in labels.split(",") if label.strip()] if isinstance(labels, str) else labels


def _template(text: str) -> str:
    """A template as it is. Python fills it in, where `{:>99999999}` would fill the memory as well."""
    before, place, after = text.partition("{}")
    if not place or set("{}") & set(before + after):
        raise PydanticCustomError("template", "has to be a sentence with {} once, in the place of the label")
    return text


Labels = Annotated[
    list[Annotated[str, Field(min_length=1)]],
    AtMost("max_labels"),
    BeforeValidator(between_commas, json_schema_input_type=list[str] | str),
    Field(min_length=1, description="The labels to choose among; a string holds several between commas."),
]
Template = Annotated[
    str,
    AfterValidator(_template),
    Field(
        description="A sentence with {} in the place of the label.",
        json_schema_extra={"pattern": r"^[^{}]*(\{\}[^{}]*)+$"},
    ),
]


class LabelScore(Answer):
    """A label and how sure the model is of it."""

    label: str = Field(description="The label.")
    score: Score
