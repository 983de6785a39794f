// Choosing a camera, a microphone or a screen, with a preview.
//
// Owns permissions, device lists and the capture's quality. Does not own publishing.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Quality } from "../media/publisher";
import { Choices, Problem } from "./parts";

export interface Capture {
  media: MediaStream;
  quality: Quality;
}

type Size = "360p" | "720p" | "1080p";

/** Heights with what H.264 needs for them in real time. */
const SIZES: Record<Size, { width: number; height: number; bps: number }> = {
  "360p": { width: 640, height: 360, bps: 800_000 },
  "720p": { width: 1280, height: 720, bps: 2_500_000 },
  "1080p": { width: 1920, height: 1080, bps: 4_500_000 },
};
const FPS = 30;
const NONE = "none";

export function stopCapture(capture: Capture): void {
  for (const track of capture.media.getTracks()) track.stop();
}

export function CaptureForm(props: {
  kind: "camera" | "screen";
  capture: Capture | null;
  onCapture: (capture: Capture | null) => void;
}): JSX.Element {
  const [devices, setDevices] = useState<MediaDeviceInfo[]>([]);
  const [camera, setCamera] = useState("");
  const [microphone, setMicrophone] = useState("");
  const [size, setSize] = useState<Size>("720p");
  const [problem, setProblem] = useState<string | null>(null);
  const running = useRef<Capture | null>(null);
  const handedOver = useRef(props.capture);
  handedOver.current = props.capture;

  const list = async (): Promise<void> => setDevices(await navigator.mediaDevices.enumerateDevices());
  const open = async (next: { camera: string; microphone: string; size: Size }): Promise<void> => {
    setProblem(null);
    if (running.current) stopCapture(running.current);
    try {
      const media = await (props.kind === "camera" ? openCamera(next) : openScreen(next.size));
      const capture = { media, quality: qualityOf(media, next.size) };
      running.current = capture;
      props.onCapture(capture);
      await list(); // Names are told only after the permission.
    } catch (error) {
      running.current = null;
      props.onCapture(null);
      setProblem(refusalInWords(error, props.kind));
    }
  };
  useEffect(() => {
    if (!navigator.mediaDevices) {
      setProblem("This page may not use cameras. Open it by 127.0.0.1 or localhost: browsers allow capture there only.");
      return;
    }
    void list();
    const renew = (): void => void list();
    navigator.mediaDevices.addEventListener("devicechange", renew);
    return () => {
      navigator.mediaDevices.removeEventListener("devicechange", renew);
      // Going live hands the capture over; leaving the page without that lets go of the camera.
      if (running.current && handedOver.current === running.current) stopCapture(running.current);
    };
  }, []);
  const chosen = { camera, microphone, size };
  const change = (part: Partial<typeof chosen>): void => {
    const next = { ...chosen, ...part };
    setCamera(next.camera);
    setMicrophone(next.microphone);
    setSize(next.size);
    if (running.current) void open(next);
  };
  return (
    <>
      {props.capture ? <Preview media={props.capture.media} /> : (
        <div class="screen"><div class="over">
          <p>{props.kind === "camera" ? "Nothing leaves this computer before you go live." : "You choose a screen or a window in the next step."}</p>
          <button type="button" class="main" onClick={() => void open(chosen)}>
            {props.kind === "camera" ? "Turn the camera on" : "Choose what to share"}
          </button>
        </div></div>
      )}
      <Problem text={problem} />
      {props.kind === "camera" && (
        <div class="pickers">
          <DevicePicker label="Camera" kind="videoinput" devices={devices} value={camera} onChange={(value) => change({ camera: value })} />
          <DevicePicker label="Microphone" kind="audioinput" none devices={devices} value={microphone} onChange={(value) => change({ microphone: value })} />
        </div>
      )}
      <Choices<Size> legend="Quality" name="size" compact value={size} onChange={(value) => change({ size: value })}
        options={(Object.keys(SIZES) as Size[]).map((value) => ({ value, label: `${value}, ${SIZES[value].bps / 1e6} Mbit/s` }))} />
    </>
  );
}

function DevicePicker(props: {
  label: string;
  kind: MediaDeviceKind;
  none?: boolean;
  devices: readonly MediaDeviceInfo[];
  value: string;
  onChange: (value: string) => void;
}): JSX.Element {
  const ours = props.devices.filter((device) => device.kind === props.kind && device.deviceId);
  const id = `pick-${props.kind}`;
  return (
    <div>
      <label for={id}>{props.label}</label>
      <select id={id} value={props.value} onChange={(event) => props.onChange(event.currentTarget.value)}>
        <option value="">Default</option>
        {ours.map((device, i) => <option key={device.deviceId} value={device.deviceId}>{device.label || `${props.label} ${i + 1}`}</option>)}
        {props.none && <option value={NONE}>None</option>}
      </select>
    </div>
  );
}

/** The picture as it is captured, without its sound. */
export function Preview({ media }: { media: MediaStream }): JSX.Element {
  const video = useRef<HTMLVideoElement>(null);
  useEffect(() => {
    if (video.current) video.current.srcObject = media;
  }, [media]);
  return <div class="screen"><video ref={video} autoPlay muted playsInline aria-label="Preview" /></div>;
}

function openCamera(wanted: { camera: string; microphone: string; size: Size }): Promise<MediaStream> {
  const { width, height } = SIZES[wanted.size];
  const exact = (id: string): MediaTrackConstraints => (id ? { deviceId: { exact: id } } : {});
  return navigator.mediaDevices.getUserMedia({
    video: { ...exact(wanted.camera), width: { ideal: width }, height: { ideal: height }, frameRate: { ideal: FPS } },
    audio: wanted.microphone === NONE ? false : exact(wanted.microphone),
  });
}

function openScreen(size: Size): Promise<MediaStream> {
  const { width, height } = SIZES[size];
  return navigator.mediaDevices.getDisplayMedia({
    video: { width: { max: width }, height: { max: height }, frameRate: { max: FPS } },
    audio: true,
  });
}

/** What the track really gives; encoders want even sizes. */
function qualityOf(media: MediaStream, size: Size): Quality {
  const got = media.getVideoTracks()[0]?.getSettings() ?? {};
  const even = (n: number): number => n - (n % 2);
  const wanted = SIZES[size];
  return {
    width: even(got.width ?? wanted.width),
    height: even(got.height ?? wanted.height),
    fps: Math.round(got.frameRate ?? FPS),
    bps: wanted.bps,
  };
}

function refusalInWords(error: unknown, kind: "camera" | "screen"): string {
  switch ((error as DOMException).name) {
    case "NotAllowedError":
      return kind === "camera"
        ? "The browser does not allow it. Allow camera and microphone for this page, then try again."
        : "Nothing was chosen.";
    case "NotFoundError":
      return "No camera or microphone was found. Plug one in, choose “None” for the microphone, or use OBS.";
    case "NotReadableError":
      return "Another program uses the device. Close it, then try again.";
    default:
      return error instanceof Error ? error.message : String(error);
  }
}
