import assert from "node:assert/strict";
import { test } from "node:test";
import * as flv from "../src/media/flv";
import { TrackClock } from "../src/media/publisher";

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

test("the header is FLV version 1 with audio and video", () => {
  assert.equal(hex(flv.header()), "464c5601050000000900000000");
});

test("a picture is a video tag with its size before and after", () => {
  const tag = flv.avcPicture(0x01020304, true, Uint8Array.of(0xaa, 0xbb));
  //                      type len    ts low   hi stream key avc cts      data prev-size
  assert.equal(hex(tag), "09000007" + "020304" + "01" + "000000" + "1701000000" + "aabb" + "00000012");
  assert.equal(hex(flv.avcPicture(0, false, new Uint8Array())).slice(22, 24), "27");
});

test("the decoder configuration is a sequence header", () => {
  assert.equal(hex(flv.avcConfig(0, Uint8Array.of(1))).slice(22, 34), "170000000001");
});

test("sound is Opus of Enhanced RTMP, with its identification header first", () => {
  const head = flv.opusHead(0, 2, 48_000);
  assert.equal(hex(head).slice(22, 32), "904f707573");
  assert.equal(hex(head).slice(32, 70), "4f707573486561640102" + "3801" + "80bb0000" + "000000");
  assert.equal(hex(flv.opusPacket(20, Uint8Array.of(7))).slice(22, 34), "914f70757307");
});

test("times that can't be sent become the nearest that can", () => {
  assert.equal(hex(flv.opusPacket(-5, new Uint8Array())).slice(8, 16), "00000000");
});

test("each track's own epoch is based on its first frame", () => {
  const video = new TrackClock();
  const audio = new TrackClock();
  video.start(4_873_450_000, 100);
  audio.start(257_000, 120);
  assert.equal(video.ms(4_873_450_000 + 40_000), 140);
  assert.equal(audio.ms(257_000 + 20_000), 140);
  assert.equal(audio.ms(0), 120);
});
