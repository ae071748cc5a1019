"""The baseline that AWS ships, started as its image starts it: the toolkit's own entry point, at its defaults.

Run by the Python of its own environment. None of what is changed here is on the way of a request: the configuration
is not written into /etc, the server listens on 127.0.0.1 only, and the entry point looks for its Java process among its
own descendants, since others may run beside it. It also takes in the orphans that Multi Model Server leaves, so that
whoever measures this process, or ends it, finds them all.
"""

import ctypes
import os
from pathlib import Path

import psutil
from sagemaker_inference import model_server

from sagemaker_huggingface_inference_toolkit import mms_model_server, serving

PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    """Serve until SIGTERM."""
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError("the orphans of Multi Model Server cannot be taken in")
    psutil.process_iter = lambda: psutil.Process(os.getpid()).children(recursive=True)
    config = str(Path("sagemaker-mms.properties").resolve())
    model_server.MMS_CONFIG_FILE = mms_model_server.MMS_CONFIG_FILE = config
    generate = model_server._generate_mms_config_properties
    model_server._generate_mms_config_properties = lambda *given: generate(*given).replace("0.0.0.0", "127.0.0.1")
    serving.main()


if __name__ == "__main__":
    main()
