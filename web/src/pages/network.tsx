// Network: what this node knows of the others, as a graph and as tables.
//
// Owns filter, selection and tables. Does not own drawing (see graph/view) nor which dots there are
// (see state/network). The view is this node's own, partial on purpose.

import type { JSX } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { api, inWords } from "../api/client";
import type { PeerDto } from "../api/types";
import { count, lag, rate, shortId } from "../format";
import { DARK, GraphView, LIGHT } from "../graph/view";
import { go, paths } from "../route";
import { titleOf } from "../state/browse";
import { graphOf, type Graph, type Line } from "../state/network";
import { edges, node, peers, statsOf, streamOf, streams } from "../state/store";
import { dark } from "../theme";
import { Icon } from "../ui/icons";
import { ActionButton, Copyable, NodeName, Problem, useTitle } from "../ui/parts";

/** Rows of a table at most; the rest is counted. */
const ROWS_MAX = 500;

export function Network({ stream }: { stream: string | null }): JSX.Element {
  useTitle("Network");
  const [chosen, setChosen] = useState<string | null>(null);
  const facts = { node: node.value, peers: peers.value, streams: streams.value, edges: edges.value };
  const graph = useMemo(() => graphOf(facts, stream), [facts.node, facts.peers, facts.streams, facts.edges, stream]);
  const filter = (id: string): void => go(id ? paths.networkOf(id) : paths.network);
  const nodes = [...graph.dots.values()].filter((dot) => dot.kind !== "stream").length;
  const live = [...graph.lines.values()].filter((line) => line.kind === "live").length;
  return (
    <>
      <div class="head">
        <h1>Network</h1>
        <div>
          <label class="unseen" for="filter">Show the stream</label>
          <select id="filter" value={stream ?? ""} onChange={(event) => filter(event.currentTarget.value)}>
            <option value="">All streams</option>
            {streams.value.map((s) => <option key={s.id} value={s.id}>{titleOf(s)}</option>)}
            {stream && !streamOf(stream) && <option value={stream}>Stream {shortId(stream)}</option>}
          </select>
        </div>
        <p class="muted" id="network-words">
          What this node knows itself, which is part of the whole: {count(nodes, "node")}, {count(live, "feed")}.
        </p>
      </div>
      <div class="net">
        <div>
          <Canvas graph={graph} chosen={chosen} onChoose={setChosen} />
          <Legend />
        </div>
        <Details graph={graph} id={chosen} onChoose={setChosen} />
      </div>
      <Tables graph={graph} onChoose={setChosen} />
    </>
  );
}

function Canvas(props: { graph: Graph; chosen: string | null; onChoose: (id: string | null) => void }): JSX.Element {
  const host = useRef<HTMLDivElement>(null);
  const view = useRef<GraphView | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const choose = useRef(props.onChoose);
  choose.current = props.onChoose;
  useEffect(() => {
    if (!host.current) return;
    try {
      view.current = new GraphView(host.current, dark.peek() ? DARK : LIGHT, (id) => choose.current(id));
    } catch {
      setProblem("This browser has no WebGL: the tables below show the same.");
      return;
    }
    return () => {
      view.current?.close();
      view.current = null;
    };
  }, []);
  useEffect(() => view.current?.show(props.graph), [props.graph]);
  useEffect(() => view.current?.choose(props.chosen), [props.chosen, props.graph]);
  useEffect(() => view.current?.recolour(dark.value ? DARK : LIGHT), [dark.value]);
  return (
    <div class="canvas" data-dots={props.graph.dots.size} data-lines={props.graph.lines.size}>
      <div class="host" ref={host} role="img" aria-label="Graph of the network; the tables below say the same"
        aria-describedby="network-words" />
      <Problem text={problem} />
      <div class="zoom">
        <button type="button" aria-label="Zoom in" onClick={() => view.current?.zoom(1.5)}><Icon name="plus" /></button>
        <button type="button" aria-label="Zoom out" onClick={() => view.current?.zoom(0.6)}><Icon name="minus" /></button>
        <button type="button" aria-label="Show everything" onClick={() => view.current?.fit()}><Icon name="fit" /></button>
      </div>
    </div>
  );
}

function Legend(): JSX.Element {
  const p = dark.value ? DARK : LIGHT;
  const dot = (color: string, r: number): JSX.Element =>
    <svg viewBox="0 0 22 12" aria-hidden="true"><circle cx="11" cy="6" r={r} fill={color} /></svg>;
  const line = (color: string, width: number): JSX.Element =>
    <svg viewBox="0 0 22 12" aria-hidden="true"><path d="M1 6h20" stroke={color} stroke-width={width} /></svg>;
  return (
    <ul class="legend" aria-label="Legend">
      <li>{dot(p.self, 5)}this node</li>
      <li>{dot(p.supernode, 5)}supernode</li>
      <li>{dot(`hsl(210 50% ${p.light}%)`, 4)}node, each its colour</li>
      <li>{dot(p.stream, 3.5)}stream</li>
      <li>{line(p.live, 3)}media, parent to child</li>
      <li>{line(p.standby, 2)}standby</li>
      <li>{line(p.grey, 1.5)}registration, source</li>
    </ul>
  );
}

function Details(props: { graph: Graph; id: string | null; onChoose: (id: string | null) => void }): JSX.Element {
  const dot = props.id ? props.graph.dots.get(props.id) : undefined;
  if (!props.id || !dot) {
    return (
      <section class="panel" aria-label="Facts">
        <h2>Facts</h2>
        <p class="muted small">Click a dot, or a row in the tables, to see what this node knows about it.</p>
      </section>
    );
  }
  const { id } = props;
  const lines = [...props.graph.lines.values()].filter((line) => line.from === id || line.to === id);
  return (
    <section class="panel" aria-label="Facts" aria-live="polite">
      <div class="row">
        <h2>{dot.label}</h2>
        <button type="button" class="plain" onClick={() => props.onChoose(null)}>Close</button>
      </div>
      {dot.kind === "stream" ? <StreamFacts id={id} /> : <NodeFacts id={id} kind={dot.kind} />}
      {lines.length > 0 && (
        <>
          <h3 class="field">Links</h3>
          <ul class="lanes field">
            {lines.slice(0, 30).map((line) => <li class="lane" key={line.id}><LinkWords line={line} id={id} /></li>)}
          </ul>
        </>
      )}
    </section>
  );
}

function LinkWords({ line, id }: { line: Line; id: string }): JSX.Element {
  const out = line.from === id;
  const other = out ? line.to : line.from;
  const words = line.kind === "live" ? (out ? "feeds" : "is fed by") : line.kind === "standby" ? (out ? "standby of" : "standby")
    : line.kind === "source" ? (out ? "publishes" : "published by") : out ? "registered at" : "keeps";
  return (
    <>
      <span aria-hidden="true">{out ? "→" : "←"}</span>
      <span>{words} <span class="mono" title={other}>{shortId(other)}</span></span>
      <span class="muted">{line.stripes.length > 0 && `stripe ${line.stripes.join(", ")}`}</span>
    </>
  );
}

function NodeFacts({ id, kind }: { id: string; kind: string }): JSX.Element {
  const [problem, setProblem] = useState<string | null>(null);
  const me = node.value;
  const mine = me?.node_id === id;
  const peer = peers.value.find((p) => p.id === id);
  const addrs = mine ? (me?.listen ?? []) : (peer?.addrs ?? []);
  return (
    <>
      <dl class="facts small">
        <dt>Part</dt><dd>{mine ? `this node, ${me?.role}` : kind}</dd>
        {peer && <><dt>Connection</dt><dd>{peer.connected ? "up" : peer.banned ? "banned for misbehaving" : "none"}</dd></>}
        {peer && peer.rtt_ms !== null && <><dt>Round trip</dt><dd>{lag(peer.rtt_ms)}</dd></>}
        {peer && peer.failures > 0 && <><dt>Failed attempts</dt><dd>{peer.failures}</dd></>}
        {mine && me && <><dt>Uplink</dt><dd>{rate(me.uplink.promised_bps)} of {rate(me.uplink.usable_bps)}</dd></>}
      </dl>
      <div class="field"><Copyable name="Id" text={id} /></div>
      {addrs.slice(0, 4).map((addr, i) => <Copyable key={addr} name={i === 0 ? "Addresses" : ""} text={addr} />)}
      {peer && !mine && (
        <div class="field">
          <ActionButton class="danger plain" act={() => api.forgetPeer(id)} onError={(error) => setProblem(inWords(error))}>
            Forget this node
          </ActionButton>
        </div>
      )}
      <Problem text={problem} />
    </>
  );
}

function StreamFacts({ id }: { id: string }): JSX.Element {
  const stream = streamOf(id);
  const stats = statsOf(id);
  return (
    <>
      <dl class="facts small">
        {stream && <><dt>Viewers</dt><dd>{stream.viewers}</dd></>}
        {stream && <><dt>Rate</dt><dd>{stream.bitrate_bps ? rate(stream.bitrate_bps) : "–"}</dd></>}
        {stream && <><dt>Stripes</dt><dd>{stream.stripes || "–"}</dd></>}
        {stream?.node && <><dt>Source</dt><dd class="mono">{shortId(stream.node)}</dd></>}
        {stats && stats.delay_ms !== null && <><dt>Delay here</dt><dd>{lag(stats.delay_ms)}</dd></>}
      </dl>
      <div class="row field">
        <a class="button" href={paths.watch(id)}>Watch</a>
        <a class="button" href={paths.networkOf(id)}>Only this stream</a>
      </div>
    </>
  );
}

function Tables({ graph, onChoose }: { graph: Graph; onChoose: (id: string) => void }): JSX.Element {
  const known = new Map<string, PeerDto>(peers.value.map((peer) => [peer.id, peer]));
  const me = node.value?.node_id;
  const nodes = [...graph.dots.values()].filter((dot) => dot.kind !== "stream");
  const feeds = [...graph.lines.values()].filter((line) => line.kind === "live" || line.kind === "standby");
  return (
    <div class="stack">
      <section class="panel">
        <h2 id="nodes-title">{count(nodes.length, "node")}</h2>
        <div class="scroll" tabIndex={0} role="region" aria-labelledby="nodes-title">
          <table id="nodes">
            <thead><tr><th scope="col">Node</th><th scope="col">Part</th><th scope="col">Address</th><th scope="col">Connection</th><th scope="col" class="number">Round trip</th></tr></thead>
            <tbody>
              {nodes.slice(0, ROWS_MAX).map((dot) => {
                const peer = known.get(dot.id);
                return (
                  <tr key={dot.id}>
                    <td><button type="button" class="plain" onClick={() => onChoose(dot.id)}><NodeName id={dot.id} me={dot.id === me} /></button></td>
                    <td>{dot.kind === "self" ? "this node" : dot.id === me ? "this node, supernode" : dot.kind}</td>
                    <td class="mono">{dot.label.includes(": ") ? dot.label.slice(dot.label.indexOf(": ") + 2) : ""}</td>
                    <td>{dot.id === me ? "–" : peer?.banned ? "banned" : peer?.connected ? "up" : "none"}</td>
                    <td class="number">{peer?.rtt_ms != null ? lag(peer.rtt_ms) : "–"}</td>
                  </tr>
                );
              })}
            </tbody>
          </table>
        </div>
        {nodes.length > ROWS_MAX && <p class="small muted">and {count(nodes.length - ROWS_MAX, "more node", "more nodes")}</p>}
      </section>
      <section class="panel">
        <h2 id="feeds-title">Who feeds whom</h2>
        {feeds.length === 0 ? <p class="muted small">This node takes part in no stream. Watch or seed one.</p> : (
          <div class="scroll" tabIndex={0} role="region" aria-labelledby="feeds-title">
            <table id="feeds">
              <thead><tr><th scope="col">Parent</th><th scope="col">Child</th><th scope="col">Stream</th><th scope="col">Stripes</th><th scope="col">State</th></tr></thead>
              <tbody>
                {feeds.slice(0, ROWS_MAX).map((line) => {
                  const stream = line.stream ? streamOf(line.stream) : null;
                  return (
                    <tr key={line.id}>
                      <td><NodeName id={line.from} me={line.from === me} /></td>
                      <td><NodeName id={line.to} me={line.to === me} /></td>
                      <td>{stream ? titleOf(stream) : line.stream ? shortId(line.stream) : "–"}</td>
                      <td>{line.stripes.join(", ")}</td>
                      <td>{line.kind}</td>
                    </tr>
                  );
                })}
              </tbody>
            </table>
          </div>
        )}
      </section>
    </div>
  );
}
