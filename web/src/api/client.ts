// Requests to the node, with its errors in words.
//
// Owns headers, deadlines and the reading of problems (RFC 9457). Does not own the token (session) nor
// what the answers are used for.

import type {
  DeviceDto, DoctorDto, RecordedDto, SettingsDto, StartedDto, StreamDto, UrlDto,
} from "./types";
import { authorization, forgetToken, keepToken } from "./session";

/** Until a request is given up: the node answers within 30 s whatever happens. */
const ANSWER_MS = 31_000;
const BASE = "/api/v1";

/** The node refused, and says why and what to do. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly retryMs: number | null,
  ) {
    super(message);
    this.name = "Refused";
  }
}

/** Nothing answered. */
export class NoAnswer extends Error {
  constructor() {
    super("The node does not answer. Is it running?");
    this.name = "NoAnswer";
  }
}

/** What went wrong, for people. */
export function inWords(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

async function refusal(response: Response): Promise<Refused> {
  const fallback = `${response.status} ${response.statusText}`;
  try {
    const problem = (await response.json()) as Record<string, unknown>;
    const text = typeof problem.detail === "string" ? problem.detail : fallback;
    const retry = typeof problem.retry_ms === "number" ? problem.retry_ms : null;
    return new Refused(response.status, String(problem.code ?? ""), sentence(text), retry);
  } catch {
    return new Refused(response.status, "", fallback, null);
  }
}

/** The node speaks in clauses; a notice begins with a capital and ends with a full stop. */
function sentence(text: string): string {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}

async function ask(method: string, path: string, body?: unknown): Promise<Response> {
  const headers: Record<string, string> = { ...authorization() };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response: Response;
  try {
    response = await fetch(BASE + path, {
      method,
      headers,
      body: body === undefined ? null : JSON.stringify(body),
      signal: AbortSignal.timeout(ANSWER_MS),
    });
  } catch {
    throw new NoAnswer();
  }
  if (response.ok) return response;
  const error = await refusal(response);
  // A used link says nothing about the token that this browser may have.
  if (error.status === 401 && path !== "/session") forgetToken();
  throw error;
}

async function json<T>(method: string, path: string, body?: unknown): Promise<T> {
  return (await (await ask(method, path, body)).json()) as T;
}

/** A stream in a path: its id, or its link. */
const at = (stream: string): string => `/streams/${encodeURIComponent(stream)}`;

export interface NewStream {
  name: string;
  title?: string;
  description?: string;
  tags?: string[];
  source: string;
  /** Shown on the node's machine alone until it goes live. */
  preview?: boolean;
  /** For what the node encodes: it follows the uplink, and has smaller pictures beside it. */
  adaptive?: boolean;
  renditions?: number[];
}

/** Every request that the page makes, by what it is for. */
export const api = {
  /** Trades the code of a one-time link for the token. */
  async signIn(code: string): Promise<void> {
    const { token } = await json<{ token: string }>("POST", "/session", { code });
    keepToken(token, false);
  },
  /** Whether the node takes our token: null when nobody answers within `ms`. */
  async tokenHolds(ms = ANSWER_MS): Promise<boolean | null> {
    try {
      const response = await fetch(`${BASE}/session`, {
        headers: authorization(),
        signal: AbortSignal.timeout(ms),
      });
      return response.status === 401 ? false : response.ok ? true : null;
    } catch {
      return null;
    }
  },
  linkForAnotherBrowser: () => json<{ url: string; expires_in_s: number }>("POST", "/links"),
  shutdown: () => ask("POST", "/node/shutdown"),
  forgetPeer: (id: string) => ask("DELETE", `/peers/${id}`),

  stream: (id: string) => json<StreamDto>("GET", at(id)),
  create: (stream: NewStream) => json<UrlDto>("POST", "/streams", stream),
  edit: (id: string, change: { title?: string; description?: string; tags?: string[]; paused?: boolean; preview?: false }) =>
    json<StreamDto>("PATCH", at(id), change),
  end: (id: string) => ask("DELETE", at(id)),
  watch: (id: string) => json<UrlDto>("POST", `${at(id)}/watch`),
  unwatch: (id: string) => ask("DELETE", `${at(id)}/watch`),
  seed: (id: string) => json<UrlDto>("POST", `${at(id)}/seed`),
  unseed: (id: string) => ask("DELETE", `${at(id)}/seed`),
  record: (id: string) => json<StartedDto>("POST", `${at(id)}/record`),
  stopRecording: (id: string) => json<RecordedDto>("DELETE", `${at(id)}/record`),
  urls: (id: string) => json<UrlDto>("GET", `${at(id)}/url`),

  revoke: (ticket: string) => ask("DELETE", `/tickets/${ticket}`),
  devices: async () => (await json<{ devices: DeviceDto[] }>("GET", "/devices")).devices,
  change: (patch: { uplink?: number | null; max_copies?: number | null; max_total_copies?: number | null }) =>
    json<SettingsDto>("PATCH", "/settings", patch),
  doctor: () => json<DoctorDto>("GET", "/doctor"),
  async logs(lines: number): Promise<string[]> {
    return (await json<{ lines: string[] }>("GET", `/logs?lines=${lines}`)).lines;
  },

  /** Media or a picture, with the token: an `<img>` or `<a>` could not send it. */
  async media(path: string, signal: AbortSignal): Promise<Response> {
    const response = await fetch(path, { headers: authorization(), signal });
    if (!response.ok) throw await refusal(response);
    return response;
  },
};
