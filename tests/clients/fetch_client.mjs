// Node's fetch with the loop of docs/clients.md. Calls as in calls.py.

import readline from 'node:readline';

async function send(url, sale, saleKey) {
  for (let attempt = 0; ; attempt++) {
    let answer, body;
    try {
      answer = await fetch(url, {
        method: 'POST', body: JSON.stringify(sale), signal: AbortSignal.timeout(2000),
        headers: { 'Content-Type': 'application/json', 'Idempotency-Key': saleKey },
      });
      body = await answer.text(); // may break off, too
    } catch { answer = undefined; }
    if (answer && !answer.headers.has('Retry-After') || attempt === 3) return { answer, body };
    await new Promise((done) => setTimeout(done, 250 << attempt));
  }
}

async function one(call) {
  if (call.first) await send(call.url + call.first, call.fields, call.key + '-first');
  const start = performance.now();
  const { answer, body } = await send(call.url + call.path, call.fields, call.key);
  const seconds = (performance.now() - start) / 1000;
  console.log(JSON.stringify({
    name: call.name,
    status: answer?.status ?? 0,
    disposition: answer?.headers.get('Idempotency-Status') ?? '',
    error: answer?.headers.get('Idempotency-Error') ?? '',
    text: body ?? '',
    seconds,
  }));
}

const calls = [];
for await (const line of readline.createInterface({ input: process.stdin })) {
  calls.push(JSON.parse(line));
}
await Promise.all(calls.map(one));
