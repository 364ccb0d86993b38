"""requests with urllib3's Retry, told to repeat a POST that carries a key."""

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from calls import run, seen


def client(url):
    retry = Retry(
        total=3,
        backoff_factor=0.5,
        status_forcelist=(409, 429, 500, 502, 503, 504),
        # Every method: by default a POST is not repeated.
        allowed_methods=None,
        # No longer than a till can wait, whatever the answer says.
        retry_after_max=2,
        # The last answer itself, with its sentence, instead of "too many 409 error responses".
        raise_on_status=False,
    )
    session = requests.Session()
    session.mount(url, HTTPAdapter(max_retries=retry))

    def send(path, key, fields):
        try:
            answer = session.post(
                url + path, json=fields, headers={"Idempotency-Key": key}, timeout=2
            )
        except requests.RequestException as error:
            return seen(0, None, str(error))
        return seen(answer.status_code, answer.headers, answer.text)

    return send


run(client)
