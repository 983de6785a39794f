// Watch: one stream in the page, with what the node does for it.
//
// Owns the picture's frame, its controls and the panel beside it. Does not own loading media (see
// media/player) nor figures (see ui/stats).

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { api, inWords } from "../api/client";
import type { StreamDto } from "../api/types";
import { codec, count, lines, rate, shortId, size } from "../format";
import { missing } from "../media/codecs";
import { Player, type Lag, type PlayerState } from "../media/player";
import { Recorder, save } from "../media/recorder";
import { go, paths } from "../route";
import { titleOf } from "../state/browse";
import { node, onEvent, streamOf, told } from "../state/store";
import { Icon } from "../ui/icons";
import { ActionButton, Choices, Copyable, Problem, useTitle } from "../ui/parts";
import { StreamLog, StreamStats } from "../ui/stats";

const LAGS: readonly { value: Lag; label: string }[] = [
  { value: "low", label: "Low, 0.5 s" },
  { value: "normal", label: "Normal, 1.5 s" },
  { value: "safe", label: "Safe, 3 s" },
];
const LAG_KEY = "astral.lag";

function keptLag(): Lag {
  const kept = sessionStorage.getItem(LAG_KEY);
  return kept === "low" || kept === "safe" ? kept : "normal";
}

export function Watch({ id }: { id: string }): JSX.Element {
  const isId = /^[0-9a-f]{64}$/i.test(id);
  return isId ? <WatchStream id={id.toLowerCase()} /> : <Resolve link={id} />;
}

/** A link in the address: asks the node which stream it names. */
function Resolve({ link }: { link: string }): JSX.Element {
  const [problem, setProblem] = useState<string | null>(null);
  useEffect(() => {
    api.watch(link).then(({ id }) => go(paths.watch(id)), (error: unknown) => setProblem(inWords(error)));
  }, [link]);
  return problem ? <Problem text={problem} /> : <p class="muted" role="status">Looking for the stream …</p>;
}

function WatchStream({ id }: { id: string }): JSX.Element {
  const stream = streamOf(id);
  const title = stream ? titleOf(stream) : `Stream ${shortId(id)}`;
  useTitle(title);
  const [lag, setLag] = useState<Lag>(keptLag);
  const [player, setPlayer] = useState<Player | null>(null);
  const chooseLag = (next: Lag): void => {
    setLag(next);
    sessionStorage.setItem(LAG_KEY, next);
    player?.setLag(next);
  };
  return (
    <div class="two">
      <div>
        <Screen id={id} stream={stream} lag={lag} onPlayer={setPlayer} />
        <div class="about-stream">
          <h1>{title}</h1>
          <p class="row tight">
            {stream?.paused ? <span class="chip paused">Paused</span> : stream?.announced ? <span class="chip live">Live</span> : null}
            {stream?.rendition && <span class="chip warn" title="The full stream does not come in time; it is tried again by itself">{stream.rendition}p</span>}
            {stream && stream.viewers > 0 && <span class="chip">{count(stream.viewers, "viewer")}</span>}
            {stream && lines(stream.height) && <span class="chip">{stream.width} × {stream.height}</span>}
            {stream && stream.bitrate_bps > 0 && <span class="chip">{rate(stream.bitrate_bps)}</span>}
            {stream?.codecs.map((name) => <span class="chip" key={name}>{codec(name)}</span>)}
            {stream?.tags.map((tag) => <span class="chip" key={`#${tag}`}>#{tag}</span>)}
          </p>
          <Actions id={id} stream={stream} title={title} />
          {stream?.description && <p class="said">{stream.description}</p>}
          {told.value && !stream && (
            <p class="note">The directory does not know this stream at the moment. It plays as soon as somebody who has it is found.</p>
          )}
        </div>
      </div>
      <div class="stack">
        <section class="panel">
          <Choices<Lag> legend="Lag behind live" name="lag" compact value={lag} options={LAGS} onChange={chooseLag} />
          <p class="field hint">More lag forgives more: slow links and dying forwarders stay unseen.</p>
        </section>
        <StreamStats id={id} buffered={() => player?.buffered() ?? null} />
        <Elsewhere id={id} stream={stream} title={title} />
        <StreamLog id={id} />
      </div>
    </div>
  );
}

function Screen(props: {
  id: string;
  stream: StreamDto | null;
  lag: Lag;
  onPlayer: (player: Player | null) => void;
}): JSX.Element {
  const video = useRef<HTMLVideoElement>(null);
  const [state, setState] = useState<PlayerState>({ state: "loading" });
  const [muted, setMuted] = useState(false);
  const lacking = props.stream ? missing(props.stream.codecs) : [];
  const cannot = lacking.length > 0;
  useEffect(() => {
    if (!video.current || cannot) return;
    const player = new Player(video.current, props.id, props.lag, {
      onState: setState,
      onMuted: () => setMuted(true),
    });
    props.onPlayer(player);
    return () => {
      props.onPlayer(null);
      player.close();
    };
    // The lag changes inside the running player.
  }, [props.id, cannot]);
  const unmute = (): void => {
    if (video.current) video.current.muted = false;
    setMuted(false);
  };
  return (
    <div class="screen" data-state={state.state}>
      <video ref={video} controls={state.state === "playing"} playsInline aria-label="Live picture" />
      {muted && (
        <button type="button" class="unmute" onClick={unmute}><Icon name="sound" />Unmute</button>
      )}
      <Over state={cannot ? { state: "unsupported", codec: lacking.join(" and ") } : state} paused={props.stream?.paused ?? false} />
    </div>
  );
}

function Over({ state, paused }: { state: PlayerState; paused: boolean }): JSX.Element {
  return (
    <div role="status">
      {state.state === "playing" ? null
        : paused ? <div class="over"><p>The source has paused. The picture comes back by itself.</p></div>
        : state.state === "loading" ? <div class="over"><div class="spin" aria-hidden="true" /><p>Finding parents for each stripe …</p></div>
        : state.state === "waiting" ? <div class="over"><div class="spin" aria-hidden="true" /><p>{state.why} Trying again …</p></div>
        : state.state === "ended" ? <div class="over"><p>The stream has ended. If it comes back, it plays here again.</p></div>
        : (
          <div class="over">
            <p><strong>This browser can't play {state.codec}.</strong></p>
            <p>Another player can: open the stream in VLC or mpv with the addresses on this page.</p>
          </div>
        )}
    </div>
  );
}

function Actions({ id, stream, title }: { id: string; stream: StreamDto | null; title: string }): JSX.Element {
  const [problem, setProblem] = useState<string | null>(null);
  const [said, setSaid] = useState<string | null>(null);
  const seeding = stream?.role === "seeding";
  const report = (error: unknown): void => setProblem(inWords(error));
  return (
    <>
      <div class="row actions">
        <ShareButton stream={stream} title={title} />
        <ActionButton icon="seed" pressed={seeding} onError={report}
          act={() => (seeding ? api.unseed(id) : api.seed(id))}>
          {seeding ? "Seeding" : "Seed"}
        </ActionButton>
        {node.value?.records ? <NodeRecording id={id} stream={stream} onSaid={setSaid} onProblem={report} />
          : <RecordButton id={id} title={title} onProblem={setProblem} />}
        <a class="button" href={paths.networkOf(id)}><Icon name="network" />Show in the network</a>
      </div>
      <p class="small" role="status">{said}</p>
      <Problem text={problem} onClose={() => setProblem(null)} />
    </>
  );
}

/** The node records, so that closing the page ends nothing. */
function NodeRecording(props: {
  id: string;
  stream: StreamDto | null;
  onSaid: (text: string) => void;
  onProblem: (error: unknown) => void;
}): JSX.Element {
  const { id } = props;
  const running = props.stream?.recording ?? null;
  useEffect(() => onEvent((event) => {
    if (event.stream !== id) return;
    if (event.event === "recorded" && Array.isArray(event.files)) {
      props.onSaid(event.files.length > 0 ? `Recorded: ${event.files.join(", ")}` : "Recorded nothing: no picture came.");
    }
    if (event.event === "recording_failed") props.onProblem(`The recording broke off: ${String(event.message)}`);
  }), [id]);
  const toggle = async (): Promise<void> => {
    if (running) await api.stopRecording(id);
    else props.onSaid(`Recording into ${(await api.record(id)).folder} on the node's machine.`);
  };
  return (
    <ActionButton icon={running ? "stop" : "record"} pressed={running !== null} act={toggle} onError={props.onProblem}>
      {running ? `Stop recording, ${size(running.bytes)}` : "Record"}
    </ActionButton>
  );
}

function ShareButton({ stream, title }: { stream: StreamDto | null; title: string }): JSX.Element {
  const [said, setSaid] = useState("");
  const link = stream?.link ?? null;
  const share = async (): Promise<void> => {
    if (!link) return;
    try {
      if ("share" in navigator && /Mobi|Android/.test(navigator.userAgent)) await navigator.share({ title, text: link });
      else {
        await navigator.clipboard.writeText(link);
        setSaid("Link copied");
        setTimeout(() => setSaid(""), 1_600);
      }
    } catch {
      setSaid("The link is below, under “In another player”");
    }
  };
  return (
    <button type="button" disabled={!link} onClick={() => void share()}>
      <Icon name="share" /><span aria-live="polite">{said || "Share"}</span>
    </button>
  );
}

/** The page records, for a node without a folder of its own. */
function RecordButton(props: { id: string; title: string; onProblem: (text: string | null) => void }): JSX.Element {
  const [recorder, setRecorder] = useState<Recorder | null>(null);
  const [bytes, setBytes] = useState(0);
  const live = useRef<Recorder | null>(null);
  useEffect(() => () => live.current?.stop(), []);
  const toggle = async (): Promise<void> => {
    if (recorder) {
      recorder.stop();
      return;
    }
    setBytes(0);
    live.current = await Recorder.start(props.id, props.title, {
      onBytes: setBytes,
      onEnd: (why) => {
        setRecorder(null);
        live.current = null;
        if (why) props.onProblem(why);
      },
    });
    setRecorder(live.current);
  };
  return (
    <button type="button" aria-pressed={recorder !== null} onClick={() => void toggle()}>
      <Icon name={recorder ? "stop" : "record"} />{recorder ? `Stop recording, ${size(bytes)}` : "Record"}
    </button>
  );
}

/** The same stream outside of this page. */
function Elsewhere({ id, stream, title }: { id: string; stream: StreamDto | null; title: string }): JSX.Element {
  const url = stream?.http_flv ?? `${location.origin}/live/${id}.flv`;
  const playlist = (): void => {
    const text = `#EXTM3U\n#EXTINF:-1,${title.replace(/[\r\n]/g, " ")}\n${url}\n`;
    save(new Blob([text], { type: "audio/x-mpegurl" }), "astral.m3u");
  };
  return (
    <section class="panel">
      <div class="row">
        <h2>In another player</h2>
        <button type="button" class="plain" onClick={playlist}><Icon name="open" />Open in VLC or mpv</button>
      </div>
      {stream?.link && <Copyable name="Link, for any other node" text={stream.link} />}
      <Copyable name="mpv" text={`mpv ${url}`} />
      <Copyable name="VLC" text={`vlc ${url}`} />
      {stream?.hls && <Copyable name="HLS, for Safari and phones" text={stream.hls} />}
    </section>
  );
}
