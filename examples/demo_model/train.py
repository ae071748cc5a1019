"""Trains the demo model: a small English sentiment classifier that ships inside the package.

The sentences are written from lexicon.txt and patterns.txt, the tokenizer and the model are trained on them from
scratch, and held_out.tsv, which nothing here learns from, says how good the result is.
"""

import argparse
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import DistilBertConfig, DistilBertForSequenceClassification, PreTrainedTokenizerFast

HERE = Path(__file__).parent
MODEL = HERE.parents[1] / "container/hfserve/demo"
LABELS = ("NEGATIVE", "POSITIVE")
SEED = 7
LESSONS, LESSON_EPOCHS = 30_000, 4
TEXTS, TEXT_EPOCHS = 80_000, 6
BATCH = 64
LONGEST = 512
VOCABULARY = 6500
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
NOUNS = {
    *("film", "film_part", "book", "book_part", "music", "music_part", "event", "person", "family", "city"),
    *("dish", "restaurant", "hotel", "hotel_part", "company", "company_part", "neutral_adj"),
    *("device_noun", "device_part", "clothing", "software", "software_part"),
}

Piece = Callable[[str], str]  # takes "+" or "-", gives text


def doubled(word: str) -> str:
    """`sad` doubles its last letter before a vowel; `weak` does not."""
    return word + word[-1] if re.fullmatch(r"[^aeiou]*[aeiou][bdgmnpt]", word) else word


def joined(word: str, ending: str) -> str:
    """`nice` + `er`, `happy` + `ed` and `sad` + `est`, spelled as English spells them."""
    if re.search(r"[^aeiou]y$", word) and ending != "ing":
        return word[:-1] + "i" + ending
    if word.endswith("e") and not (ending == "ing" and word.endswith("ee")):
        return word[:-1] + ending
    return doubled(word) + ending


def third_person(verb: str) -> str:
    """`crash` becomes `crashes`, `satisfy` `satisfies`."""
    if re.search(r"[^aeiou]y$", verb):
        return verb[:-1] + "ies"
    return verb + ("es" if re.search(r"(s|x|z|ch|sh|o)$", verb) else "s")


def compared(adjective: str, ending: str, helper: str) -> str:
    """`nicer` but `more useful`."""
    syllables = len(re.findall(r"[aeiouy]+", re.sub(r"e$", "", adjective)))
    short = adjective.isalpha() and (syllables == 1 or (syllables == 2 and adjective.endswith("y")))
    return joined(adjective, ending) if short and not adjective.endswith("ed") else f"{helper} {adjective}"


def adverb(adjective: str) -> str:
    """`terrible` becomes `terribly`, `fantastic` `fantastically`."""
    for ending, change in (("ic", "ically"), ("le", "ly"), ("y", "ily"), ("ll", "lly")):
        if adjective.endswith(ending):
            return adjective.removesuffix(ending) + change
    return adjective + "ly"


REGULAR = {
    "er": lambda word: compared(word, "er", "more"),
    "est": lambda word: compared(word, "est", "most"),
    "ly": adverb,
    "s": third_person,
    "ed": lambda word: joined(word, "ed"),
    "ing": lambda word: joined(word, "ing").replace("diing", "dying"),
    "en": lambda word: joined(word, "ed"),
}
IRREGULAR = {"er": 1, "est": 2, "ly": 3, "s": 1, "ed": 2, "ing": 3, "en": 4}


def inflected(entry: str, form: str) -> str:
    """The asked form of `good/better/best/well`, `highly recommend` or `fall/falls/fell/falling/fallen apart`."""
    if form in ("er", "est", "ly") and "/" not in entry:
        return REGULAR[form](entry) if " " not in entry or form != "ly" else entry
    before, word, after = re.fullmatch(r"((?:\w+ly )*)(\S+)(.*)", entry).groups()
    forms = word.split("/")
    if len(forms) == 1:
        return before + (REGULAR[form](word) if form else word) + after
    index = IRREGULAR[form] if form else 0
    return before + forms[min(index, 2 if form == "en" and len(forms) < 5 else index)] + after


def sections(text: str, split: Callable[[str], list[str]]) -> dict[str, list[str]]:
    """The entries under each [heading]."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if heading := re.fullmatch(r"\[(\S+)\]", line):
            entries = found.setdefault(heading[1], [])
        elif line and not line.startswith("#"):
            entries += split(line)
    return found


def words(line: str) -> list[str]:
    """A line of lexicon.txt."""
    return [word.strip() for word in line.split(",") if word.strip()]


def patterns(line: str) -> list[str]:
    """A line of patterns.txt, repeated as often as its weight says."""
    weight, text = re.fullmatch(r"(?:(\d+) )?(.*)", line).groups()
    return [text] * int(weight or 1)


class Writer:
    """Writes sentences of a given sentiment, `+` or `-`."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed).random
        self.lexicon = sections((HERE / "lexicon.txt").read_text(), words)
        self.patterns = sections((HERE / "patterns.txt").read_text(), patterns)
        self.ready: dict[tuple[str, str], list[Piece]] = {}

    def lesson(self, sentiment: str) -> str:
        """One short phrase, so often negated that words alone cannot tell."""
        return self.sentence(sentiment, "~lesson")

    def sentence(self, sentiment: str, kind: str = "~sentence") -> str:
        """One sentence, with its typing habits."""
        text = self.slot(kind, "")(sentiment)
        if self.random() < 0.1:
            text = self.interrupted(text)
        text = re.sub(r" +(?=[,.:;]|'(?:s|ll|ve|m)\b)", "", " ".join(text.split()))
        return self.typed(re.sub(r"\ba (?=[aeiou])", "an ", text), sentiment)

    def interrupted(self, text: str) -> str:
        """A sentence with one more word somewhere, so that a word unheard of changes nothing."""
        said = text.split(" ")
        said.insert(int(self.random() * (len(said) + 1)), self.some_word())
        return " ".join(said)

    def typed(self, text: str, sentiment: str) -> str:
        """People forget apostrophes, and end a sentence in many ways."""
        luck = self.random()
        if luck < 0.06:
            text = text.replace("'", "")
        ends = (".", ".", ".", ".", ".", "!", "!", "!!!", "", "", "", "...", " :)" if sentiment == "+" else " :(")
        return text + self.one_of(ends)

    def one_of(self, options: Sequence[Any]) -> Any:
        """An option by chance."""
        return options[int(self.random() * len(options))]

    def some_word(self) -> str:
        """A word that says nothing: an everyday one, or one nobody has seen."""
        if self.random() < 0.6:
            return self.one_of(self.lexicon["common"])
        syllables = [self.one_of("bcdfghjklmnprstvwz") + self.one_of("aeiou") + self.one_of("nrstlm ") for _ in "12"]
        known = self.one_of(self.lexicon[self.one_of(("+quality", "-quality", "device_noun"))])
        return (known[:3] if self.random() < 0.4 else "") + "".join(syllables).replace(" ", "")

    def slot(self, name: str, form: str) -> Piece:
        """The piece that fills `{name:form}`; a name begins with ~ or ! or + or -, or with nothing if neutral."""
        sign = name[0] if name[0] in "~!+-" else ""
        bare = name.removeprefix(sign)
        wanted = {"~": lambda s: s, "!": lambda s: "-" if s == "+" else "+", "": lambda s: ""}.get(sign, lambda _: sign)

        def piece(sentiment: str) -> str:
            if bare in NOUNS and self.random() < 0.12:
                return self.some_word()
            now = wanted(sentiment)
            options = self.ready.get((now + bare, form)) or self.options(now, bare, form)
            return options[int(self.random() * len(options))](now or sentiment)

        return piece

    def options(self, sign: str, bare: str, form: str) -> list[Piece]:
        """Everything that may fill a slot, made ready once."""
        texts = [inflected(entry, form) for entry in self.lexicon.get(sign + bare, [])]
        texts += self.patterns.get(sign + bare, []) + (self.patterns.get("~" + bare, []) if sign else [])
        if not texts:
            raise ValueError(f"nothing in lexicon.txt or patterns.txt is called [{sign}{bare}]")
        self.ready[sign + bare, form] = [self.compiled(text) for text in texts]
        return self.ready[sign + bare, form]

    def compiled(self, text: str) -> Piece:
        """A pattern as a function, so that writing many sentences is fast."""
        if not re.search(r"[{<]", text):
            return lambda _: text
        return self.sequence(re.findall(r"\{[^}]+\}|[<|>]|[^{<|>]+", text))

    def sequence(self, tokens: list[str]) -> Piece:
        """Reads tokens up to the end of a pattern or of one alternative."""
        pieces: list[Piece] = []
        while tokens and tokens[0] not in "|>":
            token = tokens.pop(0)
            if token == "<":
                pieces.append(self.choice(tokens))
            elif token.startswith("{"):
                pieces.append(self.slot(*token[1:-1].partition(":")[::2]))
            else:
                pieces.append(lambda _, token=token: token)
        return lambda sentiment: "".join([piece(sentiment) for piece in pieces])

    def choice(self, tokens: list[str]) -> Piece:
        """Reads the alternatives after `<`."""
        options = [self.sequence(tokens)]
        while tokens.pop(0) == "|":
            options.append(self.sequence(tokens))
        return lambda sentiment: self.one_of(options)(sentiment)

    def text(self, sentiment: str) -> str:
        """A sentence, or several of one mind, perhaps among plain facts.

        One text in forty has no sentiment: seen under both labels, it teaches the model to be unsure there.
        """
        if self.random() < 1 / 40:
            return self.slot("plain", "")("") + self.one_of(("", ".", "!", "?"))
        luck = self.random()
        count = 1 if luck < 0.7 else 2 if luck < 0.87 else 3 + int(self.random() * 3) if luck < 0.995 else 20
        said = [self.sentence(sentiment) for _ in range(count)]
        if self.random() < 0.15:
            said.insert(int(self.random() * (count + 1)), self.slot("fact", "")("") + ".")
        return " ".join(said)


def held_out() -> list[tuple[str, str]]:
    """The label and text of each sentence kept away from training."""
    rows = (HERE / "held_out.tsv").read_text().splitlines()[1:]
    return [tuple(row.split("\t")) for row in rows]


def plain(text: str) -> str:
    """A text as compared with another: its words only."""
    return " ".join(re.findall(r"\w+", text.lower().replace("'", "")))


def mentions(text: str, kept_away: frozenset[str]) -> bool:
    """Whether a text, or a sentence of it, is one that was kept away."""
    return plain(text) in kept_away or any(plain(part) in kept_away for part in re.split(r"[.!?:;]+", text))


def labelled(write: Callable[[str], str], count: int) -> Iterator[tuple[str, int]]:
    """Texts and their labels in turn; a text that holds a held-out sentence is passed over."""
    kept_away = frozenset(plain(text) for _, text in held_out())
    label = 0
    while count:
        text = write("-+"[label])
        if mentions(text, kept_away):
            continue
        yield text, label
        label, count = 1 - label, count - 1


def lessons() -> list[tuple[str, int]]:
    """What to learn first: without it, a small model may never find out what `not` does."""
    return list(labelled(Writer(SEED).lesson, LESSONS))


def training_texts() -> list[tuple[str, int]]:
    """What to learn then."""
    return list(labelled(Writer(SEED).text, TEXTS))


def vocabulary(counts: Counter[str]) -> dict[str, int]:
    """The most frequent words, and pieces of words to spell any other with.

    The trainer in `tokenizers` breaks ties by chance, and would give another model each time.
    """
    letters = sorted(set("".join(counts)))
    starts, ends = Counter[str](), Counter[str]()
    for word in sorted(counts):
        starts.update(word[:size] for size in (2, 3) if len(word) > size)
        ends.update("##" + word[-size:] for size in (2, 3, 4) if len(word) > size)
    pieces = [piece for found in (starts, ends) for piece, _ in found.most_common(400)]
    known = SPECIAL + letters + ["##" + letter for letter in letters] + sorted(pieces)
    frequent = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    return {word: index for index, word in enumerate(list(dict.fromkeys(known + frequent))[:VOCABULARY])}


def trained_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A lower-casing WordPiece tokenizer whose words are those of the texts."""
    normalizer = normalizers.Sequence([normalizers.Replace("’", "'"), normalizers.BertNormalizer()])
    splitter = pre_tokenizers.BertPreTokenizer()
    counts = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    tokenizer = Tokenizer(models.WordPiece(vocabulary(counts), unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(SPECIAL)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[SEP]", "[CLS]")]
    tokenizer.post_processor = processors.BertProcessing(*ends)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=LONGEST,
        model_input_names=["input_ids", "attention_mask"],
        **names,
    )


def new_model(words: int) -> DistilBertForSequenceClassification:
    """An untrained model small enough to ship."""
    config = DistilBertConfig(
        vocab_size=words,
        max_position_embeddings=LONGEST,
        dim=80,
        hidden_dim=160,
        n_layers=2,
        n_heads=4,
        dropout=0.0,
        attention_dropout=0.0,
        initializer_range=0.05,
        pad_token_id=0,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    return DistilBertForSequenceClassification(config)


def batches(ids: list[list[int]], rng: random.Random) -> list[list[int]]:
    """Indexes of texts of about equal length, so that little is padding."""
    order = sorted(range(len(ids)), key=lambda i: (len(ids[i]), rng.random()))
    groups = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    rng.shuffle(groups)
    return groups


def fit(model: DistilBertForSequenceClassification, ids: list[list[int]], labels: list[int], *, epochs: int) -> None:
    """Trains in place. One word in thirty is hidden, so that no answer hangs on a word that happens to be known."""
    rng = random.Random(SEED)
    steps = epochs * -(-len(ids) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, total_steps=steps, pct_start=0.1)
    model.train()
    for epoch in range(epochs):
        total = 0.0
        for group in batches(ids, rng):
            rows = [torch.tensor(ids[i][:LONGEST]) for i in group]
            inputs = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
            hidden = (torch.rand(inputs.shape) < 1 / 30) & (inputs >= len(SPECIAL))
            reply = model(
                input_ids=inputs.masked_fill(hidden, SPECIAL.index("[UNK]")),
                attention_mask=(inputs != 0).long(),
                labels=torch.tensor([labels[i] for i in group]),
            )
            reply.loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            total += reply.loss.item() * len(group)
        print(f"epoch {epoch + 1} of {epochs}: loss {total / len(ids):.4f}", flush=True)
    model.eval()


def accuracy(model: DistilBertForSequenceClassification, tokenizer: PreTrainedTokenizerFast) -> float:
    """The share of held-out sentences the model labels rightly."""
    rows = held_out()
    inputs = tokenizer([text for _, text in rows], padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        answers = model(**inputs).logits.argmax(dim=1).tolist()
    return sum(LABELS[answer] == label for answer, (label, _) in zip(answers, rows, strict=True)) / len(rows)


def save(
    model: DistilBertForSequenceClassification, tokenizer: PreTrainedTokenizerFast, score: float, to: Path
) -> None:
    """Writes the folder as the Hub would hold it, readable by everyone and by transformers 4 too."""
    model.save_pretrained(to)
    tokenizer.save_pretrained(to)
    (to / "model.safetensors").chmod(0o644)
    settings = to / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))
    card = (HERE / "model_card.md").read_text()
    (to / "README.md").write_text(card.replace("ACCURACY", f"{score:.2f}"))


def main(folder: Path) -> None:
    """Writes the model folder."""
    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    first, then = lessons(), training_texts()
    tokenizer = trained_tokenizer([text for text, _ in first + then])
    model = new_model(len(tokenizer))
    for rows, epochs in ((first, LESSON_EPOCHS), (then, TEXT_EPOCHS)):
        ids = tokenizer([text for text, _ in rows], truncation=True)["input_ids"]
        fit(model, ids, [label for _, label in rows], epochs=epochs)
    score = accuracy(model, tokenizer)
    save(model, tokenizer, score, folder)
    print(f"held-out accuracy {score:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=MODEL, help="the folder to write")
    main(parser.parse_args().to)
