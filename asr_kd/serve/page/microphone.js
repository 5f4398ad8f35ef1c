// The microphone as blocks of samples, and a stream of words that they make.

const LATE = 15; // seconds that the server may be behind

const DENIED = {
  NotAllowedError: "The browser does not allow this page to use the microphone.",
  NotFoundError: "There is no microphone.",
  NotReadableError: "Another program uses the microphone.",
};

/** Opens the microphone; {start(onBlock), stop()}. Throws an Error with a sentence. */
export async function openMicrophone(rate) {
  if (!navigator.mediaDevices) {
    throw new Error("Browsers give a microphone only to pages from localhost or https.");
  }
  const processing = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  let media;
  try {
    media = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, ...processing } });
  } catch (error) {
    throw new Error(DENIED[error.name] ?? `The microphone cannot be opened: ${error.message}`);
  }
  const context = new AudioContext();
  let node;
  return {
    async start(onBlock) {
      await context.audioWorklet.addModule("capture.js");
      node = new AudioWorkletNode(context, "capture", { processorOptions: { rate }, channelCount: 1, channelCountMode: "explicit" });
      node.port.onmessage = ({ data }) => data && onBlock(data);
      context.createMediaStreamSource(media).connect(node);
      node.connect(context.destination); // it is silent; without a destination nothing asks it for sound
      await context.resume();
    },
    /** Resolves when the last block was given. */
    async stop() {
      if (node && context.state === "running") {
        const last = new Promise((resolve) => {
          const onBlock = node.port.onmessage;
          node.port.onmessage = (event) => (event.data ? onBlock(event) : resolve());
        });
        node.port.postMessage("finish");
        await last;
      }
      media.getTracks().forEach((track) => track.stop());
      if (context.state !== "closed") await context.close();
    },
  };
}

/**
 * A stream of the server's: {ready, send(block), end(), closed}. `onAnswer` gets {heard, partial, finished}; `onLate`
 * is called when the server is too far behind: then nothing more is sent.
 */
export function openStream(rate, onAnswer, onLate) {
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/stream`);
  socket.binaryType = "arraybuffer";
  let sent = 0;
  let heard = 0;
  let sentence = "";
  let ended = false;
  let opened;
  const ready = new Promise((resolve) => (opened = resolve));
  const closed = new Promise((resolve, reject) => {
    socket.onclose = ({ code }) => {
      if (ended && code === 1000) resolve();
      else reject(new Error(sentence || `The server has closed the connection (${code}).`));
    };
  });
  closed.catch(() => {}); // whoever waits for it gets the error; nobody need
  socket.onopen = () => socket.send(JSON.stringify({ sampling_rate: rate }));
  socket.onmessage = ({ data }) => {
    const answer = JSON.parse(data);
    if (answer.error) sentence = capitalised(answer.error);
    else if (answer.latency !== undefined) opened(answer.latency);
    else {
      heard = answer.heard;
      onAnswer(answer);
    }
  };
  return {
    ready: Promise.race([ready, closed]),
    closed,
    send(block) {
      if (ended || socket.readyState !== WebSocket.OPEN) return;
      if (sent / rate - heard > LATE) {
        this.end();
        onLate(`The server was ${LATE} seconds behind, so the microphone was stopped: it recognises more slowly than one speaks.`);
        return;
      }
      sent += block.length;
      socket.send(littleEndian(block));
    },
    end() {
      if (ended) return;
      ended = true;
      if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ end: true }));
    },
  };
}

/** float32 as the server reads it, also on a processor that writes numbers the other way around. */
function littleEndian(block) {
  if (new Uint8Array(Uint16Array.of(1).buffer)[0] === 1) return block;
  const view = new DataView(new ArrayBuffer(4 * block.length));
  block.forEach((sample, index) => view.setFloat32(4 * index, sample, true));
  return view.buffer;
}

export function capitalised(sentence) {
  return sentence.charAt(0).toUpperCase() + sentence.slice(1);
}
