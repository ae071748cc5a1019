from . import helper

model_fn = helper
