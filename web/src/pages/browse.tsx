// Browse: every live stream that this node's directory knows.
//
// Owns search, order and cards. Own streams open on Publish, others on Watch.

import { signal } from "@preact/signals";
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { api, inWords } from "../api/client";
import type { StreamDto } from "../api/types";
import { count, lines, mainCodec, rate, shortId } from "../format";
import { go, paths } from "../route";
import { isOwn, ORDERS, pick, titleOf, type Order } from "../state/browse";
import { node, streams, told } from "../state/store";
import { Icon } from "../ui/icons";
import { Problem, useTitle } from "../ui/parts";
import { Thumbnail } from "../ui/thumbnail";

/** Cards drawn at first; a button shows more. */
const CARDS_MAX = 120;

// Kept while the page is away, so that "back" finds the list as it was left.
const query = signal("");
const order = signal<Order>("viewers");

export function Browse(): JSX.Element {
  useTitle("Browse");
  const [limit, setLimit] = useState(CARDS_MAX);
  const all = streams.value;
  const found = pick(all, query.value, order.value);
  return (
    <>
      <div class="head">
        <h1>Live now</h1>
        <OpenLink />
      </div>
      {all.length > 0 && (
        <div class="tools" role="search">
          <div class="search">
            <label class="unseen" for="search">Search streams</label>
            <input id="search" type="search" placeholder="Search title, description, tag" value={query.value}
              onInput={(event) => (query.value = event.currentTarget.value)} />
          </div>
          <div class="sort">
            <label class="unseen" for="sort">Sort by</label>
            <select id="sort" value={order.value} onChange={(event) => (order.value = event.currentTarget.value as Order)}>
              {ORDERS.map((entry) => <option key={entry.order} value={entry.order}>{entry.label}</option>)}
            </select>
          </div>
        </div>
      )}
      <p class="unseen" role="status">{told.value ? count(found.length, "stream") : "Loading streams"}</p>
      {found.length > 0 ? (
        <ul class="cards">
          {found.slice(0, limit).map((stream) => <Card key={stream.id} stream={stream} />)}
        </ul>
      ) : (
        <Nothing searching={all.length > 0} />
      )}
      {found.length > limit && (
        <p class="row gap"><button type="button" onClick={() => setLimit(limit + CARDS_MAX)}>Show more of {count(found.length, "stream")}</button></p>
      )}
    </>
  );
}

function Card({ stream }: { stream: StreamDto }): JSX.Element {
  const own = isOwn(stream);
  const size = lines(stream.height);
  const facts = [size, mainCodec(stream.codecs), stream.bitrate_bps ? rate(stream.bitrate_bps) : null].filter((fact) => fact !== null);
  return (
    <li class="card">
      <Thumbnail stream={stream} />
      <div class="marks">
        {stream.paused ? <span class="chip paused">Paused</span>
          : stream.announced ? <span class="chip live">Live</span>
          : <span class="chip">Waiting</span>}
        {own && <span class="chip own">Yours</span>}
        {stream.role === "seeding" && <span class="chip good">Seeding</span>}
      </div>
      <div class="words">
        <h2><a href={own ? paths.own(stream.id) : paths.watch(stream.id)}>{titleOf(stream)}</a></h2>
        {stream.description && <p class="said small muted">{stream.description}</p>}
        <p class="row tight small muted">
          {stream.viewers > 0 && <><span>{count(stream.viewers, "viewer")}</span><span aria-hidden="true">·</span></>}
          {stream.node && <span title={stream.node}>from <span class="mono">{shortId(stream.node)}</span></span>}
        </p>
        <p class="row tight">{facts.map((fact) => <span class="chip" key={fact}>{fact}</span>)}</p>
        {stream.tags.length > 0 && <p class="row tight small muted">{stream.tags.slice(0, 4).map((tag) => <span key={tag}>#{tag}</span>)}</p>}
      </div>
    </li>
  );
}

/** A stream by its link, whether or not the directory has it. */
function OpenLink(): JSX.Element {
  const [text, setText] = useState("");
  const [problem, setProblem] = useState<string | null>(null);
  const open = async (event: Event): Promise<void> => {
    event.preventDefault();
    const wanted = text.trim();
    if (!wanted) return;
    setProblem(null);
    try {
      const { id } = /^[0-9a-f]{64}$/i.test(wanted) ? { id: wanted } : await api.watch(wanted);
      go(paths.watch(id));
    } catch (error) {
      setProblem(inWords(error));
    }
  };
  return (
    <form class="opener" onSubmit={(event) => void open(event)}>
      <label class="unseen" for="link">Open a stream's link</label>
      <input id="link" type="text" placeholder="astral:… link of a stream" spellcheck={false} value={text}
        onInput={(event) => setText(event.currentTarget.value)} />
      <button type="submit"><Icon name="open" />Open</button>
      {problem && <Problem text={problem} onClose={() => setProblem(null)} />}
    </form>
  );
}

function Nothing({ searching }: { searching: boolean }): JSX.Element {
  if (!told.value) return <p class="muted">Asking the node …</p>;
  if (searching) {
    return (
      <div class="empty">
        <h2>No stream matches</h2>
        <p class="muted">Try fewer words, or clear the search.</p>
        <button type="button" onClick={() => (query.value = "")}>Clear the search</button>
      </div>
    );
  }
  const alone = (node.value?.connected ?? 0) === 0;
  return (
    <div class="empty">
      <Icon name="publish" />
      <h2>Nothing is live yet</h2>
      <p class="muted">
        {alone
          ? "This node is not connected to any other. Give it the address of a node you know, or start a stream and let others join you."
          : "Nobody publishes at the moment. Streams appear here by themselves within seconds, or you start one."}
      </p>
      <div class="row">
        <a class="button main" href={paths.publish}>Start a stream</a>
        <a class="button" href={paths.about}>{alone ? "How nodes join" : "How it works"}</a>
      </div>
    </div>
  );
}
