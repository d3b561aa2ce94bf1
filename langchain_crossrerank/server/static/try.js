// Asks the server for candidates and scores, and draws both lists. Texts become text nodes only, never markup.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const SENTENCES = 12;
const PREVIEW = 150;
const at = id => document.getElementById(id);

let examples = [];
let state = { models: [], passages: 0, files: [] };
let shown = null;
let asked = 0;

// Control characters and marks that turn the direction of text are shown as escapes.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
const visible = text => text.replace(HIDDEN, c => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
const flat = text => visible(text.replace(/\s+/g, " "));

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

async function ask(path, body) {
  const headers = body === undefined ? {} : { "content-type": "application/json" };
  if (at("key").value) headers.authorization = `Bearer ${at("key").value}`;
  const settings = { headers, method: body === undefined ? "GET" : "POST" };
  if (body !== undefined) settings.body = JSON.stringify(body);
  const answer = await fetch(path, settings);
  const content = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(content.message || `status ${answer.status}`), { status: answer.status });
  return content;
}

function say(text, isBad = false) {
  at("status").textContent = visible(text);
  at("status").classList.toggle("bad", isBad);
}

// The first part of a text, or the part around its best sentence, in three pieces of which the middle is marked.
function pieces(text, span, length) {
  const [start, end] = span || [0, 0];
  if (!span) return [flat(text.slice(0, length)), "", ""];
  const from = length === Infinity || end <= length ? 0 : Math.max(0, start - 40);
  const lead = (from > 0 ? "… " : "") + text.slice(from, start);
  const clean = length === Infinity ? visible : flat;
  return [clean(lead), clean(text.slice(start, end)), clean(text.slice(end, length === Infinity ? undefined : end + length))];
}

function marked(parts) {
  const [before, middle, after] = parts;
  return middle ? [before, make("mark", "", middle), after] : [before + after];
}

function draw() {
  const { passages, order } = shown;
  const places = new Map(order.map((passage, place) => [passage, place + 1]));
  const highest = Math.max(...passages.map(passage => passage.score), 0.001);
  at("before").replaceChildren(...passages.map((passage, place) => {
    const row = make("li", "", make("span", "place", String(place + 1)), make("span", "text clamp", flat(passage.text.slice(0, PREVIEW))));
    row.dataset.before = place + 1;
    return row;
  }));
  at("after").replaceChildren(...order.map(passage => {
    const before = passages.indexOf(passage) + 1, after = places.get(passage), moved = before - after;
    const bar = make("i", "");
    bar.style.width = `${Math.max(1, 100 * passage.score / highest)}%`;
    const summary = make("summary", "",
      make("span", "place", String(after)),
      make("span", `move figure ${kind(moved)}`, moved > 0 ? `+${moved}` : moved < 0 ? `−${-moved}` : "="),
      make("span", "score-bar", make("span", "score figure", passage.score.toFixed(3)), make("span", "bar", bar)),
      make("span", "preview clamp", ...marked(pieces(passage.text, passage.span, PREVIEW))));
    const whole = make("div", "whole", make("p", "passage", ...marked(pieces(passage.text, passage.span, Infinity))));
    if (passage.source) whole.append(make("p", "source", flat(passage.source)));
    const row = make("li", "", make("details", "", summary, whole));
    row.dataset.before = before;
    return row;
  }));
  at("ribbons").replaceChildren(...order.map(passage => {
    const path = document.createElementNS(SVG, "path");
    path.dataset.before = passages.indexOf(passage) + 1;
    return path;
  }));
  update();
  drawRibbons();
}

const kind = moved => moved > 0 ? "up" : moved < 0 ? "down" : "flat";

function drawRibbons() {
  if (!shown) return;
  const svg = at("ribbons");
  svg.style.height = `${at("after").getBoundingClientRect().height}px`;
  const box = svg.getBoundingClientRect();
  svg.setAttribute("viewBox", `0 0 100 ${Math.max(1, box.height)}`);
  const middle = element => {
    const { top, height } = element.getBoundingClientRect();
    return top - box.top + height / 2;
  };
  const paths = [...svg.children];
  [...at("after").children].forEach((row, place) => {
    const from = middle(at("before").children[row.dataset.before - 1]), to = middle(row.querySelector("summary"));
    paths[place].setAttribute("d", `M0 ${from}C50 ${from} 50 ${to} 100 ${to}`);
  });
}

const threshold = () => Number(at("threshold").value) / 1000;
const topN = () => Number(at("top-n").value);

function update() {
  const least = threshold();
  const kept = shown.order.filter((passage, place) => place < topN() && passage.score >= least);
  const paths = [...at("ribbons").children];
  [...at("after").children].forEach((row, place) => {
    const passage = shown.order[place], keeps = kept.includes(passage), moved = row.dataset.before - place - 1;
    row.classList.toggle("dropped", !keeps);
    row.querySelector(".move").className = `move figure ${keeps ? kind(moved) : ""}`;
    paths[place].setAttribute("class", keeps ? kind(moved) : "dropped");
  });
  const [topOutput, leastOutput] = at("sliders").querySelectorAll("output");
  topOutput.value = topN();
  leastOutput.value = least === 0 ? "none" : least.toFixed(3);
  const fresh = kept.filter(passage => shown.passages.indexOf(passage) >= kept.length).length;
  at("kept").textContent = kept.length === 0 ? "Keeps nothing."
    : `Keeps ${kept.length} of ${shown.order.length}`
      + (fresh ? `; ${fresh} of them ${fresh === 1 ? "was" : "were"} not in the first stage's best ${kept.length}.` : ".");
  at("code").textContent = code();
}

// What is on the screen as Python: JSON's strings are Python's, too.
function code() {
  const model = (state.models.find(model => model.name === shown.model) || { model: shown.model }).model;
  const least = threshold() === 0 ? "" : `    score_threshold=${threshold()},\n`;
  const documents = shown.passages.map(passage => `    Document(${JSON.stringify(passage.text)}),\n`).join("");
  return "from langchain_core.documents import Document\n"
    + "from langchain_crossrerank import CrossEncoderReranker\n\n"
    + `query = ${JSON.stringify(shown.query)}\n`
    + `documents = [\n${documents}]\n\n`
    + `reranker = CrossEncoderReranker(\n    model=${JSON.stringify(model)},\n    top_n=${topN()},\n${least}`
    + '    model_kwargs={"activation": "sigmoid"},\n)\n'
    + "for document in reranker.compress_documents(documents, query):\n"
    + "    print(f\"{document.metadata['relevance_score']:.3f}  {document.page_content}\")\n";
}

const milliseconds = ms => ms < 10 ? `${ms.toFixed(1)} ms` : `${ms.toFixed(0)} ms`;

async function search() {
  const mine = ++asked;
  const query = at("query").value;
  const usesFiles = at("paste").hidden;
  const passages = usesFiles ? null : at("passages").value.split(/\n\s*\n/).map(text => text.trim()).filter(Boolean);
  if (!query.trim()) { say("Type a query first.", true); at("query").focus(); return; }
  if (passages !== null && passages.length === 0) { say("Paste some passages, or pick an example.", true); return; }
  const body = { query, passages, model: at("model").value || null, order: at("order").value, k: Number(at("k").value) || 20 };
  at("go").setAttribute("aria-busy", "true");
  say("Reranking…");
  try {
    const found = await ask("try/search", body);
    if (mine !== asked) return;
    if (found.passages.length === 0) { at("results").hidden = true; say("No passage has a word of the query."); return; }
    const order = [...found.passages].sort((a, b) => b.score - a.score);
    shown = { query, ...found, order };
    at("asked").textContent = visible(query);
    const first = usesFiles || body.order === "bm25" ? `BM25 ${milliseconds(found.retrieve_ms)}` : "first stage as given";
    at("facts").textContent = `${first} · reranked ${order.length} passages in ${milliseconds(found.rerank_ms)} · ${visible(found.model)}`;
    at("top-n").max = order.length;
    at("top-n").value = Math.min(3, order.length);
    at("results").hidden = false;
    draw();
    say("");
    await highlight(mine);
  } catch (err) {
    if (mine === asked) report(err);
  } finally {
    if (mine === asked) at("go").removeAttribute("aria-busy");
  }
}

async function highlight(mine) {
  const best = shown.order.slice(0, SENTENCES);
  const { spans } = await ask("try/sentences", { query: shown.query, passages: best.map(passage => passage.text), model: shown.model });
  if (mine !== asked) return;
  spans.forEach((span, place) => {
    // The server counts characters as Python does, and a string here counts the halves of those beyond 16 bits.
    const characters = [...best[place].text];
    best[place].span = span && span.map(end => characters.slice(0, end).join("").length);
  });
  const open = [...at("after").children].map(row => row.firstChild.open);
  const focused = [...at("after").children].findIndex(row => row.contains(document.activeElement));
  draw();
  [...at("after").children].forEach((row, place) => { row.firstChild.open = open[place]; });
  if (focused >= 0) at("after").children[focused].querySelector("summary").focus({ preventScroll: true });
}

function report(err) {
  if (err.status === 401) {
    at("key-row").hidden = false;
    at("key").focus();
  }
  say(err.status ? err.message : `The server does not answer (${err.message}).`, true);
}

function choose(example, button) {
  for (const other of at("examples").children) other.setAttribute("aria-pressed", String(other === button));
  at("paste").hidden = example === null;
  at("files").hidden = example !== null;
  at("order-row").hidden = example === null;
  if (example !== null) {
    at("passages").value = example.passages.join("\n\n");
    at("query").value = example.query;
    if (example.passages.length) search(); else at("passages").focus();
  }
}

function chip(name, example) {
  const button = make("button", "", visible(name));
  button.type = "button";
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => choose(example, button));
  return button;
}

async function start() {
  try {
    state = await ask("try/state");
  } catch (err) {
    report(err);
    return;
  }
  at("model").replaceChildren(...state.models.map(model => new Option(visible(model.name), model.name)));
  at("model-row").hidden = state.models.length < 2;
  const chips = examples.map(example => chip(example.name, example));
  if (state.passages) {
    const files = state.files.length === 1 ? visible(state.files[0]) : `${state.files.length} files`;
    at("files").textContent = `Searches ${state.passages} passages of ${files}.`;
    chips.unshift(chip(state.files.length === 1 ? state.files[0] : "your files", null));
  }
  chips.push(chip("your own text", { query: "", passages: [] }));
  at("examples").replaceChildren(...chips);
  if (state.passages) { choose(null, chips[0]); at("query").focus(); }
  await ready();
  if (!state.passages && examples.length && !at("query").value && !at("passages").value) choose(examples[0], chips[0]);
}

async function ready() {
  while (state.models.some(model => !model.ready)) {
    say("The model is loading…");
    await new Promise(done => setTimeout(done, 500));
    state = await ask("try/state");
  }
  say("");
}

async function begin() {
  at("key").value = new URLSearchParams(location.hash.slice(1)).get("key") || "";
  examples = await (await fetch("page/examples.json")).json();
  at("search").addEventListener("submit", event => { event.preventDefault(); search(); });
  at("search").addEventListener("keydown", event => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); search(); }
  });
  at("key").addEventListener("change", start);
  at("sliders").addEventListener("input", update);
  at("sliders").addEventListener("submit", event => event.preventDefault());
  for (const id of ["model", "order", "k"]) at(id).addEventListener("change", () => { if (shown) search(); });
  at("after").addEventListener("toggle", drawRibbons, true);
  new ResizeObserver(drawRibbons).observe(at("lists"));
  const light = (event, isOn) => {
    const row = event.target.closest && event.target.closest("li[data-before]");
    if (row) for (const same of at("lists").querySelectorAll(`[data-before="${row.dataset.before}"]`)) same.classList.toggle("lit", isOn);
  };
  for (const [on, off] of [["mouseover", "mouseout"], ["focusin", "focusout"]]) {
    at("lists").addEventListener(on, event => light(event, true));
    at("lists").addEventListener(off, event => light(event, false));
  }
  at("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(at("code").textContent);
      at("copy").textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(at("code"));
      at("copy").textContent = "Selected";
    }
    setTimeout(() => { at("copy").textContent = "Copy code"; }, 1500);
  });
  await start();
}

begin();
