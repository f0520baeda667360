"""A question to an OpenAI-compatible endpoint: a judge that grades what models wrote.

One request is all it takes (`POST …/chat/completions`), by Python's own HTTP client, which follows
the usual proxy variables. The key comes from OPENAI_API_KEY, as every such client takes it; an
endpoint of one's own may need none.
"""

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from resources.errors import EndpointError

KEY_VARIABLE = "OPENAI_API_KEY"
_ANSWER = 300.0  # seconds: a large model may think for minutes
_TRIES, _PAUSE = 5, 1.0
_BUSY = (408, 409, 429, 500, 502, 503, 504)
_LARGEST = 16_000_000
_TOLD = 300


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
    if key := os.environ.get(KEY_VARIABLE):
        headers["Authorization"] = f"Bearer {key}"
    address = f"{endpoint.rstrip('/')}/chat/completions"
    request = Request(address, json.dumps(body).encode(), headers, method="POST")
    answer = _post(request, address)
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


def _post(request: Request, address: str) -> bytes:
    for number in range(_TRIES):
        try:
            with urlopen(request, timeout=_ANSWER) as answer:
                return bytes(answer.read(_LARGEST))
        except HTTPError as error:
            with contextlib.closing(error):
                told = bytes(error.read(_TOLD)).decode("utf-8", "replace")
                if error.code not in _BUSY or number == _TRIES - 1:
                    raise EndpointError(f"{address}: HTTP {error.code}: {told}") from None
        except (URLError, OSError) as error:
            if number == _TRIES - 1:
                reason: Any = getattr(error, "reason", error)
                raise EndpointError(f"{address}: does not answer: {reason}") from error
        time.sleep(_PAUSE * 2**number)
    raise AssertionError
