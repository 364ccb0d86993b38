"""Calls from standard input, one JSON object a line, made at once; results to standard output.

A call has `name`, `url`, `path`, `key`, `fields` and `first`: a path that is called before, with a
key of its own, so that the call itself meets a connection that was used before.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor


def run(client):
    """Makes every call by `client(url)(path, key, fields)`, which returns what its caller sees."""

    def one(call):
        send = client(call["url"])
        if call["first"]:
            send(call["first"], call["key"] + "-first", call["fields"])
        start = time.monotonic()
        result = send(call["path"], call["key"], call["fields"])
        seconds = time.monotonic() - start
        return {"name": call["name"], "seconds": seconds, **result}

    calls = [json.loads(line) for line in sys.stdin]
    with ThreadPoolExecutor(len(calls)) as pool:
        for result in pool.map(one, calls):
            print(json.dumps(result), flush=True)


def seen(status, headers, body):
    """An answer as the tests compare it; status 0 and `body` a text: an error without an answer."""
    headers = {name.lower(): value for name, value in (headers or {}).items()}
    return {
        "status": status or 0,
        "disposition": headers.get("idempotency-status", ""),
        "error": headers.get("idempotency-error", ""),
        "text": body if isinstance(body, str) else json.dumps(body),
    }
