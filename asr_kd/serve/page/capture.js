// The audio thread: resamples what the microphone gives and sends it to the page in blocks.

import { Resampler } from "./resample.js";

const SECONDS = 0.1; // of a block

class Capture extends AudioWorkletProcessor {
  constructor({ processorOptions: { rate } }) {
    super();
    this.resampler = new Resampler(sampleRate, rate);
    this.size = Math.round(SECONDS * rate);
    this.blocks = [];
    this.length = 0;
    this.open = true;
    this.port.onmessage = () => this.finish(); // the page says that it was the last
  }

  process([[channel]]) {
    if (this.open && channel) {
      this.add(this.resampler.push(channel));
      if (this.length >= this.size) this.send();
    }
    return this.open;
  }

  add(samples) {
    this.blocks.push(samples);
    this.length += samples.length;
  }

  send() {
    const block = new Float32Array(this.length);
    let place = 0;
    for (const samples of this.blocks) {
      block.set(samples, place);
      place += samples.length;
    }
    this.blocks = [];
    this.length = 0;
    this.port.postMessage(block, [block.buffer]);
  }

  finish() {
    this.add(this.resampler.finish());
    this.send();
    this.open = false;
    this.port.postMessage(null);
  }
}

registerProcessor("capture", Capture);
