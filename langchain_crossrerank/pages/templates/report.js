// What the page can do with a script: say what other settings would keep, and let ribbons follow opened passages.
"use strict";
for (const lists of document.querySelectorAll(".lists")) {
  const form = lists.parentElement.querySelector(".sliders");
  const rows = [...lists.querySelectorAll(".after > li")];
  const firstStage = [...lists.querySelectorAll(".before > li")];
  const svg = lists.querySelector(".ribbons");
  const paths = new Map([...svg.querySelectorAll("path")].map(path => [path.dataset.before, path]));

  const redraw = () => {
    const box = svg.getBoundingClientRect();
    const middle = element => {
      const { top, height } = element.getBoundingClientRect();
      return top - box.top + height / 2;
    };
    svg.setAttribute("viewBox", `0 0 100 ${box.height}`);
    for (const row of rows) {
      const path = paths.get(row.dataset.before);
      const from = middle(firstStage[row.dataset.before - 1]), to = middle(row.querySelector("summary"));
      path.setAttribute("d", `M0 ${from}C50 ${from} 50 ${to} 100 ${to}`);
    }
  };
  const resize = () => {
    svg.style.height = `${lists.querySelector(".after").getBoundingClientRect().height}px`;
    redraw();
  };
  lists.classList.add("follows");
  lists.addEventListener("toggle", resize, true);
  new ResizeObserver(resize).observe(lists);

  if (!form) continue;
  const [topN, threshold] = [form.elements.top_n, form.elements.threshold];
  const low = Number(threshold.dataset.low), high = Number(threshold.dataset.high);
  const given = lists.dataset.threshold, minDocuments = Number(lists.dataset.minDocuments);
  if (given !== "") threshold.value = high > low ? Math.round(1000 * (given - low) / (high - low)) : 0;
  const start = threshold.value;
  // Rounded down, so that the highest one keeps the best passage.
  const digits = Math.max(3, Math.ceil(2 - Math.log10(high - low || 1))), scale = 10 ** digits;
  const at = step => (Math.floor((low + (high - low) * step / 1000) * scale) / scale).toFixed(digits);
  // A slider stands beside the threshold that was set, because it has steps; that one holds until it is moved.
  const least = () => threshold.value === start ? given : threshold.value < 0 ? "" : at(threshold.value);
  const best = rows.filter(row => row.dataset.uncut !== "").sort((a, b) => a.dataset.uncut - b.dataset.uncut);
  const chosen = () => {
    const passes = row => least() === "" || Number(row.dataset.score) >= Number(least());
    let spare = minDocuments - best.filter(passes).length;
    return best.filter(row => passes(row) || spare-- > 0).slice(0, topN.value);
  };
  const update = kept => {
    for (const row of rows) {
      const keeps = kept.includes(row);
      row.classList.toggle("dropped", !keeps);
      const after = rows.indexOf(row) + 1, before = Number(row.dataset.before);
      const kind = before > after ? "up" : before < after ? "down" : "flat";
      row.querySelector(".move").className = `move figure ${keeps ? kind : ""}`;
      paths.get(row.dataset.before).setAttribute("class", keeps ? kind : "dropped");
    }
    const places = kept.map(row => Number(row.dataset.before)), count = kept.length;
    form.querySelectorAll("output")[0].value = topN.value;
    form.querySelectorAll("output")[1].value = least() || "none";
    const fresh = places.filter(place => place > count).length;
    const code = document.createElement("code");
    code.textContent = `top_n=${topN.value}${least() && `, score_threshold=${least()}`}`
      + (least() && minDocuments ? `, min_documents=${minDocuments}` : "");
    const words = count === 0 ? " would keep nothing."
      : ` would keep ${count} of ${rows.length}, at first-stage ${count === 1 ? "place" : "places"} ${places.join(", ")}`
        + (fresh ? `; ${fresh} of them ${fresh === 1 ? "was" : "were"} not in the first stage's best ${count}.` : ".");
    form.querySelector("[role=status]").replaceChildren(code, words);
  };
  form.hidden = false;
  form.addEventListener("input", () => update(chosen()));
  form.addEventListener("submit", event => event.preventDefault());
  update(rows.filter(row => !row.classList.contains("dropped")));
}
