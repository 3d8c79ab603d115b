// policy_peer.mjs -- the reference implementation decides what policy_bench does: a rough peer
//
//   policy_bench --cases | node policy_peer.mjs NODE_MODULES
//
// It runs as WebAssembly, with the set of policies parsed beforehand; entities, few as they are, it reads anew for each
// request, for which it has no other way. "empty" is that cost: the same requests to a set without policies.
import { createInterface } from 'node:readline';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const require = createRequire(pathToFileURL(process.argv[2] + '/'));
const cedar = require('@cedar-policy/cedar-wasm/nodejs');

function load(name, policies) {
  const parsed = cedar.preparsePolicySet(name, policies);
  if (parsed.type !== 'success') throw new Error(parsed.errors.map((e) => e.message).join('; '));
}

function decide(name, call) {
  const answer = cedar.statefulIsAuthorized({ ...call, preparsedPolicySetId: name });
  if (answer.type !== 'success') throw new Error(answer.errors.map((e) => e.message).join('; '));
  return answer.response.decision;
}

// Nanoseconds of each of some decisions, within about a second, sorted; and the share that allowed.
function measure(name, calls) {
  const times = [], began = process.hrtime.bigint();
  let allowed = 0;
  for (let i = 0; times.length < 2000 && (i < 24 || process.hrtime.bigint() - began < 1000000000n); i++) {
    const start = process.hrtime.bigint();
    const decision = decide(name, calls[i % calls.length]);
    if (i < 8) continue;
    times.push(Number(process.hrtime.bigint() - start));
    allowed += decision === 'allow';
  }
  times.sort((a, b) => a - b);
  const at = (share) => times[Math.floor(times.length * share)];
  return { p50: at(0.5), p99: at(0.99), allowed: allowed / times.length };
}

load('empty', {});
console.log('peer        policies     hot p50 ns         p99  of it empty  allowed');
for await (const line of createInterface({ input: process.stdin })) {
  const { kind, n, policies, calls } = JSON.parse(line);
  load('set', policies);
  const empty = measure('empty', calls), t = measure('set', calls);
  console.log(`${kind.padEnd(10)}${String(n).padStart(10)}${String(t.p50).padStart(15)}${String(t.p99).padStart(12)}` +
    `${String(empty.p50).padStart(13)}${String(Math.round(t.allowed * 100)).padStart(8)}%`);
}
