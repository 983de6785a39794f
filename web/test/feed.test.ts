import assert from "node:assert/strict";
import { test } from "node:test";
import { Clock } from "./clock";
import { Feed, OPEN_MS, RETRY_MS, SILENCE_MS, type Socket } from "../src/api/feed";
import type { Frame } from "../src/api/types";

class FakeSocket implements Socket {
  onopen: (() => void) | null = null;
  onmessage: ((message: { data: unknown }) => void) | null = null;
  onclose: (() => void) | null = null;
  readonly sent: string[] = [];
  closed = false;
  send(text: string): void {
    this.sent.push(text);
  }
  close(): void {
    this.closed = true;
  }
}

function setUp(take: (frame: Frame) => boolean = () => false) {
  const clock = new Clock();
  const sockets: FakeSocket[] = [];
  const queries: string[] = [];
  const said: string[] = [];
  let position: { instance: string; seq: number } | null = null;
  const feed = new Feed({
    connect(query) {
      queries.push(query);
      const socket = new FakeSocket();
      sockets.push(socket);
      return socket;
    },
    take,
    position: () => position,
    up: () => said.push("up"),
    down: () => said.push("down"),
  });
  feed.start();
  const last = (): FakeSocket => sockets[sockets.length - 1] as FakeSocket;
  return {
    clock, feed, sockets, queries, said, last,
    at: (seq: number) => (position = { instance: "one", seq }),
    hear: (frame: unknown) => last().onmessage?.({ data: typeof frame === "string" ? frame : JSON.stringify(frame) }),
    end: () => { feed.stop(); clock.restore(); },
  };
}

test("silence for less than five seconds counts as down, and it reconnects from the last number", () => {
  assert.ok(SILENCE_MS < 5_000);
  const t = setUp();
  t.last().onopen?.();
  t.hear({ type: "idle", seq: 9 });
  t.at(9);
  t.clock.tick(SILENCE_MS - 1);
  assert.deepEqual(t.said, ["up"]);
  t.clock.tick(1);
  assert.deepEqual(t.said, ["up", "down"]);
  assert.ok(t.last().closed);
  t.clock.tick(RETRY_MS);
  assert.equal(t.queries[1], "?after=9&instance=one");
  t.hear({ type: "idle", seq: 9 });
  assert.deepEqual(t.said, ["up", "down", "up"]);
  t.end();
});

test("a connection that never opens is given up", () => {
  const t = setUp();
  t.clock.tick(OPEN_MS);
  assert.deepEqual(t.said, ["down"]);
  t.end();
});

test("a closed connection is down at once and opened again", () => {
  const t = setUp();
  t.last().onclose?.();
  assert.deepEqual(t.said, ["down"]);
  t.clock.tick(RETRY_MS);
  assert.equal(t.sockets.length, 2);
  t.end();
});

test("a gap and a frame that is no JSON ask for a snapshot", () => {
  const t = setUp((frame) => frame.seq === 2);
  t.hear({ type: "idle", seq: 2 });
  t.hear("{");
  assert.deepEqual(t.last().sent, ['{"type":"resync"}', '{"type":"resync"}']);
  t.end();
});

test("a stopped feed stays stopped", () => {
  const t = setUp();
  t.feed.stop();
  t.clock.tick(60_000);
  t.feed.retry();
  assert.equal(t.sockets.length, 1);
  t.end();
});
