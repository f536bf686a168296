"""Amazon's private registries: who may pull is said by AWS, whose own library asks.

ECR takes Basic with the name AWS and a password that GetAuthorizationToken gives for 12 hours (Amazon ECR API
Reference). boto3 finds the operator's AWS credentials wherever AWS has them: environment, files, instance role.
"""

from __future__ import annotations

import base64
import re

from msgspec import Struct

from waypost.routing.decision import Basic
from waypost.upstream.declared import AccountError

_HOST = re.compile(r"[0-9]{12}\.dkr\.ecr(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")
ADVICE = "Amazon's private registries need boto3; install it: pip install 'waypost[ecr]'"


class EcrLogin(Struct, frozen=True):
    """An account, and when it ends, in seconds since 1970."""

    account: Basic
    until: float


def region_of(host: str) -> str | None:
    """`123456789012.dkr.ecr.eu-west-1.amazonaws.com` → eu-west-1; None for every other host."""
    found = _HOST.fullmatch(host)
    return found[1] if found else None


def ask_aws(region: str) -> EcrLogin:
    """Asks AWS, and waits for it. Raises AccountError."""
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise AccountError(ADVICE) from None
    try:
        answer = boto3.client("ecr", region_name=region).get_authorization_token()
        (data, *_) = answer["authorizationData"]
        username, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
        return EcrLogin(Basic(username, password), data["expiresAt"].timestamp())
    except (BotoCoreError, ClientError) as error:
        raise AccountError(f"AWS gives no token for its registries in {region}: {error}") from None
    except (KeyError, ValueError) as error:
        raise AccountError(f"AWS answers with a token that cannot be read ({type(error).__name__})") from None
