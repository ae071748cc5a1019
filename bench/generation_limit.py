"""What the model writes in one process with nothing around it: transformers' own continuous batching, oneDNN's layers.

`generation_limit.py MODEL REQUESTS AT_ONCE` prints a line of JSON; as soon as a text ends, the next one begins.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import procfs
import torch
from generation import FEW, SEED, Asked, requests
from transformers import AutoModelForCausalLM, AutoTokenizer, ContinuousBatchingConfig

from hfserve.runtimes import onednn

ROOM = {"page_size": 32, "num_blocks": 512, "max_batch_tokens": 256}


def written(manager: Any, tokenizer: Any, wanted: list[Asked], at_once: int) -> list[str]:
    """The texts, so many of them under way at a time."""
    ids = tokenizer([each.prompt for each in wanted])["input_ids"]
    texts = [""] * len(wanted)
    waiting = iter(range(len(wanted)))

    def begin() -> None:
        if (i := next(waiting, None)) is not None:
            manager.add_request(ids[i], request_id=str(i), max_new_tokens=wanted[i].tokens)

    for _ in range(at_once):
        begin()
    for _ in wanted:
        while not (ended := manager.get_result(timeout=1)):
            if not manager.is_running():
                raise RuntimeError("continuous batching ended early")
        texts[int(ended.request_id)] = tokenizer.decode(ended.generated_tokens, skip_special_tokens=True)
        begin()
    return texts


def main() -> None:
    """Measure and print."""
    path, count, at_once = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="sdpa").eval()
    example = torch.arange(8)[None]
    with torch.inference_mode():
        onednn.convert(model, lambda: model(example))
    config = ContinuousBatchingConfig(**ROOM)
    wanted = requests(count)
    with model.continuous_batching_context_manager(continuous_batching_config=config) as manager:
        written(manager, tokenizer, requests(FEW, SEED + 1), at_once)
        with procfs.Meter() as meter:
            began = time.perf_counter()
            texts = written(manager, tokenizer, wanted, at_once)
            seconds = time.perf_counter() - began
    tokens = sum(each.tokens for each, text in zip(wanted, texts, strict=True) if len(text.split()) == each.tokens)
    wrong = sum(len(text.split()) != each.tokens for each, text in zip(wanted, texts, strict=True))
    print(json.dumps({
        "tokens_per_s": round(tokens / seconds, 2), "seconds": round(seconds, 2),
        "server_cores": meter.figures["own_cores"], "foreign_cores": meter.figures["foreign_cores"],
        "errors": {"wrong length": wrong} if wrong else {}, "texts": texts,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
