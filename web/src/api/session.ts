// The right to use this node: the token, how the page gets it and where it is kept.
//
// Owns the one-time link and the storage of the token. Does not own requests (see client).
// The token lives in this tab's session storage, or in local storage if the user asks for that. It is
// never put into a cookie or an address.

import { signal } from "@preact/signals";

const KEY = "astral.token";
/** A token is 64 hexadecimal digits; anything else in the field is a mistake worth saying. */
const TOKEN = /^[0-9a-f]{64}$/i;

function kept(): string | null {
  try {
    return sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY);
  } catch {
    return null; // Storage is switched off: the token lives in memory alone.
  }
}

/** The token in use; null when this browser is not paired with the node. */
export const token = signal<string | null>(kept());

export function keepToken(value: string, remember: boolean): void {
  token.value = value;
  try {
    sessionStorage.setItem(KEY, value);
    if (remember) localStorage.setItem(KEY, value);
  } catch {
    // See kept().
  }
}

export function forgetToken(): void {
  token.value = null;
  try {
    sessionStorage.removeItem(KEY);
    localStorage.removeItem(KEY);
  } catch {
    // See kept().
  }
}

export type Credential = { code: string } | { token: string };

/** Reads what a person pasted: a one-time link, its code, or the token itself. */
export function readCredential(text: string): Credential | null {
  const trimmed = text.trim();
  if (TOKEN.test(trimmed)) return { token: trimmed };
  const code = /#code=([\w-]+)$/.exec(trimmed)?.[1] ?? /^([\w-]{6,})$/.exec(trimmed)?.[1];
  return code ? { code } : null;
}

/** Takes the code out of the page's address, so that it is in no history and no screenshot. */
export function takeCode(): string | null {
  const code = /^#code=([\w-]+)$/.exec(location.hash)?.[1];
  if (!code) return null;
  history.replaceState(null, "", location.pathname + location.search);
  return code;
}

/** What a WebSocket offers as sub-protocols: the version, and the token, which has no other place. */
export function protocols(): string[] {
  return token.value ? ["astral.v1", `astral.token.${token.value}`] : ["astral.v1"];
}

/** The header that opens what needs the token. */
export function authorization(): Record<string, string> {
  return token.value ? { Authorization: `Bearer ${token.value}` } : {};
}
