"""AWS Signature Version 4 over one request as it goes out, made by botocore's own signer."""

from __future__ import annotations

from functools import cache
from typing import Any

import requests

from ttca.masking import hide_sent, secret

__all__ = ["sign"]


def sign(prepared: requests.PreparedRequest, variable: str, *, region: str, service: str) -> str | None:
    """Sign a request with the key in a variable, in its headers; return what went wrong, or None.

    Signed are the URL, the body, the content type and the headers ``X-Amz-…``, no others: whatever stands between may
    change those. To be called for each attempt, because a signature tells the time and ends.

    Parameters
    ----------
    prepared : requests.PreparedRequest
        Complete but for the signature.
    variable : str
        It holds ``host access secret`` or ``host access secret session``.
    region, service : str
    """
    # Whatever botocore raises has the secret in its frames.
    try:
        _sign(prepared, variable, region, service)
    except Exception as error:
        return f"Expected botocore to sign the request, got {type(error).__name__}. Is ttca[aws] installed as a whole?"
    return None


def _sign(prepared: requests.PreparedRequest, variable: str, region: str, service: str) -> None:
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    signed = {
        name: value for name, value in prepared.headers.items() if name.lower().startswith(("content-type", "x-amz-"))
    }
    request = AWSRequest(method=prepared.method, url=prepared.url, headers=signed, data=prepared.body or b"")
    credentials = Credentials(secret(variable, 0), secret(variable, 1), secret(variable, 2) or None)
    _signer()(credentials, service, region).add_auth(request)
    prepared.headers.update(dict(request.headers.items()))


@cache
def _signer() -> Any:
    from botocore.auth import SigV4Auth

    class Signer(SigV4Auth):  # type: ignore[misc]  # botocore has no types
        def signature(self, *given: Any) -> str:
            """Return the signature, hidden before botocore logs it."""
            made: str = super().signature(*given)
            hide_sent(made)
            return made

    return Signer
