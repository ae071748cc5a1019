"""The payloads of local_test: the example of every task, and files as they are.

`python tests/deploy/payloads.py` writes them.
"""

import base64
import json
from pathlib import Path

from hfserve.tasks import examples
from hfserve.tasks.table import TASKS

FOLDER = Path(__file__).parents[2] / "local_test" / "payloads"
REVIEWS = ("The food was good.", "The price was bad, and so was the service.")


def made():
    """The content of each file, by its name."""
    return {
        **{f"{task.name}.json": json.dumps(task.example, indent=2).encode() + b"\n" for task in TASKS.values()},
        "reviews.jsonl": b"".join(json.dumps({"inputs": text}).encode() + b"\n" for text in REVIEWS),
        "reviews.csv": "\n".join(["inputs", *(f'"{text}"' for text in REVIEWS), ""]).encode(),
        "review.txt": REVIEWS[0].encode() + b"\n",
        "picture.png": base64.b64decode(examples.png()),
        "sound.wav": base64.b64decode(examples.wav()),
        "film.y4m": base64.b64decode(examples.y4m()),
    }


if __name__ == "__main__":
    for name, content in made().items():
        (FOLDER / name).write_bytes(content)
