// Publish: start a stream from this browser, an encoder or the node's own devices, and run one's own.
//
// Owns the form, the preview and the controls. Does not own encoding (see media/publisher): a running
// publisher outlives the page in state/broadcast, so that looking at the graph does not end a stream.

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { api, inWords } from "../api/client";
import type { StreamDto, UrlDto } from "../api/types";
import { count, rate } from "../format";
import { broadcast, begin, finish } from "../state/broadcast";
import { isOwn, titleOf } from "../state/browse";
import { go, paths } from "../route";
import { node, statsOf, streamOf, streams, told } from "../state/store";
import { ActionButton, Choices, Copyable, Figure, Meter, Problem, useTitle } from "../ui/parts";
import { type Capture, CaptureForm, Preview, stopCapture } from "../ui/capture";
import { AudienceFigures, StreamLog } from "../ui/stats";

type Source = "camera" | "screen" | "rtmp" | "test" | "node-camera" | "node-screen";

const SOURCES: readonly { value: Source; label: string; needs: string }[] = [
  { value: "camera", label: "Camera", needs: "browser" },
  { value: "screen", label: "Screen", needs: "browser" },
  { value: "rtmp", label: "OBS or an encoder", needs: "rtmp" },
  { value: "test", label: "Test picture", needs: "test" },
  { value: "node-camera", label: "Camera of the node", needs: "camera" },
  { value: "node-screen", label: "Screen of the node", needs: "screen" },
];

/** Heights of smaller pictures that the node can add to what it encodes. */
const LOWER = [480, 240];

export function Publish({ id }: { id: string | null }): JSX.Element {
  return id ? <Own id={id} /> : <New />;
}

function New(): JSX.Element {
  useTitle("Publish");
  const offered = node.value?.sources ?? ["browser", "rtmp"];
  const own = streams.value.filter(isOwn);
  const [picked, setPicked] = useState<Source | null>(null);
  const source = picked ?? SOURCES.find(({ needs }) => offered.includes(needs))?.value ?? "rtmp";
  const [name, setName] = useState("");
  const [title, setTitle] = useState("");
  const [description, setDescription] = useState("");
  const [tags, setTags] = useState("");
  const [capture, setCapture] = useState<Capture | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const [preview, setPreview] = useState(false);
  const [adaptive, setAdaptive] = useState(false);
  const [lower, setLower] = useState<readonly number[]>([]);
  const browser = source === "camera" || source === "screen";
  const encodedByNode = !browser && source !== "rtmp";

  const goLive = async (): Promise<void> => {
    setProblem(null);
    const wanted = name.trim();
    if (!wanted) throw new Error("Give the stream a name: it is part of its link and stays the same.");
    if (browser && !capture) throw new Error(source === "camera" ? "Choose a camera first." : "Choose what to share first.");
    const made = await api.create({
      name: wanted,
      title: title.trim() || wanted,
      description: description.trim(),
      tags: tags.split(/[,#\s]+/).filter(Boolean).slice(0, 16),
      source: browser ? "browser" : source.replace("node-", ""),
      preview,
      ...(encodedByNode ? { adaptive, renditions: [...lower] } : {}),
    });
    keepUrl(made);
    if (browser && capture) {
      begin(made, capture);
      setCapture(null);
    }
    go(paths.own(made.id));
  };

  const choose = (next: Source): void => {
    if (capture) stopCapture(capture);
    setCapture(null);
    setPicked(next);
  };

  return (
    <>
      <div class="head"><h1>Publish</h1></div>
      {own.length > 0 && (
        <section class="panel">
          <h2>Your streams</h2>
          <ul class="stack">
            {own.map((stream) => (
              <li class="row" key={stream.id}>
                <a href={paths.own(stream.id)}>{titleOf(stream)}</a>
                <StateChip stream={stream} />
                <span class="muted small">{count(stream.viewers, "viewer")}</span>
              </li>
            ))}
          </ul>
        </section>
      )}
      <div class={own.length > 0 ? "two gap" : "two"}>
        <section class="panel">
          <Choices<Source> legend="What to publish" name="source" value={source} onChange={choose}
            options={SOURCES.map(({ value, label, needs }) => ({ value, label, disabled: !offered.includes(needs) }))} />
          {browser && <CaptureForm key={source} kind={source} capture={capture} onCapture={setCapture} />}
          {source === "rtmp" && (
            <p class="note">After “Go live” this page shows a server address and a stream key for OBS, ffmpeg or any other
              RTMP encoder. The stream is announced when the encoder connects.</p>
          )}
          {source === "test" && <p class="note">The node itself draws a test picture with a clock and a beep.</p>}
          {encodedByNode && (
            <fieldset class="field">
              <legend>What the node encodes</legend>
              {LOWER.map((height) => (
                <Check key={height} label={`Also in ${height}p, for slow links`} value={lower.includes(height)}
                  onChange={(on) => setLower(on ? [...lower, height] : lower.filter((other) => other !== height))} />
              ))}
              <Check label="Lower the rate while the uplink is short" value={adaptive} onChange={setAdaptive} />
            </fieldset>
          )}
        </section>
        <section class="panel">
          <h2>About the stream</h2>
          <div class="field">
            <label for="name">Name <span class="hint">Part of its link. The same name later is the same stream.</span></label>
            <input id="name" type="text" maxLength={128} value={name} required onInput={(e) => setName(e.currentTarget.value)} />
          </div>
          <div class="field">
            <label for="title">Title <span class="hint">What lists show; the name if empty.</span></label>
            <input id="title" type="text" maxLength={256} value={title} onInput={(e) => setTitle(e.currentTarget.value)} />
          </div>
          <div class="field">
            <label for="description">Description</label>
            <textarea id="description" maxLength={1024} value={description} onInput={(e) => setDescription(e.currentTarget.value)} />
          </div>
          <div class="field">
            <label for="tags">Tags <span class="hint">Words, with commas between them.</span></label>
            <input id="tags" type="text" value={tags} onInput={(e) => setTags(e.currentTarget.value)} />
          </div>
          <div class="field">
            <Check label="Preview first: only this machine sees it until you go live" value={preview} onChange={setPreview} />
          </div>
          <div class="field"><Problem text={problem} /></div>
          <div class="field">
            <ActionButton class="live" icon="publish" act={goLive} onError={(error) => setProblem(inWords(error))}>
              {preview ? "Preview" : "Go live"}
            </ActionButton>
          </div>
        </section>
      </div>
    </>
  );
}

function Check(props: { label: string; value: boolean; onChange: (on: boolean) => void }): JSX.Element {
  return (
    <label class="check">
      <input type="checkbox" checked={props.value} onChange={(e) => props.onChange(e.currentTarget.checked)} />
      {props.label}
    </label>
  );
}

/** Addresses of encoders made in this tab: the node gives a key once, to who made the stream. */
const urls = new Map<string, UrlDto>();
function keepUrl(made: UrlDto): void {
  urls.set(made.id, made);
}

function Own({ id }: { id: string }): JSX.Element {
  const stream = streamOf(id);
  const title = stream ? titleOf(stream) : "Your stream";
  useTitle(title);
  const [problem, setProblem] = useState<string | null>(null);
  const report = (error: unknown): void => setProblem(inWords(error));
  const ours = broadcast.value?.id === id ? broadcast.value : null;
  const stop = async (): Promise<void> => {
    await api.end(id);
    if (ours) finish();
    urls.delete(id);
    go(paths.publish);
  };
  if (told.value && !stream && !ours) {
    return (
      <div class="empty">
        <h1>This stream is not published here</h1>
        <p class="muted">It has ended, or another node publishes it.</p>
        <div class="row">
          <a class="button main" href={paths.publish}>Publish a stream</a>
          <a class="button" href={paths.watch(id)}>Try to watch it</a>
        </div>
      </div>
    );
  }
  const paused = stream?.paused ?? false;
  return (
    <>
      <div class="head">
        <h1>{title}</h1>
        {stream && <StateChip stream={stream} />}
      </div>
      <div class="two">
        <div class="stack">
          {ours ? <Preview media={ours.media} /> : <div class="note">This stream is not fed by this page. <a href={paths.watch(id)}>Watch it</a>, or control it here.</div>}
          {stream?.preview && (
            <p class="note">Only this machine sees it: <a href={paths.watch(id)}>look at it</a>, then go live.</p>
          )}
          <div class="row">
            {stream?.preview && (
              <ActionButton class="live" icon="publish" act={() => api.edit(id, { preview: false })} onError={report}>Go live</ActionButton>
            )}
            <ActionButton icon={paused ? "play" : "pause"} act={() => api.edit(id, { paused: !paused })} onError={report}>
              {paused ? "Resume" : "Pause"}
            </ActionButton>
            <ActionButton class="danger" icon="stop" act={stop} onError={report}>Stop</ActionButton>
            <a class="button" href={paths.watch(id)}>Watch as others do</a>
            <a class="button" href={paths.networkOf(id)}>Show in the network</a>
          </div>
          <Problem text={problem} onClose={() => setProblem(null)} />
          {ours?.trouble && <p class="note warn" role="status">{ours.trouble}</p>}
          {stream && <Details stream={stream} onProblem={report} />}
        </div>
        <div class="stack">
          <Gauges id={id} stream={stream} />
          <Encoder id={id} />
          {stream?.link && (
            <section class="panel"><h2>Share</h2><Copyable name="Link, for any other node" text={stream.link} />
              <Copyable name="Watch in a terminal" text={`astral play ${stream.link}`} /></section>
          )}
          <StreamLog id={id} />
        </div>
      </div>
    </>
  );
}

function StateChip({ stream }: { stream: StreamDto }): JSX.Element {
  if (stream.preview) return <span class="chip">Preview</span>;
  if (stream.paused) return <span class="chip paused">Paused</span>;
  return stream.announced ? <span class="chip live">Live</span> : <span class="chip">Waiting for media</span>;
}

function Gauges({ id, stream }: { id: string; stream: StreamDto | null }): JSX.Element {
  const stats = statsOf(id);
  const ours = broadcast.value?.id === id ? broadcast.value : null;
  const uplink = node.value?.uplink;
  const used = uplink ? uplink.promised_bps : 0;
  return (
    <section class="panel" aria-label="Audience and uplink">
      <h2>Audience and uplink</h2>
      <div class="figures">
        <Figure name="viewers and seeders" value={stats?.audience?.viewers ?? stream?.viewers ?? 0} />
        <AudienceFigures stats={stats} />
        <Figure name="fed by this node" value={stats?.children.length ?? 0} />
        <Figure name="bit rate" value={stream?.bitrate_bps ? rate(stream.bitrate_bps) : "–"} />
        {ours && <Figure name="pictures per second" value={ours.figures?.fps ?? "–"} />}
        {ours && <Figure name="pictures not sent" value={ours.figures?.dropped ?? 0} title="The encoder or the node was behind" />}
      </div>
      {uplink && (
        <div class="field">
          <p class="row small"><span class="label">Uplink promised</span><span class="muted">{rate(used)} of {rate(uplink.usable_bps)}</span></p>
          <Meter label="Uplink promised" share={used / Math.max(1, uplink.usable_bps)} text={`${rate(used)} of ${rate(uplink.usable_bps)}`} />
        </div>
      )}
      <p class="field hint">Each node tells its parent who is below it: counts are what nodes say of themselves, five seconds
        older with each hop, and nobody proves them.</p>
    </section>
  );
}

function Encoder({ id }: { id: string }): JSX.Element | null {
  const [, again] = useState(0);
  const [asked, setAsked] = useState(false);
  const url = urls.get(id);
  if (!url && !asked) {
    setAsked(true);
    api.urls(id).then((got) => { keepUrl(got); again(1); }, () => undefined);
  }
  const full = url?.publish_url;
  if (!full) return null;
  const cut = full.lastIndexOf("/");
  return (
    <section class="panel" id="encoder">
      <h2>For OBS or another encoder</h2>
      <Copyable name="Server" text={full.slice(0, cut)} />
      <Copyable name="Stream key" text={full.slice(cut + 1)} secret />
      <p class="field hint">OBS: Settings, Stream, Service “Custom…”, then paste both. Set the keyframe interval to 2 s.</p>
    </section>
  );
}

function Details({ stream, onProblem }: { stream: StreamDto; onProblem: (error: unknown) => void }): JSX.Element {
  const [title, setTitle] = useState(stream.title);
  const [description, setDescription] = useState(stream.description);
  const [saved, setSaved] = useState(false);
  const changed = title !== stream.title || description !== stream.description;
  const save = async (): Promise<void> => {
    await api.edit(stream.id, { title, description });
    setSaved(true);
    setTimeout(() => setSaved(false), 1_600);
  };
  return (
    <section class="panel">
      <h2>What lists show</h2>
      <div class="field">
        <label for="edit-title">Title</label>
        <input id="edit-title" type="text" maxLength={256} value={title} onInput={(e) => setTitle(e.currentTarget.value)} />
      </div>
      <div class="field">
        <label for="edit-description">Description</label>
        <textarea id="edit-description" maxLength={1024} value={description} onInput={(e) => setDescription(e.currentTarget.value)} />
      </div>
      <div class="field row">
        <ActionButton disabled={!changed} act={save} onError={onProblem}>Save</ActionButton>
        <span class="muted" role="status">{saved && "Saved"}</span>
      </div>
    </section>
  );
}
