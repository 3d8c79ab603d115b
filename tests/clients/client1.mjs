// @modelcontextprotocol/sdk 1.32.2 over HTTP: node client1.mjs URL TOKEN
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
const [url, token] = process.argv.slice(2);
const client = new Client({ name: 'sluice-test', version: '1' }, { capabilities: {} });
const requestInit = { headers: { Authorization: `Bearer ${token}` } };
await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit }));
const tools = (await client.listTools()).tools.map((t) => t.name);
const result = await client.callTool({ name: 'add', arguments: { a: 2, b: 3 } });
console.log(JSON.stringify({ tools, result }));
await client.close();
