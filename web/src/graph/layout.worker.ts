// Places the dots of the graph, away from the page's own thread.
//
// Owns the force layout. Does not own what is drawn. Takes the whole graph when it changed, keeps the
// places that it knows, and sends places until they rest.

import Graph from "graphology";
import forceAtlas2 from "graphology-layout-forceatlas2";

export interface LayoutRequest {
  ids: string[];
  /** Pairs of indices into `ids`. */
  pairs: Uint32Array;
}

export interface LayoutAnswer {
  ids: string[];
  /** x and y of each. */
  places: Float32Array;
}

/** Work per message, so that a newer graph is taken up soon. */
const SLICE_MS = 24;
/** A graph rests once the mean dot moves less than this share of the graph's width per round. */
const REST = 0.0008;
const ROUNDS_MAX = 600;

let graph = new Graph({ type: "undirected" });
let ids: string[] = [];
let round = 0;
let running = false;

/** A place that belongs to an id, so that the same network looks the same each time. */
function seat(id: string): { x: number; y: number } {
  let h = 2166136261;
  for (let i = 0; i < id.length; i++) h = Math.imul(h ^ id.charCodeAt(i), 16777619);
  const angle = ((h >>> 0) / 2 ** 32) * 2 * Math.PI;
  const radius = 20 + ((h >>> 8) & 0xff) / 4;
  return { x: Math.cos(angle) * radius, y: Math.sin(angle) * radius };
}

function take(request: LayoutRequest): void {
  const next = new Graph({ type: "undirected" });
  const links = new Map<string, string>();
  for (let i = 0; i < request.pairs.length; i += 2) {
    const from = request.ids[request.pairs[i] ?? 0];
    const to = request.ids[request.pairs[i + 1] ?? 0];
    if (from && to && !links.has(from)) links.set(from, to);
    if (from && to && !links.has(to)) links.set(to, from);
  }
  for (const id of request.ids) {
    if (graph.hasNode(id)) {
      next.addNode(id, { ...graph.getNodeAttributes(id) });
      continue;
    }
    // A newcomer begins beside a neighbour whose place is known.
    const beside = links.get(id);
    const { x, y } = seat(id);
    const near = beside !== undefined && graph.hasNode(beside) ? graph.getNodeAttributes(beside) : null;
    next.addNode(id, near ? { x: Number(near.x) + x / 10, y: Number(near.y) + y / 10 } : { x, y });
  }
  for (let i = 0; i < request.pairs.length; i += 2) {
    const from = request.ids[request.pairs[i] ?? 0];
    const to = request.ids[request.pairs[i + 1] ?? 0];
    if (from && to && from !== to) next.mergeEdge(from, to);
  }
  graph = next;
  ids = request.ids;
  round = 0;
}

function step(): void {
  const until = performance.now() + SLICE_MS;
  const before = places();
  let rounds = 0;
  do {
    forceAtlas2.assign(graph, {
      iterations: 1,
      settings: {
        barnesHutOptimize: graph.order > 300,
        // Strong gravity keeps nodes without any line from drifting off the screen.
        strongGravityMode: true,
        gravity: 0.08,
        scalingRatio: 10,
        slowDown: 1 + graph.order / 400,
      },
    });
    rounds += 1;
  } while (performance.now() < until);
  round += rounds;
  const after = places();
  send(after);
  const settled = moved(before, after) / rounds < REST;
  running = !settled && round < ROUNDS_MAX && graph.order > 1;
  if (running) setTimeout(step, 0);
}

function places(): Float32Array {
  const out = new Float32Array(ids.length * 2);
  ids.forEach((id, i) => {
    const at = graph.getNodeAttributes(id);
    out[2 * i] = Number(at.x);
    out[2 * i + 1] = Number(at.y);
  });
  return out;
}

function moved(before: Float32Array, after: Float32Array): number {
  let sum = 0;
  let reach = 1;
  for (let i = 0; i < after.length; i++) {
    sum += Math.abs((after[i] ?? 0) - (before[i] ?? 0));
    reach = Math.max(reach, Math.abs(after[i] ?? 0));
  }
  return sum / Math.max(1, after.length) / reach;
}

function send(at: Float32Array): void {
  const answer: LayoutAnswer = { ids, places: at };
  postMessage(answer);
}

addEventListener("message", (event: MessageEvent<LayoutRequest>) => {
  take(event.data);
  if (!running) {
    running = true;
    setTimeout(step, 0);
  }
});
