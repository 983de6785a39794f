// Time that stands still until a test lets it pass. Node's own (`mock.timers`) is called in one way by
// Node 18, which Debian 12 has, and in another by later ones.

const { setTimeout: realSet, clearTimeout: realClear } = globalThis;

export class Clock {
  private now = 0;
  private last = 0;
  private readonly due = new Map<number, { at: number; then: () => void }>();

  /** From here on until `restore`, timers are those of this clock. */
  constructor() {
    const set = (then: () => void, ms = 0): number => {
      this.last += 1;
      this.due.set(this.last, { at: this.now + ms, then });
      return this.last;
    };
    const clear = (timer?: number): void => void this.due.delete(timer ?? 0);
    Object.assign(globalThis, { setTimeout: set, clearTimeout: clear });
  }

  /** Lets time pass; what is due by then is called in its order. */
  tick(ms: number): void {
    const until = this.now + ms;
    for (;;) {
      const [first] = [...this.due].filter(([, { at }]) => at <= until).sort(([, a], [, b]) => a.at - b.at);
      if (!first) break;
      const [timer, { at, then }] = first;
      this.due.delete(timer);
      this.now = at;
      then();
    }
    this.now = until;
  }

  restore(): void {
    Object.assign(globalThis, { setTimeout: realSet, clearTimeout: realClear });
  }
}
