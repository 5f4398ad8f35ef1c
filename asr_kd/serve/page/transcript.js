// A transcript on the page: stretches with their times, words with how sure the search is of each, files to save.

const UNSURE = 0.6; // confidence below which a word is marked
const PAUSE = 0.5; // seconds between words that begin a new line
const FORMS = [["text", "Text", "txt"], ["srt", "SRT", "srt"], ["vtt", "VTT", "vtt"], ["json", "JSON", "json"]];

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

/** 75.2 -> "1:15" */
export function clock(seconds) {
  const whole = Math.floor(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** One recording, or what was said from one press of the button to the next. */
export class Transcript {
  constructor(name) {
    this.name = name;
    this.words = [];
    this.lost = [];
    this.article = element("article", "transcript");
    const head = element("header");
    head.append(element("h3", "", name), (this.note = element("span", "note")));
    this.lines = element("div", "lines");
    this.lines.setAttribute("aria-live", "polite");
    this.partial = element("p", "partial");
    this.partial.hidden = true;
    this.problem = element("p", "problem");
    this.problem.setAttribute("role", "alert");
    this.problem.hidden = true;
    this.article.append(head, this.lines, this.partial, this.problem);
  }

  /** Lower-case states for people and tests: working, listening, done, failed. */
  setState(state, note) {
    this.article.dataset.state = state;
    this.note.textContent = note;
  }

  setPartial(text) {
    this.partial.textContent = text;
    this.partial.hidden = !text;
  }

  /** Words that do not change any more, as the server's JSON has them. */
  add({ words, lost }) {
    this.words.push(...words);
    this.lost.push(...lost);
    for (const [start, end] of lost) {
      this.line(start).append(element("span", "gap", `no words were recognised up to ${clock(end)}`));
    }
    let line = null;
    let before = -Infinity;
    for (const word of words) {
      if (!line || word.start - before >= PAUSE) line = this.line(word.start);
      else line.append(" ");
      line.append(shown(word));
      before = word.end;
    }
  }

  line(start) {
    const line = element("p", "line");
    const words = element("span", "words");
    line.append(element("time", "", clock(start)), words);
    this.lines.append(line);
    return words;
  }

  fail(sentence) {
    this.setState("failed", "");
    this.setPartial("");
    this.complain(sentence);
    if (this.words.length) this.offerFiles();
  }

  complain(sentence) {
    this.problem.textContent = sentence;
    this.problem.hidden = false;
  }

  finish(note) {
    this.setPartial("");
    this.setState("done", note);
    if (this.words.length) this.offerFiles();
    else this.lines.append(element("p", "gap", "No words were recognised."));
  }

  offerFiles() {
    const row = element("p", "save");
    row.append(element("span", "", "Save as"));
    for (const [form, title, ending] of FORMS) {
      const button = element("button", "small", title);
      button.type = "button";
      button.addEventListener("click", () => this.save(form, ending).catch((error) => this.complain(error.message)));
      row.append(button);
    }
    this.article.append(row);
  }

  async save(form, ending) {
    const body = JSON.stringify({ recording: this.name, words: this.words, lost: this.lost });
    const answer = await fetch(`write?format=${form}`, { method: "POST", body });
    if (!answer.ok) throw new Error((await answer.json()).error);
    const link = element("a");
    link.href = URL.createObjectURL(await answer.blob());
    link.download = `${this.name.replace(/\.[^.]*$/, "").replace(/[^\p{L}\p{N}._-]+/gu, "-")}.${ending}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }
}

function shown({ word, start, end, confidence }) {
  const unsure = confidence !== null && confidence < UNSURE;
  const span = element("span", unsure ? "word unsure" : "word", word);
  span.title = `${start.toFixed(2)}–${end.toFixed(2)} s`;
  if (confidence !== null) span.title += `, ${Math.round(100 * confidence)} % sure`;
  return span;
}
