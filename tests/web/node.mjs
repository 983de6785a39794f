// Real nodes as processes, each alone on loopback, and what they say on stdout.
//
// Owns starting, waiting for events with a deadline, and ending what it started. Does not own what a
// test asserts.

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { SOON } from "./browser.mjs";

const BINARY = process.env.TEST_ASTRAL_BIN ?? fileURLToPath(new URL("../../target/debug/astral", import.meta.url));
/** Kept of a node's stderr, for the message of a failing test. */
const STDERR_MAX = 20_000;

const running = new Set();
process.on("exit", () => running.forEach((child) => child.kill("SIGKILL")));

export class Node {
  events = [];
  stderr = "";
  #waiting = new Set();

  constructor(name, args) {
    this.name = name;
    this.args = args;
    const has = (flag) => args.includes(flag);
    const all = [...args, "--json", "--mdns", "false", "--leave-with-stdin"];
    if (!has("--data-dir")) all.push("--ephemeral");
    if (!has("--listen")) all.push("--listen", "/ip4/127.0.0.1/tcp/0");
    if (!has("--api")) all.push("--api", "127.0.0.1:0");
    if (!has("--rtmp")) all.push("--rtmp", "127.0.0.1:0");
    // A node reads every ASTRAL_ variable as a setting and refuses those it does not know.
    const ours = ([name]) => !name.startsWith("ASTRAL_") && !name.endsWith("DISPLAY");
    const env = Object.fromEntries(Object.entries(process.env).filter(ours));
    this.child = spawn(BINARY, all, { env, stdio: ["pipe", "pipe", "pipe"] });
    running.add(this.child);
    this.ended = new Promise((done) => this.child.on("exit", (code) => {
      running.delete(this.child);
      done(code);
    }));
    createInterface({ input: this.child.stdout }).on("line", (line) => {
      try {
        this.events.push(JSON.parse(line));
      } catch {
        return; // Not an event.
      }
      for (const look of this.#waiting) look();
    });
    this.child.stderr.on("data", (text) => (this.stderr = (this.stderr + text).slice(-STDERR_MAX)));
  }

  static async start(name, args) {
    const node = new Node(name, args);
    node.ready = await node.wait("ready");
    return node;
  }

  /** The first event of that kind that is accepted, from event number `from` on. */
  wait(kind, accept = () => true, from = 0) {
    return new Promise((found, failed) => {
      const look = () => {
        const event = this.events.slice(from).find((e) => e.event === kind && accept(e));
        if (!event) return;
        clearTimeout(deadline);
        this.#waiting.delete(look);
        found(event);
      };
      const give = () => {
        clearTimeout(deadline);
        this.#waiting.delete(look);
        const last = this.events.filter((e) => e.event !== "status").slice(-8).map((e) => JSON.stringify(e)).join("\n");
        failed(new Error(`${this.name}: no '${kind}' in time, or it ended\n${last}\n${this.stderr}`));
      };
      const deadline = setTimeout(give, SOON);
      void this.ended.then(give);
      this.#waiting.add(look);
      look();
    });
  }

  get address() {
    return this.ready.listen[0];
  }

  get id() {
    return this.ready.node_id;
  }

  /** The one-time link of the page. */
  get web() {
    return this.ready.web;
  }

  kill(signal = "SIGKILL") {
    this.child.kill(signal);
    return this.ended;
  }
}

/** A supernode, and whatever joins through it. `close` ends them all. */
export class Network {
  nodes = [];

  static async found(args = []) {
    const network = new Network();
    network.supernode = await network.#add("supernode", ["run", "--role", "supernode", ...args]);
    return network;
  }

  join(name, args) {
    return this.#add(name, [...args, "--role", "member", "--bootstrap", this.supernode.address]);
  }

  /** A node that publishes a small test picture. */
  publish(name, args = []) {
    return this.join(`source of ${name}`, ["publish", name, "--test", "--size", "320x180", "--bitrate", "400kbit", ...args]);
  }

  async #add(name, args) {
    const node = await Node.start(name, args);
    this.nodes.push(node);
    return node;
  }

  async close() {
    await Promise.all(this.nodes.map((node) => node.kill()));
  }
}
