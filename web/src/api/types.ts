// The JSON of the node's local API, as `GET /api/v1/openapi.json` describes it.
//
// Owns field names and units as the page reads them. Does not own what they mean in the node.
// Durations end in `_ms` or `_s`, rates in `_bps`, sizes in `_bytes`; ids are hexadecimal text.

export interface NodeDto {
  peer_id: string;
  node_id: string;
  version: string;
  listen: string[];
  api: string;
  rtmp: string;
  role: "supernode" | "member";
  registration: { state: "searching" | "registered" | "guest" | "supernode"; supernode?: string | null };
  reachable: boolean;
  members: number;
  connected: number;
  uptime_s: number;
  uplink: { usable_bps: number; assumed: boolean; promised_bps: number };
  traffic: { sent_bytes: number; sent_media_bytes: number; received_bytes: number };
  counters: Record<string, number>;
  publishing: string[];
  watching: string[];
  seeding: string[];
  /** What `POST /streams` takes as its source here. */
  sources?: string[];
  /** It has a folder to record into. */
  records?: boolean;
}

export interface PeerDto {
  id: string;
  addrs: string[];
  supernode: boolean;
  connected: boolean;
  rtt_ms: number | null;
  failures: number;
  banned: boolean;
}

export type StreamRole = "listed" | "publishing" | "watching" | "seeding";

export interface StreamDto {
  id: string;
  link: string | null;
  name: string | null;
  title: string;
  description: string;
  tags: string[];
  codecs: string[];
  width: number | null;
  height: number | null;
  bitrate_bps: number;
  stripes: number;
  epoch: number;
  revision: number;
  node: string | null;
  viewers: number;
  role: StreamRole;
  announced: boolean;
  own?: boolean;
  paused?: boolean;
  /** What the node writes to files of its own. */
  recording?: { format: string; bytes: number } | null;
  http_flv: string;
  hls?: string;
  thumbnail?: string | null;
  /** Published here and not announced yet. */
  preview?: boolean;
  /** Lower renditions, the best first. */
  renditions?: { id: string; height: number; bitrate_bps: number }[];
  /** Height of the lower one that players here get. */
  rendition?: number | null;
}

export interface StatsDto {
  id: string;
  role: StreamRole;
  stripes: number;
  bitrate_bps: number;
  bytes: number;
  forwarded_bytes?: number | null;
  delay_ms: number | null;
  idle_ms?: number | null;
  playing: boolean;
  paused?: boolean;
  parents: { stripe: number; node: string | null; hops: number | null }[];
  standbys?: { stripe: number; node: string }[] | null;
  children: { node: string; stripes: number[] }[];
  readers: number;
  join_ms?: number | null;
  first_frame_ms?: number | null;
  failovers?: number | null;
  last_failover?: { stripe: number; cause: string; gap_ms: number | null; ago_s: number } | null;
  missing_chunks?: number | null;
  skipped_chunks?: number | null;
  verified_chunks?: number | null;
  rejected_chunks?: number | null;
  repaired_chunks?: number | null;
  audience?: {
    viewers: number;
    scope: "network" | "directory" | "children";
    /** Counted up the tree: here and below. */
    below?: { nodes: number; watching: number; stalled: number; delay_p50_ms: number | null; delay_p95_ms: number | null };
  } | null;
}

export interface TicketDto {
  key: string;
  id: string;
  end: "given" | "held";
  stream: string;
  stripe: number;
  node: string;
  confirmed: boolean;
  expires_in_ms: number;
}

export interface EdgeDto {
  id: string;
  kind: "source" | "live" | "standby" | "registration";
  stream: string | null;
  stripe: number | null;
  from: string;
  to: string;
}

export interface SettingsDto {
  revision: number;
  uplink_bps: number | null;
  max_copies: number | null;
  max_total_copies: number | null;
}

/** Where a stream is opened, and, for one published here, where its media goes in. */
export interface UrlDto {
  id: string;
  link: string | null;
  http_flv: string;
  hls?: string;
  ws_flv?: string;
  publish_url?: string | null;
  ws_publish?: string | null;
}

export interface DeviceDto {
  kind: "camera" | "microphone" | "screen";
  id: string;
  name: string;
  modes: string[];
}

/** A recording of the node that began. */
export interface StartedDto {
  folder: string;
  format: string;
  bytes: number;
}

/** What a recording of the node came to. */
export interface RecordedDto {
  files: string[];
  bytes: number;
}

export interface DoctorDto {
  ok: boolean;
  checks: { name: string; verdict: "ok" | "warn" | "bad"; message: string; fix?: string | null }[];
}

/** What happened, as `--json` prints it too. */
export interface NodeEvent {
  event: string;
  [field: string]: unknown;
}

/** The kinds of things that the event feed carries, with their types. */
export interface Objects {
  node: NodeDto;
  peer: PeerDto;
  stream: StreamDto;
  stats: StatsDto;
  ticket: TicketDto;
  edge: EdgeDto;
  settings: SettingsDto;
}

export type Kind = keyof Objects;

export const KINDS: readonly Kind[] = ["node", "peer", "stream", "stats", "ticket", "edge", "settings"];

export type Listed = { [K in Kind]?: Objects[K][] };

/** One frame of `WS /events`. */
export type Frame =
  | { type: "snapshot"; instance: string; seq: number; more?: boolean; objects: Listed }
  /** What did not fit into the snapshot before it. */
  | { type: "part"; seq: number; more: boolean; objects: Listed }
  | { type: "add" | "update"; seq: number; kind: Kind; id: string; object: Objects[Kind] }
  | { type: "remove"; seq: number; kind: Kind; id: string }
  | { type: "event"; seq: number; event: NodeEvent }
  | { type: "idle"; seq: number };
