"""A text told while it is made: its tokens as pieces of text that are never broken characters."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hfserve.runtimes.generation import Token
from hfserve.tasks.steps import Ended, Piece

BROKEN = "�"
"""Stands for the bytes of a character whose other bytes have not come."""

PATIENCE = 8
"""Tokens that are waited for at most until bytes make a character: some never do."""

Decode = Callable[[Sequence[int]], str]


class Narrator:
    """The tokens of one text, each with what it adds to the text.

    Decoding a few tokens before the new ones keeps the spaces right that tokenizers drop at the edge of a text.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._from = 0
        self._to = 0
        self.text = ""

    def follow(self, context: Sequence[int]) -> None:
        """Begin after other tokens, whose text is not told."""
        self._ids = list(context)
        self._to = len(self._ids)

    def add(self, token: int, *, last: bool = False) -> str:
        """What the token adds: nothing while a character is incomplete; all that is left with the last."""
        self._ids.append(token)
        before = self._decode(self._ids[self._from : self._to])
        now = self._decode(self._ids[self._from :])
        if now.endswith(BROKEN) and not last and len(self._ids) - self._to < PATIENCE:
            return ""
        added = now[len(before) :]
        self._from, self._to = self._to, len(self._ids)
        self.text += added
        return added


class Events:
    """The pieces of one text as events in the words of Text Generation Inference, the last with how it ended."""

    def __init__(
        self, decode: Decode, special: frozenset[int], *, shown: Callable[[str], Any], text_of: Callable[[int], str],
        context: Sequence[int] = (),
    ) -> None:  # fmt: skip
        self._narrator = Narrator(decode)
        self._narrator.follow(context)
        self._special = special
        self._shown = shown
        self._text_of = text_of
        self._count = 0

    def of(self, piece: Piece) -> dict[str, Any]:
        """The event of a piece."""
        self._count += 1
        if piece.context:
            self._narrator.follow(piece.context)
        text = self._narrator.add(piece.token.id, last=piece.ended is not None)
        event = {
            "index": self._count, "token": self._token(piece.token, text), "generated_text": None, "details": None,
        }  # fmt: skip
        if piece.token.top:
            event["top_tokens"] = [
                {"id": id_, "text": self._text_of(id_), "logprob": logprob, "special": id_ in self._special}
                for id_, logprob in piece.token.top
            ]
        if piece.ended:
            event |= {"generated_text": self._shown(self._narrator.text), "details": details(piece.ended)}
        return event

    def _token(self, token: Token, text: str) -> dict[str, Any]:
        return {"id": token.id, "text": text, "logprob": token.logprob, "special": token.id in self._special}


def details(ended: Ended) -> dict[str, Any]:
    """How a text ended, with counts and seconds."""
    return {
        "finish_reason": ended.finish, "generated_tokens": ended.tokens, "input_length": ended.prompt,
        "seed": ended.seed, "seconds_to_first_token": round(ended.first_s, 6), "seconds": round(ended.total_s, 6),
    }  # fmt: skip


def detailed(
    records: Sequence[dict[str, Any]], made: Iterable[tuple[Ended, Sequence[Token]]], asked: bool | str | None,
    events: Callable[[], Events],
) -> list[dict[str, Any]]:  # fmt: skip
    """Records with how the text of each was made, where details were asked for: "brief" leaves its tokens out."""
    if not asked:
        return list(records)
    told = ({**details(how), **({} if asked == "brief" else _tokens(events(), how, tokens))} for how, tokens in made)
    return [{**record, "details": each} for record, each in zip(records, told, strict=True)]


def _tokens(events: Events, ended: Ended, tokens: Sequence[Token]) -> dict[str, Any]:
    *before, last = tokens
    shown = [events.of(piece) for piece in [*map(Piece, before), Piece(last, ended)]]
    top = [each.get("top_tokens", []) for each in shown]
    return {"prefill": [], "tokens": [each["token"] for each in shown], **({"top_tokens": top} if any(top) else {})}
