// A stand-in for the node's API, for what no ten real processes can show: a network of thousands.
//
// Owns just enough of HTTP, WebSocket framing and the event feed. Every test of behaviour runs against
// real nodes instead (see node.mjs).

import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const DIST = fileURLToPath(new URL("../../web/dist", import.meta.url));
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };
export const TOKEN = "ab".repeat(32);

/** The policy that the node sends with the page. */
export const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; " +
  "connect-src 'self'; worker-src 'self' blob:; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** A number as a 64-digit id, spread so that ids differ in their first digits. */
export const id = (n) => createHash("sha256").update(String(n)).digest("hex");

/** Serves the built page and one world; `objects` is what the snapshot says. */
export async function serve(objects) {
  const clients = new Set();
  const sockets = new Set();
  const received = [];
  let seq = 1;
  const snapshot = (socket) => send(socket, { type: "snapshot", instance: "0123456789abcdef", seq, objects });
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    if (pathname.startsWith("/api/v1/")) return answer(pathname, response, objects);
    if (pathname.startsWith("/live/")) {
      // A stream whose first picture never comes.
      response.writeHead(200, { "content-type": "video/x-flv" });
      return response.write(Buffer.from("464c5601050000000900000000", "hex"));
    }
    const file = normalize(join(DIST, pathname === "/" ? "index.html" : pathname));
    try {
      if (!file.startsWith(DIST)) throw new Error("outside");
      const body = await readFile(file);
      response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "text/plain", "content-security-policy": POLICY });
      response.end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  server.on("upgrade", (request, socket) => {
    const key = request.headers["sec-websocket-key"];
    const accept = createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
    socket.write(
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
        `Sec-WebSocket-Accept: ${accept}\r\nSec-WebSocket-Protocol: astral.v1\r\n\r\n`,
    );
    socket.on("error", () => undefined);
    sockets.add(socket);
    socket.on("close", () => clients.delete(socket));
    if (request.url.startsWith("/publish/")) {
      send(socket, { type: "ready" });
      socket.on("data", frames((payload) => received.push(payload)));
      return;
    }
    // The page says one thing only: that it missed something.
    socket.on("data", frames(() => snapshot(socket)));
    clients.add(socket);
    snapshot(socket);
  });
  const pulse = setInterval(() => clients.forEach((socket) => send(socket, { type: "idle", seq })), 1_000);
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    /** What pages sent to `/publish`, frame by frame. */
    received,
    /** Tells every client of a change. */
    tell(frame) {
      seq += 1;
      for (const socket of clients) send(socket, { ...frame, seq });
    },
    /** A frame that gets lost on the way. */
    skip() {
      seq += 1;
    },
    async close() {
      clearInterval(pulse);
      for (const socket of sockets) socket.destroy();
      await new Promise((done) => {
        server.close(done);
        server.closeAllConnections();
      });
    },
  };
}

function answer(pathname, response, objects) {
  const json = (status, body) => {
    response.writeHead(status, { "content-type": "application/json" });
    response.end(body === undefined ? "" : JSON.stringify(body));
  };
  switch (pathname) {
    case "/api/v1/session":
      return json(200, { token: TOKEN });
    case "/api/v1/doctor":
      return json(200, { ok: true, checks: [{ name: "clock", verdict: "ok", message: "agrees with the others" }] });
    case "/api/v1/streams":
      return json(201, { id: id("published"), link: null, http_flv: "", ws_publish: `/publish/${id("published")}` });
    case "/api/v1/settings":
      return json(200, objects.settings[0]);
    default:
      return json(404, { status: 404, code: "not_found", detail: "nothing is here" });
  }
}

/** Takes a client's masked frames apart and hands over the payload of each text or binary frame. */
function frames(take) {
  let rest = Buffer.alloc(0);
  return (bytes) => {
    rest = Buffer.concat([rest, bytes]);
    for (;;) {
      if (rest.length < 2) return;
      const short = rest[1] & 0x7f;
      const at = short === 126 ? 4 : short === 127 ? 10 : 2;
      if (rest.length < at + 4) return;
      const length = short === 126 ? rest.readUInt16BE(2) : short === 127 ? Number(rest.readBigUInt64BE(2)) : short;
      const end = at + 4 + length;
      if (rest.length < end) return;
      const [mask, payload] = [rest.subarray(at, at + 4), Buffer.from(rest.subarray(at + 4, end))];
      for (let i = 0; i < length; i++) payload[i] ^= mask[i % 4];
      if ((rest[0] & 0x0f) <= 2) take(payload);
      rest = rest.subarray(end);
    }
  };
}

/** One unmasked text frame. */
function send(socket, value) {
  const body = Buffer.from(JSON.stringify(value));
  const head = body.length < 126 ? Buffer.from([0x81, body.length])
    : body.length < 65_536 ? Buffer.from([0x81, 126, body.length >> 8, body.length & 255])
    : Buffer.concat([Buffer.from([0x81, 127, 0, 0, 0, 0]), uint32(body.length)]);
  socket.write(Buffer.concat([head, body]));
}

function uint32(n) {
  const out = Buffer.alloc(4);
  out.writeUInt32BE(n);
  return out;
}

/** A network of `size` nodes: supernodes with their members, streams with their trees. */
export function world(size, streams = 12) {
  const me = id(0);
  const supernodes = Math.max(1, Math.round(size / 60));
  const peers = [];
  const edges = [];
  const address = (n) => [`/ip4/10.${(n >> 8) & 255}.${n & 255}.${(n * 7) % 250}/tcp/4001`];
  for (let n = 1; n < size; n++) {
    const supernode = n <= supernodes;
    peers.push({ id: id(n), addrs: address(n), supernode, connected: n % 3 === 0, rtt_ms: 5 + (n % 90), failures: 0, banned: false });
    if (!supernode) {
      const at = id(1 + (n % supernodes));
      edges.push({ id: `registration:${n}`, kind: "registration", stream: null, stripe: null, from: id(n), to: at });
    }
  }
  const list = [];
  for (let s = 0; s < streams; s++) {
    const stream = id(`stream ${s}`);
    const source = 1 + supernodes + s * 3;
    list.push(streamDto(stream, `Stream ${s}`, id(source), s));
    edges.push({ id: `source:${s}`, kind: "source", stream, stripe: null, from: id(source), to: stream });
    for (let v = 0; v < Math.floor(size / streams / 2); v++) {
      const child = 1 + ((source + 1 + v * streams) % (size - 1));
      const parent = v < 3 ? source : 1 + ((source + 1 + Math.floor(v / 3) * streams) % (size - 1));
      if (child === parent) continue;
      const ends = { stream, from: id(parent), to: id(child) };
      edges.push({ id: `live:${s}:${v}`, kind: "live", stripe: v % 4, ...ends });
      if (v % 4 === 0) edges.push({ id: `standby:${s}:${v}`, kind: "standby", stripe: v % 4, ...ends, from: id(source) });
    }
  }
  return {
    node: [nodeDto(me)],
    peer: peers,
    stream: list,
    stats: [],
    ticket: [],
    edge: edges,
    settings: [{ revision: 1, uplink_bps: null, max_copies: null, max_total_copies: null }],
  };
}

export function nodeDto(me) {
  return {
    peer_id: "12D3KooW", node_id: me, version: "0.1.0", listen: ["/ip4/127.0.0.1/tcp/4001/p2p/12D3KooW"],
    api: "http://127.0.0.1:8000", rtmp: "rtmp://127.0.0.1:1935/astral", role: "member",
    registration: { state: "registered", supernode: id(1) }, reachable: true, members: 0, connected: 12, uptime_s: 4_000,
    uplink: { usable_bps: 20_000_000, assumed: false, promised_bps: 6_400_000 },
    traffic: { sent_bytes: 5_400_000_000, sent_media_bytes: 5_000_000_000, received_bytes: 700_000_000 }, counters: {},
    publishing: [], watching: [], seeding: [], sources: ["rtmp", "browser", "test"],
  };
}

export function streamDto(stream, title, node, n) {
  return {
    id: stream, link: `astral:${node}/${n}`, name: title, title, description: n % 2 ? "Live from the mountain hut." : "",
    tags: n % 3 ? ["outdoor"] : [], codecs: ["avc", "aac"], width: 1280, height: 720, bitrate_bps: 2_500_000, stripes: 8,
    epoch: 1_700_000_000 + n, revision: 1, node, viewers: (n * 37) % 211, role: "listed", announced: true, own: false,
    paused: false, http_flv: `http://127.0.0.1:8000/live/${stream}.flv`, hls: `http://127.0.0.1:8000/live/${stream}/index.m3u8`,
    thumbnail: null,
  };
}
