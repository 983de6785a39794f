// A stream's picture on its card.
//
// Owns fetching it with the token while the card is on the screen. Does not own the card.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { api } from "../api/client";
import type { StreamDto } from "../api/types";
import { Constellation } from "./parts";

/** How often a visible card asks for a newer picture. */
const RENEW_MS = 10_000;

export function Thumbnail({ stream }: { stream: StreamDto }): JSX.Element {
  const host = useRef<HTMLDivElement>(null);
  const [url, setUrl] = useState<string | null>(null);
  const path = stream.thumbnail ?? null;
  useEffect(() => {
    if (!path || !host.current) return;
    const abort = new AbortController();
    let shown: string | null = null;
    let visible = false;
    const load = async (): Promise<void> => {
      if (!visible || document.hidden) return;
      try {
        const picture = await (await api.media(path, abort.signal)).blob();
        // Nobody gives one at the moment.
        if (picture.size === 0) return;
        const next = URL.createObjectURL(picture);
        if (shown) URL.revokeObjectURL(shown);
        shown = next;
        setUrl(next);
      } catch {
        // No picture yet: the constellation stays.
      }
    };
    const sight = new IntersectionObserver(([entry]) => {
      visible = entry?.isIntersecting ?? false;
      if (visible && !shown) void load();
    });
    sight.observe(host.current);
    const timer = setInterval(() => void load(), RENEW_MS);
    return () => {
      abort.abort();
      sight.disconnect();
      clearInterval(timer);
      if (shown) URL.revokeObjectURL(shown);
    };
  }, [path]);
  return (
    <div class="sight" ref={host}>
      {url ? <img src={url} alt="" /> : <Constellation id={stream.id} />}
    </div>
  );
}
