// The official TypeScript SDK's server with the tools of a bench: what people start with.
//
//   node typescript.mjs PORT UPSTREAM_URL NODE_MODULES
//
// One tool call is one fetch of the same upstream, its answer shaped as the engine's tool does. No token is looked at,
// nothing is decided, limited or recorded. The adapter between node:http and fetch is the one that the SDK's own
// packages for Node use.
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [port, upstream, modules] = process.argv.slice(2);
const require = createRequire(modules + '/');
const load = async (name) => import(pathToFileURL(require.resolve(name)));
const { createMcpHandler, McpServer } = await load('@modelcontextprotocol/server');
const { getRequestListener } = await load('@hono/node-server');
const z = await load('zod');
const headers = { Authorization: 'Bearer upstream-token', Prefer: 'IdType="ImmutableId"' };

const reply = (value) => ({ content: [{ type: 'text', text: JSON.stringify(value) }], structuredContent: value });

async function listMail({ count }) {
  const answer = await fetch(`${upstream}/v1.0/me/messages?$top=${count ?? 10}`, { headers });
  if (!answer.ok) throw new Error(`upstream: ${answer.status}`);
  const messages = (await answer.json()).value.map((m) => ({ id: m.id, subject: m.subject,
    from: m.from.emailAddress.address, received_at: m.receivedDateTime, preview: m.bodyPreview, read: m.isRead }));
  return reply({ messages });
}

async function read({ count }) {
  const answer = await fetch(`${upstream}/me/messages?$top=${count ?? 10}`, { headers });
  if (!answer.ok) throw new Error(`upstream: ${answer.status}`);
  return reply({ messages: (await answer.json()).value });
}

async function write({ subject, body }) {
  const answer = await fetch(`${upstream}/me/messages`, { method: 'POST', body: JSON.stringify({ subject, body }),
    headers: { ...headers, 'Content-Type': 'application/json' } });
  if (!answer.ok) throw new Error(`upstream: ${answer.status}`);
  return reply({ id: (await answer.json()).value[0].id });
}

function server() {
  const s = new McpServer({ name: 'bench', version: '1' });
  const count = z.object({ count: z.number().int().min(1).max(50).optional() });
  s.registerTool('outlook.list_mail', { description: 'List the newest messages', inputSchema: count }, listMail);
  s.registerTool('bench.read', { description: 'Read a page of messages', inputSchema: count }, read);
  s.registerTool('bench.write', { description: 'Post a message',
    inputSchema: z.object({ subject: z.string(), body: z.string() }) }, write);
  return s;
}

const handler = createMcpHandler(server);
const http = createServer(getRequestListener((request) => handler.fetch(request)));
http.keepAliveTimeout = 3600000;
http.listen(Number(port), '127.0.0.1', 16384, () => console.log(`listening http://127.0.0.1:${http.address().port}`));
