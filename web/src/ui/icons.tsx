// The page's own icons, drawn on a 20 x 20 grid with one stroke width.
//
// Owns shapes only. An icon never carries meaning alone: text stands beside it or labels its button.

import type { JSX } from "preact";

const shapes = {
  browse: <><rect x="2.5" y="3.5" width="6" height="5.5" rx="1.2" /><rect x="11.5" y="3.5" width="6" height="5.5" rx="1.2" /><rect x="2.5" y="11.5" width="6" height="5" rx="1.2" /><rect x="11.5" y="11.5" width="6" height="5" rx="1.2" /></>,
  publish: <><circle cx="10" cy="10" r="2.2" /><path d="M5.8 5.8a6 6 0 0 0 0 8.4M14.2 5.8a6 6 0 0 1 0 8.4M3.2 3.2a9.6 9.6 0 0 0 0 13.6M16.8 3.2a9.6 9.6 0 0 1 0 13.6" /></>,
  network: <><circle cx="10" cy="4.2" r="2" /><circle cx="4.2" cy="15" r="2" /><circle cx="15.8" cy="15" r="2" /><path d="M9 6 5.2 13.2M11 6l3.8 7.2M6.2 15h7.6" /></>,
  node: <><rect x="3" y="3" width="14" height="6" rx="1.5" /><rect x="3" y="11" width="14" height="6" rx="1.5" /><path d="M6 6h.01M6 14h.01M10 6h4M10 14h4" /></>,
  about: <><circle cx="10" cy="10" r="7.5" /><path d="M10 9.2V14M10 6.2h.01" /></>,
  copy: <><rect x="7" y="7" width="10" height="10" rx="2" /><path d="M13 7V5a2 2 0 0 0-2-2H5a2 2 0 0 0-2 2v6a2 2 0 0 0 2 2h2" /></>,
  check: <path d="m4 10.5 4 4 8-9" />,
  share: <><path d="M8 6H5a2 2 0 0 0-2 2v7a2 2 0 0 0 2 2h10a2 2 0 0 0 2-2V8a2 2 0 0 0-2-2h-3" /><path d="M10 12V2.8M7 5.5l3-3 3 3" /></>,
  seed: <><path d="M10 17V9" /><path d="M10 9C10 5 7 3.5 3 3.5 3 7.5 5 9 10 9ZM10 12c0-3 2.5-4.5 7-4.5 0 3.5-2.5 4.5-7 4.500Z" /></>,
  record: <><circle cx="10" cy="10" r="7.5" /><circle cx="10" cy="10" r="3" fill="currentColor" /></>,
  stop: <rect x="5" y="5" width="10" height="10" rx="1.5" />,
  pause: <path d="M7 4.500v11M13 4.500v11" />,
  play: <path d="M6 4v12l10-6Z" />,
  sound: <><path d="M3 8v4h3l4 3.500v-11L6 8Z" /><path d="M13 7.500a3.5 3.5 0 0 1 0 5M15.2 5a7 7 0 0 1 0 10" /></>,
  open: <><path d="M8 4H5a2 2 0 0 0-2 2v9a2 2 0 0 0 2 2h9a2 2 0 0 0 2-2v-3" /><path d="M11.5 3H17v5.500M17 3l-8 8" /></>,
  plus: <path d="M10 4v12M4 10h12" />,
  minus: <path d="M4 10h12" />,
  fit: <path d="M3 7V3h4M13 3h4v4M17 13v4h-4M7 17H3v-4" />,
  theme: <><circle cx="10" cy="10" r="7" /><path d="M10 3a7 7 0 0 1 0 14Z" fill="currentColor" /></>,
} satisfies Record<string, JSX.Element>;

export type IconName = keyof typeof shapes;

export function Icon({ name }: { name: IconName }): JSX.Element {
  return (
    <svg viewBox="0 0 20 20" width="18" height="18" fill="none" stroke="currentColor" stroke-width="1.6"
      stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">
      {shapes[name]}
    </svg>
  );
}
