import assert from "node:assert/strict";
import { test } from "node:test";
import type { EdgeDto, Frame } from "../src/api/types";
import { EVENTS_MAX, World } from "../src/state/world";

const edge = (id: string): EdgeDto => ({ id, kind: "live", stream: "s", stripe: 0, from: "a", to: "b" });
const snapshot = (seq: number, ...ids: string[]): Frame => ({
  type: "snapshot",
  instance: "one",
  seq,
  objects: { edge: ids.map(edge) },
});

test("a snapshot replaces everything that was known", () => {
  const world = new World();
  world.apply(snapshot(7, "a", "b"), 0);
  world.apply(snapshot(3, "c"), 0);
  assert.deepEqual([...world.of("edge").keys()], ["c"]);
  assert.equal(world.seq, 3);
});

test("the parts of a large snapshot make up the whole, and numbers go on after it", () => {
  const world = new World();
  world.apply(snapshot(7, "a"), 0);
  assert.equal(world.apply({ type: "part", seq: 7, more: true, objects: { edge: [edge("b")] } }, 0).what, "changed");
  world.apply({ type: "part", seq: 7, more: false, objects: { edge: [edge("c")] } }, 0);
  assert.deepEqual([...world.of("edge").keys()], ["a", "b", "c"]);
  assert.equal(world.apply({ type: "remove", seq: 8, kind: "edge", id: "a" }, 0).what, "changed");
  assert.equal(world.apply({ type: "part", seq: 7, more: false, objects: {} }, 0).what, "gap");
});

test("add, update and remove change one object each", () => {
  const world = new World();
  world.apply(snapshot(1, "a"), 0);
  world.apply({ type: "add", seq: 2, kind: "edge", id: "b", object: edge("b") }, 0);
  world.apply({ type: "update", seq: 3, kind: "edge", id: "a", object: { ...edge("a"), stripe: 4 } }, 0);
  assert.equal(world.of("edge").get("a")?.stripe, 4);
  world.apply({ type: "remove", seq: 4, kind: "edge", id: "a" }, 0);
  assert.deepEqual([...world.of("edge").keys()], ["b"]);
});

test("a missing number asks for a snapshot and changes nothing", () => {
  const world = new World();
  world.apply(snapshot(1, "a"), 0);
  const outcome = world.apply({ type: "remove", seq: 3, kind: "edge", id: "a" }, 0);
  assert.equal(outcome.what, "gap");
  assert.equal(world.of("edge").size, 1);
  assert.equal(world.seq, 1);
});

test("a frame seen before asks for a snapshot too", () => {
  const world = new World();
  world.apply(snapshot(5), 0);
  assert.equal(world.apply({ type: "add", seq: 5, kind: "edge", id: "x", object: edge("x") }, 0).what, "gap");
});

test("an idle frame tells of a loss at the end of the numbers", () => {
  const world = new World();
  world.apply(snapshot(5), 0);
  assert.equal(world.apply({ type: "idle", seq: 5 }, 0).what, "nothing");
  assert.equal(world.apply({ type: "idle", seq: 6 }, 0).what, "gap");
});

test("nothing is taken before the first snapshot", () => {
  assert.equal(new World().apply({ type: "idle", seq: 0 }, 0).what, "gap");
});

test("kinds and types of a newer node count but harm nothing", () => {
  const world = new World();
  world.apply(snapshot(1), 0);
  const strange = { type: "add", seq: 2, kind: "comet", id: "x", object: {} } as unknown as Frame;
  assert.equal(world.apply(strange, 0).what, "nothing");
  const stranger = { type: "supernova", seq: 3 } as unknown as Frame;
  assert.equal(world.apply(stranger, 0).what, "nothing");
  assert.equal(world.seq, 3);
});

test("events are kept up to their limit, the oldest go", () => {
  const world = new World();
  world.apply(snapshot(0), 0);
  for (let seq = 1; seq <= EVENTS_MAX + 5; seq++) {
    world.apply({ type: "event", seq, event: { event: "playing", n: seq } }, seq);
  }
  assert.equal(world.events.length, EVENTS_MAX);
  assert.equal(world.events[0]?.event.n, 6);
});
