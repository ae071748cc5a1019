"""STS and IAM, as far as the SDKs ask: who am I, what is this role, may it do that."""

import json
import urllib.parse
from xml.sax.saxutils import escape

from local_test import names
from local_test.wire import Answer, Request

_TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
_STS, _IAM = "https://sts.amazonaws.com/doc/2011-06-15/", "https://iam.amazonaws.com/doc/2010-05-08/"


def answer(request: Request) -> Answer:
    """Answer one action of a query API; everything is allowed."""
    form = request.form()
    action = form.get("Action", "")
    if action == "GetCallerIdentity":
        who = f"<Arn>{names.ROLE}</Arn><UserId>LOCAL</UserId><Account>{names.ACCOUNT}</Account>"
        return _result(action, _STS, who)
    if action == "AssumeRole":
        return _result(action, _STS, _assumed(form))
    if action == "GetRole":
        return _result(action, _IAM, _role(form["RoleName"]))
    if action == "SimulatePrincipalPolicy":
        return _result(action, _IAM, _simulated(form))
    message = escape(f"{action} is not emulated locally")
    error = f"<ErrorResponse><Error><Type>Sender</Type><Code>InvalidAction</Code><Message>{message}</Message></Error>"
    return Answer(f"{error}</ErrorResponse>".encode(), 400, {"Content-Type": "text/xml"})


def _assumed(form: dict[str, str]) -> str:
    keys = ("AccessKeyId", "SecretAccessKey", "SessionToken")
    credentials = "".join(f"<{key}>local</{key}>" for key in keys) + "<Expiration>2100-01-01T00:00:00Z</Expiration>"
    user = f"<AssumedRoleId>LOCAL</AssumedRoleId><Arn>{escape(form.get('RoleArn', names.ROLE))}</Arn>"
    return f"<Credentials>{credentials}</Credentials><AssumedRoleUser>{user}</AssumedRoleUser>"


def _role(name: str) -> str:
    trust = urllib.parse.quote(json.dumps(_TRUST))
    return (
        f"<Role><Path>/</Path><Arn>arn:aws:iam::{names.ACCOUNT}:role/{escape(name)}</Arn><RoleName>{escape(name)}</RoleName>"
        f"<RoleId>AROALOCALLOCALLOCAL1</RoleId><CreateDate>2020-01-01T00:00:00Z</CreateDate>"
        f"<AssumeRolePolicyDocument>{trust}</AssumeRolePolicyDocument></Role>"
    )


def _simulated(form: dict[str, str]) -> str:
    actions = [value for key, value in form.items() if key.startswith("ActionNames.member.")]
    members = "".join(
        f"<member><EvalActionName>{escape(action)}</EvalActionName><EvalResourceName>*</EvalResourceName>"
        "<EvalDecision>allowed</EvalDecision><MatchedStatements/><MissingContextValues/></member>"
        for action in actions
    )
    return f"<IsTruncated>false</IsTruncated><EvaluationResults>{members}</EvaluationResults>"


def _result(action: str, namespace: str, content: str) -> Answer:
    body = (
        f'<{action}Response xmlns="{namespace}"><{action}Result>{content}</{action}Result>'
        f"<ResponseMetadata><RequestId>local</RequestId></ResponseMetadata></{action}Response>"
    )
    return Answer(body.encode(), headers={"Content-Type": "text/xml"})
