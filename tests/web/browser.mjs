// Starts the system's Chromium and watches each page for what a user would not want to see.
//
// Owns the browser, its flags, and the collection of console errors and policy violations. Does not
// own nodes.

import { existsSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(new URL("../../web/package.json", import.meta.url));
const { chromium } = require("playwright-core");
const { source: axeSource } = require("axe-core");

/** How long a test waits for something that should take a second or two on a quiet machine. */
export const SOON = 60_000;

const BROWSERS = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

export async function launch() {
  const executablePath = process.env.TEST_CHROMIUM ?? BROWSERS.find((path) => existsSync(path));
  if (!executablePath) throw new Error("no Chromium: install the Debian package 'chromium'");
  return chromium.launch({
    executablePath,
    headless: true,
    args: [
      "--no-sandbox", // Root inside CI's container.
      "--use-fake-device-for-media-stream",
      "--use-fake-ui-for-media-stream",
      "--autoplay-policy=no-user-gesture-required",
      "--enable-unsafe-swiftshader", // WebGL without a graphics card.
      "--use-gl=angle",
      "--use-angle=swiftshader",
      "--mute-audio",
    ],
  });
}

/** A page that remembers every error it logged. */
export async function open(browser, url, options = {}) {
  const context = await browser.newContext({
    viewport: { width: 1280, height: 860 },
    permissions: ["camera", "microphone", "clipboard-read", "clipboard-write"],
    ...options,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(SOON);
  const errors = [];
  page.on("console", (message) => {
    if (message.type() === "error") errors.push(`${message.text()} (${message.location().url})`);
  });
  page.on("pageerror", (error) => errors.push(String(error.stack ?? error)));
  await page.goto(url);
  return { page, context, errors };
}

/** Serious and critical faults that axe-core finds. */
export async function faults(page) {
  await page.evaluate(axeSource);
  const { violations } = await page.evaluate(() =>
    globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] }),
  );
  return violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => node.html.slice(0, 120)).join(" | ")}`);
}

/** Runs in the page: what is seen of a picture that moves and is not black; null until it does. */
export function picture() {
  const video = document.querySelector(".screen video");
  if (!video || video.readyState < 2 || video.videoWidth === 0) return null;
  const canvas = document.createElement("canvas");
  canvas.width = 64;
  canvas.height = 36;
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0, 64, 36);
  const { data } = context.getImageData(0, 0, 64, 36);
  let bright = 0;
  for (let i = 0; i < data.length; i += 4) if (data[i] + data[i + 1] + data[i + 2] > 90) bright += 1;
  const share = bright / (64 * 36);
  const seen = (window.seen ??= { from: video.currentTime });
  const advanced = video.currentTime - seen.from;
  return share > 0.2 && advanced > 1 ? { share, advanced, width: video.videoWidth } : null;
}

/** Waits until the picture moves and is not black; answers what was seen. */
export async function playing(page) {
  const video = page.locator(".screen video");
  await video.waitFor();
  const seen = await page.waitForFunction(picture, null, { polling: 250, timeout: SOON });
  return seen.jsonValue();
}
