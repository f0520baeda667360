"""A question to an OpenAI-compatible endpoint: a judge that grades what models wrote.

One request is all it takes (`POST …/chat/completions`). The key comes from OPENAI_API_KEY, as every
such client takes it; an endpoint of one's own may need none.
"""

import json
import os
from collections.abc import Mapping, Sequence
from urllib.request import Request

from resources.errors import EndpointError, RequestFailedError
from resources.web_requests import Tries, answer_to

KEY_VARIABLE = "OPENAI_API_KEY"
_ANSWER = 300.0  # seconds: a large model may think for minutes
_TRIES, _PAUSE = 5, 1.0
_LARGEST = 16_000_000
_TOLD = 300


def endpoint_key(environment: Mapping[str, str] | None = None) -> str:
    """Return the key of OpenAI-compatible endpoints, "" where none is set.

    It is no part of any settings, so that nothing shows it or passes it on.
    """
    given = os.environ if environment is None else environment
    return given.get(KEY_VARIABLE) or ""


def ask_endpoint(
    endpoint: str,
    model: str,
    messages: Sequence[Mapping[str, str]],
    temperature: float,
    max_new_tokens: int,
) -> str:
    """Return what a model answers to messages (`role` and `content` each).

    A busy endpoint is asked again. Raises EndpointError where it does not answer, or not with text.
    """
    body = {
        "model": model,
        "messages": list(messages),
        "temperature": temperature,
        "max_tokens": max_new_tokens,
        "seed": 0,
    }
    headers = {"Content-Type": "application/json"}
    address = f"{endpoint.rstrip('/')}/chat/completions"
    request = Request(address, json.dumps(body).encode(), headers, method="POST")
    if key := endpoint_key():  # which is for this server alone, not for where it sends us on
        request.add_unredirected_header("Authorization", f"Bearer {key}")
    try:
        answer = answer_to(request, Tries(_TRIES, _PAUSE, _ANSWER), _LARGEST)
    except RequestFailedError as error:
        if error.status is None:
            raise EndpointError(f"{address}: does not answer: {error.why}") from error
        told = error.told.decode("utf-8", "replace")
        raise EndpointError(f"{address}: {error.why}: {told}") from None
    try:
        text = json.loads(answer)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise EndpointError(
            f"{address}: answers with what is no chat completion ({type(error).__name__}):"
            f" {answer[:_TOLD].decode('utf-8', 'replace')}"
        ) from None
    if not isinstance(text, str):
        raise EndpointError(f"{address}: answers without text")
    return text
