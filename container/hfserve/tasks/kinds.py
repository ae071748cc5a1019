"""What tasks take and give, in words, and the media types that these come and go as."""

# What a task takes
TEXT = "text"
TEXT_OR_CHAT = "text or chat"
TEXT_AND_LABELS = "text and candidate labels"
TABLE = "table and question"
CONTEXT = "question and context"
CHOICES = "question and choices"
SENTENCES = "a sentence and others"
QUERY = "query and texts"
QUESTIONS = "state and questions"
IMAGE = "image"
IMAGE_PAIR = "two images"
IMAGE_AND_LABELS = "image and candidate labels"
IMAGE_AND_QUESTION = "image and question"
IMAGE_AND_TEXT = "image and text, or chat"
AUDIO = "audio"
AUDIO_AND_LABELS = "audio and candidate labels"
VIDEO = "video"
ANY = "text, images, videos and audio, or chat"

# What a task gives; TEXT and AUDIO are here as well
LABELS = "labels"
ENTITIES = "entities"
TOKENS = "tokens"
ANSWERS = "answers"
GENERATED = "generated text"
VECTORS = "vectors"
BOXES = "boxes"
MASKS = "masks"
DEPTH = "depth"
MATCHES = "matching points"
SCORES = "scores"
CHOICE = "the best choice"
RANKING = "texts in order"
PICTURE = "a picture"

PLAYED = frozenset({AUDIO, AUDIO_AND_LABELS, VIDEO, ANY})
"""What is long, though its file is small."""

_LINES, _FORM = ("application/jsonlines",), ("multipart/form-data",)
_WORDED = ("application/jsonlines", "text/csv", "text/plain", "multipart/form-data")
READ_FROM = {
    TEXT: _WORDED,
    TEXT_OR_CHAT: _WORDED,
    TEXT_AND_LABELS: _WORDED,
    CONTEXT: ("application/jsonlines", "text/csv", "multipart/form-data"),
    IMAGE: ("image/*", *_FORM),
    IMAGE_AND_LABELS: ("image/*", *_FORM),
    AUDIO: ("audio/*", *_FORM),
    AUDIO_AND_LABELS: ("audio/*", *_FORM),
    VIDEO: ("application/octet-stream", *_FORM),
    IMAGE_AND_QUESTION: _FORM,
    IMAGE_AND_TEXT: _FORM,
    ANY: _FORM,
    TABLE: _LINES,
    CHOICES: _LINES,
    SENTENCES: _LINES,
    QUERY: _LINES,
    QUESTIONS: _LINES,
    IMAGE_PAIR: _LINES,
}
"""Forms of a request beside JSON, by what a task takes."""
ANSWERED_AS = {
    LABELS: (*_LINES, "text/csv"),
    ENTITIES: (*_LINES, "text/csv"),
    TOKENS: (*_LINES, "text/csv"),
    VECTORS: (*_LINES, "application/x-npy"),
    SCORES: (*_LINES, "application/x-npy"),
    TEXT: (*_LINES, "text/plain"),
    GENERATED: (*_LINES, "text/plain"),
    MASKS: ("image/png", "image/jpeg"),
    DEPTH: ("image/png", "image/jpeg"),
    PICTURE: ("image/png", "image/jpeg"),
    AUDIO: ("audio/wav",),
}
"""Forms of an answer beside JSON, by what a task gives."""
