// What a browser sees that the node does not know yet.
//
// Owns taking a one-time link or a token by hand.

import { signal } from "@preact/signals";
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { api, inWords } from "../api/client";
import { forgetToken, keepToken, readCredential } from "../api/session";
import { Problem, useTitle } from "../ui/parts";

/** Why the one-time link did not work. */
export const pairingProblem = signal<string | null>(null);

export function Pair(): JSX.Element {
  useTitle("Pair this browser");
  const [text, setText] = useState("");
  const [remember, setRemember] = useState(false);
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    pairingProblem.value = null;
    const credential = readCredential(text);
    if (!credential) {
      pairingProblem.value = "This is neither a one-time link nor a token.";
      return;
    }
    try {
      if ("code" in credential) {
        await api.signIn(credential.code);
      } else {
        keepToken(credential.token, remember);
        if ((await api.tokenHolds()) === false) {
          pairingProblem.value = "The node does not take this token. It is in the file that the node names when it starts.";
          forgetToken();
        }
      }
    } catch (error) {
      pairingProblem.value = inWords(error);
    }
  };
  return (
    <div class="pair stack">
      <h1>Pair this browser with your node</h1>
      <p>
        A node obeys only those who can read its files. It prints a one-time link when it starts; open that link once in
        this browser. For a new one run
      </p>
      <p class="copy"><code>astral ctl web</code></p>
      <Problem text={pairingProblem.value} />
      <form class="panel" onSubmit={(event) => void submit(event)}>
        <div class="field">
          <label for="credential">One-time link or token</label>
          <input id="credential" type="password" autocomplete="off" value={text} spellcheck={false}
            onInput={(event) => setText(event.currentTarget.value)} />
        </div>
        <div class="field">
          <label class="check">
            <input type="checkbox" checked={remember} onChange={(event) => setRemember(event.currentTarget.checked)} />
            Remember a token in this browser
          </label>
        </div>
        <div class="field"><button class="main" type="submit">Pair</button></div>
      </form>
    </div>
  );
}
