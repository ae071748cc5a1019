"""mask-generation without torchvision: boxes that overlap are suppressed here.

The pipeline needs torchvision for that alone, and the torchvision of PyPI runs with PyPI's torch for GPUs only.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

Mask = np.ndarray[Any, Any]


def without_torchvision(pipe: Any) -> None:
    """Give the pipeline's image processor our own last step where torchvision is not installed."""
    if not importlib.util.find_spec("torchvision"):
        pipe.image_processor.post_process_for_mask_generation = best


def best(
    rles: Sequence[Mapping[str, Any]], scores: torch.Tensor, boxes: torch.Tensor, threshold: float
) -> tuple[list[Mask], torch.Tensor, list[Mapping[str, Any]], torch.Tensor]:
    """Of masks that cover the same place the surest, as transformers' `post_process_for_mask_generation` chooses."""
    kept = batched_nms(boxes.float(), scores, torch.zeros(len(boxes), device=boxes.device), threshold)
    chosen = [rles[i] for i in kept.tolist()]
    return [_unpacked(rle) for rle in chosen], scores[kept], chosen, boxes[kept]


def batched_nms(boxes: torch.Tensor, scores: torch.Tensor, classes: torch.Tensor, threshold: float) -> torch.Tensor:
    """Positions of the boxes to keep, the surest first: `torchvision.ops.batched_nms`.

    Non-maximum suppression drops a box whose intersection over union with a surer one of its class exceeds the
    threshold. `boxes` is (n, 4) as left, top, right, bottom; of equal scores the earlier box is the surer.
    """
    order = scores.argsort(descending=True, stable=True)
    kept = []
    while len(order):
        surest, others = order[0], order[1:]
        kept.append(surest)
        # An empty box has no overlap with another empty one, 0 / 0, and is kept
        dropped = (_overlap(boxes[surest], boxes[others]) > threshold) & (classes[others] == classes[surest])
        order = others[~dropped]
    return torch.stack(kept) if kept else order


def _overlap(box: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Intersection over union of a box with each of the others."""
    sides = (torch.minimum(box[2:], others[:, 2:]) - torch.maximum(box[:2], others[:, :2])).clamp(min=0)
    intersection = sides.prod(dim=1)
    return intersection / (_area(box) + _area(others) - intersection)


def _area(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _unpacked(rle: Mapping[str, Any]) -> Mask:
    """The pixels of runs of equal ones, column by column, the first run outside the mask."""
    height, width = rle["size"]
    inside = np.arange(len(rle["counts"])) % 2 == 1
    return np.repeat(inside, rle["counts"]).reshape(width, height).T
