// Which codecs this browser plays.
//
// Owns the mapping of codec names in announcements to what Media Source Extensions call them. Does not
// own playing.

import { codec as nameOf } from "../format";

/** One common profile of each: a browser that plays it plays the others that live streams use. */
const MSE: Record<string, string> = {
  avc: 'video/mp4; codecs="avc1.64001f"',
  hevc: 'video/mp4; codecs="hvc1.1.6.L93.B0"',
  av1: 'video/mp4; codecs="av01.0.04M.08"',
  vp9: 'video/mp4; codecs="vp09.00.10.08"',
  aac: 'audio/mp4; codecs="mp4a.40.2"',
  opus: 'audio/mp4; codecs="opus"',
  mp3: 'audio/mpeg',
};

const ALIASES: Record<string, string> = { h264: "avc", avc1: "avc", h265: "hevc", hvc1: "hevc", av01: "av1", vp09: "vp9", mp4a: "aac" };

export type Supports = (mime: string) => boolean;

const here: Supports = (mime) =>
  typeof MediaSource !== "undefined" ? MediaSource.isTypeSupported(mime) : false;

/** Codecs of a stream that this browser can't play, by the names that people know. A name that we do
 * not know is left to the player to find out. */
export function missing(codecs: readonly string[], supports: Supports = here): string[] {
  const out = new Set<string>();
  for (const codec of codecs) {
    const key = codec.toLowerCase();
    const mime = MSE[ALIASES[key] ?? key];
    if (mime && !supports(mime)) out.add(nameOf(key));
  }
  return [...out];
}
