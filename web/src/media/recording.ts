// Publishing where the browser can only record: MediaRecorder, and the node makes FLV of it.
//
// Owns the choice of the format and the order of the pieces. Does not own the socket.

/** What the node understands, best first: H.264 passes it untouched, VP8 is coded anew, fragments of
 * MP4 come once a second. */
const FORMATS: readonly { format: string; types: readonly string[] }[] = [
  { format: "matroska", types: ["video/x-matroska;codecs=avc1,opus"] },
  { format: "webm", types: ["video/webm;codecs=vp8,opus"] },
  { format: "mp4", types: ["video/mp4;codecs=avc1.42E01F,mp4a.40.2", "video/mp4;codecs=avc1.42E01F,opus"] },
];
/** How often the recorder hands over what it has. */
const PIECE_MS = 200;
/** The node takes no larger message than a tag; a piece of a recording may be larger. */
const MESSAGE_BYTES_MAX = 256 * 1024;
const AUDIO_BPS = 128_000;
/** A joiner waits at most this long for a picture. */
const KEYFRAME_EVERY_MS = 2_000;

export interface RecordingEnds {
  send(message: string | Uint8Array): void;
  /** Nothing can be left out of a recording: where the node does not take it, it begins anew. */
  behind(): boolean;
  fellBehind(): void;
  failed(why: string): void;
}

/** The first format that both this browser and the node know; null where there is none. */
export function recordingFormat(): { format: string; type: string } | null {
  if (typeof MediaRecorder === "undefined") return null;
  for (const { format, types } of FORMATS) {
    const type = types.find((candidate) => MediaRecorder.isTypeSupported(candidate));
    if (type) return { format, type };
  }
  return null;
}

/** What is recorded for one connection. */
export class Recording {
  private readonly recorder: MediaRecorder;
  private queue = Promise.resolve();
  private closed = false;

  constructor(media: MediaStream, chosen: { format: string; type: string }, bps: number, private readonly ends: RecordingEnds) {
    const options: MediaRecorderOptions & { videoKeyFrameIntervalDuration: number } = {
      mimeType: chosen.type,
      videoBitsPerSecond: bps,
      audioBitsPerSecond: AUDIO_BPS,
      videoKeyFrameIntervalDuration: KEYFRAME_EVERY_MS,
    };
    this.recorder = new MediaRecorder(media, options);
    // Reading a piece takes a moment, which must not change the order.
    this.recorder.ondataavailable = ({ data }) => {
      this.queue = this.queue.then(async () => this.hand(new Uint8Array(await data.arrayBuffer())));
    };
    this.recorder.onerror = () => this.ends.failed("The browser's recorder failed.");
    this.ends.send(JSON.stringify({ format: chosen.format }));
    this.recorder.start(PIECE_MS);
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    if (this.recorder.state !== "inactive") this.recorder.stop();
  }

  private hand(piece: Uint8Array): void {
    if (this.closed) return;
    if (this.ends.behind()) {
      this.ends.fellBehind();
      return;
    }
    for (let at = 0; at < piece.length; at += MESSAGE_BYTES_MAX) {
      this.ends.send(piece.subarray(at, at + MESSAGE_BYTES_MAX));
    }
  }
}
