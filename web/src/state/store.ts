// The one store of the page: the world as signals.
//
// Owns wiring the event feed to the world, the batching of redraws, and the notice that the node is
// down. Does not own pages.

import { batch, computed, signal } from "@preact/signals";
import { api } from "../api/client";
import { Feed } from "../api/feed";
import { forgetToken, protocols, token } from "../api/session";
import type { EdgeDto, Kind, NodeDto, NodeEvent, PeerDto, SettingsDto, StatsDto, StreamDto, TicketDto } from "../api/types";
import { KINDS } from "../api/types";
import { World } from "./world";

/** Until a node that said nothing on the feed counts as down: with the feed's own patience below 5 s. */
const PROBE_MS = 400;

/** Whether the node answers: `waiting` until the first word after loading. */
export const link = signal<"waiting" | "up" | "down">("waiting");

const world = new World();
const versions = Object.fromEntries(KINDS.map((kind) => [kind, signal(0)])) as Record<
  Kind,
  ReturnType<typeof signal<number>>
>;
const eventVersion = signal(0);

/** A signal of what `pick` takes out of the world, renewed when one of `kinds` changes. */
function view<T>(kind: Kind, pick: () => T) {
  return computed(() => {
    void versions[kind].value;
    return pick();
  });
}

export const node = view<NodeDto | null>("node", () => world.of("node").get("self") ?? null);
export const settings = view<SettingsDto | null>("settings", () => world.of("settings").get("self") ?? null);
export const peers = view<PeerDto[]>("peer", () => [...world.of("peer").values()]);
export const streams = view<StreamDto[]>("stream", () => [...world.of("stream").values()]);
export const tickets = view<TicketDto[]>("ticket", () => [...world.of("ticket").values()]);
export const edges = view<EdgeDto[]>("edge", () => [...world.of("edge").values()]);
export const happened = computed(() => {
  void eventVersion.value;
  return [...world.events].reverse();
});

/** One stream; null when this node knows none of that id. */
export function streamOf(id: string): StreamDto | null {
  void versions.stream.value;
  return world.of("stream").get(id) ?? null;
}

/** What flows in one stream; null when nothing does. */
export function statsOf(id: string): StatsDto | null {
  void versions.stats.value;
  return world.of("stats").get(id) ?? null;
}

/** Whether a first snapshot has come, so that empty means empty. */
export const told = view("node", () => world.instance !== null);

const listeners = new Set<(event: NodeEvent) => void>();

/** Calls `hear` for each event of the node until the returned function is called. */
export function onEvent(hear: (event: NodeEvent) => void): () => void {
  listeners.add(hear);
  return () => listeners.delete(hear);
}

// Hundreds of frames may come between two pictures of the screen: pages redraw once for all of them.
const touched = new Set<Kind>();
let eventsTouched = false;
let scheduled = false;

function flush(): void {
  scheduled = false;
  batch(() => {
    for (const kind of touched) versions[kind].value = (versions[kind].peek() ?? 0) + 1;
    if (eventsTouched) eventVersion.value += 1;
  });
  touched.clear();
  eventsTouched = false;
}

function schedule(): void {
  if (scheduled) return;
  scheduled = true;
  // A hidden page gets no animation frames; its state still has to move on.
  if (document.hidden) setTimeout(flush, 250);
  else requestAnimationFrame(flush);
}

const feed = new Feed({
  connect(query) {
    const url = new URL(`/api/v1/events${query}`, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    return new WebSocket(url, protocols()) as never;
  },
  position: () => (world.instance === null ? null : { instance: world.instance, seq: world.seq }),
  take(frame) {
    const outcome = world.apply(frame, Date.now());
    switch (outcome.what) {
      case "gap":
        return true;
      case "changed":
        for (const kind of outcome.kinds) touched.add(kind);
        schedule();
        return false;
      case "happened":
        eventsTouched = true;
        schedule();
        for (const hear of listeners) hear(outcome.event);
        return false;
      case "nothing":
        return false;
    }
  },
  up() {
    link.value = "up";
  },
  down() {
    // A refused handshake looks like a dead node. Which one it is, a plain request tells.
    void api.tokenHolds(PROBE_MS).then((holds) => {
      if (holds === false) {
        feed.stop();
        forgetToken();
      } else if (holds === null) {
        link.value = "down";
      }
    });
  },
});

/** Follows the node as long as there is a token. */
export function follow(): void {
  token.subscribe((value) => (value ? feed.start() : feed.stop()));
  addEventListener("online", () => feed.retry());
  document.addEventListener("visibilitychange", () => feed.retry());
}
