// One stream in one <video>: mpegts.js over HTTP-FLV and WS-FLV.
//
// Owns loading, reconnecting, staying near the live edge, and saying in words what is wrong. Does not
// own the page around the picture, nor joining: the node joins the stream while somebody reads it.

import mpegts from "mpegts.js";
import { authorization, protocols } from "../api/session";

/** How far behind live the picture plays, as the page's choices. */
export type Lag = "low" | "normal" | "safe";

/** Seconds of buffer: above `max` the player jumps until `rest` is left. */
const LAGS: Record<Lag, { max: number; rest: number }> = {
  low: { max: 0.9, rest: 0.35 },
  normal: { max: 2.2, rest: 1.2 },
  safe: { max: 4.5, rest: 2.8 },
};

export type PlayerState =
  | { state: "loading" }
  | { state: "playing" }
  | { state: "waiting"; why: string }
  | { state: "ended" }
  | { state: "unsupported"; codec: string };

export interface PlayerEnds {
  onState(state: PlayerState): void;
  /** The browser refused sound without a click: the picture plays mute. */
  onMuted(): void;
}

/** Between two attempts to open a stream. */
const RETRY_MS = 1_500;
/** A picture that stands for this long while data is buffered is restarted. */
const STALL_MS = 8_000;

mpegts.LoggingControl.applyConfig({ enableAll: false, enableError: false, enableWarn: false });

/** WS-FLV with the token: mpegts.js opens sockets without sub-protocols, which is where it goes. */
class TokenSocketLoader extends mpegts.BaseLoader {
  private socket: WebSocket | null = null;
  private received = 0;

  constructor() {
    super("astral-socket-loader");
    this._needStash = true;
  }

  override open(source: { url: string }): void {
    const socket = new WebSocket(source.url, protocols());
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    this._status = mpegts.LoaderStatus.kConnecting;
    socket.onopen = () => (this._status = mpegts.LoaderStatus.kBuffering);
    socket.onmessage = ({ data }) => {
      if (!(data instanceof ArrayBuffer)) return;
      const start = this.received;
      this.received += data.byteLength;
      this.onDataArrival?.(data, start, this.received);
    };
    socket.onclose = ({ code, reason }) => {
      if (this.socket !== socket) return;
      this.socket = null;
      if (code === 1000 && this.received > 0) {
        this._status = mpegts.LoaderStatus.kComplete;
        this.onComplete?.(0, this.received - 1);
      } else {
        this._status = mpegts.LoaderStatus.kError;
        this.onError?.(mpegts.LoaderErrors.EXCEPTION as never, { code, msg: reason });
      }
    };
  }

  override abort(): void {
    const socket = this.socket;
    this.socket = null;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
    this._status = mpegts.LoaderStatus.kComplete;
  }

  override destroy(): void {
    this.abort();
    super.destroy();
  }
}

export class Player {
  private player: mpegts.Player | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private watch: ReturnType<typeof setInterval> | undefined;
  private failures = 0;
  private lastTime = 0;
  private stoodMs = 0;
  private closed = false;
  private readonly onPlaying = (): void => this.say({ state: "playing" });

  constructor(
    private readonly video: HTMLVideoElement,
    private readonly stream: string,
    private lag: Lag,
    private readonly ends: PlayerEnds,
  ) {
    video.addEventListener("playing", this.onPlaying);
    this.watch = setInterval(() => this.check(), 500);
    this.open();
  }

  /** Takes effect at once; a longer lag grows by letting the picture stand until it is buffered. */
  setLag(lag: Lag): void {
    if (lag === this.lag) return;
    this.lag = lag;
    this.reopen(0);
  }

  /** The seconds between what is shown and what has arrived. */
  buffered(): number {
    const { buffered, currentTime } = this.video;
    return buffered.length > 0 ? Math.max(0, buffered.end(buffered.length - 1) - currentTime) : 0;
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.timer);
    clearInterval(this.watch);
    this.video.removeEventListener("playing", this.onPlaying);
    this.drop();
  }

  private open(): void {
    this.drop();
    if (!mpegts.isSupported()) {
      this.say({ state: "unsupported", codec: "Media Source Extensions" });
      return;
    }
    this.say({ state: "loading" });
    // Two ways to the same bytes: when one brings nothing, the other is tried.
    const bySocket = this.failures % 2 === 1;
    const { max, rest } = LAGS[this.lag];
    const url = new URL(bySocket ? `/live/${this.stream}` : `/live/${this.stream}.flv`, location.href);
    if (bySocket) url.protocol = url.protocol.replace("http", "ws");
    const player = mpegts.createPlayer(
      { type: "flv", isLive: true, url: url.href },
      {
        enableWorker: false,
        enableStashBuffer: false,
        lazyLoad: false,
        liveBufferLatencyChasing: true,
        liveBufferLatencyMaxLatency: max,
        liveBufferLatencyMinRemain: rest,
        autoCleanupSourceBuffer: true,
        autoCleanupMaxBackwardDuration: 30,
        autoCleanupMinBackwardDuration: 10,
        ...(bySocket ? { customLoader: TokenSocketLoader as never } : { headers: authorization() }),
      },
    );
    this.player = player;
    player.on(mpegts.Events.ERROR, (type: string, detail: string, info: { code?: number; msg?: string }) =>
      this.failed(type, detail, info),
    );
    player.on(mpegts.Events.LOADING_COMPLETE, () => this.complete());
    player.attachMediaElement(this.video);
    player.load();
    void this.play();
  }

  /** Starts the picture, mute if the browser wants a click before it lets a page make noise. */
  private async play(): Promise<void> {
    try {
      await this.video.play();
    } catch (error) {
      if ((error as DOMException).name !== "NotAllowedError" || this.video.muted) return;
      this.video.muted = true;
      this.ends.onMuted();
      await this.video.play().catch(() => undefined);
    }
  }

  private failed(type: string, detail: string, info: { code?: number; msg?: string }): void {
    if (type === mpegts.ErrorTypes.MEDIA_ERROR && detail === mpegts.ErrorDetails.MEDIA_CODEC_UNSUPPORTED) {
      this.say({ state: "unsupported", codec: info.msg?.replace(/^.*codec:?\s*/i, "") || "its codec" });
      this.drop();
      return;
    }
    this.failures += 1;
    const why =
      info.code === 404 ? "Nobody announces this stream at the moment."
      : info.code === 503 ? "Nobody has a free place for this stream yet."
      : "The picture was interrupted.";
    this.say({ state: "waiting", why });
    this.reopen(RETRY_MS);
  }

  /** The node closed the picture. Whether the stream is over, the next attempt tells. */
  private complete(): void {
    this.say({ state: "ended" });
    this.failures = 0;
    this.reopen(RETRY_MS * 2);
  }

  private check(): void {
    const { video } = this;
    if (video.paused || video.currentTime !== this.lastTime) {
      if (video.currentTime !== this.lastTime) this.failures = 0;
      this.lastTime = video.currentTime;
      this.stoodMs = 0;
      return;
    }
    this.stoodMs += 500;
    if (this.stoodMs >= STALL_MS && this.player && this.buffered() > 0.5) {
      this.stoodMs = 0;
      this.reopen(0);
    }
  }

  private reopen(afterMs: number): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      if (!this.closed) this.open();
    }, afterMs);
  }

  private drop(): void {
    clearTimeout(this.timer);
    const player = this.player;
    this.player = null;
    if (!player) return;
    try {
      player.unload();
      player.detachMediaElement();
    } finally {
      player.destroy();
    }
  }

  private say(state: PlayerState): void {
    if (!this.closed) this.ends.onState(state);
  }
}
