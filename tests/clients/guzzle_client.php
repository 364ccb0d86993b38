<?php
// Guzzle with the middleware of docs/clients.md. Calls as in calls.py, each by a process of its own.

require 'GuzzleHttp/autoload.php';

use GuzzleHttp\Client;
use GuzzleHttp\Exception\TransferException;
use GuzzleHttp\HandlerStack;
use GuzzleHttp\Middleware;

function sender(): callable
{
    $retry = Middleware::retry(
        fn ($attempt, $request, $answer, $lost) => $attempt < 3 && ($lost !== null || $answer?->hasHeader('Retry-After')),
        fn ($attempt) => 250 << $attempt,
    );
    $stack = HandlerStack::create();
    $stack->push($retry);
    $client = new Client(['handler' => $stack, 'timeout' => 2, 'http_errors' => false]);
    $send = fn ($uri, $sale, $key) => $client->post($uri, ['json' => $sale, 'headers' => ['Idempotency-Key' => $key]]);
    return $send;
}

function seen(callable $send, string $uri, array $sale, string $key): array
{
    try {
        $answer = $send($uri, $sale, $key);
    } catch (TransferException $lost) {
        return ['status' => 0, 'text' => $lost->getMessage()];
    }
    return [
        'status' => $answer->getStatusCode(),
        'disposition' => $answer->getHeaderLine('Idempotency-Status'),
        'error' => $answer->getHeaderLine('Idempotency-Error'),
        'text' => (string) $answer->getBody(),
    ];
}

function one(array $call): void
{
    $send = sender();
    if ($call['first']) {
        seen($send, $call['url'] . $call['first'], $call['fields'], $call['key'] . '-first');
    }
    $start = microtime(true);
    $result = seen($send, $call['url'] . $call['path'], $call['fields'], $call['key']);
    $result += ['name' => $call['name'], 'seconds' => microtime(true) - $start];
    // One write for each line: the processes share the output.
    fwrite(STDOUT, json_encode($result) . "\n");
}

foreach (file('php://stdin') as $line) {
    if (pcntl_fork() === 0) {
        one(json_decode($line, true));
        exit(0);
    }
}
while (pcntl_wait($status) > 0) {
    if ($status !== 0) {
        exit(1);
    }
}
