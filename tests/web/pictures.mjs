// Takes the README's pictures of each page from a real network on this machine: `make pictures`.
//
// Owns the scene. Does not own tests; nothing is asserted here.

import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { launch, open, playing } from "./browser.mjs";
import { Network } from "./node.mjs";

const OUT = fileURLToPath(new URL("../../docs/img", import.meta.url));
/** Pictures in a repository stay small. */
const BYTES_MAX = 200_000;

const films = [
  { name: "alps", title: "Sunrise over the Alps", pattern: "gradients=s=640x360:r=20:c0=0x1b2a49:c1=0xf2a65a:c2=0xeec170:x0=100:y0=350:x1=450:y1=0:speed=0.01", tags: "outdoor" },
  { name: "life", title: "Game of Life, all night", pattern: "life=s=160x90:mold=10:r=20:ratio=0.1:death_color=#1c3a5e:life_color=#7fd6a3,scale=640:360:flags=neighbor", tags: "maths" },
  { name: "zoom", title: "Mandelbrot, very slowly", pattern: "mandelbrot=s=640x360:r=20:maxiter=300:end_scale=0.002", tags: "maths" },
];

function film(folder, { name, pattern }) {
  const file = join(folder, `${name}.mp4`);
  const args = ["-v", "error", "-y", "-f", "lavfi", "-i", pattern, "-f", "lavfi", "-i", "sine=f=220", "-t", "20", "-pix_fmt", "yuv420p",
    "-c:v", "libx264", "-preset", "veryfast", "-g", "40", "-b:v", "400k", "-c:a", "aac", file];
  const { status, stderr } = spawnSync("ffmpeg", args);
  if (status !== 0) throw new Error(String(stderr));
  return file;
}

const folder = mkdtempSync(join(tmpdir(), "astral-pictures-"));
mkdirSync(OUT, { recursive: true });
const browser = await launch();
const network = await Network.found(["--uplink", "40Mbit", "--portal", "127.0.0.1:0"]);
try {
  const sources = [];
  for (const f of films) {
    const file = film(folder, f);
    const node = await network.join(f.name, ["publish", f.name, "--file", file, "--title", f.title, "--stripes", "4", "--uplink", "1500kbit"]);
    await node.wait("live");
    sources.push(node);
  }
  for (const [n, source] of [0, 0, 1, 1, 2].entries()) {
    const seeder = await network.join(`seeder ${n}`, ["seed", sources[source].ready.stream, "--uplink", "6Mbit"]);
    await seeder.wait("playing");
  }
  const viewer = await network.join("viewer", ["run", "--uplink", "8Mbit"]);
  const { page } = await open(browser, viewer.web, { viewport: { width: 1280, height: 800 } });
  await page.locator(".card").nth(films.length - 1).waitFor();
  const shown = (count) => [...document.querySelectorAll(".card .sight img")].filter((img) => img.naturalWidth > 0).length >= count;
  await page.waitForFunction(shown, films.length, { timeout: 90_000 }); // A source makes one every half minute.
  await shoot(page, "browse");
  await page.getByRole("link", { name: films[0].title }).click();
  await playing(page);
  await page.waitForFunction(() => document.querySelectorAll(".lane:not(.none)").length >= 4);
  await page.waitForTimeout(8_000); // The lag's line wants some seconds to show.
  await shoot(page, "watch");
  await page.getByRole("link", { name: "Show in the network" }).click();
  await page.locator("#filter").selectOption("");
  await page.locator(".sigma-nodes").waitFor();
  await page.waitForTimeout(5_000); // Until the layout rests.
  await shoot(page, "network");
  await page.getByRole("link", { name: "Node", exact: true }).click();
  await page.getByText("Registered with").waitFor();
  await shoot(page, "node");
  await page.getByRole("link", { name: "Publish" }).click();
  await page.getByLabel(/^Name/).fill("garden");
  const camera = page.getByRole("button", { name: "Turn the camera on" });
  if (await camera.isVisible()) {
    await camera.click();
    await page.waitForFunction(() => document.querySelector("video")?.videoWidth > 0);
  }
  await shoot(page, "publish");
  await page.getByRole("link", { name: "About" }).click();
  await page.getByRole("heading", { name: "About Astral" }).waitFor();
  await shoot(page, "about");
  const visitor = await open(browser, network.supernode.ready.portal, { viewport: { width: 1280, height: 800 } });
  await visitor.page.locator(".card").nth(films.length - 1).waitFor();
  await visitor.page.waitForFunction(shown, films.length, { timeout: 90_000 });
  await shoot(visitor.page, "portal");
} finally {
  await browser.close();
  await network.close();
  rmSync(folder, { recursive: true, force: true });
}

/** One picture; colours are reduced where it would grow too large. */
async function shoot(page, name) {
  const path = join(OUT, `${name}.png`);
  await page.screenshot({ path });
  if (statSync(path).size > BYTES_MAX) {
    const small = join(folder, "small.png");
    const filter = "split[a][b];[a]palettegen=max_colors=160[p];[b][p]paletteuse=dither=none";
    spawnSync("ffmpeg", ["-v", "error", "-y", "-i", path, "-vf", filter, small]);
    spawnSync("cp", [small, path]);
  }
  console.log(`${path}: ${statSync(path).size} bytes`);
}
