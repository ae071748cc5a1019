"""The requests and answers of the tasks that hear or speak, and of decisions."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hfserve.tasks.schemas.base import (
    Answer,
    AtMost,
    AudioInput,
    Base64,
    ImageInput,
    Labels,
    LabelScore,
    Parameters,
    Schema,
    Score,
    Template,
)

Tokens = Annotated[int | None, AtMost("max_new_tokens")]


class Samples(BaseModel):
    """A sound as numbers."""

    model_config = ConfigDict(extra="forbid")

    array: list[float] = Field(min_length=1, description="One channel of samples from -1 to 1.")
    sampling_rate: int = Field(ge=4_000, le=400_000, description="Samples a second.")


class RawSamples(BaseModel):
    """A sound as numbers, by the other name that the pipelines have for them."""

    model_config = ConfigDict(extra="forbid")

    raw: list[float] = Field(min_length=1, description="One channel of samples from -1 to 1.")
    sampling_rate: int = Field(ge=4_000, le=400_000, description="Samples a second.")


Heard = AudioInput | Samples | RawSamples


class Batched(Parameters):
    """What every pipeline takes."""

    batch_size: int | None = Field(
        None, ge=1, le=64, description="Pieces of one request run together; changes no answer."
    )


# Classification


class AudioClassification(Batched):
    """What audio-classification takes."""

    top_k: int | None = Field(None, ge=1, description="How many labels, the surest first; null: all.")
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = Field(
        None, description="What makes scores of the model's logits; null: what suits the model."
    )


class ZeroShotAudioClassification(Batched):
    """What zero-shot-audio-classification takes."""

    candidate_labels: Labels
    hypothesis_template: Template = "This is a sound of {}."


# Speech to text


class Sampled(Parameters):
    """How a model that generates does so, in the words of transformers."""

    max_new_tokens: Tokens = Field(None, ge=1, description="Most tokens to generate.")
    max_length: Tokens = Field(None, ge=2, description="Most tokens with those before; max_new_tokens wins.")
    min_length: Tokens = Field(None, ge=0, description="Fewest tokens with those before.")
    min_new_tokens: Tokens = Field(None, ge=0, description="Fewest tokens to generate.")
    num_beams: int | None = Field(None, ge=1, le=64, description="Sequences kept while searching; 1 is no search.")
    do_sample: bool | None = Field(None, description="Draw tokens by their probability.")
    temperature: float | list[float] | None = Field(
        None, description="Below 1 likely tokens are drawn more often; several are tried in turn by Whisper."
    )
    top_k: int | None = Field(None, ge=0, description="Draw among this many likeliest tokens.")
    top_p: float | None = Field(None, gt=0, le=1, description="Draw among the likeliest that add up to this.")
    repetition_penalty: float | None = Field(
        None, ge=1e-2, le=1e2, description="Above 1, what was there becomes less likely."
    )
    no_repeat_ngram_size: int | None = Field(None, ge=0, description="No run of this many tokens comes twice.")
    length_penalty: float | None = Field(None, ge=-1e2, le=1e2, description="With beams: above 0 favours long texts.")
    early_stopping: bool | Literal["never"] | None = Field(None, description="With beams: when to stop searching.")
    guidance_scale: float | None = Field(None, ge=0, description="How closely music follows its text.")


class SpeechRecognition(Batched, Sampled):
    """What automatic-speech-recognition takes."""

    return_timestamps: bool | Literal["word", "char"] | None = Field(
        None, description="When what is said: by `word` or `char`; true for the pieces of Whisper."
    )
    return_language: bool | None = Field(None, description="Whisper: the language of each piece, beside timestamps.")
    chunk_length_s: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="Seconds of the pieces in which a long sound is read; 0: whole."
    )
    stride_length_s: float | Annotated[list[float], Field(min_length=2, max_length=2)] | None = Field(
        None, description="Seconds that pieces share, at both ends or at each; null: a sixth of a piece."
    )
    ignore_warning: bool | None = Field(None, description="Taken; it only silences the log.")
    decoder_kwargs: dict[str, Any] | None = Field(None, description="For the decoder of a model that has an LM.")
    language: str | None = Field(None, description="Whisper: the language spoken; null: what the model hears.")
    task: Literal["transcribe", "translate"] | None = Field(None, description="Whisper: translate gives English.")
    condition_on_prev_tokens: bool | None = Field(None, description="Whisper: let each piece know the one before.")
    no_speech_threshold: float | None = Field(None, description="Whisper: from where a piece counts as silence.")
    logprob_threshold: float | None = Field(None, description="Whisper: below which another temperature is tried.")
    generate_kwargs: Sampled | None = Field(None, description="The same choices, in an object of their own.")


class Piece(Answer):
    """A piece of what was said."""

    text: str = Field(description="What was said.")
    timestamp: tuple[float | None, float | None] = Field(description="Seconds of its beginning and its end.")
    language: str | None = Field(None, description="Its language, when return_language asks for it.")


class Transcript(Answer):
    """What was said."""

    text: str = Field(description="What was said.")
    chunks: list[Piece] | None = Field(None, description="Its pieces, when return_timestamps asks for them.")


# Text to sound


class TextToAudio(Batched, Sampled):
    """What text-to-audio takes."""

    speaker_embeddings: list[list[float]] | None = Field(None, description="SpeechT5: the voice, as a vector.")
    speaker_id: int | None = Field(None, ge=0, description="VITS and SeamlessM4T: the number of the voice.")
    tgt_lang: str | None = Field(None, description="SeamlessM4T: the language to speak.")
    generate_kwargs: Sampled | None = Field(None, description="The same choices, in an object of their own.")


class Spoken(Answer):
    """A sound."""

    audio: Base64 = Field(description="WAV of 16 bits, in base64.")
    sampling_rate: int = Field(description="Samples a second.")


# Decisions

Content = str | dict[str, Any] | list[Any]


class Noul(BaseModel):
    """A question of yes or no."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["noul"]
    instructions: Content | None = Field(None, description="What is asked.")
    criteria: dict[Literal["true", "false"], Content | None] | None = Field(None, description="What each answer means.")


class Choice(BaseModel):
    """A choice among options."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["choice"]
    instructions: Content | None = Field(None, description="What is asked.")
    criteria: dict[str, Content | None] = Field(min_length=1, description="The options, and what each means.")


class Level(BaseModel):
    """A score on a scale."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["score"]
    instructions: Content | None = Field(None, description="What is asked.")
    criteria: list[Content] = Field(min_length=1, description="The levels, lowest first.")


class Asset(BaseModel):
    """A picture that the texts of a request name."""

    model_config = ConfigDict(extra="allow")

    data_base64: ImageInput


class Decision(BaseModel):
    """A state, and what is asked about it."""

    model_config = ConfigDict(extra="forbid")

    state: Any = Field(description="What the questions are about: a text, or any JSON.")
    questions: dict[str, Annotated[Noul | Choice | Level, Field(discriminator="type")]] = Field(
        min_length=1, description="Each question under a name of its own."
    )
    assets: dict[str, Asset | ImageInput] | None = Field(
        None, description="Pictures, each under the name that stands for it in the texts."
    )


class NoulAnswer(Answer):
    """How probable yes is."""

    type: Literal["noul"]
    noul: Score


class ChoiceAnswer(Answer):
    """The option that fits best."""

    type: Literal["choice"]
    choice: str = Field(description="The option.")
    confidence: Score
    probabilities: dict[str, float] = Field(description="Of each option.")


class ScoreAnswer(Answer):
    """A score, from 0 for the lowest level."""

    type: Literal["score"]
    score: float = Field(description="The mean of the levels, by their probabilities.")
    legend: dict[str, Any] = Field(description="The levels by number.")
    confidence: Score
    probabilities: dict[str, float] = Field(description="Of each level.")


AUDIO_CLASSIFICATION = Schema(Heard, list[LabelScore], AudioClassification)
AUTOMATIC_SPEECH_RECOGNITION = Schema(Heard, Transcript, SpeechRecognition)
TEXT_TO_AUDIO = Schema(str, Spoken, TextToAudio)
ZERO_SHOT_AUDIO_CLASSIFICATION = Schema(Heard, list[LabelScore], ZeroShotAudioClassification)
DECISION = Schema(
    Decision, dict[str, Annotated[NoulAnswer | ChoiceAnswer | ScoreAnswer, Field(discriminator="type")]], Batched
)
