// FLV bytes from encoded frames: what the page sends to the node when it publishes.
//
// Owns the byte layout of the tags used here: AVC as RTMP carries it, Opus as Enhanced RTMP carries it.
// Does not own encoding nor the socket. Times are milliseconds from the stream's start.

const AUDIO = 8;
const VIDEO = 9;

/** FLV version 1 with audio and video, and the first previous-size field. */
export function header(): Uint8Array {
  return Uint8Array.of(0x46, 0x4c, 0x56, 1, 5, 0, 0, 0, 9, 0, 0, 0, 0);
}

function tag(type: number, ms: number, head: readonly number[], body: Uint8Array): Uint8Array {
  const length = head.length + body.length;
  const out = new Uint8Array(11 + length + 4);
  const time = Math.max(0, Math.round(ms)) >>> 0;
  out.set([
    type,
    (length >> 16) & 0xff, (length >> 8) & 0xff, length & 0xff,
    (time >> 16) & 0xff, (time >> 8) & 0xff, time & 0xff, (time >>> 24) & 0xff,
    0, 0, 0,
  ]);
  out.set(head, 11);
  out.set(body, 11 + head.length);
  new DataView(out.buffer).setUint32(11 + length, 11 + length);
  return out;
}

/** The decoder configuration (avcC): before the first picture and whenever it changes. */
export function avcConfig(ms: number, avcC: Uint8Array): Uint8Array {
  return tag(VIDEO, ms, [0x17, 0, 0, 0, 0], avcC);
}

/** One picture, NAL units with lengths. The encoder runs without B-frames: composition time is 0. */
export function avcPicture(ms: number, key: boolean, nals: Uint8Array): Uint8Array {
  return tag(VIDEO, ms, [key ? 0x17 : 0x27, 1, 0, 0, 0], nals);
}

const OPUS = [0x4f, 0x70, 0x75, 0x73] as const;

/** The Opus identification header: before the first packet. */
export function opusHead(ms: number, channels: number, sampleRate: number): Uint8Array {
  const head = new Uint8Array(19);
  head.set([...OPUS, 0x48, 0x65, 0x61, 0x64, 1, channels]);
  const view = new DataView(head.buffer);
  view.setUint16(10, 312, true); // Samples to skip at 48 kHz: 6.5 ms, as libopus' encoders need.
  view.setUint32(12, sampleRate, true);
  return tag(AUDIO, ms, [0x90, ...OPUS], head);
}

/** One Opus packet. */
export function opusPacket(ms: number, packet: Uint8Array): Uint8Array {
  return tag(AUDIO, ms, [0x91, ...OPUS], packet);
}
