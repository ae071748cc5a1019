"""Linear layers with weights laid out for oneDNN, on CPU: the same numbers, sooner where torch would use MKL.

The operators are torch's own yet private, so that torch is pinned, and `convert` is undone when they fail or differ.
"""

from collections.abc import Callable
from typing import Any

import torch

LEAST_WEIGHTS = 64 * 64


class OneDnnLinear(torch.nn.Module):
    """A linear layer whose weight, (out, in) in float32, lies in oneDNN's blocked form."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.bias = linear.bias
        self.blocked = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), 256)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(…, in) → (…, out)."""
        answer: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.blocked, self.bias, "none", [], "")
        return answer


def let_go(model: Any) -> None:
    """Copy what is left of the model's file out of its memory map, so that the pages of what was replaced are freed."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


def convert(model: Any) -> Callable[[], None]:
    """Replace the linear layers of a float32 model on CPU; the function that undoes it."""
    replaced = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is torch.nn.Linear
        and child.weight.dtype == torch.float32
        and child.weight.numel() >= LEAST_WEIGHTS
    ]
    for parent, name, child in replaced:
        setattr(parent, name, OneDnnLinear(child))

    def undo() -> None:
        for parent, name, child in replaced:
            setattr(parent, name, child)

    return undo
