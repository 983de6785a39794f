// The live graph on a canvas: sigma (WebGL) over what state/network computes.
//
// Owns colours, sizes, picking and the camera. Does not own which dots there are. The colours mean
// what they meant in 2011: supernodes red and larger, streams yellow and smaller, other nodes a colour
// of their own; registration and source lines grey, media green.

import Graph from "graphology";
import Sigma from "sigma";
import { hue } from "../format";
import { type Dot, type Graph as Picture, type Line, difference, sameDot, sameLine } from "../state/network";
import type { LayoutAnswer, LayoutRequest } from "./layout.worker";

export interface Palette {
  supernode: string;
  stream: string;
  self: string;
  live: string;
  standby: string;
  grey: string;
  text: string;
  ground: string;
  /** Lightness of the nodes' own colours, in percent. */
  light: number;
}

export const DARK: Palette = {
  supernode: "#ff5f66", stream: "#f2c14e", self: "#ffffff", live: "#3fc380", standby: "#24523c", grey: "#5a6880",
  text: "#dfe6f1", ground: "#121721", light: 66,
};
export const LIGHT: Palette = {
  supernode: "#d3262f", stream: "#d99a00", self: "#12161d", live: "#12935a", standby: "#b9dccb", grey: "#98a4b8",
  text: "#1b2330", ground: "#ffffff", light: 46,
};

/** Above this many dots labels are drawn for few of them only. */
const LABELS_ALL_MAX = 24;

export class GraphView {
  private readonly graph = new Graph({ multi: true, type: "directed" });
  private readonly sigma: Sigma;
  private readonly worker = new Worker(new URL("./layout.worker.ts", import.meta.url), { type: "module" });
  private shown: Picture = { dots: new Map(), lines: new Map() };
  private chosen: string | null = null;
  private palette: Palette;

  constructor(host: HTMLElement, palette: Palette, onChoose: (id: string | null) => void) {
    this.palette = palette;
    this.sigma = new Sigma(this.graph, host, {
      defaultEdgeType: "arrow",
      labelFont: "system-ui, sans-serif",
      labelSize: 12,
      labelWeight: "500",
      labelColor: { color: palette.text },
      labelDensity: 0.6,
      labelGridCellSize: 90,
      zIndex: true,
      minEdgeThickness: 1,
      allowInvalidContainer: true,
      defaultDrawNodeHover: () => undefined,
      defaultDrawNodeLabel: (context, data, settings) => this.drawLabel(context, data, settings.labelSize),
      nodeReducer: (id, data) => this.drawnDot(id, data),
      edgeReducer: (id, data) => this.drawnLine(id, data),
    });
    this.sigma.on("clickNode", ({ node }) => onChoose(node));
    this.sigma.on("clickStage", () => onChoose(null));
    this.sigma.on("enterNode", () => (host.dataset.over = "yes"));
    this.sigma.on("leaveNode", () => delete host.dataset.over);
    this.allowDragging();
    this.worker.onmessage = (event: MessageEvent<LayoutAnswer>) => this.place(event.data);
  }

  /** Shows another picture, changing only what differs. */
  show(picture: Picture): void {
    const dots = difference(this.shown.dots, picture.dots, sameDot);
    const lines = difference(this.shown.lines, picture.lines, sameLine);
    for (const id of lines.removed) this.graph.dropEdge(id);
    for (const id of dots.removed) this.graph.dropNode(id);
    for (const dot of dots.added) {
      this.graph.addNode(dot.id, { ...this.looks(dot), ...this.seat(dot.id, picture) });
    }
    for (const dot of dots.changed) this.graph.mergeNodeAttributes(dot.id, this.looks(dot));
    for (const line of lines.added) this.graph.addEdgeWithKey(line.id, line.from, line.to, this.strokes(line));
    for (const line of lines.changed) this.graph.mergeEdgeAttributes(line.id, this.strokes(line));
    this.shown = picture;
    const moved = dots.added.length + dots.removed.length + lines.added.length + lines.removed.length > 0;
    if (moved) {
      this.grow();
      this.layOut();
    }
  }

  /** Marks one dot and its neighbours. */
  choose(id: string | null): void {
    this.chosen = id !== null && this.graph.hasNode(id) ? id : null;
    this.sigma.refresh({ skipIndexation: true });
  }

  recolour(palette: Palette): void {
    this.palette = palette;
    this.sigma.setSetting("labelColor", { color: palette.text });
    for (const dot of this.shown.dots.values()) this.graph.mergeNodeAttributes(dot.id, this.looks(dot));
    for (const line of this.shown.lines.values()) this.graph.mergeEdgeAttributes(line.id, this.strokes(line));
    this.grow();
  }

  zoom(factor: number): void {
    const camera = this.sigma.getCamera();
    void (factor > 1 ? camera.animatedZoom({ duration: 150 }) : camera.animatedUnzoom({ duration: 150 }));
  }

  fit(): void {
    void this.sigma.getCamera().animatedReset({ duration: 200 });
  }

  close(): void {
    this.worker.terminate();
    this.sigma.kill();
  }

  private looks(dot: Dot): Record<string, unknown> {
    const color =
      dot.kind === "supernode" ? this.palette.supernode
      : dot.kind === "stream" ? this.palette.stream
      : dot.kind === "self" ? this.palette.self
      : hslToHex(hue(dot.id), dot.near ? 62 : 28, this.palette.light);
    const base = dot.kind === "supernode" ? 9 : dot.kind === "self" ? 8 : dot.kind === "stream" ? 5 : 6;
    return { label: dot.label, color, base, size: base, zIndex: dot.kind === "node" ? 0 : 1 };
  }

  private strokes(line: Line): Record<string, unknown> {
    switch (line.kind) {
      case "live":
        return { type: "arrow", color: this.palette.live, size: 2 + Math.min(3, line.stripes.length * 0.4), zIndex: 2 };
      case "standby":
        return { type: "arrow", color: this.palette.standby, size: 1.6, zIndex: 1 };
      case "source":
      case "registration":
        return { type: "line", color: this.palette.grey, size: 1.5, zIndex: 0 };
    }
  }

  /** As in 2011 a dot grows with the number of its lines; the root keeps hubs on the screen. */
  private grow(): void {
    const crowd = Math.max(0.45, Math.min(1.4, 9 / Math.sqrt(this.graph.order + 1)));
    // One event for all of them. "zIndex" makes sigma index anew before it paints: told of sizes alone it
    // repaints each dot at the place it had, which throws for a dot that was added since the last picture.
    this.graph.updateEachNodeAttributes(
      (id, data) => ({ ...data, size: (Number(data.base) + Math.sqrt(this.graph.degree(id))) * crowd }),
      { attributes: ["size", "zIndex"] },
    );
    const few = this.graph.order <= LABELS_ALL_MAX;
    this.sigma.setSetting("labelRenderedSizeThreshold", few ? 0 : 7);
    this.sigma.setSetting("labelDensity", few ? 3 : 0.35);
    this.sigma.setSetting("labelGridCellSize", few ? 60 : 160);
  }

  /** Until the layout answers, a newcomer stands near somebody it is linked with. */
  private seat(id: string, picture: Picture): { x: number; y: number } {
    const spread = () => (parseInt(id.slice(4, 8), 16) / 65_536 - 0.5) * 4;
    for (const line of picture.lines.values()) {
      const other = line.from === id ? line.to : line.to === id ? line.from : null;
      if (other !== null && this.graph.hasNode(other)) {
        const at = this.graph.getNodeAttributes(other);
        return { x: Number(at.x) + spread(), y: Number(at.y) + spread() };
      }
      if (picture.lines.size > 400) break; // A first big picture: the layout's answer is a blink away.
    }
    const angle = (hue(id) / 180) * Math.PI;
    return { x: Math.cos(angle) * 40, y: Math.sin(angle) * 40 };
  }

  private layOut(): void {
    const ids = this.graph.nodes();
    const index = new Map(ids.map((id, i) => [id, i]));
    const pairs = new Uint32Array(this.graph.size * 2);
    let at = 0;
    this.graph.forEachEdge((_id, _data, from, to) => {
      pairs[at++] = index.get(from) ?? 0;
      pairs[at++] = index.get(to) ?? 0;
    });
    const request: LayoutRequest = { ids, pairs };
    this.worker.postMessage(request, [pairs.buffer]);
  }

  private place(answer: LayoutAnswer): void {
    const at = new Map<string, number>();
    answer.ids.forEach((id, i) => at.set(id, i));
    this.graph.updateEachNodeAttributes((id, data) => {
      const i = at.get(id);
      if (i === undefined || id === this.dragged) return data;
      return { ...data, x: answer.places[2 * i], y: answer.places[2 * i + 1] };
    }, { attributes: ["x", "y"] });
  }

  /** A label below its dot, where it meets few others, with a rim in the background's colour, so that lines do not cross its letters out. */
  private drawLabel(context: CanvasRenderingContext2D, at: { x: number; y: number; size: number; label: string | null }, px: number): void {
    if (!at.label) return;
    context.font = `500 ${px}px system-ui, sans-serif`;
    context.lineJoin = "round";
    context.lineWidth = 4;
    context.strokeStyle = this.palette.ground;
    context.fillStyle = this.palette.text;
    context.textAlign = "center";
    const [x, y] = [at.x, at.y + at.size + px + 2];
    context.strokeText(at.label, x, y);
    context.fillText(at.label, x, y);
  }

  private dragged: string | null = null;

  private allowDragging(): void {
    this.sigma.on("downNode", ({ node, event }) => {
      this.dragged = node;
      // The frame of the picture must not move with what is dragged.
      if (!this.sigma.getCustomBBox()) this.sigma.setCustomBBox(this.sigma.getBBox());
      event.preventSigmaDefault();
    });
    this.sigma.on("moveBody", ({ event }) => {
      if (!this.dragged || !this.graph.hasNode(this.dragged)) return;
      this.graph.mergeNodeAttributes(this.dragged, this.sigma.viewportToGraph(event));
      event.preventSigmaDefault();
    });
    const drop = (): void => {
      if (this.dragged) this.sigma.setCustomBBox(null);
      this.dragged = null;
    };
    this.sigma.on("upNode", drop);
    this.sigma.on("upStage", drop);
  }

  private drawnDot(id: string, data: Record<string, unknown>): Record<string, unknown> {
    if (this.chosen === null) return data;
    if (id === this.chosen) return { ...data, zIndex: 3, forceLabel: true, size: Number(data.size) * 1.35 };
    if (this.graph.areNeighbors(id, this.chosen)) return { ...data, forceLabel: true };
    return { ...data, color: this.palette.grey, label: "" };
  }

  private drawnLine(id: string, data: Record<string, unknown>): Record<string, unknown> {
    if (this.chosen === null || this.graph.hasExtremity(id, this.chosen)) return data;
    return { ...data, hidden: true };
  }
}

/** Sigma's shaders read hexadecimal colours only. */
function hslToHex(h: number, s: number, l: number): string {
  const a = (s / 100) * Math.min(l / 100, 1 - l / 100);
  const part = (n: number): string => {
    const k = (n + h / 30) % 12;
    const value = l / 100 - a * Math.max(-1, Math.min(k - 3, 9 - k, 1));
    return Math.round(255 * value).toString(16).padStart(2, "0");
  };
  return `#${part(0)}${part(8)}${part(4)}`;
}
