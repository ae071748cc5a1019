"""What a request to paint may choose, and what it is answered."""

from typing import Annotated

from pydantic import Field, FiniteFloat

from hfserve.tasks.schemas.base import AtMost, Parameters, Schema

MOST_STEPS = 1_000
MOST_PICTURES = 16
LEAST_SIDE = 8
Picture = Annotated[
    str,
    Field(
        description="A picture as PNG in base64.",
        json_schema_extra={"contentEncoding": "base64", "contentMediaType": "image/png"},
    ),
]
Side = Annotated[int | None, AtMost("max_pixels")]


class TextToImage(Parameters):
    """What text-to-image takes; what a request leaves out is the model's own default."""

    negative_prompt: str | None = Field(None, description="What the picture should not show.")
    num_inference_steps: int | None = Field(
        None, ge=1, le=MOST_STEPS, description="Steps from noise to picture: more are slower, and often better."
    )
    guidance_scale: FiniteFloat | None = Field(
        None, ge=0, le=100, description="How closely the picture keeps to the prompt; with 1 or less it is not guided."
    )
    guidance_rescale: FiniteFloat | None = Field(
        None, ge=0, le=1, description="Above 0, keeps strong guidance from making the picture too bright."
    )
    height: Side = Field(None, ge=LEAST_SIDE, description="Pixels from top to bottom, given together with width.")
    width: Side = Field(None, ge=LEAST_SIDE, description="Pixels from left to right, given together with height.")
    num_images_per_prompt: int | None = Field(
        None, ge=1, le=MOST_PICTURES, description="Pictures for each prompt; more than one are answered as a list."
    )
    seed: int | None = Field(None, ge=0, lt=1 << 63, description="The same seed and prompt give the same picture.")
    truncation: bool = Field(True, description="Cut a prompt that is longer than the model takes; false refuses it.")


TEXT_TO_IMAGE = Schema(str, Picture | list[Picture], TextToImage)
