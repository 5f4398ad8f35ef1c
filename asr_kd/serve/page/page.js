// The page: a button for the microphone, a place to drop recordings, and what was recognised, the newest first.

import { capitalised, openMicrophone, openStream } from "./microphone.js";
import { Transcript, clock } from "./transcript.js";

const byId = (id) => document.getElementById(id);
const [button, label, meter, status, drop, files, channel, transcripts] = [
  "speak", "speak-label", "meter", "status", "drop", "files", "channel", "transcripts",
].map(byId);

let info = null; // what the server says of itself
let session = null; // {microphone, stream, transcript} while somebody speaks

function show(transcript) {
  byId("empty").hidden = true;
  byId("legend").hidden = false;
  transcripts.prepend(transcript.article);
}

// --- the microphone

async function start() {
  button.disabled = true;
  status.textContent = "Waiting for the microphone…";
  const transcript = new Transcript(`Microphone ${new Date().toLocaleTimeString()}`);
  let microphone;
  try {
    microphone = await openMicrophone(info.sampling_rate);
    const answered = ({ heard, partial, finished }) => {
      finished.forEach((stretch) => transcript.add(stretch));
      transcript.setPartial(partial);
      transcript.setState("listening", clock(heard));
    };
    const late = (sentence) => {
      transcript.complain(sentence);
      if (session) stop();
    };
    const stream = openStream(info.sampling_rate, answered, late);
    const latency = await stream.ready;
    session = { microphone, stream, transcript };
    show(transcript);
    transcript.setState("listening", clock(0));
    stream.closed.then(
      () => transcript.finish(transcript.note.textContent),
      (error) => broken(error, transcript),
    );
    await microphone.start((block) => {
      meter.value = block.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0) ** 0.5;
      stream.send(block);
    });
    if (session) listening(true, `Listening: words appear after ${latency.toFixed(1)} s, and are final after a pause.`);
  } catch (error) {
    await microphone?.stop();
    session?.stream.end();
    session = null;
    listening(false, error.message);
  }
  button.disabled = false;
}

async function stop() {
  const { microphone, stream } = session;
  session = null;
  button.disabled = true;
  await microphone.stop();
  stream.end();
  listening(false, "");
  button.disabled = false;
}

async function broken(error, transcript) {
  transcript.fail(error.message);
  if (session?.transcript === transcript) {
    const { microphone } = session;
    session = null;
    listening(false, "");
    await microphone.stop();
  }
}

function listening(on, sentence) {
  button.setAttribute("aria-pressed", String(on));
  label.textContent = on ? "Stop" : "Start speaking";
  meter.hidden = !on;
  meter.value = 0;
  status.textContent = sentence;
}

// --- recordings

let queue = Promise.resolve(); // one recording after the other

function recognise(chosen) {
  for (const file of chosen) {
    const transcript = new Transcript(file.name);
    transcript.setState("working", "waiting…");
    show(transcript);
    const which = channel.value;
    queue = queue.then(() => upload(file, which, transcript)).catch((error) => transcript.fail(error.message));
  }
}

async function upload(file, which, transcript) {
  if (file.size > info.max_upload) {
    throw new Error(`This is larger than ${info.max_upload / 1e6} MB, the most that this server takes.`);
  }
  transcript.setState("working", "recognising…");
  const query = new URLSearchParams({ name: file.name, channel: which });
  let answer;
  try {
    answer = await fetch(`transcribe?${query}`, { method: "POST", body: file });
  } catch {
    throw new Error("The server does not answer, or the file cannot be read.");
  }
  const result = await answer.json();
  if (!answer.ok) throw new Error(capitalised(result.error).replace("by ?channel= (0 is the first)", "above"));
  transcript.add(result);
  transcript.finish(clock(result.seconds));
}

// --- the beginning

button.addEventListener("click", () => (session ? stop() : start()));
files.addEventListener("change", () => {
  recognise(files.files);
  files.value = ""; // so that the same file may be chosen again
});
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => event.relatedTarget || drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (info) recognise(event.dataTransfer.files);
});

try {
  info = await (await fetch("info")).json();
  byId("model").textContent = info.model;
  byId("rate").textContent = `${info.sampling_rate / 1000} kHz`;
  byId("most").textContent = `up to ${info.max_upload / 1e6} MB`;
  button.disabled = files.disabled = false;
  document.body.dataset.ready = "true";
} catch {
  status.textContent = "The server does not answer.";
}
