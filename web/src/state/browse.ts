// Which streams Browse shows, in which order.
//
// Owns search and sorting. Does not own cards.

import type { StreamDto } from "../api/types";

export type Order = "viewers" | "newest" | "title" | "bitrate";

export const ORDERS: readonly { order: Order; label: string }[] = [
  { order: "viewers", label: "Most viewers" },
  { order: "newest", label: "Newest" },
  { order: "title", label: "Title" },
  { order: "bitrate", label: "Bit rate" },
];

/** What a card is headed with. */
export function titleOf(stream: StreamDto): string {
  return stream.title || stream.name || `Stream ${stream.id.slice(0, 8)}`;
}

/** Published here. */
export function isOwn(stream: StreamDto): boolean {
  return stream.own ?? stream.role === "publishing";
}

/** Streams in which every word of `query` is found, in that order. Equal ones keep the order of their
 * titles, then ids, so that cards do not jump when numbers change. */
export function pick(streams: readonly StreamDto[], query: string, order: Order): StreamDto[] {
  const words = query.toLocaleLowerCase().split(/\s+/).filter(Boolean);
  const found = streams.filter((stream) => {
    const text = [titleOf(stream), stream.name, stream.description, ...stream.tags, stream.id, stream.node]
      .join("\n")
      .toLocaleLowerCase();
    return words.every((word) => text.includes(word));
  });
  return found.sort((a, b) => by(order, a, b) || titleOf(a).localeCompare(titleOf(b)) || (a.id < b.id ? -1 : 1));
}

function by(order: Order, a: StreamDto, b: StreamDto): number {
  switch (order) {
    case "viewers":
      return b.viewers - a.viewers;
    case "newest":
      return b.epoch - a.epoch; // An epoch is at least the second at which the source started.
    case "bitrate":
      return b.bitrate_bps - a.bitrate_bps;
    case "title":
      return 0;
  }
}
