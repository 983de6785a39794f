// The build: two pages, hashed files, nothing inline, nothing from another host.
//
// The node serves the page under a policy without inline scripts or styles, so no asset may become a
// data: URL and no polyfill may be injected into the HTML.
import { defineConfig } from "vite";

export default defineConfig({
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // mpegts.js and sigma are large and load with the one page that needs each.
    chunkSizeWarningLimit: 600,
    reportCompressedSize: false,
    // The node's own page, and that of a portal.
    rollupOptions: { input: ["index.html", "portal.html"] },
  },
  worker: { format: "es" },
  // `npm run dev` shows the page against a running node.
  server: {
    proxy: Object.fromEntries(
      ["/api", "/live", "/publish"].map((path) => [
        path,
        { target: process.env.ASTRAL_NODE ?? "http://127.0.0.1:8000", ws: true },
      ]),
    ),
  },
});
