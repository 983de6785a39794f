// What this is, for somebody who was sent here.

import type { JSX } from "preact";
import { node } from "../state/store";
import { theme, type Theme } from "../theme";
import { Choices, Copyable, useTitle } from "../ui/parts";

export function About(): JSX.Element {
  useTitle("About");
  const me = node.value;
  const address = me?.listen.find((addr) => !addr.includes("/127.0.0.1/")) ?? me?.listen[0];
  return (
    <div class="stack reading">
      <h1>About Astral</h1>
      <section class="panel">
        <p>
          Astral carries live video from node to node. A <strong>source</strong> publishes a camera, a screen or an encoder.{" "}
          <strong>Viewers</strong> watch, and each viewer's node forwards what it watches with a share of its uplink.{" "}
          <strong>Seeders</strong> forward without watching. <strong>Supernodes</strong> keep the directory. Nobody operates
          it: any three nodes are a network.
        </p>
        <p>
          A stream is cut into stripes, and each stripe takes its own way. Every chunk is signed under the source's key, which
          is part of the stream's name, and every node verifies before it plays or forwards: nobody on the way can change the
          picture. When a node dies, its children go on with another from the next missing chunk.
        </p>
      </section>
      <section class="panel">
        <h2>How others join</h2>
        <p class="muted">On another computer, with the program installed:</p>
        <div class="field">
          <Copyable name="Join this network" text={`astral run --bootstrap ${address ?? "ADDRESS"}`} />
        </div>
        {me && !me.reachable && (
          <p class="note warn field">Other networks can't reach this node yet. Within your own network the address works.</p>
        )}
      </section>
      <section class="panel">
        <h2>This page</h2>
        <Choices<Theme> legend="Colours" name="theme" value={theme.value} onChange={(value) => (theme.value = value)}
          options={[{ value: "auto", label: "As the system" }, { value: "light", label: "Light" }, { value: "dark", label: "Dark" }]} />
        <p class="field small muted">
          It is served by your own node, works offline and loads nothing from elsewhere. Chromium and Firefox are tested;
          Safari has what it needs. On iPhones, which lack Media Source Extensions, open the stream's HLS address instead.
        </p>
      </section>
      <section class="panel">
        <h2>Version and licences</h2>
        <dl class="facts">
          <dt>Astral</dt><dd>{me?.version ?? "–"}</dd>
          <dt>Licence</dt><dd>MIT or Apache-2.0, at your option</dd>
          <dt>Player</dt><dd>mpegts.js, Apache-2.0</dd>
          <dt>Graph</dt><dd>sigma and graphology, MIT</dd>
          <dt>Page</dt><dd>Preact, MIT</dd>
        </dl>
      </section>
    </div>
  );
}
