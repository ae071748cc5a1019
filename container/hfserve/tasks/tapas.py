"""How TAPAS reads a question with a table: the tokens of both, and for each its cell and what its numbers say.

These are the rules of transformers' own tokenizer, in one walk over the table: that one goes over all of it again for
every row that it drops, and through a data frame for every number.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfserve.errors import InvalidInput, LoadError
from hfserve.runtimes.tokenizing import load_tokenizer
from hfserve.settings import Options

MOST_CHARACTERS = 100_000
"""Characters of a table that are looked at: many times what a model can read."""

MOST_OF_CELL = 1_000
"""Characters of a cell, and of a question, likewise."""

AGREEING = 0.7
"""The part of a column that has to hold numbers, or dates, for them to be ranked."""


@dataclass(frozen=True, slots=True)
class Table:
    """The names of the columns, and the cells row by row."""

    names: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a cell; `begins` is where in the cell its word begins. Columns count from 1, and rows below names."""

    text: str
    begins: int
    column: int
    row: int


class TableEncoder:
    """`limit` is the most tokens that the model takes."""

    def __init__(self, model_dir: Path, config: Any, options: Options) -> None:
        tokenizer = load_tokenizer(model_dir, options)
        if not hasattr(tokenizer, "max_row_id"):
            raise LoadError(f"{type(tokenizer).__name__} does not read tables; save the model with its TapasTokenizer")
        self._tokenizer = tokenizer
        self.limit = int(min(tokenizer.model_max_length, config.max_position_embeddings))
        self._most = [size - 1 for size in config.type_vocab_sizes]
        self.pad: dict[str, Any] = {
            "input_ids": tokenizer.pad_token_id, "attention_mask": 0, "token_type_ids": [0] * len(self._most)
        }  # fmt: skip

    def __call__(self, query: str, table: Table, place: str) -> tuple[dict[str, Any], bool]:
        """The model's inputs, and whether something of the table was left out."""
        asked = self._tokenizer.tokenize(query[:MOST_OF_CELL])
        if len(table.names) > min(self._most[1], self._tokenizer.max_column_id - 1):
            raise InvalidInput(f"{place}.table has {len(table.names)} columns, which are too many for the model")
        looked_at = Table(
            table.names, list(_first_rows(table.rows, min(self._most[2], self._tokenizer.max_row_id - 1)))
        )
        tokens, cut = self._fitting(looked_at, self.limit - len(asked) - 2)
        if len(query) > MOST_OF_CELL or not tokens:
            raise InvalidInput(
                f"{place}.query and the names of the columns leave no room for a row in the {self.limit} tokens that "
                "the model takes; shorten them"
            )
        texts = [self._tokenizer.cls_token, *asked, self._tokenizer.sep_token, *(token.text for token in tokens)]
        types = [[0] * len(self._most)] * (len(asked) + 2) + self._types(query, looked_at, tokens)
        ids = self._tokenizer.convert_tokens_to_ids(texts)
        encoded = {"input_ids": ids, "attention_mask": [1] * len(ids), "token_type_ids": types}
        return encoded, cut or len(looked_at.rows) < len(table.rows)

    def _fitting(self, table: Table, room: int) -> tuple[list[Token], bool]:
        """As many rows as there is room for with the first word of each cell, and then as many words of all cells."""
        words = max(1, self._tokenizer.cell_trim_length)
        tokens, taken, rows = list(self._tokens(table.names, 0)), 0, 0
        taken = sum(token.begins < words for token in tokens)
        for rows, row in enumerate(table.rows, 1):
            more = list(self._tokens(row, rows))
            taken += sum(token.begins < words for token in more)
            if taken > room:
                rows -= 1
                break
            tokens += more
        if not rows:
            return [], True
        begins = sorted(token.begins for token in tokens)
        if self._tokenizer.cell_trim_length < 0:
            words = begins[room] if len(begins) > room else begins[-1] + 1
        kept = [token for token in tokens if token.begins < words]
        return kept, len(kept) < len(tokens) or rows < len(table.rows)

    def _tokens(self, cells: Sequence[str], row: int) -> Iterator[Token]:
        for column, cell in enumerate(cells, 1):
            begins = -1
            for i, piece in enumerate(self._tokenizer.tokenize(cell[:MOST_OF_CELL])):
                begins = begins if piece.startswith("##") else i
                yield Token(piece, begins, column, row)

    def _types(self, query: str, table: Table, tokens: Sequence[Token]) -> list[list[int]]:
        """Of each token: part of the table, column, row, answer before, rank from below and above, relation."""
        numbers = [_numbers([row[column] for row in table.rows]) for column in range(len(table.names))]
        ranks, relations = _ranks(numbers), _relations(query, numbers)
        found = []
        for token in tokens:
            cell = (token.column - 1, token.row - 1)
            types = [1, token.column, token.row, 0, *ranks.get(cell, (0, 0)), relations.get(cell, 0)]
            found.append([min(value, most) for value, most in zip(types, self._most, strict=True)])
        return found


def _first_rows(rows: Sequence[Sequence[str]], most: int) -> Iterator[Sequence[str]]:
    """The rows up to a number of them and of their characters; the first always."""
    left = MOST_CHARACTERS
    for number, row in enumerate(rows[:most]):
        left -= sum(min(len(cell), MOST_OF_CELL) + 1 for cell in row)
        if left < 0 and number:
            return
        yield row


def _numbers(column: Sequence[str]) -> dict[int, Any]:
    """The number or date of each cell of a column that has mostly one of these."""
    rules = _rules()
    values = {
        row: list(rules._get_numeric_values(rules.normalize_for_match(cell[:MOST_OF_CELL])))
        for row, cell in enumerate(column)
    }
    found: dict[int, Any] = rules._consolidate_numeric_values(values, AGREEING, None)
    return found


def _ranks(numbers: Sequence[dict[int, Any]]) -> dict[tuple[int, int], tuple[int, int]]:
    """The place of each number among those of its column, from the least and from the greatest."""
    found = {}
    for column, values in enumerate(numbers):
        key = _comparable(list(values.values()))
        if key is None:
            continue
        keys = {row: key(value) for row, value in values.items()}
        order = {value: rank for rank, value in enumerate(sorted(set(keys.values())), 1)}
        for row, value in keys.items():
            found[column, row] = (order[value], len(order) + 1 - order[value])
    return found


def _relations(query: str, numbers: Sequence[dict[int, Any]]) -> dict[tuple[int, int], int]:
    """How each number compares with those of the question, a bit for equal, less and greater."""
    rules = _rules()
    found: dict[tuple[int, int], int] = defaultdict(int)
    for asked in rules._get_numeric_values(rules.normalize_for_match(query)):
        for column, values in enumerate(numbers):
            key = _comparable([*values.values(), asked]) if values else None
            for row, value in values.items() if key else ():
                relation = rules.get_numeric_relation(asked, value, key)
                if relation is not None:
                    found[column, row] |= 1 << (relation.value - rules.Relation.EQ.value)
    return found


def _comparable(values: Sequence[Any]) -> Any:
    """What makes the values comparable, None where nothing does."""
    try:
        return _rules().get_numeric_sort_key_fn(values) if values else None
    except ValueError:
        return None


def _rules() -> Any:
    """transformers' rules for numbers and dates in texts."""
    from transformers.models.tapas import tokenization_tapas

    return tokenization_tapas
