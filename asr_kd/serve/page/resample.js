// Sound at the microphone's rate -> at the recogniser's, block after block.

const CROSSINGS = 16; // zero crossings of the sinc to each side
const STEPS = 64; // points of the filter per zero crossing; between them it is linear
const PASSED = 0.94; // of the lower of the two Nyquist frequencies

/** A Hann-windowed sinc, as Julius O. Smith describes it ("Digital Audio Resampling Home Page"). */
export class Resampler {
  constructor(from, to) {
    this.step = from / to; // input samples from one output sample to the next
    this.cutoff = PASSED * Math.min(1, to / from);
    this.half = CROSSINGS / this.cutoff; // input samples to each side
    this.filter = Float64Array.from({ length: CROSSINGS * STEPS + 2 }, (_, index) => {
      const x = index / STEPS;
      if (x >= CROSSINGS) return 0;
      const sinc = x ? Math.sin(Math.PI * x) / (Math.PI * x) : 1;
      return this.cutoff * sinc * (0.5 + 0.5 * Math.cos((Math.PI * x) / CROSSINGS));
    });
    this.input = new Float32Array(Math.ceil(this.half)); // silence before the beginning
    this.position = this.input.length; // of the next output sample in this.input
  }

  /** More input (Float32Array); returns the output samples that it completes. */
  push(samples) {
    const joined = new Float32Array(this.input.length + samples.length);
    joined.set(this.input);
    joined.set(samples, this.input.length);
    const output = [];
    while (this.position + this.half < joined.length) {
      output.push(this.at(joined, this.position));
      this.position += this.step;
    }
    const done = Math.min(joined.length, Math.max(0, Math.floor(this.position - this.half)));
    this.input = joined.slice(done);
    this.position -= done;
    return Float32Array.from(output);
  }

  /** What is left: as if silence followed. */
  finish() {
    return this.push(new Float32Array(Math.ceil(this.half)));
  }

  at(input, position) {
    let sum = 0;
    const last = Math.min(input.length - 1, Math.floor(position + this.half));
    for (let index = Math.max(0, Math.ceil(position - this.half)); index <= last; index++) {
      const place = Math.abs(index - position) * this.cutoff * STEPS;
      const left = Math.floor(place);
      const value = this.filter[left] + (place - left) * (this.filter[left + 1] - this.filter[left]);
      sum += input[index] * value;
    }
    return sum;
  }
}
