// The page of a portal: what is live, for visitors without a node.
//
// Owns the list and the picture that a portal shows. It reads from its own server only: it neither has
// a token nor ever speaks with a node on the visitor's machine; a link opens a stream in that node's own
// page, which the visitor has paired with it.

import { signal } from "@preact/signals";
import { render, type JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { count, lines, mainCodec, rate } from "./format";
import type { Player } from "./media/player";
import { followAddress, paths, route } from "./route";
import { applyTheme } from "./theme";
import { Constellation, CopyButton } from "./ui/parts";
import "./styles.css";

/** How often the list is asked for while the page is seen. */
const RENEW_MS = 5_000;
/** Where a node has its page unless its user chose another place. */
const OWN_NODE = "http://127.0.0.1:8000/";

interface Stream {
  id: string;
  link: string | null;
  title: string;
  description: string;
  tags: string[];
  codecs: string[];
  height: number | null;
  bitrate_bps: number;
  viewers: number;
  thumbnail: boolean;
}

interface Live {
  gateway: boolean;
  streams: Stream[];
}

const live = signal<Live | null>(null);
const silent = signal(false);

async function renew(): Promise<void> {
  if (document.hidden && live.peek()) return;
  try {
    const answer = await fetch("/streams");
    if (!answer.ok) throw new Error(answer.statusText);
    live.value = (await answer.json()) as Live;
    silent.value = false;
  } catch {
    silent.value = true;
  }
}

function Card({ stream }: { stream: Stream }): JSX.Element {
  const facts = [lines(stream.height), mainCodec(stream.codecs), stream.bitrate_bps ? rate(stream.bitrate_bps) : null];
  return (
    <li class="card">
      <div class="sight">
        {stream.thumbnail ? <img src={`/thumbnails/${stream.id}.jpg`} alt="" loading="lazy" /> : <Constellation id={stream.id} />}
      </div>
      <div class="marks"><span class="chip live">Live</span></div>
      <div class="words">
        <h2><a href={paths.watch(stream.id)}>{stream.title || "Untitled"}</a></h2>
        {stream.description && <p class="said small muted">{stream.description}</p>}
        {stream.viewers > 0 && <p class="small muted">{count(stream.viewers, "viewer")}</p>}
        <p class="row tight">{facts.filter((fact) => fact !== null).map((fact) => <span class="chip" key={fact}>{fact}</span>)}</p>
      </div>
    </li>
  );
}

function List({ live: { streams } }: { live: Live }): JSX.Element {
  const [query, setQuery] = useState("");
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const found = streams.filter((stream) => {
    const text = [stream.title, stream.description, ...stream.tags].join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  });
  return (
    <>
      <div class="head"><h1>Live now</h1></div>
      {streams.length > 0 && (
        <div class="tools" role="search">
          <div class="search">
            <label class="unseen" for="search">Search streams</label>
            <input id="search" type="search" placeholder="Search title, description, tag" value={query}
              onInput={(event) => setQuery(event.currentTarget.value)} />
          </div>
        </div>
      )}
      <p class="unseen" role="status">{count(found.length, "stream")}</p>
      {found.length > 0 ? (
        <ul class="cards">{found.map((stream) => <Card key={stream.id} stream={stream} />)}</ul>
      ) : (
        <div class="empty">
          <h2>{streams.length > 0 ? "No stream matches" : "Nothing is live"}</h2>
          <p class="muted">{streams.length > 0 ? "Try fewer words." : "Streams appear here by themselves as soon as somebody publishes."}</p>
        </div>
      )}
    </>
  );
}

function Picture({ stream }: { stream: Stream }): JSX.Element {
  const video = useRef<HTMLVideoElement>(null);
  const [said, setSaid] = useState("Loading …");
  useEffect(() => {
    const element = video.current;
    let player: Player | null = null;
    let gone = false;
    // The player is large: only who watches loads it.
    void import("./media/player").then(({ Player }) => {
      if (gone || !element) return;
      player = new Player(element, stream.id, "normal", {
        onState(state) {
          setSaid(
            state.state === "playing" ? ""
            : state.state === "waiting" ? `${state.why} If all places here are taken, a node of your own has one.`
            : state.state === "unsupported" ? `This browser does not play ${state.codec}.`
            : state.state === "ended" ? "The stream ended." : "Loading …",
          );
        },
        onMuted: () => undefined,
      });
    });
    return () => {
      gone = true;
      player?.close();
    };
  }, [stream.id]);
  return (
    <div class="stack">
      <div class="screen">
        <video ref={video} controls playsInline aria-label={stream.title || "Stream"} />
      </div>
      <p class="muted" role="status">{said}</p>
    </div>
  );
}

function Watch({ live: { gateway, streams }, id }: { live: Live; id: string }): JSX.Element {
  const stream = streams.find((one) => one.id === id);
  if (!stream) {
    return (
      <div class="empty">
        <h1>This stream is not live</h1>
        <p class="muted">Its source may be back in a moment.</p>
        <a class="button" href={paths.browse}>What is live</a>
      </div>
    );
  }
  return (
    <>
      <div class="head"><h1>{stream.title || "Untitled"}</h1>{stream.description && <p class="muted">{stream.description}</p>}</div>
      {gateway && <Picture stream={stream} />}
      <section class="panel" aria-labelledby="own">
        <h2 id="own">{gateway ? "Watch with your own node" : "Watch it"}</h2>
        <p class="muted">
          {gateway
            ? "A node of your own has its picture from other viewers, checks every piece against the source's signature, and passes it on."
            : "This page shows what is live; the picture comes through a node of your own, which checks every piece against the source's signature."}
        </p>
        <div class="row">
          <a class="button main" href={`${OWN_NODE}${paths.watch(stream.id)}`} rel="noreferrer">Open in my node</a>
          {stream.link && <CopyButton text={`astral play ${stream.link}`} label="Copy the command" what="the command that plays it" />}
        </div>
        <p class="hint">Your node's page opens if it runs on this computer and this browser was paired with it.</p>
      </section>
    </>
  );
}

function App(): JSX.Element {
  const at = route.value;
  const known = live.value;
  return (
    <>
      <header class="top">
        <a class="brand" href={paths.browse}><img src="/icon.svg" alt="" />Astral</a>
      </header>
      <main id="main">
        {silent.value && <p class="note bad" role="alert">The portal does not answer. The page tries again by itself.</p>}
        {!known ? !silent.value && <p class="muted">Loading …</p>
          : at.page === "watch" ? <Watch key={at.id} live={known} id={at.id} /> : <List live={known} />}
      </main>
    </>
  );
}

applyTheme();
followAddress();
void renew();
setInterval(() => void renew(), RENEW_MS);
const host = document.getElementById("app");
if (host) render(<App />, host);
