// Recording what is watched to a file of this computer, byte for byte as it comes from the node.
//
// Owns the second reading of the stream and where its bytes go. Does not own the button.

import { api, inWords } from "../api/client";

/** Kept in memory at most, where the browser can't write to a chosen file. */
const MEMORY_BYTES_MAX = 512 * 1024 * 1024;

export interface RecorderEnds {
  onBytes(total: number): void;
  onEnd(why: string | null): void;
}

type SaveDialog = (options: { suggestedName: string }) => Promise<FileSystemFileHandle>;

export class Recorder {
  private readonly abort = new AbortController();
  private total = 0;

  private constructor(private readonly ends: RecorderEnds) {}

  /** Asks where to (on browsers that can), then records until stopped; null when the user declined. */
  static async start(stream: string, name: string, ends: RecorderEnds): Promise<Recorder | null> {
    const file = `${name.replace(/[^\p{L}\p{N} _-]/gu, "_").slice(0, 60) || "astral"}.flv`;
    const dialog = (window as unknown as { showSaveFilePicker?: SaveDialog }).showSaveFilePicker;
    const recorder = new Recorder(ends);
    let sink: Sink;
    try {
      sink = dialog ? await fileSink(await dialog.call(window, { suggestedName: file })) : memorySink(file);
    } catch (error) {
      if ((error as DOMException).name === "AbortError") return null;
      sink = memorySink(file);
    }
    void recorder.run(stream, sink);
    return recorder;
  }

  stop(): void {
    this.abort.abort();
  }

  private async run(stream: string, sink: Sink): Promise<void> {
    let why: string | null = null;
    try {
      const response = await api.media(`/live/${stream}.flv`, this.abort.signal);
      const reader = response.body?.getReader();
      for (;;) {
        const part = await reader?.read();
        if (!part?.value) break;
        await sink.write(part.value);
        this.total += part.value.length;
        this.ends.onBytes(this.total);
      }
    } catch (error) {
      if (!this.abort.signal.aborted) why = inWords(error);
    }
    this.abort.abort();
    await sink.close().catch((error: unknown) => (why ??= inWords(error)));
    this.ends.onEnd(why);
  }
}

interface Sink {
  write(bytes: Uint8Array<ArrayBuffer>): Promise<void>;
  close(): Promise<void>;
}

async function fileSink(handle: FileSystemFileHandle): Promise<Sink> {
  const file = await handle.createWritable();
  return { write: (bytes) => file.write(bytes), close: () => file.close() };
}

function memorySink(name: string): Sink {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let total = 0;
  return {
    write(bytes) {
      total += bytes.length;
      if (total > MEMORY_BYTES_MAX) return Promise.reject(new Error("The recording reached 512 MB and was saved."));
      parts.push(bytes);
      return Promise.resolve();
    },
    close() {
      if (parts.length > 0) save(new Blob(parts, { type: "video/x-flv" }), name);
      return Promise.resolve();
    },
  };
}

/** Offers a file for download. */
export function save(blob: Blob, name: string): void {
  const anchor = document.createElement("a");
  anchor.href = URL.createObjectURL(blob);
  anchor.download = name;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(anchor.href), 60_000);
}
