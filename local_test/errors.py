"""Every error, with the code and the status that AWS gives it.

AwsError                       answered in the shape of the service that was called
├── ValidationException  400   the control plane
├── ValidationError      400   the runtime
├── ModelError           424   what a container answered, or that it did not
└── ServiceUnavailable   503   no container is ready
StartFailed                    an endpoint's or a job's FailureReason
"""

from typing import Any


class AwsError(Exception):
    """An error as an SDK sees it; `more` stands beside the message."""

    def __init__(self, code: str, message: str, status: int = 400, **more: Any) -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.more = code, message, status, more


class ValidationException(AwsError):
    """What is wrong with a request to the control plane."""

    def __init__(self, message: str) -> None:
        super().__init__("ValidationException", message)


class ValidationError(AwsError):
    """What is wrong with a request to the runtime."""

    def __init__(self, message: str) -> None:
        super().__init__("ValidationError", message)


class ModelError(AwsError):
    """A container answered 4xx or 5xx, or (status 0) not at all."""

    def __init__(self, sentence: str, *, status: int, original: str, log_group: str, region: str, account: str) -> None:
        console = f"https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}"
        super().__init__(
            "ModelError",
            f"{sentence}. See {console}#logEventViewer:group={log_group} in account {account} for more information.",
            424,
            OriginalStatusCode=status,
            OriginalMessage=original,
            LogStreamArn=f"arn:aws:logs:{region}:{account}:log-group:{log_group}",
        )


class ServiceUnavailable(AwsError):
    """No container is there to take the request."""

    def __init__(self) -> None:
        super().__init__("ServiceUnavailable", "The service is unavailable. Try your call again.", 503)


class StartFailed(Exception):
    """Why a container could not be started, as DescribeEndpoint tells it."""
