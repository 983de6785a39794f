// Starts the system's Firefox and drives it by Marionette, the protocol that it speaks by itself:
// Playwright has a Firefox of its own only, which is not what people have.
//
// Owns the browser's process and profile, and the protocol. Does not own what a test asserts.

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { SOON } from "./browser.mjs";

const BROWSERS = ["/usr/bin/firefox-esr", "/usr/bin/firefox"];
/** Where there is one; a test without it says so. */
export const executable = process.env.TEST_FIREFOX ?? BROWSERS.find((path) => existsSync(path));

const PREFERENCES = `
user_pref("marionette.port", 0);
user_pref("media.autoplay.default", 0);
user_pref("media.volume_scale", "0.0");
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("app.update.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
`;

export class Firefox {
  #child;
  #profile;
  #socket;
  #input = Buffer.alloc(0);
  #waiting = new Map();
  #number = 0;

  static async launch() {
    const firefox = new Firefox();
    await firefox.#start();
    return firefox;
  }

  async #start() {
    this.#profile = mkdtempSync(join(tmpdir(), "astral-firefox-"));
    writeFileSync(join(this.#profile, "user.js"), PREFERENCES);
    const flags = ["--headless", "--no-remote", "--marionette", "--profile", this.#profile];
    // Its home is the profile, so that nothing of the user's is read or changed.
    const env = { ...process.env, HOME: this.#profile, MOZ_HEADLESS: "1" };
    this.#child = spawn(executable, [...flags, "about:blank"], { env, stdio: "ignore" });
    this.#socket = await this.#connect();
    this.#socket.on("data", (bytes) => this.#hear(bytes));
    await this.#ask("WebDriver:NewSession", {});
    await this.#ask("WebDriver:SetTimeouts", { script: SOON, pageLoad: SOON });
  }

  /** It writes the port that it chose into its profile. */
  async #connect() {
    const deadline = Date.now() + SOON;
    while (Date.now() < deadline) {
      const port = this.#port();
      const socket = port ? await dial(port) : null;
      if (socket) return socket;
      await pause(100);
    }
    throw new Error("Firefox does not open its Marionette port");
  }

  #port() {
    try {
      return Number(readFileSync(join(this.#profile, "MarionetteActivePort"), "utf8"));
    } catch {
      return 0; // Not yet.
    }
  }

  /** Messages are `length:JSON`; the first one greets. */
  #hear(bytes) {
    this.#input = Buffer.concat([this.#input, bytes]);
    for (;;) {
      const colon = this.#input.indexOf(":");
      if (colon < 0) return;
      const end = colon + 1 + Number(this.#input.subarray(0, colon));
      if (this.#input.length < end) return;
      const message = JSON.parse(this.#input.subarray(colon + 1, end));
      this.#input = this.#input.subarray(end);
      if (!Array.isArray(message)) continue;
      const [, number, error, result] = message;
      const [done, failed] = this.#waiting.get(number) ?? [];
      this.#waiting.delete(number);
      if (error) failed?.(new Error(`${error.error}: ${error.message}`));
      else done?.(result);
    }
  }

  #ask(command, parameters) {
    const number = (this.#number += 1);
    const text = JSON.stringify([0, number, command, parameters]);
    this.#socket.write(`${Buffer.byteLength(text)}:${text}`);
    return new Promise((done, failed) => this.#waiting.set(number, [done, failed]));
  }

  async version() {
    const { value } = await this.#ask("WebDriver:ExecuteScript", { script: "return navigator.userAgent", args: [] });
    return value;
  }

  goto(url) {
    return this.#ask("WebDriver:Navigate", { url });
  }

  /** Runs `look` in the page until it answers something. */
  async until(look) {
    const deadline = Date.now() + SOON;
    while (Date.now() < deadline) {
      const { value } = await this.#ask("WebDriver:ExecuteScript", { script: `return (${look})()`, args: [] });
      if (value) return value;
      await pause(250);
    }
    throw new Error(`not in time: ${look}`);
  }

  async close() {
    const ended = new Promise((done) => this.#child.on("exit", done));
    this.#socket?.destroy();
    this.#child.kill("SIGKILL");
    await ended;
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 10 });
  }
}

function dial(port) {
  return new Promise((done) => {
    const socket = connect(port, "127.0.0.1", () => done(socket));
    socket.on("error", () => done(null));
  });
}
