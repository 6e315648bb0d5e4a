// The Go helper (libtailscale/baseline) as a child: started by the first tool call, shared by all.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

export interface Helper {
  socks: string;
  user: string;
  password: string;
  api: string;
  token: string;
}

function setting(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set`);
  return value;
}

async function start(): Promise<Helper> {
  const child = spawn(
    setting("BASELINE_HELPER"),
    ["-control", setting("TS_CONTROL_URL"), "-authkey", setting("TS_AUTHKEY"), "-hostname", `baseline-${process.pid}`],
    { stdio: ["pipe", "pipe", "inherit"] }, // it ends with its input, and so with this process
  );
  for await (const line of createInterface({ input: child.stdout })) return JSON.parse(line) as Helper;
  throw new Error("the helper ended before its node was running");
}

let started: Promise<Helper> | undefined;

export function helper(): Promise<Helper> {
  return (started ??= start());
}

export async function control(path: string): Promise<unknown> {
  const { api, token } = await helper();
  const response = await fetch(api + path, { headers: { Authorization: `Bearer ${token}` } });
  if (!response.ok) throw new Error(await response.text());
  return response.json();
}
