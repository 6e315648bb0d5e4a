#!/usr/bin/env node
// An MCP server as it would be written without a node in its process: the official SDK, and a helper for the tailnet.
import { createWriteStream } from "node:fs";
import http from "node:http";
import https from "node:https";
import { pipeline } from "node:stream/promises";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import { SocksProxyAgent } from "socks-proxy-agent";
import { z } from "zod";
import { control, helper } from "./helper.js";

const MAX_BYTES = 400_000; // of a body that the model sees, as cc-tailscale has it

let agent: SocksProxyAgent | undefined;

async function proxied(): Promise<SocksProxyAgent> {
  const { socks, user, password } = await helper();
  return (agent ??= new SocksProxyAgent(`socks5h://${user}:${password}@${socks}`, { keepAlive: true }));
}

async function get(url: string): Promise<http.IncomingMessage> {
  const request = url.startsWith("https:") ? https.get : http.get;
  const options = { agent: await proxied() };
  return new Promise((resolve, reject) => request(url, options, resolve).on("error", reject));
}

async function text(response: http.IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of response) {
    parts.push(part as Buffer);
    length += (part as Buffer).length;
    if (length >= MAX_BYTES) break;
  }
  return Buffer.concat(parts).subarray(0, MAX_BYTES).toString("utf8");
}

function said(value: unknown) {
  return { content: [{ type: "text" as const, text: typeof value === "string" ? value : JSON.stringify(value) }] };
}

const server = new McpServer({ name: "tailscale-baseline", version: "1.0.0" });

server.registerTool("tailscale_status", { description: "This device, and its peers.", inputSchema: {} }, async () => {
  return said(await control("/status"));
});

server.registerTool(
  "tailscale_whois",
  { description: "Whose a Tailscale address is.", inputSchema: { address: z.string() } },
  async ({ address }) => said(await control(`/whois?addr=${encodeURIComponent(address)}`)),
);

server.registerTool(
  "tailscale_fetch",
  {
    description: "Fetches a page from the tailnet, or saves it to a file.",
    inputSchema: { url: z.string(), save_to: z.string().optional() },
  },
  async ({ url, save_to }) => {
    const response = await get(url);
    const head = `HTTP/1.1 ${response.statusCode} ${response.statusMessage}`;
    if (save_to === undefined) return said(`${head}\n\n${await text(response)}`);
    await pipeline(response, createWriteStream(save_to));
    return said(`${head}, saved to ${save_to}`);
  },
);

for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => process.exit(0));
process.stdin.on("end", () => process.exit(0));
await server.connect(new StdioServerTransport());
