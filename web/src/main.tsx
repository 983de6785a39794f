// Starts the page.

import { render } from "preact";
import { App } from "./app";
import { api, inWords } from "./api/client";
import { takeCode } from "./api/session";
import { followAddress } from "./route";
import { follow } from "./state/store";
import { pairingProblem } from "./pages/pair";
import { applyTheme } from "./theme";
import "./styles.css";

async function start(): Promise<void> {
  applyTheme();
  const code = takeCode();
  followAddress();
  if (code) {
    try {
      await api.signIn(code);
    } catch (error) {
      pairingProblem.value = inWords(error);
    }
  }
  follow();
  const host = document.getElementById("app");
  if (host) render(<App />, host);
}

void start();
