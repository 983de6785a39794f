// The stream that this tab feeds: it outlives the page that started it.
//
// Owns the one running publisher and its figures. Does not own the stream in the node.

import { signal } from "@preact/signals";
import type { UrlDto } from "../api/types";
import { onEvent } from "./store";
import { Publisher, type PublisherFigures, type Quality } from "../media/publisher";

export interface Broadcast {
  id: string;
  media: MediaStream;
  figures: PublisherFigures | null;
  /** What is wrong at the moment, in words. */
  trouble: string | null;
}

export const broadcast = signal<Broadcast | null>(null);
let publisher: Publisher | null = null;
let stopHearing: (() => void) | null = null;

/** Feeds the stream that `made` names with `capture`. */
export function begin(made: UrlDto, capture: { media: MediaStream; quality: Quality }): void {
  finish();
  const url = new URL(made.ws_publish ?? `/publish/${made.id}`, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  broadcast.value = { id: made.id, media: capture.media, figures: null, trouble: null };
  const change = (part: Partial<Broadcast>): void => {
    if (broadcast.value?.id === made.id) broadcast.value = { ...broadcast.value, ...part };
  };
  publisher = new Publisher(url, capture.media, capture.quality, {
    onFigures: (figures) => change({ figures }),
    onState: (state) => change({ trouble: state.state === "lost" ? (state.final ? state.why : `${state.why} Trying again …`) : null }),
  });
  // "Stop sharing" of the browser itself, or an unplugged camera.
  capture.media.getVideoTracks()[0]?.addEventListener("ended", () => {
    change({ trouble: "The camera or the shared screen is gone. Stop the stream, or start it again." });
  });
  addEventListener("beforeunload", warn);
  // Ended from elsewhere, such as a terminal.
  stopHearing = onEvent((event) => {
    if (event.event === "ended" && event.stream === made.id) finish();
  });
}

/** Lets go of camera and socket. */
export function finish(): void {
  publisher?.close();
  publisher = null;
  stopHearing?.();
  stopHearing = null;
  for (const track of broadcast.value?.media.getTracks() ?? []) track.stop();
  broadcast.value = null;
  removeEventListener("beforeunload", warn);
}

/** Closing the tab ends the stream: the browser asks first. */
function warn(event: BeforeUnloadEvent): void {
  event.preventDefault();
}
