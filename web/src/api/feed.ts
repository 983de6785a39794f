// The event feed: one WebSocket to the node, kept open.
//
// Owns connecting, the watch over silence, reconnecting from the last number, and asking for a
// snapshot after a gap. Does not own what frames mean (see state/world).

import type { Frame } from "./types";

/** The node speaks at least every 2 s; after this long without a word it counts as down. The promise
 * to the user is a notice within 5 s. */
export const SILENCE_MS = 4_500;
/** Until a connection that does not open is given up. */
export const OPEN_MS = 4_000;
/** Between two attempts: short, since the node is on this machine. */
export const RETRY_MS = 1_000;

/** The part of a WebSocket that the feed uses. */
export interface Socket {
  onopen: (() => void) | null;
  onmessage: ((message: { data: unknown }) => void) | null;
  onclose: (() => void) | null;
  send(text: string): void;
  close(): void;
}

export interface FeedEnds {
  /** Opens a socket to `/events` with this query. */
  connect(query: string): Socket;
  /** Takes a frame; true asks for a snapshot. */
  take(frame: Frame): boolean;
  /** Where to go on from: what the last frame said. */
  position(): { instance: string; seq: number } | null;
  up(): void;
  /** The node does not answer; called once per outage, and again after each failed attempt. */
  down(): void;
}

export class Feed {
  private socket: Socket | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private stopped = false;

  constructor(private readonly ends: FeedEnds) {}

  start(): void {
    this.stopped = false;
    this.open();
  }

  stop(): void {
    this.stopped = true;
    clearTimeout(this.timer);
    this.drop();
  }

  /** Tries at once instead of waiting: the user or the browser says that it may work now. */
  retry(): void {
    if (!this.stopped && !this.socket) this.open();
  }

  private open(): void {
    clearTimeout(this.timer);
    const at = this.ends.position();
    const query = at ? `?after=${at.seq}&instance=${encodeURIComponent(at.instance)}` : "";
    const socket = this.ends.connect(query);
    this.socket = socket;
    this.watch(OPEN_MS);
    socket.onopen = () => this.watch(SILENCE_MS);
    socket.onmessage = (message) => this.heard(socket, message.data);
    socket.onclose = () => this.lost();
  }

  private heard(socket: Socket, data: unknown): void {
    this.watch(SILENCE_MS);
    let frame: Frame;
    try {
      frame = JSON.parse(String(data)) as Frame;
    } catch {
      socket.send('{"type":"resync"}');
      return;
    }
    if (this.ends.take(frame)) socket.send('{"type":"resync"}');
    this.ends.up();
  }

  /** Gives up the connection unless a word comes in time. */
  private watch(ms: number): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.lost(), ms);
  }

  private lost(): void {
    this.drop();
    if (this.stopped) return;
    this.ends.down();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.open(), RETRY_MS);
  }

  private drop(): void {
    const socket = this.socket;
    this.socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }
}
