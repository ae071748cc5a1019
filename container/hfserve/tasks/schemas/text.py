"""The requests and answers of the tasks that read a text."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from hfserve.tasks.schemas.base import Answer, Labels, LabelScore, Parameters, Schema, Score, Template

UNSET = -1


def _listed(given: Any) -> Any:
    return [given] if isinstance(given, str) else given


Truncated = Annotated[
    bool, Field(description="Whether a text that is too long for the model is cut; false refuses it with 422.")
]
Padding = Annotated[bool | str, Field(description="Taken and not used: padding changes no answer.")]
MaxLength = Annotated[
    int | None, Field(ge=4, description="The most tokens of a text that are read; null: all that the model takes.")
]


class Truncation(BaseModel):
    """How a text is cut, as the pipelines' arguments for tokenizers say it; padding is ours to choose."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    truncation: Truncated = True
    max_length: MaxLength = None
    padding: Padding = False


# text-classification


class TextPair(BaseModel):
    """A text with a second one, as models that compare two texts read them."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(description="The text.")
    text_pair: str | None = Field(None, description="The second text.")


OldPair = Annotated[
    list[Annotated[list[str], Field(min_length=2, max_length=2)]],
    Field(min_length=1, max_length=1, description="A text with a second one, in the pipeline's old form."),
]


class TextClassificationParameters(Parameters):
    """What a request may choose; `top_k` null means every label."""

    top_k: int | None = Field(
        UNSET, ge=UNSET, description="How many labels to give, the likeliest first; null: all; unset: the best alone."
    )
    function_to_apply: Literal["sigmoid", "softmax", "none"] | None = Field(
        None, description="What makes scores of the model's figures; null: what suits the model."
    )
    truncation: bool | Literal["longest_first", "only_first", "only_second", "do_not_truncate"] = Field(
        True, description="Whether a text that is too long for the model is cut; false refuses it with 422."
    )
    max_length: MaxLength = None
    padding: Padding = False


TEXT_CLASSIFICATION = Schema(
    inputs=str | TextPair | OldPair,
    answer=list[LabelScore] | LabelScore,
    parameters=TextClassificationParameters,
    answers=list[LabelScore] | list[list[LabelScore]],
)

# token-classification

Strategy = Annotated[
    Literal["none", "simple", "first", "average", "max"],
    BeforeValidator(lambda given: given.lower() if isinstance(given, str) else given),
]


class Entity(Answer):
    """A token that is part of an entity, or a word."""

    entity: str = Field(description="The label of the token.")
    score: Score
    index: int = Field(description="The number of the token.")
    word: str
    start: int = Field(description="Where in the text it begins.")
    end: int = Field(description="Where in the text it ends.")


class EntityGroup(Answer):
    """An entity of one or several tokens."""

    entity_group: str = Field(description="The kind of entity.")
    score: Score
    word: str
    start: int = Field(description="Where in the text it begins.")
    end: int = Field(description="Where in the text it ends.")


class TokenClassificationParameters(Parameters):
    """What a request may choose.

    A text too long for the model is cut, unless `stride` is given: then it is read in pieces that share so many tokens.
    """

    aggregation_strategy: Strategy = Field(
        "none", description="How tokens are joined to entities: not at all, or with the score of a word by its tokens."
    )
    ignore_labels: frozenset[str] = Field(frozenset({"O"}), description="Labels that are left out of the answer.")
    stride: int | None = Field(
        None, ge=0, description="Read a long text in pieces that share so many tokens; null: cut it."
    )
    is_split_into_words: bool = Field(False, description="Whether a text is a list of words.")
    delimiter: str = Field(" ", description="What stands between the words of such a list.")
    truncation: Truncated = True


TOKEN_CLASSIFICATION = Schema(
    inputs=str | list[str],
    answer=list[Entity] | list[EntityGroup],
    parameters=TokenClassificationParameters,
)

# fill-mask


class Proposition(Answer):
    """A token in the place of a mask."""

    score: Score
    token: int = Field(description="The number of the token.")
    token_str: str = Field(description="The token.")
    sequence: str = Field(description="The text with the token in the place of the mask.")


class FillMaskParameters(Parameters):
    """What a request may choose; a target that is no token of the model stands for the first token of its own."""

    top_k: int = Field(5, ge=1, description="How many tokens to propose for a mask.")
    targets: Annotated[
        list[str] | None,
        BeforeValidator(_listed, json_schema_input_type=list[str] | str | None),
        Field(description="The tokens to choose among; null: all."),
    ] = None
    tokenizer_kwargs: Truncation = Field(Truncation(), description="How a long text is cut.")
    truncation: Truncated = True


FILL_MASK = Schema(
    inputs=str,
    answer=list[Proposition] | list[list[Proposition]],
    parameters=FillMaskParameters,
    answers=list[Proposition] | list[list[Proposition]] | list[list[Proposition] | list[list[Proposition]]],
)

# feature-extraction

Pooling = Literal["none", "mean", "cls"]
Vector = list[float]


class FeatureExtractionParameters(Parameters):
    """What a request may choose.

    Without `pooling`, a sentence-transformers folder pools in its own way and others give the vectors of tokens; with
    `normalize`, a vector has length 1.
    """

    pooling: Pooling | None = Field(
        None, description="One vector for a text: the mean of its tokens or the first one; null: as the model is made."
    )
    normalize: bool | None = Field(
        None, description="Whether the vector of a text gets the length 1; null: as the model is made."
    )
    truncation: Truncated = True
    tokenize_kwargs: Truncation = Field(Truncation(), description="How a long text is cut.")


FEATURE_EXTRACTION = Schema(
    inputs=str,
    answer=Vector | Annotated[list[list[Vector]], Field(min_length=1, max_length=1)],
    parameters=FeatureExtractionParameters,
)

# question-answering


class QuestionInContext(BaseModel):
    """A question and the text that answers it; several questions go with one text, or with as many."""

    model_config = ConfigDict(extra="forbid")

    question: str | list[str] = Field(description="What is asked.")
    context: str | list[str] = Field(description="The text that holds the answer.")


class Span(Answer):
    """A piece of the context."""

    score: Score
    start: int = Field(description="Where in the context it begins.")
    end: int = Field(description="Where in the context it ends.")
    answer: str = Field(description="The piece; empty: the context has no answer.")


class QuestionAnsweringParameters(Parameters):
    """What a request may choose; null means the default. The last three change no answer, as in the pipeline."""

    top_k: int | None = Field(None, ge=1, description="How many answers to give; null: one.")
    topk: int | None = Field(None, ge=1, description="The old name of top_k.")
    max_answer_len: int | None = Field(None, ge=1, description="The most tokens of an answer; null: 15.")
    handle_impossible_answer: bool | None = Field(None, description="Whether there may be no answer: an empty one.")
    align_to_words: bool | None = Field(None, description="Whether an answer is widened to whole words; null: yes.")
    max_seq_len: int | None = Field(
        None, ge=1, description="The most tokens of question and context read at once; null: 384."
    )
    doc_stride: int | None = Field(
        None, ge=0, description="How many tokens two pieces of a long context share; null: 128, or half a piece."
    )
    max_question_len: int | None = Field(None, ge=1, description="Taken and not used.")
    padding: bool | str | None = Field(None, description="Taken and not used.")
    truncation: bool | str | None = Field(None, description="Taken and not used: a long context is read in pieces.")


QUESTION_ANSWERING = Schema(
    inputs=QuestionInContext,
    answer=Span | list[Span],
    parameters=QuestionAnsweringParameters,
    answers=Span | list[Span | list[Span]],
)

# zero-shot-classification


class Judgement(Answer):
    """A text with its labels, the likeliest first, and the score of each."""

    sequence: str
    labels: list[str]
    scores: list[Score]


class ZeroShotClassificationParameters(Parameters):
    """What a request may choose; the label takes the place of {} in the template."""

    candidate_labels: Labels
    hypothesis_template: Template = "This example is {}."
    multi_label: bool = Field(False, description="Whether several labels may fit: each gets a score of its own.")
    truncation: Truncated = True


ZERO_SHOT_CLASSIFICATION = Schema(inputs=str, answer=Judgement, parameters=ZeroShotClassificationParameters)
