// What flows in one stream, as figures.
//
// Owns the statistics panel and the stream's own log. Does not own where the numbers come from.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { NodeEvent, StatsDto } from "../api/types";
import { ago, lag, rate, shortId, size, span } from "../format";
import { node, onEvent, statsOf } from "../state/store";
import { Figure, NodeName, Spark, useNow } from "./parts";

/** Samples of the lag line: one a second. */
const SAMPLES = 60;

export function StreamStats({ id, buffered }: { id: string; buffered: () => number | null }): JSX.Element {
  const stats = statsOf(id);
  const latest = useRef(stats);
  latest.current = stats;
  const [behind, setBehind] = useState<(number | null)[]>(() => Array<null>(SAMPLES).fill(null));
  const [delay, setDelay] = useState<number | null>(null);
  useEffect(() => {
    const timer = setInterval(() => {
      const inPage = buffered();
      const inNetwork = latest.current?.delay_ms ?? null;
      const total = inPage === null && inNetwork === null ? null : (inPage ?? 0) * 1_000 + (inNetwork ?? 0);
      setBehind((old) => [...old.slice(1), total]);
      setDelay(inNetwork);
    }, 1_000);
    return () => clearInterval(timer);
  }, [buffered]);
  const now = behind[behind.length - 1] ?? null;
  return (
    <section class="panel" aria-label="Statistics">
      <div class="row"><h2>Statistics</h2>
        {stats && <span class={stats.playing || stats.role === "publishing" ? "chip good" : "chip warn"}>
          {stats.role === "publishing" ? "source" : stats.playing ? "complete" : "incomplete"}</span>}
      </div>
      <Spark values={behind} top={2_000} label={now === null ? "Lag: not known yet" : `Lag: ${lag(now)} now`} />
      <div class="figures field">
        <Figure name="lag behind the source" value={now === null ? "–" : lag(now)} title="Way through the network, plus what waits in this page" />
        <Figure name="network delay" value={orDash(delay, lag)} />
        <Figure name="verified chunks" value={orDash(stats?.verified_chunks)} title="Signature checked under the source's key" />
        <Figure name="failovers" value={orDash(stats?.failovers)} title={lastFailover(stats)} />
        {stats?.repaired_chunks == null
          ? <Figure name="missing chunks" value={orDash(stats?.missing_chunks)} title="Between others, at this moment" />
          : <Figure name="repaired chunks" value={orDash(stats.repaired_chunks)} />}
        <Figure name="skipped chunks" value={orDash(stats?.skipped_chunks)} />
      </div>
      {stats && <Lanes stats={stats} />}
      {stats && (stats.audience?.below?.nodes ?? 0) > (stats.role === "publishing" ? 0 : 1) && (
        <div class="field">
          <h3>{stats.role === "publishing" ? "Audience" : "Here and below this node"}</h3>
          <div class="figures field"><AudienceFigures stats={stats} /></div>
          <p class="hint">What nodes say of themselves, five seconds older with each hop; nobody proves it.</p>
        </div>
      )}
      {stats && (
        <dl class="facts small field">
          <dt>Received</dt><dd>{size(stats.bytes)}{stats.bitrate_bps > 0 && ` at ${rate(stats.bitrate_bps)}`}</dd>
          <dt>Forwards to</dt><dd>{stats.children.length === 0 ? "nobody" : stats.children.map((c) => shortId(c.node)).join(", ")}</dd>
          {stats.join_ms != null && <><dt>Joined in</dt><dd>{lag(stats.join_ms)}</dd></>}
          {(stats.rejected_chunks ?? 0) > 0 && <><dt>Rejected chunks</dt><dd>{stats.rejected_chunks}</dd></>}
        </dl>
      )}
    </section>
  );
}

/** Who takes the stream by way of this node, and how well. */
export function AudienceFigures({ stats }: { stats: StatsDto | null }): JSX.Element {
  const below = stats?.audience?.below;
  return (
    <>
      <Figure name="of these watching" value={orDash(below?.watching)} title="Nodes with a player; the others forward" />
      <Figure name="skipping now" value={orDash(below?.stalled)} title="Viewers that were spared chunks in the last seconds" />
      <Figure name="half is behind by" value={below?.delay_p50_ms == null ? "–" : `≤ ${lag(below.delay_p50_ms)}`} />
      <Figure name="19 of 20 by" value={below?.delay_p95_ms == null ? "–" : `≤ ${lag(below.delay_p95_ms)}`} />
    </>
  );
}

/** Which parent each stripe comes from. */
function Lanes({ stats }: { stats: StatsDto }): JSX.Element | null {
  if (stats.parents.length === 0) return null;
  const me = node.value?.node_id;
  return (
    <div class="field">
      <h3>Parents by stripe</h3>
      <ul class="lanes field">
        {stats.parents.map(({ stripe, node: parent, hops }) => {
          const standby = stats.standbys?.find((s) => s.stripe === stripe);
          return (
            <li key={stripe} class={parent ? "lane" : "lane none"}>
              <span class="n" title={`Stripe ${stripe}`}>{stripe}</span>
              <span class="who">{parent ? <NodeName id={parent} me={parent === me} /> : "looking for a parent …"}</span>
              <span class="muted">
                {hops !== null && (hops <= 1 ? "from the source" : `${hops} hops`)}
                {standby && <span title={`Standby: ${standby.node}`}> · standby {shortId(standby.node)}</span>}
              </span>
            </li>
          );
        })}
      </ul>
    </div>
  );
}

const orDash = (value: number | null | undefined, form: (n: number) => string = (n) => n.toLocaleString("en")): string =>
  value === null || value === undefined ? "–" : form(value);

function lastFailover(stats: StatsDto | null): string {
  const last = stats?.last_failover;
  if (!last) return "A parent was lost and another took over";
  const gap = last.gap_ms === null ? "" : `, ${lag(last.gap_ms)} without a chunk`;
  return `Last: stripe ${last.stripe}, ${last.cause}${gap}`;
}

const LOG_MAX = 40;

/** What happened to one stream since the page opened. */
export function StreamLog({ id }: { id: string }): JSX.Element {
  const [log, setLog] = useState<{ at: number; text: string; n: number }[]>([]);
  const now = useNow(5_000);
  useEffect(() => {
    let n = 0;
    return onEvent((event) => {
      if (event.stream !== id && event.stream_id !== id) return;
      const text = inWords(event);
      if (text) setLog((old) => [{ at: Date.now(), text, n: n++ }, ...old].slice(0, LOG_MAX));
    });
  }, [id]);
  return (
    <section class="panel">
      <h2>What happened</h2>
      {log.length === 0 ? <p class="small muted">Nothing since this page opened: the quiet is a good sign.</p> : (
        <ul class="log">{log.map(({ at, text, n }) => <li key={n}><time>{ago(now - at)}</time><span>{text}</span></li>)}</ul>
      )}
    </section>
  );
}

/** An event of the node as a sentence; null for those that say nothing to a viewer. */
export function inWords(event: NodeEvent): string | null {
  const who = (id: unknown): string => (typeof id === "string" ? shortId(id) : "nobody");
  switch (event.event) {
    case "playing":
      return "Every stripe comes in.";
    case "parent_changed": {
      const gap = typeof event.gap_ms === "number" ? `, ${lag(event.gap_ms)} without a chunk` : "";
      const cause = typeof event.cause === "string" ? ` (${event.cause.replaceAll("_", " ")})` : "";
      return `Stripe ${String(event.stripe)}: ${who(event.old)} → ${who(event.new)}${cause}${gap}.`;
    }
    case "skipped":
      return `Chunks ${String(event.from)} to ${String(event.to)} were skipped (${String(event.cause ?? "late")}).`;
    case "stalled":
      return "Nothing comes in.";
    case "source_lost":
      return "The source is silent.";
    case "source_back":
      return "The source is back.";
    case "paused":
      return "The source paused.";
    case "resumed":
      return "The source resumed.";
    case "ended":
      return "The stream ended.";
    case "live":
      return "The stream is live.";
    case "summary":
      return `It lasted ${span(Number(event.duration_s))}: ${size(Number(event.bytes))}, sent ${size(Number(event.forwarded_bytes))} from here; ` +
        `at most ${String(event.nodes_max)} nodes took it and ${String(event.viewers_max)} watched.`;
    case "recorded":
      return "The node's recording ended.";
    case "recording_failed":
      return `The node's recording broke off: ${String(event.message)}.`;
    case "no_capacity":
      return "Nobody has a free place yet; the node asks again by itself.";
    case "offence":
      return `Node ${who(event.node)} misbehaved and was dropped.`;
    default:
      return null;
  }
}
