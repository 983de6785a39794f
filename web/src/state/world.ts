// What the node has told the page so far, kept by the numbered frames of `WS /events`.
//
// Owns the reduction of frames to objects and the detection of gaps. Does not own the socket, nor what
// is drawn. Objects are replaced whole, never changed, so that a page may compare them by identity.

import type { Frame, Kind, Listed, NodeEvent, Objects } from "../api/types";
import { KINDS } from "../api/types";

/** Events kept for the Node page, newest last. */
export const EVENTS_MAX = 200;

/** What a frame asks of the caller. */
export type Outcome =
  | { what: "changed"; kinds: Iterable<Kind> }
  | { what: "happened"; event: NodeEvent }
  | { what: "nothing" }
  /** A frame is missing or makes no sense: ask for a snapshot. */
  | { what: "gap" };

export interface Happened {
  at: number;
  event: NodeEvent;
}

export class World {
  /** Which run of the node the numbers belong to; null before the first snapshot. */
  instance: string | null = null;
  seq = 0;
  readonly events: Happened[] = [];
  private readonly kinds: { readonly [K in Kind]: Map<string, Objects[K]> } = {
    node: new Map(), peer: new Map(), stream: new Map(), stats: new Map(), ticket: new Map(), edge: new Map(),
    settings: new Map(),
  };

  /** Everything of one kind, by its id, in the order of arrival. */
  of<K extends Kind>(kind: K): ReadonlyMap<string, Objects[K]> {
    return this.kinds[kind];
  }

  /** Takes one frame; `now` is for the list of events. */
  apply(frame: Frame, now: number): Outcome {
    if (frame.type === "snapshot") return this.replace(frame);
    if (this.instance === null) return { what: "gap" };
    if (frame.type === "part") {
      return frame.seq === this.seq ? this.add(frame.objects) : { what: "gap" };
    }
    if (frame.type === "idle") {
      return frame.seq === this.seq ? { what: "nothing" } : { what: "gap" };
    }
    if (frame.seq !== this.seq + 1) return { what: "gap" };
    this.seq = frame.seq;
    switch (frame.type) {
      case "add":
      case "update": {
        const things = this.writable(frame.kind);
        if (!things) return { what: "nothing" }; // A kind from a newer node.
        things.set(frame.id, frame.object);
        return { what: "changed", kinds: [frame.kind] };
      }
      case "remove": {
        const things = this.writable(frame.kind);
        return things?.delete(frame.id) ? { what: "changed", kinds: [frame.kind] } : { what: "nothing" };
      }
      case "event": {
        this.events.push({ at: now, event: frame.event });
        if (this.events.length > EVENTS_MAX) this.events.shift();
        return { what: "happened", event: frame.event };
      }
      default:
        return { what: "nothing" }; // A type from a newer node; its number counts.
    }
  }

  /** The map of a kind named by the node; it has checked that the object is of that kind. */
  private writable(kind: Kind): Map<string, Objects[Kind]> | undefined {
    return this.kinds[kind] as Map<string, Objects[Kind]> | undefined;
  }

  private replace(frame: Frame & { type: "snapshot" }): Outcome {
    this.instance = frame.instance;
    this.seq = frame.seq;
    for (const kind of KINDS) this.writable(kind)?.clear();
    return this.add(frame.objects);
  }

  private add(objects: Listed): Outcome {
    for (const kind of KINDS) {
      for (const object of objects[kind] ?? []) this.writable(kind)?.set(idOf(kind, object), object);
    }
    return { what: "changed", kinds: KINDS };
  }
}

/** The id under which frames name an object of a snapshot. */
function idOf(kind: Kind, object: Objects[Kind]): string {
  switch (kind) {
    case "node":
    case "settings":
      return "self";
    case "ticket":
      return (object as Objects["ticket"]).key;
    default:
      return (object as { id: string }).id;
  }
}
