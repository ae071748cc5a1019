"""The requests and answers of the tasks that compare texts, or a question with choices or a table."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from hfserve.tasks.schemas.base import Answer, Parameters, Schema, Score
from hfserve.tasks.schemas.text import MaxLength, Truncated, Truncation

# sentence-similarity


class SourceAndSentences(BaseModel):
    """A sentence, and those that it is compared with."""

    model_config = ConfigDict(extra="forbid")

    source_sentence: str = Field(description="What the sentences are compared with.")
    sentences: list[str] = Field(min_length=1, description="The sentences to compare.")


class SentenceSimilarityParameters(Parameters):
    """What a request may choose."""

    pooling: Literal["mean", "cls"] | None = Field(
        None, description="What makes a sentence's vector: the mean of its tokens or the first one; "
        "null: as the model is made, the mean where it does not say.",
    )  # fmt: skip
    truncation: Truncated = True
    tokenize_kwargs: Truncation = Field(Truncation(), description="How a long sentence is cut.")


Similarity = Annotated[float, Field(ge=-1.001, le=1.001, description="The cosine of the angle between two vectors.")]

SENTENCE_SIMILARITY = Schema(
    inputs=SourceAndSentences,
    answer=list[Similarity],
    parameters=SentenceSimilarityParameters,
)

# text-ranking


class QueryAndTexts(BaseModel):
    """A query, and the texts to rank by how well they answer it."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(description="What is searched.")
    texts: list[str] = Field(min_length=1, description="The texts to rank; `documents` is another name.")


class QueryTextPair(BaseModel):
    """A query and one text."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(description="The query.")
    text_pair: str = Field(description="The text.")


class Ranked(Answer):
    """A text's place among those of the request, and its score."""

    index: int = Field(description="The number of the text in the request.")
    score: Score


class RankedText(Ranked):
    """The same with the text."""

    text: str


class TextRankingParameters(Parameters):
    """What a request may choose; the other forms name the same under other names."""

    top_k: int | None = Field(None, ge=1, description="How many texts to give, the best first; null: all.")
    top_n: int | None = Field(None, ge=1, description="Another name of top_k.")
    return_text: bool = Field(False, description="Whether the texts come back with their scores.")
    return_documents: bool = Field(False, description="Another name of return_text.")
    raw_scores: bool = Field(False, description="Whether scores are as the model puts them out, before a sigmoid.")
    truncation: Truncated = True
    truncate: bool = Field(True, description="Another name of truncation.")
    max_length: MaxLength = None


TEXT_RANKING = Schema(
    inputs=QueryAndTexts | QueryTextPair | Annotated[list[str], Field(min_length=2, max_length=2)],
    answer=list[Ranked] | list[RankedText] | Score,
    parameters=TextRankingParameters,
)

# multiple-choice


class QuestionAndChoices(BaseModel):
    """A question, or the beginning of a text, and the choices to answer or to end it; `question` has other names."""

    model_config = ConfigDict(extra="forbid")

    question: str = Field(description="What is asked; `prompt` and `text` are other names.")
    choices: list[str] = Field(min_length=1, description="The choices.")


class Choice(Answer):
    """The likeliest choice, and how likely each one is."""

    choice: str = Field(description="The likeliest choice.")
    index: int = Field(description="Its number in the request.")
    scores: list[Score] = Field(description="The probability of every choice, in the order of the request.")


class MultipleChoiceParameters(Parameters):
    """What a request may choose."""

    truncation: Truncated = True
    max_length: MaxLength = None


MULTIPLE_CHOICE = Schema(inputs=QuestionAndChoices, answer=Choice, parameters=MultipleChoiceParameters)

# table-question-answering

Cell = str | int | float | bool | None


class QuestionAndTable(BaseModel):
    """One or several questions about a table, which comes by columns or by rows."""

    model_config = ConfigDict(extra="forbid")

    query: str | Annotated[list[str], Field(min_length=1)] = Field(description="What is asked.")
    table: dict[str, list[Cell]] | list[dict[str, Cell]] = Field(
        description="The columns by name, all of one length, or a list of rows with the same names."
    )


class TableAnswer(Answer):
    """Cells of the table and what to do with them; a model that writes its answer gives the answer alone."""

    answer: str = Field(description="The cells, behind the name of the function that joins them, when there is one.")
    coordinates: list[Annotated[list[int], Field(min_length=2, max_length=2)]] = Field(
        default=[], description="Row and column of each cell."
    )
    cells: list[str] = Field(default=[], description="The cells.")
    aggregator: str = Field(default="", description="The function that joins the cells: NONE, SUM, AVERAGE or COUNT.")


class TableQuestionAnsweringParameters(Parameters):
    """What a request may choose; null means the default."""

    sequential: bool | None = Field(
        None, description="Whether several questions are a conversation: each is told the answer to the one before."
    )
    padding: bool | str | None = Field(None, description="Taken and not used: padding changes no answer.")
    truncation: bool | Literal["drop_rows_to_fit", "do_not_truncate"] | None = Field(
        None, description="Whether rows that are too many for the model are dropped; false refuses them with 422."
    )


TABLE_QUESTION_ANSWERING = Schema(
    inputs=QuestionAndTable,
    answer=TableAnswer | list[TableAnswer],
    parameters=TableQuestionAnsweringParameters,
    answers=TableAnswer | list[TableAnswer | list[TableAnswer]],
)
