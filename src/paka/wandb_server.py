"""Whether a server of Weights & Biases takes runs: is there a key, does the server answer, does it know the key."""

from __future__ import annotations

import base64
import json
import netrc
import os
import threading
from collections.abc import Collection
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

CLOUD = ("api.wandb.ai", "api.forge.coreweave.com")
"""Hosts of one and the same service; a key for either is good for both."""
REFUSALS = (401, 403)
"""Answers to a key that is not known, or not allowed in."""


def has_token() -> bool:
    """Return whether there is an identity token to log in with, which takes the place of a key."""
    return bool(os.environ.get("WANDB_IDENTITY_TOKEN_FILE"))


def key_for(url: str) -> str | None:
    """Return the key for a server: of `WANDB_API_KEY`, else of the netrc file; None if there is none."""
    if found := os.environ.get("WANDB_API_KEY"):
        return found
    host = urlsplit(url).netloc
    return _netrc_key(CLOUD if host in CLOUD else (host,))


def _netrc_key(hosts: Collection[str]) -> str | None:
    named = os.environ.get("NETRC")
    files = [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for file in files:
        try:
            entries = netrc.netrc(file.expanduser())
        except (OSError, netrc.NetrcParseError):
            continue
        for entry in filter(None, map(entries.authenticators, hosts)):
            if entry[2]:
                return entry[2]
    return None


def refusal(url: str, key: str | None, patience: float) -> str:
    """Return why a server would not take a run, or nothing if it would, as far as can be told by asking once.

    Args:
        url: Address of the server.
        key: What to log in with; None asks without one, and only whether the server is there.
        patience: Seconds within which it has to answer, names and proxies included.
    """
    answers: list[str] = []
    # A name that cannot be resolved takes as long as the system likes, so the question is put aside, not broken off.
    asking = threading.Thread(target=lambda: answers.append(_ask(url, key, patience)), daemon=True)
    asking.start()
    asking.join(patience + 0.5)
    return answers[0] if answers else _silent(url, patience)


def _silent(url: str, patience: float) -> str:
    return f"{url} does not answer within {patience:g} s"


def _ask(url: str, key: str | None, patience: float) -> str:
    """Ask who the key belongs to; anything unclear is left to the client of Weights & Biases."""
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(f"api:{key}".encode()).decode()
    body = json.dumps({"query": "query { viewer { id } }"}).encode()
    request = Request(f"{url.rstrip('/')}/graphql", data=body, headers=headers)  # noqa: S310 - see `server`
    try:
        with urlopen(request, timeout=patience) as response:  # noqa: S310
            answer = json.loads(response.read())
    except HTTPError as error:
        refused = key is not None and error.code in REFUSALS
        return f"{url} does not know the key" if refused else ""
    except (TimeoutError, ConnectionError, URLError) as error:
        return _unreachable(url, error, patience)
    except HTTPException:
        return f"{url} gives an answer that is not HTTP"
    except (OSError, ValueError):
        return ""
    unknown = key is not None and isinstance(answer, dict) and answer.get("data") == {"viewer": None}
    return f"{url} does not know the key" if unknown else ""


def _unreachable(url: str, error: Exception, patience: float) -> str:
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, TimeoutError):
        return _silent(url, patience)
    known = isinstance(reason, OSError) and "certificate" not in str(reason).lower()
    text = getattr(reason, "strerror", None) or str(reason)
    return f"{url} cannot be reached ({text})" if known else ""
