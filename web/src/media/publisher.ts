// From a camera, a microphone or a screen to the node: WebCodecs (or what the browser records, see
// recording) and one WebSocket.
//
// Owns encoding, the clock of the two tracks, the socket and its backpressure. Does not own device
// choice, the preview, nor the stream's life in the node (the page creates and ends it).

import { protocols } from "../api/session";
import * as flv from "./flv";
import { Recording, recordingFormat } from "./recording";

export interface Quality {
  width: number;
  height: number;
  fps: number;
  bps: number;
}

export type PublisherState =
  | { state: "connecting" }
  | { state: "live" }
  | { state: "paused" }
  /** `final`: it is not tried again. */
  | { state: "lost"; why: string; final: boolean };

/** What is sent, once a second. */
export interface PublisherFigures {
  /** Unknown where the browser records. */
  fps: number | null;
  bps: number;
  /** Frames that were not encoded because the encoder or the socket was behind. */
  dropped: number;
}

export interface PublisherEnds {
  onState(state: PublisherState): void;
  onFigures(figures: PublisherFigures): void;
}

/** A joiner waits at most this long for a picture. */
const KEYFRAME_EVERY_MS = 2_000;
/** More than this unsent means that the node does not take it: frames are dropped before encoding. */
const UNSENT_BYTES_MAX = 4 * 1024 * 1024;
/** Frames inside the encoder before new ones are dropped. */
const ENCODING_MAX = 4;
const AUDIO_BPS = 128_000;
const RETRY_MS = 1_000;
/** Connections in a row that the node did not take before the page gives up. */
const FAILURES_MAX = 20;

/** Chromium's and Safari's way to the frames of a track; not in TypeScript's DOM library. */
interface TrackProcessor<T> {
  readable: ReadableStream<T>;
}
declare global {
  interface Window {
    MediaStreamTrackProcessor?: new <T>(init: { track: MediaStreamTrack }) => TrackProcessor<T>;
  }
}

/** H.264 levels by picture size: constrained baseline, then what encoders fall back to. */
const AVC = ["avc1.42e01f", "avc1.42e028", "avc1.4d0028", "avc1.640028", "avc1.640033"];

async function avcSetting(quality: Quality): Promise<VideoEncoderConfig | null> {
  if (typeof VideoEncoder === "undefined" || !window.MediaStreamTrackProcessor) return null;
  for (const codec of AVC) {
    const config: VideoEncoderConfig = {
      codec,
      width: quality.width,
      height: quality.height,
      framerate: quality.fps,
      bitrate: quality.bps,
      latencyMode: "realtime",
      avc: { format: "avc" },
    };
    const { supported } = await VideoEncoder.isConfigSupported(config).catch(() => ({ supported: false }));
    if (supported) return config;
  }
  return null;
}

/** Publishes `media` until closed. The socket is opened again when it breaks. */
export class Publisher {
  private socket: WebSocket | null = null;
  private encoders: Encoders | null = null;
  private recording: Recording | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private readonly pulse: ReturnType<typeof setInterval>;
  private closed = false;
  private sent = 0;
  private failures = 0;

  constructor(
    private readonly url: URL,
    private readonly media: MediaStream,
    private readonly quality: Quality,
    private readonly ends: PublisherEnds,
  ) {
    this.pulse = setInterval(() => this.report(), 1_000);
    this.connect();
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.timer);
    clearInterval(this.pulse);
    this.stopEncoding();
    if (this.socket) this.socket.onclose = null;
    this.socket?.close(1000);
    this.socket = null;
  }

  private connect(): void {
    this.ends.onState({ state: "connecting" });
    const socket = new WebSocket(this.url, protocols());
    this.socket = socket;
    let why = "";
    socket.onopen = () => void this.encode(socket);
    socket.onmessage = ({ data }) => {
      const word = typeof data === "string" ? (JSON.parse(data) as Record<string, unknown>) : {};
      if (word.type === "ready") {
        this.failures = 0;
        this.ends.onState({ state: "live" });
      }
      if (word.type === "paused") this.ends.onState({ state: word.paused === true ? "paused" : "live" });
      if (word.type === "error") why = String(word.detail ?? "");
    };
    socket.onclose = ({ reason }) => {
      this.stopEncoding();
      if (this.closed) return;
      this.failures += 1;
      if (this.failures > FAILURES_MAX) {
        this.ends.onState({ state: "lost", why: "The node does not take this stream any more. Stop it and start again.", final: true });
        return;
      }
      this.ends.onState({ state: "lost", why: why || reason || "The connection to the node broke.", final: false });
      this.timer = setTimeout(() => this.connect(), RETRY_MS);
    };
  }

  private async encode(socket: WebSocket): Promise<void> {
    const setting = await avcSetting(this.quality);
    if (this.closed || socket !== this.socket || socket.readyState !== WebSocket.OPEN) return;
    const ends = {
      send: (message: string | Uint8Array) => this.send(message),
      behind: () => socket.bufferedAmount > UNSENT_BYTES_MAX,
      fellBehind: () => socket.close(1000, "The node did not take the recording in time."),
      failed: (why: string) => this.fail(socket, why),
    };
    const format = setting ? null : recordingFormat();
    if (setting) {
      socket.send(flv.header());
      this.encoders = new Encoders(this.media, setting, ends);
    } else if (format) {
      this.recording = new Recording(this.media, format, this.quality.bps, ends);
    } else {
      this.fail(socket, "This browser can neither encode nor record a live stream. Use Chromium, Edge or Firefox, or OBS.");
    }
  }

  private fail(socket: WebSocket, why: string): void {
    this.ends.onState({ state: "lost", why, final: true });
    this.closed = true;
    socket.close(1000);
  }

  private send(message: string | Uint8Array): void {
    if (this.socket?.readyState !== WebSocket.OPEN) return;
    this.sent += message.length;
    this.socket.send(message as string | Uint8Array<ArrayBuffer>);
  }

  private report(): void {
    const pictures = this.encoders?.takePictures() ?? { encoded: null, dropped: 0 };
    this.ends.onFigures({ fps: pictures.encoded, bps: this.sent * 8, dropped: pictures.dropped });
    this.sent = 0;
  }

  private stopEncoding(): void {
    this.encoders?.close();
    this.encoders = null;
    this.recording?.close();
    this.recording = null;
  }
}

interface EncoderEnds {
  send(tag: Uint8Array): void;
  behind(): boolean;
  failed(why: string): void;
}

/** The encoders of one connection. */
class Encoders {
  private readonly video: VideoEncoder;
  private audio: AudioEncoder | null = null;
  private readonly readers: ReadableStreamDefaultReader<unknown>[] = [];
  private readonly tracks: MediaStreamTrack[] = [];
  private encoded = 0;
  private dropped = 0;
  private lastKey = -Infinity;
  private closed = false;
  private readonly videoClock = new TrackClock();
  private readonly audioClock = new TrackClock();

  constructor(
    media: MediaStream,
    setting: VideoEncoderConfig,
    private readonly ends: EncoderEnds,
  ) {
    this.video = new VideoEncoder({
      output: (chunk, meta) => this.picture(chunk, meta),
      error: (error) => this.ends.failed(`The encoder failed: ${error.message}`),
    });
    this.video.configure(setting);
    const [video] = media.getVideoTracks();
    const [audio] = media.getAudioTracks();
    if (video) void this.readVideo(video);
    if (audio && typeof AudioEncoder !== "undefined") void this.readAudio(audio);
  }

  takePictures(): { encoded: number; dropped: number } {
    const out = { encoded: this.encoded, dropped: this.dropped };
    this.encoded = 0;
    return out;
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    for (const reader of this.readers) void reader.cancel().catch(() => undefined);
    for (const track of this.tracks) track.stop();
    for (const encoder of [this.video, this.audio]) {
      if (encoder && encoder.state !== "closed") encoder.close();
    }
  }

  private reader<T>(track: MediaStreamTrack): ReadableStreamDefaultReader<T> {
    const Processor = window.MediaStreamTrackProcessor as new (init: { track: MediaStreamTrack }) => TrackProcessor<T>;
    // A clone: the preview goes on when this connection ends.
    const clone = track.clone();
    this.tracks.push(clone);
    const reader = new Processor({ track: clone }).readable.getReader();
    this.readers.push(reader as ReadableStreamDefaultReader<unknown>);
    return reader;
  }

  private async readVideo(track: MediaStreamTrack): Promise<void> {
    const reader = this.reader<VideoFrame>(track);
    for (;;) {
      const { value: frame, done } = await reader.read();
      if (done || this.closed) {
        frame?.close();
        return;
      }
      if (this.ends.behind() || this.video.encodeQueueSize >= ENCODING_MAX) {
        this.dropped += 1;
      } else {
        this.videoClock.start(frame.timestamp);
        const now = performance.now();
        const keyFrame = now - this.lastKey >= KEYFRAME_EVERY_MS;
        if (keyFrame) this.lastKey = now;
        this.video.encode(frame, { keyFrame });
      }
      frame.close();
    }
  }

  private picture(chunk: EncodedVideoChunk, meta: EncodedVideoChunkMetadata | undefined): void {
    if (this.closed) return;
    const ms = this.videoClock.ms(chunk.timestamp);
    const description = meta?.decoderConfig?.description;
    if (description) this.ends.send(flv.avcConfig(ms, bytesOf(description)));
    const nals = new Uint8Array(chunk.byteLength);
    chunk.copyTo(nals);
    this.encoded += 1;
    this.ends.send(flv.avcPicture(ms, chunk.type === "key", nals));
  }

  private async readAudio(track: MediaStreamTrack): Promise<void> {
    const reader = this.reader<AudioData>(track);
    for (;;) {
      const { value: data, done } = await reader.read();
      if (done || this.closed) {
        data?.close();
        return;
      }
      this.audioClock.start(data.timestamp);
      this.audio ??= this.openAudio(data.numberOfChannels, data.sampleRate);
      if (this.audio.state === "configured" && this.audio.encodeQueueSize < 32) this.audio.encode(data);
      data.close();
    }
  }

  private openAudio(channels: number, sampleRate: number): AudioEncoder {
    const encoder = new AudioEncoder({
      output: (chunk) => {
        if (this.closed) return;
        const packet = new Uint8Array(chunk.byteLength);
        chunk.copyTo(packet);
        this.ends.send(flv.opusPacket(this.audioClock.ms(chunk.timestamp), packet));
      },
      error: (error) => this.ends.failed(`The sound encoder failed: ${error.message}`),
    });
    encoder.configure({ codec: "opus", numberOfChannels: channels, sampleRate, bitrate: AUDIO_BPS });
    this.ends.send(flv.opusHead(this.audioClock.ms(0), channels, sampleRate));
    return encoder;
  }

}

/** When the two tracks of a connection began, on one clock. */
const opened = performance.now();

/** Turns a track's own microseconds into milliseconds of the stream: the epochs of a camera's and a
 * microphone's timestamps differ, so each track is based on the arrival of its first frame. */
export class TrackClock {
  private base: { us: number; ms: number } | null = null;

  start(us: number, nowMs = performance.now() - opened): void {
    this.base ??= { us, ms: nowMs };
  }

  ms(us: number): number {
    if (!this.base) return 0;
    return Math.max(this.base.ms, this.base.ms + (us - this.base.us) / 1_000);
  }
}

function bytesOf(source: AllowSharedBufferSource): Uint8Array {
  return ArrayBuffer.isView(source)
    ? new Uint8Array(source.buffer as ArrayBuffer, source.byteOffset, source.byteLength)
    : new Uint8Array(source as ArrayBuffer);
}
