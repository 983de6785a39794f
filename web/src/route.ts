// Which page is shown: the fragment of the address as a signal.
//
// Owns the table of addresses. Does not own the pages. Pages live in the fragment (`/#/watch/ID`): the
// node serves one document, its own paths are media and control.

import { signal } from "@preact/signals";

export type Route =
  | { page: "browse" }
  | { page: "watch"; id: string }
  | { page: "publish"; id: string | null }
  | { page: "network"; stream: string | null }
  | { page: "node" }
  | { page: "about" }
  | { page: "lost" };

/** The route of a fragment such as `#/watch/abc`. */
export function parse(fragment: string): Route {
  const [path = "", query = ""] = fragment.replace(/^#/, "").split("?", 2);
  const [first = "", second = "", ...rest] = path.replace(/^\//, "").split("/").map(decode);
  if (rest.length > 0) return { page: "lost" };
  switch (first) {
    case "":
      return { page: "browse" };
    case "watch":
      return second ? { page: "watch", id: second } : { page: "lost" };
    case "publish":
      return { page: "publish", id: second || null };
    case "network":
      return { page: "network", stream: new URLSearchParams(query).get("stream") };
    case "node":
    case "about":
      return second ? { page: "lost" } : { page: first };
    default:
      return { page: "lost" };
  }
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export const paths = {
  browse: "#/",
  watch: (id: string) => `#/watch/${encodeURIComponent(id)}`,
  publish: "#/publish",
  own: (id: string) => `#/publish/${encodeURIComponent(id)}`,
  network: "#/network",
  networkOf: (stream: string) => `#/network?stream=${encodeURIComponent(stream)}`,
  node: "#/node",
  about: "#/about",
};

export const route = signal<Route>({ page: "browse" });

export function go(path: string): void {
  location.hash = path;
}

/** Follows the address bar, the back button and every link to a page. */
export function followAddress(): void {
  const read = (): void => {
    route.value = parse(location.hash);
  };
  addEventListener("hashchange", () => {
    read();
    scrollTo(0, 0);
  });
  read();
}
