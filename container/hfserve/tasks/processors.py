"""Processors of transformers that would read films too, for which they want torchvision, which we do without."""

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def without_films() -> Iterator[None]:
    """Within it processors load that read films with torchvision, where that is missing: they read all but films."""
    if importlib.util.find_spec("torchvision"):
        yield
        return
    from transformers import ImageProcessingMixin, processing_utils
    from transformers.models.auto import video_processing_auto

    class Blind(ImageProcessingMixin):
        """Stands where the reader of films would."""

        @classmethod
        def from_pretrained(cls, *_: Any, **__: Any) -> "Blind":
            make: Any = cls
            return make()  # type: ignore[no-any-return]

    auto: Any = video_processing_auto
    kinds: Any = processing_utils.MODALITY_TO_BASE_CLASS_MAPPING
    usual = auto.AutoVideoProcessor, kinds["video_processor"]
    auto.AutoVideoProcessor, kinds["video_processor"] = Blind, ImageProcessingMixin.__name__
    try:
        yield
    finally:
        auto.AutoVideoProcessor, kinds["video_processor"] = usual
