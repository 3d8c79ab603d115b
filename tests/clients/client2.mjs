// @modelcontextprotocol/client 2.4.0 over HTTP: node client2.mjs URL TOKEN legacy|auto|pin
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
const [url, token, mode] = process.argv.slice(2);
const era = mode === 'auto' ? { versionNegotiation: { mode: 'auto' } }
  : mode === 'pin' ? { versionNegotiation: { mode: { pin: '2026-07-28' } } } : {};
const client = new Client({ name: 'sluice-test', version: '1' }, { capabilities: {}, ...era });
const requestInit = { headers: { Authorization: `Bearer ${token}` } };
await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit }));
const tools = (await client.listTools()).tools.map((t) => t.name);
const result = await client.callTool({ name: 'add', arguments: { a: 2, b: 3 } });
console.log(JSON.stringify({ version: client.getNegotiatedProtocolVersion(), tools, result }));
await client.close();
