"""Texts made token by token, many side by side: newcomers join, and the finished leave, between any two passes.

A pass runs the new tokens of all texts as one row, unpadded: a token of each that is being written, and a piece of
the prompts that are still being read. Each token attends to its own text only, whose keys and values lie in one
range of a pool that was given to it when it began, so that no text ever has to make room for another.
"""

import bisect
import inspect
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from hfserve.runtimes import device as devices
from hfserve.runtimes import packing
from hfserve.runtimes import torch as runtime
from hfserve.settings import Options

NAME = "hfserve_steps"
BLOCK = 16
"""Tokens by which memory is given out."""

ON_CPU, ON_GPU = 64, 2048
"""Tokens of a pass at most while somebody's next token waits for it: a prompt is read piece by piece."""

ALONE = 8
"""How many times as much of the prompts is read in a pass that nobody's next token waits for."""

LANES = 2
"""Lanes on a CPU, which share its cores: each reads all weights for every token of its texts, so that they are few.

With one thread each, none waits within a layer for another that something else has put off its core.
"""

TRIED = 8
"""Texts that are made side by side when a model is tried, and that there is room for if memory allows it."""

EOS, LENGTH, STOP = "eos_token", "length", "stop_sequence"
"""Why a text ended, in the words of Text Generation Inference."""

ROWWISE = frozenset(
    [
        "TemperatureLogitsWarper", "TopKLogitsWarper", "TopPLogitsWarper", "MinPLogitsWarper", "TypicalLogitsWarper",
        "EpsilonLogitsWarper", "EtaLogitsWarper", "LogitNormalization", "InfNanRemoveLogitsProcessor",
        "SuppressTokensLogitsProcessor",
    ]
)  # fmt: skip
"""Processors of transformers that look at scores alone: those who ask for the same are computed together."""


Held = Mapping[int, tuple[torch.Tensor, torch.Tensor]]
"""Keys and values by layer, (places, heads, width) each."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was drawn; where asked for, the logarithm of its probability, and the likeliest ones with theirs."""

    id: int
    logprob: float | None = None
    top: Sequence[tuple[int, float]] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of one text.

    `processors` change scores (rows, vocabulary) as in `generate()`, `key` names what they do where rows can share
    them; `stops` says of all tokens whether the last one ended the text at a string.
    """

    prompt: Sequence[int]
    most: int
    ends: frozenset[int] = frozenset()
    processors: Any = ()
    key: Hashable = None
    sample: bool = False
    seed: int | None = None
    stops: Callable[[Sequence[int]], bool] | None = None
    logprobs: int | None = None
    """How many of the likeliest tokens to tell beside the logarithm of the drawn one's probability; None: neither."""
    source: Sequence[int] = ()
    """What an encoder reads, for a model that has one; the prompt is then what its decoder begins with."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """What the model is given of a prompt with pictures: its tokens, and the pictures, by the model's own names."""

    @property
    def tokens(self) -> int:
        """Places in the pool at most: what was drawn last is never read."""
        return len(self.source) + len(self.prompt) + self.most - 1


@dataclass(slots=True, eq=False)
class Text:
    """One text: its tokens, where it lies, how many of its tokens the model has read, and why it ended."""

    wanted: Wanted
    ids: list[int]
    start: int
    chance: torch.Generator | None
    read: int = 0
    seen: Any = None
    """What stands for its prompt in the model, where there are pictures in it."""
    made: list[Token] = field(default_factory=list)
    finish: str = ""
    failure: Exception | None = None
    began: float = field(default_factory=time.monotonic)
    first: float | None = None

    @property
    def unread(self) -> int:
        """Tokens that the model has not read."""
        return len(self.ids) - self.read


class Pool:
    """Ranges of blocks, the first that is free and large enough."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.used = 0
        self._free = [(0, blocks)]

    def take(self, blocks: int) -> int | None:
        """The first block of a range, None when there is none now."""
        for i, (start, size) in enumerate(self._free):
            if size >= blocks:
                self._free[i : i + 1] = [(start + blocks, size - blocks)] if size > blocks else []
                self.used += blocks
                return start
        return None

    def give(self, start: int, blocks: int) -> None:
        """Take a range back, joined with free neighbours."""
        self.used -= blocks
        i = bisect.bisect(self._free, (start, blocks))
        if i < len(self._free) and self._free[i][0] == start + blocks:
            blocks += self._free.pop(i)[1]
        if i and sum(self._free[i - 1]) == start:
            i, start, blocks = i - 1, self._free[i - 1][0], blocks + self._free.pop(i - 1)[1]
        self._free.insert(i, (start, blocks))


@dataclass(frozen=True, slots=True)
class Part:
    """The tokens of one text in a row, and the ranges of the pool that they may look at."""

    row: slice
    places: slice
    count: int
    source: slice | None = None
    """Where the keys and values lie of what an encoder read."""


@dataclass(frozen=True, slots=True)
class Pass:
    """A row under way: its texts, where the keys of its tokens go, and the masks that its layers share."""

    parts: Sequence[Part]
    places: torch.Tensor
    held: Held | None = None
    """All keys and values, where there are some that an encoder read."""
    _masks: dict[tuple[int, int, int | None], torch.Tensor] = field(default_factory=dict)

    def mask(self, count: int, seen: int, window: int | None) -> torch.Tensor:
        """(count, seen): which of the tokens seen, the last `count` of them its own, a token looks at."""
        key = (count, seen, window)
        if key not in self._masks:
            own = torch.arange(seen - count, seen, device=self.places.device)[:, None]
            ahead = own - torch.arange(seen, device=self.places.device)
            self._masks[key] = ahead >= 0 if window is None else (ahead >= 0) & (ahead < window)
        return self._masks[key]

    def read(self, layer: int) -> Iterator[torch.Tensor]:
        """The keys and the values of all texts in a layer, (1, heads, all, width)."""
        if self.held is None:
            raise NotImplementedError("attention that looks ahead")
        return (each.transpose(0, 1)[None] for each in self.held[layer])


_pass: ContextVar[Pass | None] = ContextVar("pass", default=None)


class Engine:
    """A decoder with its pool. Not for several threads: whoever steps it starts and stops texts too."""

    def __init__(self, model: Any, *, most_tokens: int, most_texts: int) -> None:
        self.model = model
        self.most_tokens = most_tokens
        self.most_texts = most_texts
        self.pool = Pool(1)
        self.running: list[Text] = []
        self._cache = _cache()
        self._chance = torch.Generator(model.device)
        self._chance.seed()
        self._keeps = "logits_to_keep" in inspect.signature(type(model).forward).parameters

    def try_out(self) -> None:
        """A pass with a token, which shows what the layers keep; raises whatever it meets."""
        self._cache.resize(BLOCK)
        self.logits([[0]], steps=1)

    def allot(self, bytes_: int, most_tokens: int) -> None:
        """Give the pool as many blocks as fit into a number of bytes, and no more than are ever of use."""
        of_block = self._cache.bytes_per_token() * BLOCK
        blocks = min(bytes_ // of_block, -(-most_tokens // BLOCK))
        if blocks < 1:
            raise MemoryError(f"keys and values of {BLOCK} tokens take {of_block} bytes, and there are {bytes_}")
        self.pool = Pool(blocks)
        self._cache.resize(blocks * BLOCK)

    @property
    def tokens(self) -> int:
        """Tokens that there is memory for."""
        return self.pool.blocks * BLOCK

    def fits(self, wanted: Sequence[Wanted]) -> bool:
        """Whether texts could run together if they were alone."""
        return len(wanted) <= self.most_texts and sum(map(_blocks, wanted)) <= self.pool.blocks

    def start(self, wanted: Wanted) -> Text | None:
        """Let a text join; None when there is no room now."""
        return None if len(self.running) >= self.most_texts else self._placed(wanted)

    def _placed(self, wanted: Wanted) -> Text | None:
        block = self.pool.take(_blocks(wanted))
        if block is None:
            return None
        chance = torch.Generator(self.model.device).manual_seed(wanted.seed) if wanted.seed is not None else None
        text = Text(wanted, list(wanted.prompt), block * BLOCK, chance)
        self.running.append(text)
        return text

    def stop(self, text: Text) -> None:
        """Let a text leave, and have its room back."""
        self.running.remove(text)
        self.pool.give(text.start // BLOCK, _blocks(text.wanted))

    def step(self) -> list[Text]:
        """One pass; the texts that have a new token. Those that ended have left."""
        chosen = self._chosen()
        if not chosen:
            return []
        logits = self._forward(chosen)
        ready = [text for text, count in chosen if text.unread == count]
        for text, count in chosen:
            text.read += count
        for text, token in zip(ready, self._drawn(ready, logits), strict=True):
            if isinstance(token, Token):
                self._add(text, token)
            else:
                text.failure = token
                self.stop(text)
        return ready

    def logits(self, prompts: Sequence[Any], steps: int = 2) -> list[torch.Tensor]:
        """What the model says after each prompt and after its own likeliest words, in company: (steps, vocabulary)."""
        texts = [text for prompt in prompts if (text := self._placed(self._sample(prompt, steps)))]
        said: list[list[torch.Tensor]] = [[] for _ in texts]
        try:
            if len(texts) < len(prompts):
                raise MemoryError(f"there is room for {self.tokens} tokens, too few for {len(prompts)} texts")
            for _ in range(steps):
                chosen = [(text, text.unread) for text in texts]
                for text, row, told in zip(texts, self._forward(chosen), said, strict=True):
                    text.read = len(text.ids)
                    text.ids.append(int(row.argmax()))
                    told.append(row)
        finally:
            for text in texts:
                self.stop(text)
        return [torch.stack(told).float().cpu() for told in said]

    def _sample(self, prompt: Any, steps: int) -> Wanted:
        return Wanted(prompt, steps)

    def _chosen(self) -> list[tuple[Text, int]]:
        """Who takes part with how many tokens: all that are being written, then prompts, the oldest first."""
        alone = all(text.unread > 1 for text in self.running)
        left = max(self.most_tokens * (ALONE if alone else 1) - len(self.running), 1)
        chosen = []
        for text in self.running:
            count = 1
            if text.unread > 1:
                count = min(text.unread, left)
                left -= count
            if count:
                chosen.append((text, count))
        return chosen

    def _forward(self, chosen: Sequence[tuple[Text, int]]) -> torch.Tensor:
        """Logits after the last token of each text whose tokens are all read by this pass."""
        places: list[int] = []
        parts, last = [], []
        for text, count in chosen:
            row, end = len(places), text.read + count
            parts.append(Part(slice(row, row + count), slice(text.start, text.start + end), count))
            places += range(text.start + text.read, text.start + end)
            if end == len(text.ids):
                last.append(row + count - 1)
        to, kept = self._numbers(places), self._numbers(last)
        keep = {"logits_to_keep": kept} if self._keeps else {}
        self._cache.places = to
        with torch.inference_mode(), runtime.memory_guard(), passing(Pass(parts, to)):
            answer = self.model(
                **self._new(chosen), attention_mask=torch.ones_like(to)[None], past_key_values=self._cache,
                use_cache=True, **keep,
            )  # fmt: skip
            logits: torch.Tensor = answer.logits[0]
            return logits if self._keeps else logits[kept]

    def _new(self, chosen: Sequence[tuple[Text, int]]) -> dict[str, torch.Tensor]:
        """The tokens that texts take part with, and their positions, as the model takes them."""
        ids = [id_ for text, count in chosen for id_ in text.ids[text.read : text.read + count]]
        positions = [place for text, count in chosen for place in range(text.read, text.read + count)]
        return {"input_ids": self._numbers(ids)[None], "position_ids": self._numbers(positions)[None]}

    def _numbers(self, told: Sequence[int]) -> torch.Tensor:
        return torch.tensor(told, dtype=torch.long, device=self.model.device)

    def _drawn(self, texts: Sequence[Text], logits: torch.Tensor) -> list[Token | Exception]:
        """The next token of each, or why there is none: what one asks for fails nobody else."""
        drawn: dict[int, Token | Exception] = {}
        with torch.inference_mode():
            for rows in _together(texts):
                some = [texts[i] for i in rows]
                raw = logits if len(rows) == len(texts) else logits[rows]
                try:
                    tokens: Iterable[Token | Exception] = _tokens(
                        some, raw, self._picked(some, self._scores(some, raw))
                    )
                except Exception as error:
                    tokens = [error] * len(rows)
                drawn |= zip(rows, tokens, strict=True)
        return [drawn[i] for i in range(len(texts))]

    def _scores(self, texts: Sequence[Text], logits: torch.Tensor) -> torch.Tensor:
        wanted = texts[0].wanted
        if not wanted.processors:
            return logits
        ids = torch.tensor([text.ids for text in texts[:1]], device=logits.device)
        scores: torch.Tensor = wanted.processors(ids, logits.float())
        return scores

    def _picked(self, texts: Sequence[Text], scores: torch.Tensor) -> list[int]:
        if not texts[0].wanted.sample:
            return [int(each) for each in scores.argmax(-1).tolist()]
        shares = scores.float().softmax(-1)
        if all(text.chance is None for text in texts):
            return [int(each) for each in torch.multinomial(shares, 1, generator=self._chance)[:, 0].tolist()]
        return [
            int(torch.multinomial(share, 1, generator=text.chance or self._chance))
            for text, share in zip(texts, shares, strict=True)
        ]

    def _add(self, text: Text, token: Token) -> None:
        wanted = text.wanted
        text.first = text.first or time.monotonic()
        text.ids.append(token.id)
        text.made.append(token)
        if token.id in wanted.ends:
            text.finish = EOS
        elif wanted.stops and wanted.stops(text.ids):
            text.finish = STOP
        elif len(text.made) >= wanted.most:
            text.finish = LENGTH
        if text.finish:
            self.stop(text)


def engines(model: Any, options: Options, *, positions: int, kind: type[Engine] = Engine) -> list[Engine]:
    """Engines for a model whose texts have so many tokens at most, one for each lane: they share all but their pools.

    Raises NotImplementedError for families it is not for; whether they say what `generate()` says is for the caller to
    check, and `release` gives the model its own attention back.
    """
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    if not model._can_set_attn_implementation() or model.config._attn_implementation != "sdpa":
        raise NotImplementedError("the model has an attention of its own")
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, mask)
    model.set_attn_implementation(NAME)
    on_cpu = options.device == "cpu"
    at_once = options.max_batch or devices.at_once(options.device).max_batch
    lanes = min(options.lanes or LANES, devices.cores(), at_once) if on_cpu else 1
    most = -(-at_once // lanes)
    room = (options.kv_cache_mb << 20 if options.kv_cache_mb else memory(model.device)) // lanes
    try:
        made = [kind(model, most_tokens=ON_CPU if on_cpu else ON_GPU, most_texts=most) for _ in range(lanes)]
        for each in made:
            each.try_out()
            each.allot(room, max(most, TRIED) * positions)
    except BaseException:
        release(model)
        raise
    return made


def release(model: Any) -> None:
    """Give a model its own attention back."""
    model.set_attn_implementation("sdpa")


def attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float | None = None,
    is_causal: bool | None = None, sliding_window: int | None = None, position_bias: Any = None, **more: Any,
) -> tuple[Any, Any]:  # fmt: skip
    """In a pass of an engine (1, heads, tokens, width) against its pool; elsewhere torch's own.

    A bias is that of a text's last token with regard to all before it, of the longest text.
    """
    now = _pass.get()
    if now is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        told = {"scaling": scaling, "is_causal": is_causal, "sliding_window": sliding_window, **more}
        return sdpa_attention_forward(module, query, key, value, attention_mask, position_bias=position_bias, **told)
    own = packing.looks_back(module, is_causal, more)
    if not own:
        key, value = now.read(module.layer_idx)
    out = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
    grouped = key.shape[1] != query.shape[1]
    for part in now.parts:
        place = part.places if own or not part.source else part.source
        first, end = place.start, place.stop
        if sliding_window:
            first = max(first, end - part.count - sliding_window + 1)
        seen = end - first
        masked = part.count > 1 and (seen > part.count or bool(sliding_window))
        bias = position_bias[..., -seen:] if own and position_bias is not None else None
        out[:, part.row] = F.scaled_dot_product_attention(
            query[:, :, part.row], key[:, :, first:end], value[:, :, first:end],
            attn_mask=now.mask(part.count, seen, sliding_window) if masked else bias,
            is_causal=part.count > 1 and not masked, scale=scaling, enable_gqa=grouped,
        ).transpose(1, 2)  # fmt: skip
    return out, None


def mask(*arguments: Any, **options: Any) -> Any:
    """None in a pass of an engine, whose attention knows who sees what; elsewhere torch's own."""
    if _pass.get() is not None:
        return None
    from transformers.masking_utils import sdpa_mask

    return sdpa_mask(*arguments, **options)


def current() -> Pass | None:
    """The pass of an engine that is under way in this thread."""
    return _pass.get()


@contextmanager
def passing(row: Pass) -> Iterator[None]:
    """Let the attention of what is computed within know its row."""
    token = _pass.set(row)
    try:
        yield
    finally:
        _pass.reset(token)


def _cache() -> Any:
    """Keys and values of all texts, as a cache of transformers: what is new goes to its places, all is given."""
    from transformers import Cache

    class Places(Cache):
        places: torch.Tensor
        before: Any = 0
        """Tokens before each new one, for a decoder that numbers them itself."""

        def __init__(self) -> None:
            super().__init__(layers=[])
            self._length = 0
            self.held: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

        def resize(self, length: int) -> None:
            """Have room for so many tokens, and forget what was there; memory is used when it is written."""
            self._length = length
            for layer, pair in self.held.items():
                keys, values = (old.new_empty(length, *old.shape[1:]) for old in pair)
                self.held[layer] = keys, values

        def bytes_per_token(self) -> int:
            """What a token takes in all layers."""
            return sum(old[0].numel() * old.element_size() for pair in self.held.values() for old in pair)

        def update(self, key_states: Any, value_states: Any, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
            """(1, heads, new, width) → (1, heads, all, width); what is of one place lies together in memory."""
            self.put(layer_idx, key_states, value_states, self.places)
            return [old.transpose(0, 1)[None] for old in self.held[layer_idx]]

        def put(self, layer: int, keys: torch.Tensor, values: torch.Tensor, places: torch.Tensor) -> None:
            """Hold keys and values, (1, heads, new, width) each, at places."""
            fresh = [new[0].transpose(0, 1) for new in (keys, values)]
            if layer not in self.held:
                made_keys, made_values = (new.new_empty(self._length, *new.shape[1:]) for new in fresh)
                self.held[layer] = made_keys, made_values
            for old, new in zip(self.held[layer], fresh, strict=True):
                old.index_copy_(0, places, new)

        def get_seq_length(self, layer_idx: int = 0) -> Any:
            """Nothing is counted here: positions are told."""
            return self.before

    return Places()


def _together(texts: Sequence[Text]) -> Iterable[list[int]]:
    """Places of texts whose scores are computed together."""
    same: dict[Hashable, list[int]] = {}
    for i, text in enumerate(texts):
        wanted = text.wanted
        same.setdefault(wanted.key if wanted.key is not None else text, []).append(i)
    return same.values()


def _tokens(texts: Sequence[Text], logits: torch.Tensor, ids: Sequence[int]) -> list[Token]:
    """The tokens drawn, with the logarithms of their probabilities where they were asked for."""
    if all(text.wanted.logprobs is None for text in texts):
        return [Token(drawn) for drawn in ids]
    told = []
    for text, row, drawn in zip(texts, logits.float().log_softmax(-1), ids, strict=True):
        best = row.topk(text.wanted.logprobs or 0)
        top = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        told.append(Token(drawn, float(row[drawn]), top))
    return told


def rowwise(processors: Iterable[Any]) -> bool:
    """Whether the processors look at scores alone."""
    return all(type(each).__name__ in ROWWISE for each in processors)


def _blocks(wanted: Wanted) -> int:
    return -(-wanted.tokens // BLOCK)


def memory(device: torch.device) -> int:
    """Bytes at hand for keys and values: half of what is free."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] // 2)
    return devices.free_memory() // 2
