// An address that leads nowhere.

import type { JSX } from "preact";
import { paths } from "../route";
import { useTitle } from "../ui/parts";

export function Lost(): JSX.Element {
  useTitle("Nothing here");
  return (
    <div class="empty">
      <h1>Nothing is here</h1>
      <p class="muted">This address belongs to no page. It may have been cut when it was copied.</p>
      <a class="button main" href={paths.browse}>Browse streams</a>
    </div>
  );
}
