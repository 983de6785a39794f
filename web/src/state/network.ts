// The graph as the page draws it: which dots and which lines follow from what the node told.
//
// Owns the reduction of peers, streams and edges to dots and lines, and the difference of two graphs.
// Does not own colours, places or drawing. What is drawn is this node's own partial view, on purpose.

import type { EdgeDto, NodeDto, PeerDto, StreamDto } from "../api/types";
import { hostPort, shortId } from "../format";
import { titleOf } from "./browse";

export type DotKind = "self" | "supernode" | "node" | "stream";

export interface Dot {
  id: string;
  kind: DotKind;
  label: string;
  /** A connection is up, or, for a stream, this node has to do with it. */
  near: boolean;
}

export type LineKind = EdgeDto["kind"];

export interface Line {
  id: string;
  kind: LineKind;
  from: string;
  to: string;
  stream: string | null;
  /** For `live` and `standby`: which stripes go this way. */
  stripes: number[];
}

export interface Graph {
  dots: Map<string, Dot>;
  lines: Map<string, Line>;
}

export interface Facts {
  node: NodeDto | null;
  peers: readonly PeerDto[];
  streams: readonly StreamDto[];
  edges: readonly EdgeDto[];
}

/** The graph of what is known; with `only`, of one stream and the nodes that have to do with it. */
export function graphOf(facts: Facts, only: string | null): Graph {
  const lines = linesOf(facts, only);
  const named = new Set<string>();
  for (const line of lines.values()) named.add(line.from).add(line.to);
  const dots = new Map<string, Dot>();
  const add = (dot: Dot): void => {
    if (!only || named.has(dot.id) || dot.id === only) dots.set(dot.id, dot);
  };
  for (const peer of facts.peers) {
    const kind = peer.supernode ? "supernode" : "node";
    add({ id: peer.id, kind, label: nodeLabel(peer.id, kind, peer.addrs), near: peer.connected });
  }
  if (facts.node) {
    const { node_id: id, role, listen } = facts.node;
    const kind = role === "supernode" ? "supernode" : "self";
    dots.set(id, { id, kind, label: `This node: ${addressOf(listen) ?? shortId(id)}`, near: true });
  }
  for (const stream of facts.streams) {
    add({ id: stream.id, kind: "stream", label: `Stream: ${titleOf(stream)}`, near: stream.role !== "listed" });
  }
  // An edge may name a node that no list has yet: a line always has two ends.
  for (const id of named) {
    if (!dots.has(id)) dots.set(id, { id, kind: "node", label: nodeLabel(id, "node", []), near: false });
  }
  return { dots, lines };
}

/** Edges of the same two nodes in one stream become one line with its stripes. */
function linesOf(facts: Facts, only: string | null): Map<string, Line> {
  const lines = new Map<string, Line>();
  for (const edge of facts.edges) {
    if (only && edge.stream !== only && edge.to !== only) continue;
    const media = edge.kind === "live" || edge.kind === "standby";
    const id = media ? `${edge.kind}:${edge.stream ?? ""}:${edge.from}:${edge.to}` : edge.id;
    const line = lines.get(id);
    if (line) {
      if (edge.stripe !== null) line.stripes.push(edge.stripe);
      continue;
    }
    lines.set(id, {
      id,
      kind: edge.kind,
      from: edge.from,
      to: edge.to,
      stream: edge.stream ?? (edge.kind === "source" ? edge.to : null),
      stripes: edge.stripe === null ? [] : [edge.stripe],
    });
  }
  for (const line of lines.values()) line.stripes.sort((a, b) => a - b);
  return lines;
}

function nodeLabel(id: string, kind: "supernode" | "node", addrs: readonly string[]): string {
  const what = kind === "supernode" ? "Supernode" : "Node";
  return `${what}: ${addressOf(addrs) ?? shortId(id)}`;
}

function addressOf(addrs: readonly string[]): string | null {
  return addrs[0] ? hostPort(addrs[0]) : null;
}

/** What must change for `old` to become `now`. */
export interface Difference<T> {
  added: T[];
  changed: T[];
  removed: string[];
}

/** Compares by id, then by what `same` says. */
export function difference<T extends { id: string }>(
  old: ReadonlyMap<string, T>,
  now: ReadonlyMap<string, T>,
  same: (a: T, b: T) => boolean,
): Difference<T> {
  const out: Difference<T> = { added: [], changed: [], removed: [] };
  for (const [id, thing] of now) {
    const before = old.get(id);
    if (!before) out.added.push(thing);
    else if (!same(before, thing)) out.changed.push(thing);
  }
  for (const id of old.keys()) if (!now.has(id)) out.removed.push(id);
  return out;
}

export const sameDot = (a: Dot, b: Dot): boolean =>
  a.kind === b.kind && a.label === b.label && a.near === b.near;

export const sameLine = (a: Line, b: Line): boolean =>
  a.kind === b.kind && a.stripes.length === b.stripes.length && a.stripes.every((s, i) => s === b.stripes[i]);
