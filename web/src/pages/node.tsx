// Node: what this node is, what it gives, and what is wrong with it.
//
// Owns settings, the doctor's report and the log's tail. Does not own the network's view.

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { api, inWords, Refused } from "../api/client";
import { forgetToken } from "../api/session";
import type { DoctorDto, NodeDto, SettingsDto } from "../api/types";
import { ago, count, rate, shortId, size, span } from "../format";
import { happened, node, settings, streams } from "../state/store";
import { ActionButton, Copyable, Figure, Meter, Problem, useNow, useTitle } from "../ui/parts";

export function NodePage(): JSX.Element {
  useTitle("Node");
  const me = node.value;
  const [problem, setProblem] = useState<string | null>(null);
  const report = (error: unknown): void => setProblem(inWords(error));
  if (!me) return <p class="muted" role="status">Asking the node …</p>;
  return (
    <>
      <div class="head"><h1>This node</h1><span class="chip">version {me.version}</span></div>
      <Problem text={problem} onClose={() => setProblem(null)} />
      <div class="two">
        <div class="stack">
          <Standing me={me} />
          <Uplink me={me} settings={settings.value} onError={report} />
          <Doctor onError={report} />
          <Logs />
        </div>
        <div class="stack">
          <section class="panel">
            <h2>Addresses</h2>
            <p class="small muted">Others join through any of them that they can reach.</p>
            <div class="field">{me.listen.map((addr, i) => <Copyable key={addr} name={i === 0 ? "--bootstrap" : ""} text={addr} />)}</div>
            <div class="field"><Copyable name="Node id" text={me.node_id} /></div>
            <Copyable name="Encoders connect to" text={me.rtmp} />
          </section>
          <Access onError={report} />
          <Events />
        </div>
      </div>
    </>
  );
}

function Standing({ me }: { me: NodeDto }): JSX.Element {
  const held = streams.value.filter((s) => s.role !== "listed").length;
  return (
    <section class="panel">
      <div class="row"><h2>Standing</h2><span class={me.role === "supernode" ? "chip own" : "chip"}>{me.role}</span></div>
      <p>{standingInWords(me)}</p>
      <p class={me.reachable ? "note good field" : "note warn field"}>
        {me.reachable
          ? "Others can reach this node directly."
          : "Others can't reach this node from outside: it takes part through the connections it makes itself. Opening its port in the router helps everybody."}
      </p>
      <div class="figures field">
        <Figure name="connected nodes" value={me.connected} />
        <Figure name="members here" value={me.members} />
        <Figure name="streams in use" value={held} />
        <Figure name="sent" value={size(me.traffic.sent_bytes)} />
        <Figure name="received" value={size(me.traffic.received_bytes)} />
        <Figure name="running for" value={span(me.uptime_s)} />
      </div>
    </section>
  );
}

function standingInWords(me: NodeDto): string {
  const at = me.registration.supernode ? ` ${shortId(me.registration.supernode)}` : "";
  switch (me.registration.state) {
    case "supernode":
      return `A supernode: it keeps the directory for ${count(me.members, "member")}.`;
    case "registered":
      return `Registered with supernode${at}, which finds streams and parents for it.`;
    case "guest":
      return "A guest: no supernode has room, so it is served at a lower rate until one has.";
    case "searching":
      return "Looking for a supernode. Give the node a --bootstrap address if this stays.";
  }
}

/** The slider goes from 0.25 Mbit/s to 1 Gbit/s, each step the same factor. */
const STEPS = 120;
const LOW = 250_000;
const HIGH = 1_000_000_000;
const toBps = (step: number): number => Math.round((LOW * (HIGH / LOW) ** (step / STEPS)) / 50_000) * 50_000;
const toStep = (bps: number): number => Math.round((Math.log(Math.max(LOW, bps) / LOW) / Math.log(HIGH / LOW)) * STEPS);

function Uplink(props: { me: NodeDto; settings: SettingsDto | null; onError: (error: unknown) => void }): JSX.Element {
  const { uplink } = props.me;
  const set = props.settings;
  // What the user moves; null follows the node.
  const [step, setStep] = useState<number | null>(null);
  const told = set?.uplink_bps ?? null;
  const shown = step ?? toStep(told ?? uplink.usable_bps);
  const apply = async (bps: number | null): Promise<void> => {
    await api.change({ uplink: bps }).catch(props.onError);
    setStep(null);
  };
  return (
    <section class="panel">
      <div class="row">
        <h2>Uplink for others</h2>
        <span class="muted small">{told === null ? (uplink.assumed ? "assumed" : "measured") : "as you set it"}</span>
      </div>
      <p class="row small"><span class="label">Promised</span><span class="muted">{rate(uplink.promised_bps)} of {rate(uplink.usable_bps)}</span></p>
      <Meter label="Uplink promised" share={uplink.promised_bps / Math.max(1, uplink.usable_bps)}
        text={`${rate(uplink.promised_bps)} of ${rate(uplink.usable_bps)}`} />
      <div class="field">
        <label for="uplink">At most <output for="uplink">{step === null && told === null ? "automatic" : rate(step === null ? (told ?? 0) : toBps(step))}</output>
          <span class="hint">A hard ceiling on everything this node sends. It holds at once.</span></label>
        <input id="uplink" type="range" min={0} max={STEPS} value={shown} aria-valuetext={rate(toBps(shown))}
          onInput={(event) => setStep(Number(event.currentTarget.value))}
          onChange={(event) => void apply(toBps(Number(event.currentTarget.value)))} />
      </div>
      <div class="row field">
        <ActionButton pressed={told === null} act={() => apply(null)} onError={props.onError}>Automatic</ActionButton>
      </div>
      {set && (
        <div class="pickers">
          <Limit name="Copies of one stream at most" value={set.max_copies} onError={props.onError} onSave={(n) => api.change({ max_copies: n })} />
          <Limit name="Copies of all streams at most" value={set.max_total_copies} onError={props.onError} onSave={(n) => api.change({ max_total_copies: n })} />
        </div>
      )}
    </section>
  );
}

function Limit(props: { name: string; value: number | null; onSave: (n: number | null) => Promise<unknown>; onError: (error: unknown) => void }): JSX.Element {
  const id = props.name.replaceAll(" ", "-").toLowerCase();
  const save = (text: string): void => {
    const n = text.trim() === "" ? null : Math.max(0, Math.floor(Number(text)));
    if (n === props.value || Number.isNaN(n)) return;
    props.onSave(n).catch(props.onError);
  };
  return (
    <div>
      <label for={id}>{props.name} <span class="hint">Empty: as many as the uplink carries. 0: forward nothing.</span></label>
      <input id={id} type="number" min={0} step={1} value={props.value ?? ""} onChange={(event) => save(event.currentTarget.value)} />
    </div>
  );
}

function Doctor({ onError }: { onError: (error: unknown) => void }): JSX.Element {
  const [result, setResult] = useState<DoctorDto | null>(null);
  const [absent, setAbsent] = useState(false);
  const ask = async (): Promise<void> => {
    try {
      setResult(await api.doctor());
    } catch (error) {
      if (!(error instanceof Refused && error.status === 404)) throw error;
      setAbsent(true);
    }
  };
  return (
    <section class="panel">
      <div class="row"><h2>Doctor</h2><ActionButton class="plain" act={ask} onError={onError}>{result ? "Examine again" : "Examine this node"}</ActionButton></div>
      {result ? (
        <ul class="stack">
          {result.checks.map((check) => (
            <li key={check.name} class="row">
              <span class={`chip ${check.verdict === "ok" ? "good" : check.verdict}`}>{check.verdict === "ok" ? "fine" : check.verdict === "warn" ? "look" : "wrong"}</span>
              <span><strong>{check.name}</strong>: {check.message}{check.fix && <span class="hint">{check.fix}</span>}</span>
            </li>
          ))}
        </ul>
      ) : absent ? <p class="small muted" role="status">This node's doctor works in a terminal: run <code>astral doctor</code> there.</p>
        : <p class="small muted">Looks at reachability, the clock and missing media elements, and says what to do.</p>}
    </section>
  );
}

function Logs(): JSX.Element | null {
  const [text, setText] = useState<string[] | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const load = async (): Promise<void> => {
    try {
      setText(await api.logs(200));
    } catch (error) {
      setProblem(error instanceof Refused && error.status === 404 ? "This node keeps no log to show; it writes to its terminal." : inWords(error));
    }
  };
  return (
    <section class="panel">
      <div class="row"><h2>Log</h2><ActionButton class="plain" act={load} onError={() => undefined}>{text ? "Renew" : "Show the last lines"}</ActionButton></div>
      {text && <pre class="lines" tabIndex={0} aria-label="Last lines of the log">{text.join("\n") || "Nothing yet."}</pre>}
      {problem && <p class="small muted" role="status">{problem}</p>}
    </section>
  );
}

function Access({ onError }: { onError: (error: unknown) => void }): JSX.Element {
  const [url, setUrl] = useState<string | null>(null);
  const [sure, setSure] = useState(false);
  return (
    <section class="panel">
      <h2>Access</h2>
      <div class="row">
        <ActionButton act={async () => setUrl((await api.linkForAnotherBrowser()).url)} onError={onError}>Link for another browser</ActionButton>
        <button type="button" onClick={forgetToken}>Unpair this one</button>
      </div>
      {url && <div class="field"><Copyable name="Works once, for 15 minutes" text={url} /></div>}
      <div class="row field">
        {sure ? (
          <>
            <span>Streams published here end.</span>
            <ActionButton class="danger" act={() => api.shutdown()} onError={onError}>Shut the node down</ActionButton>
            <button type="button" onClick={() => setSure(false)}>Keep it</button>
          </>
        ) : <button type="button" class="danger" onClick={() => setSure(true)}>Shut down …</button>}
      </div>
    </section>
  );
}

/** The newest events, all streams. */
function Events(): JSX.Element {
  const now = useNow(5_000);
  const recent = happened.value.slice(0, 30);
  return (
    <section class="panel">
      <h2>Events</h2>
      {recent.length === 0 ? <p class="small muted">Nothing happened since this page opened.</p> : (
        <ul class="log">
          {recent.map(({ at, event }, i) => (
            <li key={`${at}-${i}`}><time>{ago(now - at)}</time><span>{event.event.replaceAll("_", " ")}
              {typeof event.stream === "string" && <span class="mono muted"> {shortId(event.stream)}</span>}</span></li>
          ))}
        </ul>
      )}
    </section>
  );
}
