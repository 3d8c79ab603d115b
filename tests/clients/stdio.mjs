// @modelcontextprotocol/client 2.4.0 over stdio: node stdio.mjs legacy|auto|pin COMMAND ARGS...
import { Client } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
const [mode, command, ...args] = process.argv.slice(2);
const era = mode === 'auto' ? { versionNegotiation: { mode: 'auto' } }
  : mode === 'pin' ? { versionNegotiation: { mode: { pin: '2026-07-28' } } } : {};
const client = new Client({ name: 'sluice-test', version: '1' }, { capabilities: {}, ...era });
await client.connect(new StdioClientTransport({ command, args, stderr: 'inherit', env: process.env }));
const tools = (await client.listTools()).tools.map((t) => t.name);
const result = await client.callTool({ name: 'add', arguments: { a: 2, b: 3 } });
console.log(JSON.stringify({ version: client.getNegotiatedProtocolVersion(), tools, result }));
await client.close();
