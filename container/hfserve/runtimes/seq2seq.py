"""The engine for models that read a text with an encoder and write another with a decoder: T5, BART, Marian and more.

A newcomer's text is read in the pass that makes its first token. What the decoder's layers make of it, keys and values,
is kept in its range of the pool before those of its own tokens, and every later token attends to both.
"""

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence

from hfserve.runtimes import generation
from hfserve.runtimes import torch as runtime
from hfserve.runtimes.generation import ALONE, Engine, Part, Pass, Text, Wanted
from hfserve.settings import Options


class Seq2SeqEngine(Engine):
    """An encoder and a decoder with their pool; each text has one new token in every pass."""

    def __init__(self, model: Any, *, most_tokens: int, most_texts: int) -> None:
        super().__init__(model, most_tokens=most_tokens, most_texts=most_texts)
        self._both = _both(self._cache)

    def _sample(self, prompt: Any, steps: int) -> Wanted:
        return Wanted([beginning(self.model)], steps, source=prompt)

    def _chosen(self) -> list[tuple[Text, int]]:
        """All that are being written, and newcomers, the oldest first, until they have enough to read."""
        alone = not any(text.read for text in self.running)
        left = self.most_tokens * (ALONE if alone else 1)
        chosen = []
        for text in self.running:
            if not text.read:
                if left <= 0:
                    continue
                left -= len(text.wanted.source)
            chosen.append((text, 1))
        return chosen

    def _forward(self, chosen: Sequence[tuple[Text, int]]) -> torch.Tensor:
        """Logits after the last token of each text."""
        texts = [text for text, _ in chosen]
        new = [text for text in texts if not text.read]
        parts = [_part(text, i) for i, text in enumerate(texts)]
        row = self._numbers([text.ids[-1] for text in texts])
        places = self._numbers([part.places.stop - 1 for part in parts])
        before = self._numbers([text.read - i for i, text in enumerate(texts)])  # a decoder adds the number in the row
        read = self._numbers(
            [place for text in new for place in range(text.start, text.start + len(text.wanted.source))]
        )
        with torch.inference_mode(), runtime.memory_guard():
            states = self._states([text.wanted.source for text in new])
            self._cache.places, self._cache.before = places, before
            self._both.cross_attention_cache.places = read
            self._both.is_updated = dict.fromkeys(self._cache.held, not new)
            with generation.passing(Pass(parts, places, self._cache.held)):
                answer = self.model(
                    encoder_outputs=(states,), decoder_input_ids=row[None],
                    decoder_attention_mask=torch.ones_like(row[None]), past_key_values=self._both, use_cache=True,
                )  # fmt: skip
        logits: torch.Tensor = answer.logits[0]
        return logits

    def _states(self, sources: Sequence[Sequence[int]]) -> torch.Tensor:
        """What the encoder says of texts, (1, tokens of all, width); it reads those of like length together."""
        nothing = torch.empty(0, 0, device=self.model.device)
        said = [nothing] * len(sources)
        pad = self.model.generation_config.pad_token_id or 0
        for group in runtime.groups([len(source) for source in sources]):
            rows = [torch.tensor(sources[i], device=self.model.device) for i in group]
            real = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
            ids = pad_sequence(rows, batch_first=True, padding_value=pad)
            hidden = self.model.get_encoder()(input_ids=ids, attention_mask=real).last_hidden_state
            for i, states in zip(group, hidden, strict=True):
                said[i] = states[: len(sources[i])]
        return torch.cat(said or [nothing])[None]


def engines(model: Any, options: Options, *, positions: int) -> list[Engine]:
    """As `generation.engines`, for an encoder and a decoder; `positions` are those of both texts together."""
    beginning(model)
    for module in model.get_decoder().modules():
        if hasattr(module, "compute_bias"):
            module.compute_bias = partial(_bias, module)
        elif _numbers_itself(module):
            module.forward = partial(_numbered, module)
    return generation.engines(model, options, positions=positions, kind=Seq2SeqEngine)


def alone(model: Any, rows: Sequence[Sequence[int]], said: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The model's own logits of rows, each by itself, behind what an engine said: its likeliest words."""
    start, found = beginning(model), []
    for row, logits in zip(rows, said, strict=True):
        likeliest = logits.argmax(-1).tolist()
        read, made = (torch.tensor([ids], device=model.device) for ids in (row, [start, *likeliest[:-1]]))
        with torch.inference_mode(), runtime.memory_guard():
            found.append(model(input_ids=read, decoder_input_ids=made).logits[0].float().cpu())
    return found


def beginning(model: Any, asked: int | None = None) -> int:
    """The token that a decoder begins with, as `generate()` has it."""
    told = model.generation_config
    start = next((each for each in (asked, told.decoder_start_token_id, told.bos_token_id) if each is not None), None)
    if not isinstance(start, int):
        raise NotImplementedError("the model has not one token that its texts begin with")
    return start


def _part(text: Text, number: int) -> Part:
    own = text.start + len(text.wanted.source)
    return Part(slice(number, number + 1), slice(own, own + text.read + 1), 1, slice(text.start, own))


class _Kept(NamedTuple):
    """What a layer finds of the texts that were read: nothing, for the attention looks into the pool itself."""

    keys: torch.Tensor
    values: torch.Tensor


def _both(own: Any) -> Any:
    """The cache of a decoder whose layers keep in `own` what they make of the texts that were read too."""
    from transformers import Cache, EncoderDecoderCache

    class Sources(Cache):
        places: torch.Tensor
        layers: Any

        def __init__(self) -> None:
            super().__init__(layers=[])
            self.layers = {}

        def update(self, key_states: Any, value_states: Any, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
            """Keep what was made of the texts that are read in this pass."""
            own.put(layer_idx, key_states, value_states, self.places)
            nothing = key_states.new_empty(1, 1, 0, 1)
            self.layers[layer_idx] = _Kept(nothing, nothing)
            return nothing, nothing

    return EncoderDecoderCache(own, Sources())


def _bias(module: Any, *lengths: Any, **more: Any) -> Any:
    """T5's bias by distance: in a pass, that of the last token of the longest text, whose end is another's."""
    now = generation.current()
    made = type(module).compute_bias
    if now is None:
        return made(module, *lengths, **more)
    longest = max(part.places.stop - part.places.start for part in now.parts)
    return made(module, 1, longest, past_seen_tokens=longest - 1)


def _numbers_itself(module: Any) -> bool:
    """Whether positions are numbered within a module, and cannot be told."""
    takes = inspect.signature(type(module).forward).parameters
    return "past_key_values_length" in takes and "position_ids" not in takes


def _numbered(module: Any, ids: Any, *ignored: Any, **more: Any) -> Any:
    """The positions of a row; in a pass, of each token by itself."""
    now = generation.current()
    made = type(module).forward
    if now is None:
        return made(module, ids, *ignored, **more)
    before = [part.places.stop - part.places.start - 1 for part in now.parts]
    each = [made(module, ids[:, i : i + 1], past_key_values_length=count) for i, count in enumerate(before)]
    return torch.cat(each, dim=1)
