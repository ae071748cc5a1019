import json
import pathlib

from reading import read

NAMES = read(json, pathlib)


def model_fn(model_dir):
    return NAMES
