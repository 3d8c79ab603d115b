// peer.mjs -- the reference implementation as a batch process: a case a line in, an answer a line out (see diff.py)
import { createInterface } from 'node:readline';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const require = createRequire(pathToFileURL(process.argv[2] + '/'));
const cedar = require('@cedar-policy/cedar-wasm/nodejs');
const ids = (list) => list.map((e) => e.policyId).sort();

function decide(it, request) {
  const call = { ...request, entities: it.entities, preparsedPolicySetId: 'set' };
  if (it.schema !== undefined) Object.assign(call, { preparsedSchemaName: 'schema', validateRequest: it.check });
  const answer = tried(() => cedar.statefulIsAuthorized(call));
  if (answer.type !== 'success') return ['refused', [], [], answer.errors.map((e) => e.message).join('; ')];
  const { decision, diagnostics } = answer.response;
  return [decision, [...diagnostics.reason].sort(), ids(diagnostics.errors)];
}

// What does not have the form of its types at all is thrown; that is a refusal too.
function tried(f) {
  try {
    return f();
  } catch (e) {
    return { type: 'failure', errors: [{ message: String(e.message ?? e) }] };
  }
}

function answer(it) {
  const out = {};
  const parsed = tried(() => cedar.preparsePolicySet('set', it.policies));
  out.policies = parsed.type === 'success';
  if (!out.policies) out.why = parsed.errors.map((e) => e.message).join('; ');
  if (it.schema !== undefined) {
    const schema = tried(() => cedar.preparseSchema('schema', it.schema));
    out.schema = schema.type === 'success';
    if (!out.schema) out.why = schema.errors.map((e) => e.message).join('; ');
  }
  if (!out.policies || out.schema === false) return out;
  if (out.schema && it.validate) {
    const v = tried(() => cedar.validate({ schema: it.schema, policies: it.policies }));
    const warnings = v.validationWarnings ?? [];
    const warned = (words) => [...new Set(ids(warnings.filter((w) => words.test(w.error.message))))];
    out.invalid = v.type === 'success' ? [...new Set(ids(v.validationErrors))] : ['refused'];
    out.inapplicable = warned(/unable to find an applicable action/);
    out.impossible = warned(/policy is impossible/);
    out.findings = v.type === 'success'
      ? [...v.validationErrors, ...warnings].map((e) => `${e.policyId}: ${e.error.message}`)
      : v.errors.map((e) => e.message);
  }
  out.requests = it.requests.map((r) => decide(it, r));
  return out;
}

for await (const line of createInterface({ input: process.stdin }))
  process.stdout.write(JSON.stringify(answer(JSON.parse(line))) + '\n');
