"""How much a transform job may send at once (contract row 32)."""

from hfserve.runtimes import device
from hfserve.settings import MIB, Settings

MOST_MB = 100
"""Megabytes of all bodies that a transform job may have under way."""


def execution_parameters(settings: Settings, workers: int) -> dict[str, object]:
    """What SageMaker asks before a transform job (contract row 32): as many bodies at once as there are lanes."""
    lanes = settings.lanes or (device.ON_CUDA.lanes if device.gpus() else max(1, device.cores() // workers))
    at_once = min(MOST_MB, workers * lanes)
    largest = min(settings.body_limit // MIB, MOST_MB // at_once)
    return {"MaxConcurrentTransforms": at_once, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": max(1, largest)}
