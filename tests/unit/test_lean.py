import subprocess
import sys

HEAVY = ("torch._dynamo", "torch._inductor", "scipy.optimize", "torch.distributed.tensor")

AFTERWARDS = f"""
import sys
from hfserve.runtimes import lean

lean.preload()
from transformers.models.auto import modeling_auto
from transformers.models.distilbert.modeling_distilbert import DistilBertConfig, DistilBertModel

import torch

with torch.device("meta"):
    DistilBertModel(DistilBertConfig(n_layers=1))
print(*[name for name in {HEAVY} if name in sys.modules])

from transformers import masking_utils
from transformers.loss.loss_for_object_detection import linear_sum_assignment

assert torch.distributed.is_available()
assert [list(each) for each in linear_sum_assignment([[2, 1], [1, 2]])] == [[0, 1], [1, 0]]
with masking_utils.TransformGetItemToIndex():
    assert torch.arange(3)[torch.tensor(1)] == 1
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)) == 2
assert torch._dynamo.disable is not lean._unmarked
"""


def test_nothing_heavy_is_imported_and_all_of_it_can_be_had_later():
    done = subprocess.run([sys.executable, "-c", AFTERWARDS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_what_is_imported_already_stays_as_it_is():
    code = (
        "import torch._dynamo as real, transformers.modeling_utils as models, sys\n"
        "from hfserve.runtimes import lean\n"
        "lean.preload()\n"
        "assert sys.modules['torch._dynamo'] is real and models.is_dtensor\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
