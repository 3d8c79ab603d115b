// @ai-sdk/mcp 2.x over HTTP: node aisdk.mjs URL TOKEN
import { createMCPClient } from '@ai-sdk/mcp';
const [url, token] = process.argv.slice(2);
const headers = { Authorization: `Bearer ${token}` };
const client = await createMCPClient({ transport: { type: 'http', url, headers } });
const tools = await client.tools();
const result = await tools.add.execute({ a: 2, b: 3 }, { toolCallId: '1', messages: [] });
console.log(JSON.stringify({ tools: Object.keys(tools), result }));
await client.close();
