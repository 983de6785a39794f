// Light or dark: what the system says unless the user chose.

import { signal } from "@preact/signals";

export type Theme = "auto" | "light" | "dark";

const KEY = "astral.theme";
const system = matchMedia("(prefers-color-scheme: dark)");

function kept(): Theme {
  try {
    const value = localStorage.getItem(KEY);
    return value === "light" || value === "dark" ? value : "auto";
  } catch {
    return "auto";
  }
}

export const theme = signal<Theme>(kept());
/** Whether dark colours are shown now, for what draws on a canvas. */
export const dark = signal(system.matches);

export function applyTheme(): void {
  const apply = (): void => {
    const value = theme.peek();
    if (value === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = value;
    dark.value = value === "auto" ? system.matches : value === "dark";
  };
  system.addEventListener("change", apply);
  theme.subscribe((value) => {
    apply();
    try {
      if (value === "auto") localStorage.removeItem(KEY);
      else localStorage.setItem(KEY, value);
    } catch {
      // Storage is switched off: the choice holds for this page.
    }
  });
}
