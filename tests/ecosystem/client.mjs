// The TypeScript SDK's client: starts the server, lists its tools, makes each call and prints what came of it.
// Given on stdin: {"modules", "command", "args", "env", "calls": {tool: arguments}}. The SDK itself checks each
// structured result against the tool's outputSchema.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const given = JSON.parse(readFileSync(0, "utf8"));
const sdk = (name) => import(pathToFileURL(`${given.modules}/@modelcontextprotocol/sdk/dist/esm/${name}`).href);
const { Client } = await sdk("client/index.js");
const { StdioClientTransport } = await sdk("client/stdio.js");

const client = new Client({ name: "test", version: "1" });
const { command, args, env } = given;
await client.connect(new StdioClientTransport({ command, args, env, stderr: "inherit" }));
const { tools } = await client.listTools();
const results = {};
for (const [name, called] of Object.entries(given.calls)) {
  results[name] = await client.callTool({ name, arguments: called });
}
await client.close();
console.log(JSON.stringify({ server: client.getServerVersion(), tools: tools.map((tool) => tool.name), results }));
