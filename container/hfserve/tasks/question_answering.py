"""question-answering: the span of a context that answers a question, as transformers 4's pipeline found it.

A long context is read through overlapping windows; the windows of many requests share a pass. Transformers 5 has no
such pipeline: what is said of the pipeline here is true of 4.57.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from hfserve.errors import InvalidInput
from hfserve.messages import Item, Outcome
from hfserve.runtimes.encoder import LONG, TEXTS, EncoderModel
from hfserve.runtimes.tokenizing import or_fail
from hfserve.settings import Options
from hfserve.tasks.base import Task
from hfserve.tasks.forms import parse, split, string
from hfserve.tasks.objects import named
from hfserve.tasks.schemas.text import QuestionAnsweringParameters as Parameters
from hfserve.tasks.scores import Array, softmax

WINDOW = 384
"""Tokens of a window at most, unless the request says otherwise."""

OVERLAP = 128
"""Tokens that a window repeats of the one before, likewise; half a window when that is less."""

TYPED = frozenset(["albert", "funnel", "nystromformer", "rembert", "roformer", "splinter", "xlnet", "yoso"])
"""Families whose tokenizers stopped giving token types in transformers 5; their models were trained with them."""

TAKES = 'question-answering takes {"question", "context"}'

IMPOSSIBLE = -10_000.0
"""The logit of a token that no answer may hold."""


@dataclass(frozen=True, slots=True)
class Window:
    """A piece of a context with the question, and which of its tokens an answer may hold."""

    encoding: Any
    inputs: dict[str, list[int]]
    allowed: Array


@dataclass(frozen=True, slots=True)
class Passage:
    """A context and the windows on it."""

    context: str
    windows: Sequence[Window]


class QuestionAnswering:
    """A model that scores each token as the first and as the last of the answer."""

    concurrent = True

    def __init__(self, task: Task, model_dir: Path, options: Options) -> None:
        from transformers import AutoModelForQuestionAnswering

        self.task = task
        self._options = options
        with or_fail():
            self._model = EncoderModel(
                AutoModelForQuestionAnswering, model_dir, options, output=_logits, per_token=True, examples=_examples
            )
        self._encode = self._model.encode
        tokenizer = self._encode.tokenizer
        self._question_first = tokenizer.padding_side == "right"
        self._cls = tokenizer.cls_token_id
        self._added = [tokenizer.num_special_tokens_to_add(pair) for pair in (False, True)]

    def items(self, data: Any) -> list[Item]:
        """An item for each question, with all windows on its context."""
        inputs, parameters = split(data)
        chosen = parse(Parameters, parameters, self._options)
        return [self._item(question, context, chosen) for question, context in _asked(inputs)]

    def run(self, items: Sequence[Item]) -> list[Outcome]:
        """The answer to each item, a list of them when there are several or none."""
        rows = self._model([window.inputs for item in items for window in item.data.windows])
        logits = (row.numpy() for row in rows)
        return [self._answer(item, list(islice(logits, len(item.data.windows)))) for item in items]

    def result(self, data: Any, results: Sequence[Any]) -> Any:
        """As the pipeline shapes it: the answer to a lone question stands alone, even when it came in a list."""
        return results[0] if len(results) == 1 else list(results)

    def _item(self, question: str, context: str, chosen: Parameters) -> Item:
        longest = min(chosen.max_seq_len or WINDOW, self._encode.limit)
        overlap = min(longest // 2, OVERLAP) if chosen.doc_stride is None else chosen.doc_stride
        windows = [self._window(encoding) for encoding in self._encodings(question, context, longest, overlap)]
        cost = sum(len(window.allowed) for window in windows)
        return Item(Passage(context, windows), chosen.model_dump(exclude_none=True), "question", cost)

    def _encodings(self, question: str, context: str, longest: int, overlap: int) -> list[Any]:
        """The question in every window, the context a piece at a time."""
        if overlap >= longest:
            raise InvalidInput(f"parameters.doc_stride: {overlap} has to be less than the {longest} tokens of a window")
        texts = (question, context) if self._question_first else (context, question)
        asked = len(self._encode.encode(question).ids) - self._added[False]
        room = longest - self._added[True] - asked
        if room <= overlap:  # the cutter cannot step forward, and panics when it has to
            encoding = self._encode.encode(*texts)
            if encoding.overflowing or len(encoding.ids) > longest:
                raise InvalidInput(
                    f"the question takes {asked} tokens or more of the {longest} of a window, which leaves no room to "
                    f"move it along the context with {overlap} tokens of overlap; ask a shorter question, or choose "
                    "parameters.doc_stride or parameters.max_seq_len"
                )
            return [encoding]
        cut = "only_second" if self._question_first else "only_first"
        encoding = self._encode.encode(*texts, longest=longest, overlap=overlap, cut=cut)
        return [encoding, *encoding.overflowing]

    def _window(self, encoding: Any) -> Window:
        """The pipeline lets every token in where the tokenizer pads on the left, and the first token of a text always.

        It masks that one's scores, and the tokens of [CLS] take their part of the probability either way.
        """
        allowed = np.array([not self._question_first or sequence == 1 for sequence in encoding.sequence_ids])
        if self._cls is not None:
            allowed |= np.array(encoding.ids) == self._cls
        return Window(encoding, _inputs(self._model, encoding), allowed)

    def _answer(self, item: Item, logits: Sequence[Array]) -> Any:
        chosen = item.parameters
        top_k = chosen.get("top_k") or chosen.get("topk") or 1
        by_word = chosen.get("align_to_words", True)
        found: dict[str, dict[str, Any]] = {}
        unanswerable = float("inf")
        for window, scores in zip(item.data.windows, logits, strict=True):
            start, end = (_probabilities(column, window.allowed) for column in scores.T)
            unanswerable = min(unanswerable, float(start[0] * end[0]))
            start[0] = end[0] = 0.0
            # Spans within the same words are one answer, so more of them are looked at
            most = 2 * top_k + 10 if by_word else top_k
            for first, last, score in _spans(start, end, window.allowed, most, chosen.get("max_answer_len", 15)):
                begin, stop = self._place(window.encoding, first, last, by_word=by_word)
                text = item.data.context[begin:stop]
                answer = found.setdefault(text.lower(), {"score": 0.0, "start": begin, "end": stop, "answer": text})
                answer["score"] += score
        answers = list(found.values())
        if chosen.get("handle_impossible_answer"):
            answers.append({"score": unanswerable, "start": 0, "end": 0, "answer": ""})
        answers = sorted(answers, key=lambda answer: -answer["score"])[:top_k]
        return answers[0] if len(answers) == 1 else answers

    def _place(self, encoding: Any, first: int, last: int, *, by_word: bool) -> tuple[int, int]:
        """Where in the context the tokens stand, widened to whole words where the tokenizer knows words."""
        words = (encoding.token_to_word(first), encoding.token_to_word(last)) if by_word else (None, None)
        if None not in words:
            begin, end = (encoding.word_to_chars(word, int(self._question_first)) for word in words)
            if begin and end:
                return begin[0], end[1]
        return (encoding.token_to_chars(first) or (0, 0))[0], (encoding.token_to_chars(last) or (0, 0))[1]


def _asked(inputs: Any) -> list[tuple[str, str]]:
    """Each question with its context; a list of questions goes with one context, or with a list of as many."""
    if isinstance(inputs, list):
        pairs = [(*_fields(each, f"inputs[{i}]"), f"inputs[{i}]") for i, each in enumerate(inputs)]
        return [(_text(q, f"{place}.question"), _text(c, f"{place}.context")) for q, c, place in pairs]
    questions, contexts = _fields(inputs, "inputs")
    if not isinstance(questions, list):
        return [(_text(questions, "inputs.question"), _text(contexts, "inputs.context"))]
    asked = [_text(question, f"inputs.question[{i}]") for i, question in enumerate(questions)]
    if not isinstance(contexts, list):
        return [(question, _text(contexts, "inputs.context")) for question in asked]
    if len(contexts) != len(asked):
        raise InvalidInput(f"inputs.question has {len(asked)} questions and inputs.context {len(contexts)} contexts")
    return [(question, _text(contexts[i], f"inputs.context[{i}]")) for i, question in enumerate(asked)]


def _fields(value: Any, place: str) -> tuple[Any, Any]:
    question, context = named(value, place, ("question", "context"), TAKES)
    return question, context


def _text(value: Any, place: str) -> str:
    text = string(value, place)
    if not text:
        raise InvalidInput(f"{place} is empty")
    return text


def _inputs(model: EncoderModel, encoding: Any) -> dict[str, list[int]]:
    inputs = model.encode.inputs(encoding)
    typed = model.config.model_type in TYPED and "model_input_names" not in model.encode.tokenizer.init_kwargs
    return {**inputs, "token_type_ids": encoding.type_ids} if typed else inputs


def _examples(model: EncoderModel) -> list[dict[str, list[int]]]:
    return [_inputs(model, model.encode.encode("Where?", text, longest=LONG)) for text in TEXTS]


def _logits(answer: Any) -> Any:
    """Of shape (sequences, tokens, 2): how well each token starts and ends an answer."""
    import torch

    return torch.stack([answer.start_logits, answer.end_logits], dim=-1)


def _probabilities(logits: Array, allowed: Array) -> Array:
    return softmax(np.where(allowed, logits, IMPOSSIBLE))


def _spans(start: Array, end: Array, allowed: Array, most: int, longest: int) -> Iterator[tuple[int, int, float]]:
    """The likeliest spans of at most `longest` tokens, best first: first token, last token, probability."""
    reach = min(longest, len(start))
    # Row i holds the spans that start at token i
    near = start[:, None] * np.lib.stride_tricks.sliding_window_view(np.pad(end, (0, reach - 1)), reach)
    if np.count_nonzero(near) >= most:
        firsts, steps = np.divmod(_best(near.ravel(), most), reach)
        lasts = firsts + steps
    else:  # the pipeline fills up with spans of no probability, from all pairs of tokens
        every = np.tril(np.triu(np.outer(start, end)), longest - 1)
        firsts, lasts = np.divmod(_best(every.ravel(), most), len(start))
    allowed = np.concatenate([[True], allowed[1:]])
    for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
        if allowed[first] and allowed[last]:
            yield first, last, float(start[first] * end[last]) if 0 <= last - first < longest else 0.0


def _best(scores: Array, most: int) -> Array:
    """Positions of the highest scores, best first."""
    if most == 1:
        return np.array([scores.argmax()])
    kept = np.argpartition(-scores, most)[:most] if most < len(scores) else np.arange(len(scores))
    return np.asarray(kept[np.argsort(-scores[kept])])
