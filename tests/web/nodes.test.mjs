// The page of real nodes, in a real browser, as a person uses it.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { faults, launch, open, playing, SOON } from "./browser.mjs";
import { Network, Node } from "./node.mjs";

let browser;
let network;
before(async () => {
  browser = await launch();
  network = await Network.found();
});
after(async () => {
  await browser?.close();
  await network?.close();
});

/** Pages closed and errors looked at, whatever the test found. */
async function visit(node, look, allowed = () => false) {
  const { page, context, errors } = await open(browser, node.web ?? node);
  try {
    await look(page);
    assert.deepEqual(errors.filter((error) => !allowed(error)), [], "nothing in the console");
  } finally {
    await context.close();
  }
}

/** What a node offers as sources of a new stream. */
async function sources(node) {
  return (await (await fetch(`${node.ready.api}/api/v1/node`)).json()).sources;
}

/** The card of a stream on Browse. */
const card = (page, title) => page.locator(".card", { has: page.getByRole("heading", { name: title, exact: true }) });

test("the one-time link opens the page once; then the browser is known", { timeout: 4 * SOON }, async () => {
  const node = await network.join("newcomer", ["run"]);
  await visit(node, async (page) => {
    await page.getByRole("heading", { name: "Live now" }).waitFor();
    await page.getByText(/\d+ nodes? connected/).waitFor();
    assert.doesNotMatch(page.url(), /code=/, "the code is in no history");
    await page.reload();
    await page.getByText(/\d+ nodes? connected/).waitFor();
  });
  await visit(node, async (page) => {
    await page.getByRole("heading", { name: "Pair this browser with your node" }).waitFor();
    await page.getByRole("alert").filter({ hasText: /link/i }).first().waitFor();
  }, (error) => error.includes("401"));
  await node.kill();
});

test("a stream of another node is found, watched, paused, and plays on when its parent is killed", { timeout: 8 * SOON }, async () => {
  const source = await network.publish("garden", ["--title", "The garden", "--stripes", "2", "--uplink", "700kbit"]);
  const link = source.ready.stream;
  const seeders = [];
  for (const n of [1, 2]) {
    const seeder = await network.join(`seeder ${n}`, ["seed", link, "--uplink", "5Mbit"]);
    await seeder.wait("playing");
    seeders.push(seeder);
  }
  const viewer = await network.join("viewer", ["run"]);
  await visit(viewer, async (page) => {
    await card(page, "The garden").getByRole("link").click();
    const seen = await playing(page);
    assert.equal(seen.width, 320);

    await page.locator(".lane:not(.none)").nth(1).waitFor();
    const verified = page.locator(".figure", { hasText: "verified chunks" }).locator(".value");
    await page.waitForFunction((figure) => Number(figure.textContent.replace(/\D/g, "")) > 10, await verified.elementHandle());

    // The source can feed one node: this one is fed by a seeder, which dies. The picture moves on.
    const parents = () => page.locator(".lane .who [title]").evaluateAll((all) => all.map((who) => who.title));
    const fed = await parents();
    const victim = seeders.find((seeder) => fed.includes(seeder.id));
    assert.ok(victim, `parents ${fed}, seeders ${seeders.map((seeder) => seeder.id)}`);
    await victim.kill();
    await page.waitForFunction((id) => {
      const now = [...document.querySelectorAll(".lane .who [title]")].map((who) => who.title);
      return now.length === 2 && !now.includes(id);
    }, victim.id);
    const { advanced } = await page.evaluate(() => (window.seen = undefined)).then(() => playing(page));
    assert.ok(advanced > 1);
    assert.deepEqual(await faults(page), []);
  });
  await Promise.all([viewer, source, ...seeders].map((node) => node.kill()));
});

test("what another program publishes appears and goes, in lists and in the graph", { timeout: 6 * SOON }, async () => {
  const node = await network.join("onlooker", ["run"]);
  await visit(node, async (page) => {
    await page.getByText(/\d+ nodes? connected/).waitFor();
    await page.getByRole("link", { name: "Network" }).click();
    await page.locator("#nodes tbody tr").nth(1).waitFor();
    const source = await network.publish("comet");
    const option = page.locator("#filter option", { hasText: "comet" });
    await option.waitFor({ state: "attached" });
    await page.locator("#filter").selectOption({ label: "comet" });
    await page.waitForFunction(() => Number(document.querySelector(".canvas")?.dataset.lines) >= 1);
    await source.kill("SIGTERM");
    await page.getByRole("link", { name: "Browse" }).click();
    await card(page, "comet").waitFor({ state: "detached" });
  });
  await node.kill();
});

test("a stream is shared, opened elsewhere, played with another lag and recorded by the node, which examines itself", { timeout: 8 * SOON }, async () => {
  const folder = mkdtempSync(join(tmpdir(), "astral-web-films-"));
  const source = await network.publish("pond");
  const node = await network.join("keeper", ["run", "--recordings", folder]);
  try {
    await visit(node, async (page) => {
      await card(page, "pond").getByRole("link").click();
      await playing(page);
      await page.getByRole("button", { name: "Share" }).click();
      await page.getByText("Link copied").waitFor();
      assert.equal(await page.evaluate(() => navigator.clipboard.readText()), source.ready.stream);
      const [list] = await Promise.all([
        page.waitForEvent("download"),
        page.getByRole("button", { name: "Open in VLC or mpv" }).click(),
      ]);
      assert.match(readFileSync(await list.path(), "utf8"), /^#EXTM3U\n.*\nhttp:.*\.flv\n$/);
      await page.getByRole("radio", { name: /Safe/ }).check({ force: true });
      await page.evaluate(() => (window.seen = undefined));
      await playing(page);

      await page.getByRole("button", { name: "Record" }).click();
      // Not before bytes were counted: what began is written.
      await page.getByRole("button", { name: /^Stop recording, [1-9]/ }).click();
      const said = page.getByText(/^Recorded: /);
      await said.waitFor();
      const file = (await said.textContent()).replace("Recorded: ", "");
      assert.ok(file.startsWith(folder), file);
      const decoded = spawnSync("ffmpeg", ["-v", "error", "-i", file, "-f", "null", "-"]);
      assert.equal(decoded.status, 0, String(decoded.stderr));

      await page.getByRole("link", { name: "Node", exact: true }).click();
      await page.getByRole("button", { name: "Examine this node" }).click();
      await page.getByText(/supernodes in reach/).waitFor();
      await page.getByRole("button", { name: "Show the last lines" }).click();
      await page.locator("pre.lines").filter({ hasText: "recorded" }).waitFor();
      assert.deepEqual(await faults(page), []);
    });
  } finally {
    await Promise.all([node.kill(), source.kill()]);
    rmSync(folder, { recursive: true, force: true });
  }
});

test("a camera is published from the page, watched on a third node, paused, resumed and stopped", { timeout: 10 * SOON }, async (t) => {
  const studio = await network.join("studio", ["run"]);
  if (!(await sources(studio)).includes("browser")) return t.skip("this node takes no media from pages");
  const viewer = await network.join("guest", ["run"]);
  await visit(studio, async (page) => {
    await page.getByRole("link", { name: "Publish" }).click();
    await page.getByRole("radio", { name: /360p/ }).check({ force: true });
    await page.getByRole("button", { name: "Turn the camera on" }).click();
    await page.waitForFunction(() => document.querySelector("video")?.videoWidth > 0);
    await page.getByLabel(/^Name/).fill("camera one");
    await page.getByRole("button", { name: "Go live" }).click();
    await page.getByRole("heading", { name: "camera one" }).waitFor();
    await page.locator(".head .chip.live").waitFor();
    await visit(viewer, async (other) => {
      await card(other, "camera one").getByRole("link").click();
      await playing(other);
      await page.getByRole("button", { name: "Pause" }).click();
      await other.getByText("The source has paused.").or(other.locator(".about-stream .chip.paused")).first().waitFor();
      await page.getByRole("button", { name: "Resume" }).click();
      await other.locator(".about-stream .chip.live").waitFor();
      await other.evaluate(() => (window.seen = undefined));
      await playing(other);
    });
    assert.deepEqual(await faults(page), []);
    await page.getByRole("button", { name: "Stop" }).click();
    await page.getByRole("heading", { name: "Publish", exact: true }).waitFor();
  });
  await Promise.all([studio.kill(), viewer.kill()]);
});

test("a test picture is looked at first, then goes live in two sizes", { timeout: 6 * SOON }, async () => {
  const studio = await network.join("studio", ["run"]);
  const guest = await network.join("guest", ["run"]);
  const known = async () => (await (await fetch(`${guest.ready.api}/api/v1/streams`)).json()).streams.find((one) => one.name === "rehearsal");
  await visit(studio, async (page) => {
    await page.getByRole("link", { name: "Publish" }).click();
    await page.getByRole("radio", { name: "Test picture" }).check({ force: true });
    await page.getByLabel(/^Also in 240p/).check();
    await page.getByLabel(/^Name/).fill("rehearsal");
    await page.getByLabel(/^Preview first/).check();
    await page.getByRole("button", { name: "Preview" }).click();
    await page.locator(".head .chip", { hasText: "Preview" }).waitFor();
    assert.deepEqual(await faults(page), []);
    assert.equal(await known(), undefined, "nobody else hears of a preview");
    await page.getByRole("button", { name: "Go live" }).click();
    await page.locator(".head .chip.live").waitFor();
    const deadline = Date.now() + SOON;
    while ((await known())?.renditions[0]?.height !== 240) {
      assert.ok(Date.now() < deadline, "its smaller picture is known elsewhere");
      await setTimeout(200);
    }
    await page.getByRole("button", { name: "Stop" }).click();
    await page.getByRole("heading", { name: "Publish", exact: true }).waitFor();
  });
  await Promise.all([studio.kill(), guest.kill()]);
});

// Chromium's own choice, then what Firefox has.
for (const [format, refused] of [["Matroska", /none/], ["WebM", /matroska/]]) {
  test(`a browser without WebCodecs publishes what it records: ${format}`, { timeout: 8 * SOON }, async (t) => {
    const studio = await network.join("studio", ["run"]);
    if (!(await sources(studio)).includes("browser")) return t.skip("this node takes no media from pages");
    const viewer = await network.join("guest", ["run"]);
    const { page, context, errors } = await open(browser, "about:blank");
    await context.addInitScript((refused) => {
      delete window.VideoEncoder;
      delete window.MediaStreamTrackProcessor;
      const supports = MediaRecorder.isTypeSupported.bind(MediaRecorder);
      MediaRecorder.isTypeSupported = (type) => !new RegExp(refused).test(type) && supports(type);
    }, refused.source);
    try {
      await page.goto(studio.web);
      await page.getByRole("link", { name: "Publish" }).click();
      await page.getByRole("radio", { name: /360p/ }).check({ force: true });
      await page.getByRole("button", { name: "Turn the camera on" }).click();
      await page.waitForFunction(() => document.querySelector("video")?.videoWidth > 0);
      await page.getByLabel(/^Name/).fill(`recorded as ${format}`);
      await page.getByRole("button", { name: "Go live" }).click();
      await page.locator(".head .chip.live").waitFor();
      await visit(viewer, async (other) => {
        const own = card(other, `recorded as ${format}`);
        await own.locator(".sight img").waitFor();
        await own.getByRole("link").click();
        await playing(other);
      });
      await page.getByRole("button", { name: "Stop" }).click();
      await page.getByRole("heading", { name: "Publish", exact: true }).waitFor();
      assert.deepEqual(errors, []);
    } finally {
      await context.close();
    }
    await Promise.all([studio.kill(), viewer.kill()]);
  });
}

test("the source sees how many take its stream, and how many of them watch", { timeout: 6 * SOON }, async () => {
  const source = await network.publish("crowd", ["--title", "A crowd"]);
  const link = source.ready.stream;
  const audience = await Promise.all([
    network.join("seeder of a crowd", ["seed", link]),
    ...[1, 2, 3].map((n) => network.join(`one of a crowd ${n}`, ["play", link, "--sink", "fake"])),
  ]);
  const figures = (page, wanted) => page.waitForFunction((wanted) => {
    const shown = [...document.querySelectorAll(".figure")].map((figure) => figure.textContent);
    return Object.entries(wanted).every(([name, value]) => shown.some((text) => text.includes(name) && text.replace(name, "").trim() === value));
  }, wanted);
  await visit(source, async (page) => {
    await page.getByRole("link", { name: "Publish" }).click();
    await page.getByRole("link", { name: "A crowd" }).click();
    // Each tells its parent every five seconds.
    await figures(page, { "viewers and seeders": "4", "of these watching": "3" });
    assert.deepEqual(await faults(page), []);
    // Members have it from their supernode, and show it in their lists.
    await visit(audience[1], (other) => card(other, "A crowd").getByText("4 viewers").waitFor());
    await audience.pop().kill();
    await figures(page, { "viewers and seeders": "3", "of these watching": "2" });
  });
  await Promise.all([source, ...audience].map((node) => node.kill()));
});

test("a portal shows strangers what is live, plays it, and leads to their own node", { timeout: 6 * SOON }, async () => {
  const portal = await network.join("portal", ["run", "--portal", "127.0.0.1:0", "--portal-viewers", "1"]);
  const source = await network.publish("open air", ["--title", "Open <b>air</b>"]);
  await visit(portal.ready.portal, async (page) => {
    await card(page, "Open <b>air</b>").waitFor();
    assert.equal(await card(page, "Open <b>air</b>").getByText(/viewer/).count(), 0, "its source is none");
    assert.deepEqual(await faults(page), []);
    await page.getByRole("link", { name: "Open <b>air</b>" }).click();
    await playing(page);
    const own = page.getByRole("link", { name: "Open in my node" });
    assert.equal(await own.getAttribute("href"), `http://127.0.0.1:8000/#/watch/${source.ready.stream_id}`);
    assert.deepEqual(await faults(page), []);
    const answers = await page.evaluate(() => Promise.all(["/api/v1/node", "/metrics", "/api/v1/session"].map(async (path) => (await fetch(path)).status)));
    assert.deepEqual(answers, [404, 404, 404], "no control is there");
  }, (error) => error.includes("404"));
  await source.kill();
  await portal.kill();
});

test("an encoder gets its address and key from the page", { timeout: 4 * SOON }, async () => {
  const node = await network.join("desk", ["run"]);
  await visit(node, async (page) => {
    await page.getByRole("link", { name: "Publish" }).click();
    await page.getByRole("radio", { name: "OBS or an encoder" }).check();
    await page.getByLabel(/^Name/).fill("game");
    await page.getByRole("button", { name: "Go live" }).click();
    await page.locator("#encoder").getByText(node.ready.rtmp.replace(/\/astral$/, "")).first().waitFor();
    await page.getByRole("button", { name: "Show Stream key" }).click();
    await page.getByText("Waiting for media").waitFor();
  });
  await node.kill();
});

test("the uplink is set in the page and holds in the node", { timeout: 4 * SOON }, async () => {
  const node = await network.join("giver", ["run", "--uplink", "10Mbit"]);
  await visit(node, async (page) => {
    await page.getByRole("link", { name: "Node", exact: true }).click();
    const slider = page.getByLabel(/At most/);
    await slider.waitFor();
    await slider.press("End");
    await page.getByText("of 1 Gbit/s").first().waitFor();
    await slider.press("Home");
    await page.getByText("of 250 kbit/s").first().waitFor();
    assert.deepEqual(await faults(page), []);
  });
  await node.kill();
});

test("a node that is down is noticed within five seconds, and found again without reload", { timeout: 6 * SOON }, async () => {
  const folder = mkdtempSync(join(tmpdir(), "astral-web-node-"));
  const args = ["run", "--data-dir", folder, "--role", "member", "--bootstrap", network.supernode.address];
  let node = await Node.start("mortal", args);
  try {
    const { page, context } = await open(browser, node.web);
    await page.getByText(/\d+ nodes? connected/).waitFor();
    await page.evaluate(() => (window.unloaded = false));
    const notice = page.getByRole("alert").getByText("The node is down.");
    const killed = Date.now();
    await node.kill();
    await notice.waitFor();
    const took = Date.now() - killed;
    console.log(`the notice came ${took} ms after kill -9`);
    assert.ok(took < 15_000, `${took} ms; the promise is 5 s, asserted at three times`);
    node = await Node.start("mortal again", [...args, "--api", new URL(node.ready.api).host]);
    await notice.waitFor({ state: "detached" });
    await page.getByText(/\d+ nodes? connected/).waitFor();
    assert.equal(await page.evaluate(() => window.unloaded), false, "without a reload");
    await context.close();
  } finally {
    await node.kill();
    rmSync(folder, { recursive: true, force: true });
  }
});
