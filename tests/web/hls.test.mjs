// Chromium over a long time: HLS of a node that only forwards, played by hls.js without a stall and close to
// live, and the page across a change of rendition.
//
// For `make test-long`: SECONDS=60 of real time, which a loaded machine can't promise to be smooth.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { test } from "node:test";
import { launch, open, playing, SOON } from "./browser.mjs";
import { Network } from "./node.mjs";

const require = createRequire(new URL("../../web/package.json", import.meta.url));
const HLS = readFileSync(require.resolve("hls.js/dist/hls.min.js"), "utf8");
const SECONDS = Number(process.env.SECONDS ?? 60);

test(`hls.js plays for ${SECONDS} s without a stall, low latency and plain`, { timeout: 4 * SOON + 2_000 * SECONDS }, async () => {
  const network = await Network.found();
  const browser = await launch();
  try {
    const source = await network.publish("hls", ["--fps", "25"]);
    const seeder = await network.join("seeder", ["seed", source.ready.stream]);
    await seeder.wait("playing");
    // A page of the node itself may read with the token; its policy allows no foreign script.
    const context = await browser.newContext({ bypassCSP: true });
    const page = await context.newPage();
    await page.goto(`${seeder.ready.api}/healthz`);
    await page.evaluate(HLS);
    const token = readFileSync(seeder.ready.token_file, "utf8").trim();
    for (const lowLatencyMode of [true, false]) {
      const seen = await page.evaluate(play, { url: seeder.ready.media.hls, token, lowLatencyMode, seconds: SECONDS });
      console.log(`hls.js, low latency ${lowLatencyMode}:`, JSON.stringify(seen));
      assert.deepEqual(seen.errors, [], "no error, a stall included");
      assert.ok(seen.played >= SECONDS - 0.5, `${seen.played} s of ${SECONDS} s were played`);
      // Far fewer than the source has, on a machine that is busy with other things.
      assert.ok(seen.frames >= 5 * SECONDS, `${seen.frames} pictures`);
    }
  } finally {
    await browser.close();
    await network.close();
  }
});

test("the page plays on when the smaller picture takes over", { timeout: 6 * SOON }, async () => {
  const network = await Network.found();
  const browser = await launch();
  try {
    const picture = ["--test", "--size", "640x360", "--fps", "15", "--bitrate", "1Mbit", "--rendition", "240p"];
    const source = await network.join("source", ["publish", "ladder", ...picture, "--uplink", "20Mbit"]);
    const viewer = await network.join("viewer", ["run", "--max-copies", "0"]);
    const { page, errors } = await open(browser, viewer.web);
    await page.locator(".card", { hasText: "ladder" }).getByRole("link").click();
    console.log("before:", JSON.stringify(await playing(page)));
    // Room for two of the full picture's four stripes, and for all of the small one.
    const token = readFileSync(source.ready.token_file, "utf8").trim();
    const told = await fetch(`${source.ready.api}/api/v1/settings`, {
      method: "PATCH",
      headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
      body: JSON.stringify({ uplink: "800kbit" }),
    });
    assert.equal(told.status, 200);
    await page.waitForFunction(() => document.querySelector(".screen video")?.videoWidth === 426, null, { timeout: 2 * SOON });
    await page.locator(".chip", { hasText: "240p" }).waitFor();
    await page.evaluate(() => (window.seen = undefined));
    console.log("after:", JSON.stringify(await playing(page)));
    assert.deepEqual(errors, [], "nothing in the console");
  } finally {
    await browser.close();
    await network.close();
  }
});

/** Runs in the page: plays from the first picture on, and counts. */
async function play({ url, token, lowLatencyMode, seconds }) {
  const video = document.createElement("video");
  video.muted = true;
  document.documentElement.replaceChildren(document.createElement("body"));
  document.body.append(video);
  const hls = new globalThis.Hls({
    lowLatencyMode,
    xhrSetup: (xhr) => xhr.setRequestHeader("Authorization", `Bearer ${token}`),
  });
  const errors = [];
  hls.on(globalThis.Hls.Events.ERROR, (_, data) => errors.push(`${data.details}${data.fatal ? " (fatal)" : ""}`));
  hls.loadSource(url);
  hls.attachMedia(video);
  const begun = performance.now();
  await video.play();
  await new Promise((done) => video.requestVideoFrameCallback(done));
  const first = performance.now();
  let waits = 0;
  video.addEventListener("waiting", () => (waits += 1));
  const from = video.currentTime;
  const frames = video.getVideoPlaybackQuality().totalVideoFrames;
  await new Promise((done) => setTimeout(done, seconds * 1_000));
  const quality = video.getVideoPlaybackQuality();
  const seen = {
    firstFrameMs: Math.round(first - begun),
    played: video.currentTime - from,
    frames: quality.totalVideoFrames - frames,
    dropped: quality.droppedVideoFrames,
    latency: hls.latency,
    waits,
    errors,
  };
  hls.destroy();
  return seen;
}
