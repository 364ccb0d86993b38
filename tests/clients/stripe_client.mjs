// Stripe's library for Node, with the key of the application. Calls as in calls.py.

import { createRequire } from 'node:module';
import http from 'node:http';
import readline from 'node:readline';

// The folder of the packages; an import would look beside this file.
const Stripe = createRequire(process.argv[2] + '/')('stripe');

function client(address) {
  const url = new URL(address);
  const stripe = new Stripe('sk_test_till', {
    protocol: 'http',
    host: url.hostname,
    port: url.port,
    maxNetworkRetries: 3,
    timeout: 2000,
    httpAgent: new http.Agent({ keepAlive: true }),
  });
  return async (path, key, fields) => {
    try {
      const answer = await stripe.rawRequest('POST', path, fields, { idempotencyKey: key });
      const { statusCode, headers } = answer.lastResponse;
      return seen(statusCode, headers, JSON.stringify(answer));
    } catch (error) {
      return seen(error.statusCode, error.headers, error.message);
    }
  };
}

function seen(status, headers, text) {
  return {
    status: status ?? 0,
    disposition: headers?.['idempotency-status'] ?? '',
    error: headers?.['idempotency-error'] ?? '',
    text,
  };
}

async function one(call) {
  const send = client(call.url);
  if (call.first) await send(call.first, call.key + '-first', call.fields);
  const start = performance.now();
  const result = await send(call.path, call.key, call.fields);
  const seconds = (performance.now() - start) / 1000;
  console.log(JSON.stringify({ name: call.name, seconds, ...result }));
}

const calls = [];
for await (const line of readline.createInterface({ input: process.stdin })) {
  calls.push(JSON.parse(line));
}
await Promise.all(calls.map(one));
