// Numbers and ids as people read them.
//
// Owns wording of quantities. Does not own labels or layout.

const decimal = (value: number): string => {
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return value.toFixed(digits).replace(/\.0+$|(\.\d*?)0+$/, "$1");
};

/** A bit rate: `2.5 Mbit/s`. */
export function rate(bps: number): string {
  if (bps >= 1e9) return `${decimal(bps / 1e9)} Gbit/s`;
  if (bps >= 1e6) return `${decimal(bps / 1e6)} Mbit/s`;
  return `${Math.round(bps / 1e3)} kbit/s`;
}

/** A size: `3.2 MB`. */
export function size(bytes: number): string {
  if (bytes >= 1e9) return `${decimal(bytes / 1e9)} GB`;
  if (bytes >= 1e6) return `${decimal(bytes / 1e6)} MB`;
  if (bytes >= 1e3) return `${Math.round(bytes / 1e3)} kB`;
  return `${bytes} B`;
}

/** A long time: `2 h 5 min`. */
export function span(seconds: number): string {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3_600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86_400) return `${Math.floor(s / 3_600)} h ${Math.floor((s % 3_600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3_600)} h`;
}

/** A short time: `340 ms`, `1.5 s`. */
export function lag(ms: number): string {
  return ms < 1_000 ? `${Math.round(ms)} ms` : `${decimal(ms / 1_000)} s`;
}

/** How long ago, for lists. */
export function ago(ms: number): string {
  const s = Math.round(ms / 1_000);
  return s < 2 ? "now" : s < 60 ? `${s} s ago` : `${span(s)} ago`;
}

export function count(n: number, one: string, many = `${one}s`): string {
  return `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
}

/** The beginning of an id, enough to tell nodes of one network apart. */
export function shortId(id: string): string {
  return id.slice(0, 8);
}

/** A hue that belongs to an id. */
export function hue(id: string): number {
  return parseInt(id.slice(0, 4) || "0", 16) % 360;
}

/** `ip:port` of a multiaddr, or the multiaddr when it has none. */
export function hostPort(addr: string): string {
  const parts = /^\/(?:ip4|ip6|dns4?6?)\/([^/]+)\/(?:tcp|udp)\/(\d+)/.exec(addr);
  if (!parts) return addr;
  const host = parts[1]?.includes(":") ? `[${parts[1]}]` : parts[1];
  return `${host}:${parts[2]}`;
}

const CODECS: Record<string, string> = {
  avc: "H.264", h264: "H.264", avc1: "H.264", hevc: "HEVC", hvc1: "HEVC", h265: "HEVC", av1: "AV1", av01: "AV1",
  vp9: "VP9", vp09: "VP9", vp8: "VP8", aac: "AAC", mp4a: "AAC", opus: "Opus", mp3: "MP3", ac3: "AC-3", flac: "FLAC",
};

/** A codec by the name that people know. */
export function codec(name: string): string {
  return CODECS[name.toLowerCase()] ?? name;
}

const SOUND = new Set(["aac", "mp4a", "opus", "mp3", "ac3", "flac"]);

/** The picture's codec among those of a stream, or the first. */
export function mainCodec(names: readonly string[]): string | null {
  const name = names.find((n) => !SOUND.has(n.toLowerCase())) ?? names[0];
  return name ? codec(name) : null;
}

/** `720p`, or null while the size is not known. */
export function lines(height: number | null): string | null {
  return height ? `${height}p` : null;
}
