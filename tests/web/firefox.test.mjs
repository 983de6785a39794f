// The page in Firefox: the one-time link, a stream of another node watched, and its parent killed.
//
// For `make test-long`: Firefox is no dependency of the tests, and this says so where it is not installed.

import assert from "node:assert/strict";
import { test } from "node:test";
import { picture, SOON } from "./browser.mjs";
import { executable, Firefox } from "./firefox.mjs";
import { Network } from "./node.mjs";

const skip = executable ? false : "NOT TESTED with Firefox: install the Debian package 'firefox-esr'";

test("Firefox opens the page, watches a stream, and plays on when its parent is killed", { timeout: 6 * SOON, skip }, async () => {
  const network = await Network.found();
  const firefox = await Firefox.launch();
  try {
    console.log(await firefox.version());
    const source = await network.publish("fox", ["--title", "The fox", "--stripes", "1", "--uplink", "700kbit"]);
    const seeders = [];
    for (const n of [1, 2]) {
      const seeder = await network.join(`seeder ${n}`, ["seed", source.ready.stream, "--uplink", "5Mbit"]);
      await seeder.wait("playing");
      seeders.push(seeder);
    }
    const viewer = await network.join("viewer", ["run"]);
    await firefox.goto(viewer.web);
    await firefox.until(() => {
      const card = [...document.querySelectorAll(".card")].find((card) => card.textContent.includes("The fox"));
      card?.querySelector("a").click();
      return Boolean(card);
    });
    assert.equal((await firefox.until(picture)).width, 320);
    const fed = await firefox.until(() => document.querySelector(".lane .who [title]")?.title);
    // The source can feed one node: this one is fed by a seeder.
    const victim = seeders.find((seeder) => seeder.id === fed);
    assert.ok(victim, `parent ${fed}, seeders ${seeders.map((seeder) => seeder.id)}`);
    await victim.kill();
    await firefox.until(() => (delete window.seen, true));
    assert.ok((await firefox.until(picture)).advanced > 1);
  } finally {
    await firefox.close();
    await network.close();
  }
});
