"""What requests of the tasks that generate text may choose, and what they are answered."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from hfserve.tasks.schemas.base import Answer, AtMost, AudioInput, Base64, ImageInput, Parameters, Schema

MOST_BEAMS = 64
MOST_STOPS = 16
MOST_BIASES = 300
MOST_TOP = 20
LONGEST_STOP = 256
Tokens = Annotated[int | None, AtMost("max_new_tokens")]
Stop = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]
Stops = Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None
Ids = Annotated[list[int], Field(min_length=1, max_length=256)]
Penalty = Annotated[float, Field(ge=-2, le=2)] | None
Bias = Annotated[list[Ids | float], Field(min_length=2, max_length=2)]
Details = bool | Literal["brief"] | None
Top = Annotated[int, Field(ge=0, le=MOST_TOP)] | None
_DETAILS = (
    "Say how the text ended, and of each token its id and the logarithm of its probability; "
    "`brief` leaves the tokens out."
)
_FREQUENCY = "Above 0, a token is less likely each time that the text has it; added to its score."
_PRESENCE = "Above 0, a token that the text has is less likely; added to its score once."
_TOP = "With details: so many likeliest tokens too."


class Generation(Parameters):
    """What every task that generates text takes; what a request leaves out is for the model's files to say."""

    max_new_tokens: Tokens = Field(None, ge=1, description="Most tokens to generate.")
    max_length: Tokens = Field(
        None, ge=2, description="Most tokens of the whole sequence; max_new_tokens, where it is given, wins."
    )
    min_length: Tokens = Field(None, ge=0, description="Fewest tokens of the whole sequence.")
    min_new_tokens: Tokens = Field(None, ge=0, description="Fewest tokens to generate.")
    num_beams: int | None = Field(
        None, ge=1, le=MOST_BEAMS, description="Sequences kept while searching; 1 is no search."
    )
    num_return_sequences: int | None = Field(
        None, ge=1, le=MOST_BEAMS, description="Texts for each input; more than one wants sampling or as many beams."
    )
    do_sample: bool | None = Field(
        None, description="Draw tokens by their probability, rather than take the likeliest."
    )
    temperature: float | None = Field(
        None, ge=1e-3, le=1e3, description="Below 1 likely tokens are drawn more often, above 1 less."
    )
    top_k: int | None = Field(None, ge=0, description="Draw among this many likeliest tokens; 0 among all.")
    top_p: float | None = Field(
        None, gt=0, le=1, description="Draw among the likeliest tokens whose probabilities add up to this."
    )
    min_p: float | None = Field(
        None, ge=0, le=1, description="Draw among tokens at least this probable, as a share of the likeliest one."
    )
    typical_p: float | None = Field(None, gt=0, le=1, description="Mass of the most typical tokens to draw among.")
    epsilon_cutoff: float | None = Field(None, ge=0, lt=1, description="Draw among tokens at least this probable.")
    eta_cutoff: float | None = Field(None, ge=0, lt=1, description="The same, lower where many tokens are likely.")
    repetition_penalty: float | None = Field(
        None, ge=1e-2, le=1e2, description="Above 1, tokens that were there already become less likely."
    )
    no_repeat_ngram_size: int | None = Field(
        None, ge=0, description="No run of this many tokens comes twice; 0 lets all repeat."
    )
    length_penalty: float | None = Field(
        None, ge=-1e2, le=1e2, description="With beams: above 0 favours long texts, below 0 short ones."
    )
    early_stopping: bool | Literal["never"] | None = Field(
        None, description="With beams: whether to end once there are as many texts as beams."
    )
    bad_words_ids: Annotated[list[Ids], Field(max_length=256)] | None = Field(
        None, description="Runs of token ids that are not to be generated."
    )
    suppress_tokens: Ids | None = Field(None, description="Token ids that are not to be generated.")
    sequence_bias: Annotated[list[Bias], Field(min_length=1, max_length=MOST_BIASES)] | None = Field(
        None, description="Runs of token ids, each with what is added to its score: [[[5, 6], -2.5]]."
    )
    renormalize_logits: bool | None = Field(None, description="Make probabilities add up to 1 after all penalties.")
    eos_token_id: Annotated[int, Field(ge=0)] | Ids | None = Field(None, description="Token ids that end a text.")
    seed: int | None = Field(None, ge=0, lt=1 << 63, description="Repeats what was sampled with the same seed.")
    clean_up_tokenization_spaces: bool | None = Field(
        None, description="Remove spaces before punctuation; left out: as the tokenizer says."
    )


# Text to text


class Text2Text(Generation):
    """What summarization and text2text-generation take.

    As in the pipeline, `max_length` counts only where neither the request nor the defaults set `max_new_tokens`.
    """

    stop: Stops = Field(
        None, description="Strings that end the text, which keeps the one that ended it, with the rest of its token."
    )
    details: Details = Field(None, description=_DETAILS)
    top_n_tokens: Top = Field(None, description=_TOP)
    truncation: bool | Literal["longest_first", "only_first", "do_not_truncate"] = Field(
        True, description="Cut a text that is longer than the model takes; false refuses it."
    )
    clean_up_tokenization_spaces: bool = Field(False, description="Remove spaces before punctuation.")


class Translation(Text2Text):
    """Translation takes languages too; a model of one pair has no use for them."""

    src_lang: str | None = Field(None, description="Language of the text, for a model of many languages.")
    tgt_lang: str | None = Field(None, description="Language to translate into, for a model of many languages.")


class Generated(Answer):
    """A generated text."""

    generated_text: str = Field(description="What the model wrote.")


class Summary(Answer):
    """A summary."""

    summary_text: str = Field(description="The summary.")


class Translated(Answer):
    """A translation."""

    translation_text: str = Field(description="The translation.")


def _text_to_text(answer: type[Answer], parameters: type[Parameters]) -> Schema:
    """A text is answered with a list; of a list, each text's answer stands bare when it is the only one."""
    return Schema(str, list[answer], parameters, list[answer] | list[list[answer]])  # type: ignore[valid-type]


TEXT2TEXT_GENERATION = _text_to_text(Generated, Text2Text)
SUMMARIZATION = _text_to_text(Summary, Text2Text)
TRANSLATION = _text_to_text(Translated, Translation)

# Text generation


class TextPart(TypedDict):
    """A part of a message that is text."""

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One message of a chat; what else it holds is for the model's chat template."""

    model_config = ConfigDict(extra="allow")

    role: str = Field(description="Who speaks: system, user, assistant or tool.")
    content: str | list[TextPart] | None = Field(None, description="What is said; null beside tool_calls.")


Chat = Annotated[list[Message], Field(min_length=1)]


class Encoding(Parameters):
    """How a prompt is encoded; the names are the tokenizer's, or the chat template's."""

    add_special_tokens: bool | None = None
    max_length: int | None = Field(None, ge=1)
    truncation: bool | None = None
    padding: bool | None = None
    enable_thinking: bool | None = None


class TextGeneration(Generation):
    """What text-generation takes: the pipeline's names, and those of Text Generation Inference for the same things."""

    max_length: int | None = Field(
        None, ge=1, description="Most tokens of prompt and text together; max_new_tokens, where it is given, wins."
    )
    min_length: int | None = Field(None, ge=0, description="Fewest tokens of prompt and text together.")
    return_full_text: bool | None = Field(
        None, description="Give the prompt, or the chat, with the text; left out: true. False gives the text alone."
    )
    return_tensors: bool | None = Field(None, description="Give the ids of all tokens in place of the text.")
    stop: Stops = Field(
        None, description="Strings that end the text, which keeps the one that ended it, with the rest of its token."
    )
    stop_sequence: Stops = Field(None, description="The same as stop, by the pipeline's name.")
    stop_sequences: Stops = Field(None, description="The same as stop.")
    stop_strings: Stops = Field(None, description="The same as stop, by generate()'s name.")
    skip_special_tokens: bool | None = Field(None, description="Leave special tokens out of the text; true by default.")
    prefix: str | None = Field(None, description="Put before each prompt, and never given back.")
    truncation: bool | Literal["longest_first", "only_first", "do_not_truncate"] = Field(
        True, description="Cut the beginning of a prompt that leaves no room for a text; false refuses it."
    )
    truncate: int | None = Field(None, ge=1, description="Use this many tokens of a prompt's end at most.")
    handle_long_generation: Literal["hole"] | None = Field(
        None, description="`hole` cuts the prompt's beginning until max_new_tokens fit; left out: fewer are generated."
    )
    add_special_tokens: bool | None = Field(None, description="Add the special tokens of the tokenizer to a prompt.")
    padding: bool | None = Field(None, description="Changes no answer.")
    pad_token_id: int | None = Field(None, ge=0, description="Changes no answer.")
    continue_final_message: bool | None = Field(
        None, description="Go on with a chat's last message; left out: where it is the assistant's."
    )
    tools: list[dict[str, Any]] | None = Field(None, description="Functions that a chat's model may call.")
    documents: list[dict[str, Any]] | None = Field(None, description="Texts that a chat's model may use.")
    tokenizer_encode_kwargs: Encoding | None = Field(None, description="How the prompt is encoded.")
    frequency_penalty: Penalty = Field(None, description=_FREQUENCY)
    presence_penalty: Penalty = Field(None, description=_PRESENCE)
    details: Details = Field(None, description=_DETAILS)
    top_n_tokens: Top = Field(None, description=_TOP)
    decoder_input_details: Literal[False] | None = Field(None, description="False: this server gives the text alone.")
    watermark: Literal[False] | None = Field(None, description="False: this server marks no text.")


class Continued(Answer):
    """The prompt with the text, the text alone, or a chat with the assistant's message."""

    generated_text: str | list[Message] = Field(description="What the model wrote, after what it was given.")


class ContinuedTokens(Answer):
    """The tokens of the prompt and the text."""

    generated_token_ids: list[int] = Field(description="Ids of all tokens.")


TEXT_GENERATION = Schema(str | Chat, list[Continued] | list[ContinuedTokens], TextGeneration)

# Streams


class EventToken(BaseModel):
    """A token of a stream."""

    id: int
    text: str = Field(description="What it adds to the text; nothing while a character is incomplete.")
    logprob: float | None = Field(description="The logarithm of its probability, with details.")
    special: bool = Field(description="Whether it stands for something other than text.")


class EventDetails(BaseModel):
    """How a text ended."""

    finish_reason: Literal["eos_token", "length", "stop_sequence"]
    generated_tokens: int
    input_length: int = Field(description="Tokens of the prompt.")
    seed: int | None
    seconds_to_first_token: float
    seconds: float


class Event(BaseModel):
    """An event of a stream: a token, and with the last one the whole text."""

    index: int = Field(description="Number of the token, from 1.")
    token: EventToken
    top_tokens: list[EventToken] | None = Field(None, description="The likeliest tokens, with top_n_tokens.")
    generated_text: str | None = Field(description="The whole text, in the last event.")
    details: EventDetails | None = Field(description="How the text ended, in the last event.")
    input: int | None = Field(None, description="Number of the input, from 0, where there are several.")


# Text from text, images and sounds


class ImageTextToText(Generation):
    """What image-text-to-text and any-to-any take."""

    return_full_text: bool | None = Field(
        None, description="Give what was sent with the text; false gives the text alone."
    )
    stop_sequence: Stops = Field(None, description="Strings that end the text, which keeps the one that ended it.")
    stop: Stops = Field(None, description="The same as stop_sequence.")
    frequency_penalty: Penalty = Field(None, description=_FREQUENCY)
    presence_penalty: Penalty = Field(None, description=_PRESENCE)
    details: Details = Field(None, description=_DETAILS)
    top_n_tokens: Top = Field(None, description=_TOP)
    skip_special_tokens: bool | None = Field(None, description="Leave special tokens out of the text; true by default.")
    continue_final_message: bool | None = Field(
        None, description="Go on with a chat's last message; left out: where it is the assistant's."
    )
    tools: list[dict[str, Any]] | None = Field(None, description="Functions that a chat's model may call.")


class _Part(BaseModel):
    """A part of a message; what it holds stands under its type's name, or under url, base64 or data."""

    model_config = ConfigDict(extra="forbid")

    url: str | None = Field(None, description="A data URL, or a URL where HFSERVE_ALLOW_URLS lets it be fetched.")
    base64: Base64 | None = None
    data: Base64 | None = None


class ImagePart(_Part):
    """A part of a message that is a picture."""

    type: Literal["image", "image_url", "input_image"]
    image: ImageInput | None = None
    image_url: ImageInput | dict[str, Any] | None = Field(None, description='As OpenAI has it: {"url": "…"}.')
    input_image: ImageInput | dict[str, Any] | None = None


class AudioPart(_Part):
    """A part of a message that is a sound."""

    type: Literal["audio", "audio_url", "input_audio"]
    audio: AudioInput | None = None
    audio_url: AudioInput | dict[str, Any] | None = None
    input_audio: AudioInput | dict[str, Any] | None = Field(None, description='As OpenAI has it: {"data": "…"}.')


Parts = list[TextPart | ImagePart | AudioPart]


class MixedMessage(BaseModel):
    """One message of a chat with pictures and sounds."""

    model_config = ConfigDict(extra="allow")

    role: str = Field(description="Who speaks: system, user or assistant.")
    content: str | Parts = Field(description="What is said and shown.")


MixedChat = Annotated[list[MixedMessage], Field(min_length=1)]


class Mixed(BaseModel):
    """A text with what belongs to it."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(description="The text, with the model's own marks where pictures stand, if it has such.")
    image: ImageInput | list[ImageInput] | None = None
    images: ImageInput | list[ImageInput] | None = None
    audio: AudioInput | None = None


class Messages(BaseModel):
    """A chat in an object."""

    model_config = ConfigDict(extra="forbid")

    messages: MixedChat


class Answered(Answer):
    """What was sent, as text or messages, and what the model wrote after it."""

    input_text: Any = Field(description="The text or the chat that was sent, its pictures and sounds left out.")
    generated_text: str | list[dict[str, Any]] = Field(description="What the model wrote, after what it was given.")


_MIXED = str | Mixed | Messages | MixedChat
IMAGE_TEXT_TO_TEXT = Schema(_MIXED, list[Answered], ImageTextToText)
ANY_TO_ANY = Schema(_MIXED, list[Answered], ImageTextToText)
