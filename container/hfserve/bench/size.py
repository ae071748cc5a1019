"""How much text was read and written: in tokens where the model's tokenizer is at hand, else in characters."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hfserve.bench import bodies
from hfserve.bench.errors import BenchError
from hfserve.bench.load import Tally


class Ruler:
    """Measures texts, each once."""

    def __init__(self, unit: str, length: Callable[[str], int]) -> None:
        self.unit = unit
        self._length = cache(length)

    def figures(self, tally: Tally, sent: Sequence[bytes]) -> dict[str, float]:
        """What was read per second, and what was written where answers hold text; nothing where there is no text."""
        read = sum(times * self._read(sent[place]) for place, times in tally.answered.items())
        written = sum(self._length(text) for place, answer in tally.written for text in _new(sent[place], answer))
        found = {f"{self.unit}_per_s": read, f"written_{self.unit}_per_s": written}
        return {name: round(size / tally.seconds, 1) for name, size in found.items() if size}

    def _read(self, body: bytes) -> int:
        return sum(self._length(text) for text in bodies.texts(body))


def ruler(directory: Path | None, *, asked: bool) -> Ruler:
    """Tokens by the tokenizer.json of a directory, else characters; `asked`: the user named the directory."""
    file = directory / "tokenizer.json" if directory else None
    if file is None or not file.is_file():
        if asked:
            raise BenchError(f"{directory} holds no tokenizer.json")
        return Ruler("characters", len)
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises nothing narrower
        raise BenchError(f"{file} cannot be read: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return Ruler("tokens", lambda text: len(tokenizer.encode(text)))


def _new(body: bytes, answer: bytes) -> Iterator[str]:
    """What a model added to the texts of a body: some answers begin with the prompt."""
    prompts = sorted(bodies.texts(body), key=len, reverse=True)
    for text in _written(json.loads(answer)):
        yield text[next((len(prompt) for prompt in prompts if text.startswith(prompt)), 0) :]


def _written(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for each in value:
            yield from _written(each)
    elif isinstance(value, dict):
        for name, each in value.items():
            if name.endswith("_text") and isinstance(each, str):
                yield each
