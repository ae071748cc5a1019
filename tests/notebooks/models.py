"""Small models that know the sentences of the notebooks by heart: seconds of training, from the same seed every time.

Their answers can be judged, so that a notebook that runs on them shows what it would show with models of the Hub.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

PASSAGE = (
    "SageMaker starts the container with the argument serve. It asks for /ping every five seconds, and once the answer "
    "is 200 the endpoint is in service. Requests then arrive at /invocations on port 8080, and each has to be answered "
    "within sixty seconds."
)
QUESTIONS = {
    "On which port do requests arrive?": "port 8080",
    "How often does SageMaker ask for /ping?": "every five seconds",
    "What is the argument?": "serve",
    "How soon does a request have to be answered?": "within sixty seconds",
}
FRENCH = (
    "Le camembert est délicieux .",
    "Paris est la capitale de la France .",
    "Le train arrive à la gare .",
    "Elle lit un livre .",
)
GUESSED = ("délicieux", "capitale", "gare", "livre")
STORY = (
    "Once upon a time there was a small server in a big cloud . It had one model , one port and many friends . Every "
    "morning its friends sent it questions , and every question got an answer , word by word . One day a thousand "
    "friends came at once . The small server did not panic : it read all questions side by side , and wrote one word "
    "for each , again and again , until everybody was happy . Then it went to sleep , and nobody paid for it any more ."
)
CHAT = "Tell me a story."
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:\n"
SIZES: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
    "max_position_embeddings": 514,
}  # fmt: skip


def build(name: str, path: Path) -> Path:
    """Train the model of a name, save it into a directory, and return the directory."""
    torch.manual_seed(0)
    hf.logging.disable_progress_bar()
    model, tokenizer, batch = _BUILDERS[name]()
    _learn(model, batch)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def _learn(model: Any, batch: dict[str, torch.Tensor], *, until: float = 0.02, most: int = 600) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more would spend their time waiting for each other
    model.train()
    for _ in range(most):
        loss = model(**batch).loss
        if loss.item() < until:
            break
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.set_num_threads(threads)
    assert loss.item() < 10 * until, f"the model did not learn: its loss is {loss.item():.3f}"
    model.eval()


def _question_answering() -> tuple[Any, Any, dict[str, torch.Tensor]]:
    pieces = pre_tokenizers.BertPreTokenizer()
    words = [word for text in (PASSAGE, *QUESTIONS) for word, _ in pieces.pre_tokenize_str(text.lower())]
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{each}" for each in letters), *words]
    tokenizer = hf.BertTokenizer(vocab=_numbered(vocabulary), model_max_length=512)
    batch = tokenizer(list(QUESTIONS), [PASSAGE] * len(QUESTIONS), padding=True, return_tensors="pt")
    spans = [(PASSAGE.index(answer), PASSAGE.index(answer) + len(answer) - 1) for answer in QUESTIONS.values()]
    places = [[batch.char_to_token(i, place, 1) for place in span] for i, span in enumerate(spans)]
    starts, ends = torch.tensor(places).T
    config = hf.DistilBertConfig(
        vocab_size=len(tokenizer), dim=64, n_layers=2, n_heads=4, hidden_dim=128, max_position_embeddings=512,
        dropout=0.0, attention_dropout=0.0, qa_dropout=0.0,
    )  # fmt: skip
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    return (
        hf.DistilBertForQuestionAnswering(config),
        tokenizer,
        {**inputs, "start_positions": starts, "end_positions": ends},
    )


def _fill_mask() -> tuple[Any, Any, dict[str, torch.Tensor]]:
    special = ("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED")
    words = dict.fromkeys(f"▁{word}" for sentence in FRENCH for word in sentence.split())
    letters = dict.fromkeys(["▁", *"".join(FRENCH).replace(" ", ""), *"abcdefghijklmnopqrstuvwxyz"])
    vocabulary = [
        *((piece, 0.0) for piece in special),
        *((word, -1.0) for word in words),
        *((one, -9.0) for one in letters),
    ]
    tokenizer = hf.CamembertTokenizer(vocab=[*vocabulary, ("<mask>", 0.0)], model_max_length=512)
    hidden = [s.replace(word, "<mask>") for s, word in zip(FRENCH, GUESSED, strict=True)]
    batch = tokenizer(hidden, padding=True, return_tensors="pt")
    whole = tokenizer(list(FRENCH), padding=True, return_tensors="pt")["input_ids"]
    labels = whole.masked_fill(batch["input_ids"] != tokenizer.mask_token_id, -100)
    config = hf.CamembertConfig(
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, type_vocab_size=1, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, **SIZES,
    )  # fmt: skip
    return hf.CamembertForMaskedLM(config), tokenizer, {**batch, "labels": labels}


def _text_generation() -> tuple[Any, Any, dict[str, torch.Tensor]]:
    asked = f"user: {CHAT}\nassistant:\n"
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=800, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator([STORY, asked] * 4, trainer)
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|end|>", pad_token="<|end|>", model_max_length=512,
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATE
    texts = [f"{STORY}<|end|>", f"{asked}{STORY}<|end|>"]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    config = hf.LlamaConfig(
        vocab_size=len(tokenizer), num_key_value_heads=2, bos_token_id=None, eos_token_id=0, pad_token_id=0, **SIZES
    )
    return hf.LlamaForCausalLM(config), tokenizer, {**batch, "labels": labels}


def _numbered(pieces: list[str]) -> dict[str, int]:
    return {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}


_BUILDERS: dict[str, Callable[[], tuple[Any, Any, dict[str, torch.Tensor]]]] = {
    "question-answering": _question_answering,
    "fill-mask": _fill_mask,
    "text-generation": _text_generation,
}
NAMES = tuple(_BUILDERS)
