"""Stripe's library for Python, with the key of the application."""

import stripe

from calls import run, seen


def client(url):
    sdk = stripe.StripeClient(
        "sk_test_till",
        base_addresses={"api": url},
        max_network_retries=3,
        http_client=stripe.RequestsClient(timeout=2),
    )

    def send(path, key, fields):
        try:
            answer = sdk.raw_request("post", path, idempotency_key=key, **fields)
        except stripe.StripeError as error:
            return seen(error.http_status, error.headers, str(error))
        return seen(answer.code, answer.headers, answer.body)

    return send


run(client)
