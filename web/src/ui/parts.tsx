// Small parts that several pages are made of.
//
// Owns their markup and accessibility. Does not own data.

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { hue, shortId } from "../format";
import { Icon, type IconName } from "./icons";

/** Copies a text, and says that it did. */
export function CopyButton({ text, label, what }: { text: string; label?: string; what: string }): JSX.Element {
  const [copied, setCopied] = useState(false);
  const copy = async (): Promise<void> => {
    await copyText(text);
    setCopied(true);
    setTimeout(() => setCopied(false), 1_600);
  };
  return (
    <button type="button" class="plain" onClick={() => void copy()} aria-label={`Copy ${what}`}>
      <Icon name={copied ? "check" : "copy"} />
      <span aria-live="polite">{copied ? "Copied" : (label ?? "Copy")}</span>
    </button>
  );
}

/** The clipboard, or, where the page may not use it, the old way. */
async function copyText(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

/** A text to take along, with its name above. */
export function Copyable({ name, text, secret }: { name: string; text: string; secret?: boolean }): JSX.Element {
  const [shown, setShown] = useState(!secret);
  return (
    <div class="copyable">
      <div class="label">{name}</div>
      <div class="copy">
        <code title={shown ? text : undefined}>{shown ? text : "•".repeat(16)}</code>
        {secret && (
          <button type="button" class="plain" aria-pressed={shown} onClick={() => setShown(!shown)}>
            {shown ? "Hide" : "Show"}<span class="unseen"> {name}</span>
          </button>
        )}
        <CopyButton text={text} what={name} />
      </div>
    </div>
  );
}

/** One figure: its value large, its name below. */
export function Figure({ name, value, title }: { name: string; value: ComponentChildren; title?: string }): JSX.Element {
  return (
    <div class="figure" title={title}>
      <span class="value">{value}</span>
      <span class="name">{name}</span>
    </div>
  );
}

/** A share of a whole, 0 to 1. */
export function Meter({ label, share, text }: { label: string; share: number; text: string }): JSX.Element {
  const part = Math.max(0, Math.min(1, Number.isFinite(share) ? share : 0));
  return (
    <div class={part > 0.9 ? "meter full" : "meter"} role="meter" aria-label={label} aria-valuemin={0}
      aria-valuemax={100} aria-valuenow={Math.round(part * 100)} aria-valuetext={text}>
      <svg viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true">
        <rect width={part * 100} height="1" />
      </svg>
    </div>
  );
}

/** The last minute of a number as a line. Values of null are gaps. */
export function Spark({ values, label, top }: { values: readonly (number | null)[]; label: string; top: number }): JSX.Element {
  const most = Math.max(top, ...values.map((value) => value ?? 0));
  const step = 100 / Math.max(1, values.length - 1);
  let path = "";
  let pen = false;
  values.forEach((value, i) => {
    if (value === null) {
      pen = false;
      return;
    }
    path += `${pen ? "L" : "M"}${(i * step).toFixed(2)} ${(38 - (value / most) * 34).toFixed(2)}`;
    pen = true;
  });
  return (
    <svg class="spark" viewBox="0 0 100 40" preserveAspectRatio="none" role="img" aria-label={label}>
      <path d="M0 39.500H100" stroke="var(--line)" vector-effect="non-scaling-stroke" />
      <path d={path} fill="none" stroke="currentColor" stroke-width="1.8" vector-effect="non-scaling-stroke"
        stroke-linejoin="round" />
    </svg>
  );
}

/** A node by the beginning of its id and its own colour. */
export function NodeName({ id, me }: { id: string; me?: boolean | undefined }): JSX.Element {
  return (
    <span class="row tight" title={id}>
      <svg width="10" height="10" viewBox="0 0 10 10" aria-hidden="true">
        <circle cx="5" cy="5" r="5" fill={`hsl(${hue(id)} 60% 55%)`} />
      </svg>
      <span class="mono">{me ? "this node" : shortId(id)}</span>
    </span>
  );
}

/** A picture for what has none: a constellation that belongs to the id. */
export function Constellation({ id }: { id: string }): JSX.Element {
  const byte = (i: number): number => parseInt(id.slice(2 * i, 2 * i + 2) || "80", 16);
  const h = hue(id);
  const stars = Array.from({ length: 7 }, (_, i) => ({
    x: 22 + (byte(2 + 2 * i) / 255) * 276,
    y: 20 + (byte(3 + 2 * i) / 255) * 130,
    r: 1.6 + (byte(16 + i) / 255) * 2.6,
  })).sort((a, b) => a.x - b.x);
  const path = stars.map(({ x, y }, i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  return (
    <svg viewBox="0 0 320 180" preserveAspectRatio="xMidYMid slice" aria-hidden="true">
      <rect width="320" height="180" fill={`hsl(${h} 38% 12%)`} />
      <circle cx={40 + (byte(1) / 255) * 240} cy="190" r="120" fill={`hsl(${(h + 30) % 360} 55% 22%)`} opacity="0.5" />
      <path d={path} fill="none" stroke={`hsl(${h} 60% 72%)`} stroke-opacity="0.45" stroke-width="1.2" />
      {stars.map(({ x, y, r }, i) => <circle key={i} cx={x} cy={y} r={r} fill={`hsl(${h} 80% 88%)`} />)}
    </svg>
  );
}

/** A button that works for a while and says what went wrong. */
export function ActionButton(props: {
  children: ComponentChildren;
  icon?: IconName;
  class?: string;
  pressed?: boolean;
  disabled?: boolean;
  act: () => Promise<unknown>;
  onError: (error: unknown) => void;
}): JSX.Element {
  const [busy, setBusy] = useState(false);
  const alive = useRef(true);
  useEffect(() => () => void (alive.current = false), []);
  const act = async (): Promise<void> => {
    setBusy(true);
    try {
      await props.act();
    } catch (error) {
      props.onError(error);
    } finally {
      if (alive.current) setBusy(false);
    }
  };
  return (
    <button type="button" class={props.class} disabled={busy || props.disabled === true} aria-busy={busy}
      {...(props.pressed === undefined ? {} : { "aria-pressed": props.pressed })} onClick={() => void act()}>
      {props.icon && <Icon name={props.icon} />}
      {props.children}
    </button>
  );
}

/** One choice of few. */
export function Choices<T extends string>(props: {
  legend: string;
  name: string;
  value: T;
  options: readonly { value: T; label: string; disabled?: boolean }[];
  onChange: (value: T) => void;
  compact?: boolean;
  hideLegend?: boolean;
}): JSX.Element {
  return (
    <fieldset class={props.compact ? "choices compact" : "choices"}>
      <legend class={props.hideLegend ? "unseen" : undefined}>{props.legend}</legend>
      {props.options.map(({ value, label, disabled }) => (
        <label key={value}>
          <input type="radio" name={props.name} value={value} checked={props.value === value}
            disabled={disabled === true} onChange={() => props.onChange(value)} />
          {label}
        </label>
      ))}
    </fieldset>
  );
}

/** What went wrong, announced at once. */
export function Problem({ text, onClose }: { text: string | null; onClose?: () => void }): JSX.Element {
  return (
    <div role="alert">
      {text && (
        <div class="note bad row">
          <span>{text}</span>
          {onClose && <button type="button" class="plain" onClick={onClose}>Dismiss</button>}
        </div>
      )}
    </div>
  );
}

/** The time, renewed each second: for ages and clocks. */
export function useNow(everyMs = 1_000): number {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
  return now;
}

/** A page's title in the tab. */
export function useTitle(title: string): void {
  useEffect(() => {
    document.title = title === "Astral" ? title : `${title} · Astral`;
  }, [title]);
}
