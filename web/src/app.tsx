// The frame of every page: navigation, the state of the node, notices.
//
// Owns what is around a page and which page is shown. Does not own pages.

import type { ComponentType, JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { token } from "./api/session";
import { About } from "./pages/about";
import { Browse } from "./pages/browse";
import { Lost } from "./pages/lost";
import { Pair } from "./pages/pair";
import { paths, route, type Route } from "./route";
import { count } from "./format";
import { link, node } from "./state/store";
import { Icon, type IconName } from "./ui/icons";

const TABS: readonly { page: Route["page"]; path: string; label: string; icon: IconName }[] = [
  { page: "browse", path: paths.browse, label: "Browse", icon: "browse" },
  { page: "publish", path: paths.publish, label: "Publish", icon: "publish" },
  { page: "network", path: paths.network, label: "Network", icon: "network" },
  { page: "node", path: paths.node, label: "Node", icon: "node" },
  { page: "about", path: paths.about, label: "About", icon: "about" },
];

/** A page that loads with its first use: the player and the graph are large. */
function lazy<P extends object>(load: () => Promise<ComponentType<P>>): (props: P) => JSX.Element {
  let loaded: ComponentType<P> | null = null;
  return function Lazy(props: P): JSX.Element {
    const [, again] = useState(0);
    const [failed, setFailed] = useState(false);
    useEffect(() => {
      if (loaded) return;
      load().then((page) => { loaded = page; again(1); }, () => setFailed(true));
    }, []);
    if (failed) return <p class="note bad">This page could not be loaded. Reload once the node runs again.</p>;
    const Page = loaded;
    return Page ? <Page {...props} /> : <p class="muted" role="status">Loading …</p>;
  };
}

const Watch = lazy(async () => (await import("./pages/watch")).Watch);
const Publish = lazy(async () => (await import("./pages/publish")).Publish);
const Network = lazy(async () => (await import("./pages/network")).Network);
const NodePage = lazy(async () => (await import("./pages/node")).NodePage);

function Page({ at }: { at: Route }): JSX.Element {
  if (at.page === "about") return <About />;
  if (at.page === "lost") return <Lost />;
  if (!token.value) return <Pair />;
  switch (at.page) {
    case "browse":
      return <Browse />;
    case "watch":
      return <Watch key={at.id} id={at.id} />;
    case "publish":
      return <Publish key={at.id ?? ""} id={at.id} />;
    case "network":
      return <Network stream={at.stream} />;
    case "node":
      return <NodePage />;
  }
}

export function App(): JSX.Element {
  const at = route.value;
  const main = useRef<HTMLElement>(null);
  const first = useRef(true);
  const place = `${at.page}/${"id" in at ? (at.id ?? "") : ""}`;
  // A new page is read from its top, as a loaded one would be.
  useEffect(() => {
    if (first.current) first.current = false;
    else main.current?.focus({ preventScroll: true });
  }, [place]);
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); main.current?.focus(); }}>
        Skip to the content
      </a>
      <header class="top">
        <a class="brand" href={paths.browse}><img src="/icon.svg" alt="" />Astral</a>
        <nav class="tabs" aria-label="Pages">
          {TABS.map(({ page, path, label, icon }) => (
            <a key={page} href={path} {...(current(at, page) ? { "aria-current": "page" as const } : {})}>
              <Icon name={icon} />{label}
            </a>
          ))}
        </nav>
        <NodeState />
      </header>
      <main id="main" ref={main} tabIndex={-1}>
        <Page at={at} />
      </main>
      <Down />
    </>
  );
}

function current(at: Route, page: Route["page"]): boolean {
  return at.page === page || (page === "browse" && at.page === "watch");
}

function NodeState(): JSX.Element {
  const me = node.value;
  const state = !token.value ? "not paired" : link.value === "down" ? "node is down" : link.value === "waiting" ? "connecting"
    : me ? count(me.connected, "node") + " connected" : "connected";
  const tone = link.value === "down" ? "bad" : link.value === "up" && me ? (me.connected > 0 ? "good" : "warn") : "";
  return <div class="state"><span class={`dot ${tone}`} aria-hidden="true" /><span>{state}</span></div>;
}

/** The one notice that no page may hide. */
function Down(): JSX.Element {
  const down = token.value !== null && link.value === "down";
  return (
    <div role="alert">
      {down && (
        <div class="down">
          <span class="dot bad" aria-hidden="true" />
          <span><strong>The node is down.</strong> Start it again with <code>astral run</code>; this page goes on by itself.</span>
        </div>
      )}
    </div>
  );
}
