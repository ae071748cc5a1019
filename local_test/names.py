"""The account, and the names of things in it."""

import re

from local_test.errors import ValidationException

ACCOUNT = "111122223333"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/local"

_PATTERN = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")


def arn(kind: str, name: str, region: str) -> str:
    """SageMaker's name for one of its things; AWS writes them in lower case."""
    return f"arn:aws:sagemaker:{region}:{ACCOUNT}:{kind}/{name.lower()}"


def check(member: str, name: str) -> None:
    """Refuse a name that AWS refuses; an underscore is the usual reason."""
    if len(name) > 63:
        rule = "Member must have length less than or equal to 63"
    elif not _PATTERN.fullmatch(name):
        rule = "Member must satisfy regular expression pattern: ^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"
    else:
        return
    raise ValidationException(
        f"1 validation error detected: Value '{name}' at '{member}' failed to satisfy constraint: {rule}"
    )


def log_group(endpoint: str) -> str:
    """Where CloudWatch keeps the logs of an endpoint."""
    return f"/aws/sagemaker/Endpoints/{endpoint}"


def default_bucket(region: str) -> str:
    """The bucket that the SDKs use when none is named."""
    return f"sagemaker-{region}-{ACCOUNT}"
