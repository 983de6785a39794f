import assert from "node:assert/strict";
import { test } from "node:test";
import { readCredential } from "../src/api/session";
import type { NodeDto, PeerDto, StreamDto } from "../src/api/types";
import { hostPort, lag, rate, size, span } from "../src/format";
import { missing } from "../src/media/codecs";
import { parse, paths } from "../src/route";
import { pick } from "../src/state/browse";
import { difference, graphOf, sameLine } from "../src/state/network";

const stream = (id: string, more: Partial<StreamDto> = {}): StreamDto => ({
  id, link: null, name: id, title: id, description: "", tags: [], codecs: [], width: null, height: null, bitrate_bps: 0,
  stripes: 4, epoch: 0, revision: 0, node: null, viewers: 0, role: "listed", announced: true, http_flv: "", ...more,
});
const peer = (id: string, supernode = false): PeerDto => ({
  id, addrs: ["/ip4/192.0.2.1/tcp/4001/p2p/x"], supernode, connected: true, rtt_ms: null, failures: 0, banned: false,
});

test("search finds every word in any text of a stream, in any case", () => {
  const streams = [stream("a", { title: "Garden", tags: ["Bees"] }), stream("b", { description: "a garden gnome" })];
  assert.deepEqual(pick(streams, "GARDEN", "title").map((s) => s.id), ["b", "a"]);
  assert.deepEqual(pick(streams, "garden bees", "title").map((s) => s.id), ["a"]);
  assert.deepEqual(pick(streams, "  ", "title").length, 2);
});

test("streams of equal rank keep their places", () => {
  const streams = [stream("c", { title: "x" }), stream("a", { title: "x" }), stream("b", { title: "x", viewers: 3 })];
  assert.deepEqual(pick(streams, "", "viewers").map((s) => s.id), ["b", "a", "c"]);
});

test("every page has an address that leads back to it", () => {
  for (const path of Object.values(paths).map((p) => (typeof p === "function" ? p("a/b ?é") : p))) {
    assert.notEqual(parse(path).page, "lost", path);
  }
  assert.deepEqual(parse(paths.watch("astral:k/näme")), { page: "watch", id: "astral:k/näme" });
  assert.deepEqual(parse(paths.networkOf("abc")), { page: "network", stream: "abc" });
  assert.deepEqual(parse(""), { page: "browse" });
  assert.equal(parse("#/nowhere").page, "lost");
  assert.equal(parse("#/watch/%E0%A4%A").page, "watch");
});

test("a pasted link, code or token is told apart, and nonsense refused", () => {
  const token = "0f".repeat(32);
  assert.deepEqual(readCredential(` ${token}\n`), { token });
  assert.deepEqual(readCredential("http://127.0.0.1:8000/#code=Ab_c-123"), { code: "Ab_c-123" });
  assert.deepEqual(readCredential("Ab_c-123"), { code: "Ab_c-123" });
  assert.equal(readCredential("hello world"), null);
  assert.equal(readCredential(""), null);
});

test("a codec that the browser lacks is named as people know it", () => {
  assert.deepEqual(missing(["hevc", "aac"], (mime) => !mime.includes("hvc1")), ["HEVC"]);
  assert.deepEqual(missing(["avc", "opus"], () => true), []);
  assert.deepEqual(missing(["something-new"], () => false), []);
});

test("stripes of the same two nodes are one line, in order", () => {
  const edges = [3, 1].map((stripe) => ({ id: `e${stripe}`, kind: "live" as const, stream: "s", stripe, from: "p", to: "c" }));
  const { lines } = graphOf({ node: null, peers: [], streams: [], edges }, null);
  assert.deepEqual([...lines.values()].map((line) => line.stripes), [[1, 3]]);
});

test("an edge to a node that no list has still has two ends", () => {
  const edges = [{ id: "e", kind: "registration" as const, stream: null, stripe: null, from: "m", to: "ghost" }];
  const { dots } = graphOf({ node: null, peers: [peer("m")], streams: [], edges }, null);
  assert.deepEqual([...dots.keys()].sort(), ["ghost", "m"]);
});

test("a filter leaves one stream, its nodes and this node", () => {
  const node = { node_id: "me", role: "member", listen: [] } as unknown as NodeDto;
  const edges = [
    { id: "a", kind: "live" as const, stream: "s", stripe: 0, from: "p", to: "c" },
    { id: "b", kind: "live" as const, stream: "t", stripe: 0, from: "q", to: "r" },
    { id: "c", kind: "source" as const, stream: null, stripe: null, from: "p", to: "s" },
  ];
  const facts = { node, peers: ["p", "c", "q", "r"].map((id) => peer(id)), streams: [stream("s"), stream("t")], edges };
  const { dots, lines } = graphOf(facts, "s");
  assert.deepEqual([...dots.keys()].sort(), ["c", "me", "p", "s"]);
  assert.equal(lines.size, 2);
});

test("supernodes keep their 2011 name and address", () => {
  const { dots } = graphOf({ node: null, peers: [peer("x", true)], streams: [], edges: [] }, null);
  assert.equal(dots.get("x")?.label, "Supernode: 192.0.2.1:4001");
});

test("the difference of two graphs has what came, went and changed", () => {
  const line = (id: string, stripes: number[]) => ({ id, kind: "live" as const, from: "", to: "", stream: null, stripes });
  const old = new Map([["a", line("a", [1])], ["b", line("b", [2])]]);
  const now = new Map([["b", line("b", [2, 3])], ["c", line("c", [])]]);
  const { added, changed, removed } = difference(old, now, sameLine);
  assert.deepEqual([added.map((l) => l.id), changed.map((l) => l.id), removed], [["c"], ["b"], ["a"]]);
});

test("quantities read as people write them", () => {
  assert.equal(rate(2_500_000), "2.5 Mbit/s");
  assert.equal(rate(340_000), "340 kbit/s");
  assert.equal(rate(20_000_000), "20 Mbit/s");
  assert.equal(size(3_210_000), "3.21 MB");
  assert.equal(size(900), "900 B");
  assert.equal(lag(340.4), "340 ms");
  assert.equal(lag(1_500), "1.5 s");
  assert.equal(span(7_500), "2 h 5 min");
  assert.equal(hostPort("/ip6/2001:db8::1/udp/4001/quic-v1"), "[2001:db8::1]:4001");
});
