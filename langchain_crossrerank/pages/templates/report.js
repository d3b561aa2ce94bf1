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
  const least = () => threshold.value < 0 ? -Infinity : low + (high - low) * threshold.value / 1000;
  const initial = lists.dataset.threshold;
  if (initial !== "") {
    threshold.value = high > low ? Math.ceil(1000 * (Number(initial) - low) / (high - low)) : 0;
  }
  const update = () => {
    let kept = 0;
    const places = [];
    for (const row of rows) {
      const keeps = row.dataset.score !== "" && Number(row.dataset.score) >= least() && kept < topN.value;
      kept += keeps;
      if (keeps) places.push(Number(row.dataset.before));
      row.classList.toggle("dropped", !keeps);
      const after = rows.indexOf(row) + 1, before = Number(row.dataset.before);
      const kind = before > after ? "up" : before < after ? "down" : "flat";
      row.querySelector(".move").className = `move figure ${keeps ? kind : ""}`;
      paths.get(row.dataset.before).setAttribute("class", keeps ? kind : "dropped");
    }
    const chosen = least() === -Infinity ? "" : `, score_threshold=${least().toFixed(3)}`;
    form.querySelectorAll("output")[0].value = topN.value;
    form.querySelectorAll("output")[1].value = least() === -Infinity ? "none" : least().toFixed(3);
    const fresh = places.filter(place => place > kept).length;
    const code = document.createElement("code");
    code.textContent = `top_n=${topN.value}${chosen}`;
    const words = kept === 0 ? " would keep nothing."
      : ` would keep ${kept} of ${rows.length}, at first-stage ${kept === 1 ? "place" : "places"} ${places.join(", ")}`
        + (fresh ? `; ${fresh} of them ${fresh === 1 ? "was" : "were"} not in the first stage's best ${kept}.` : ".");
    form.querySelector("[role=status]").replaceChildren(code, words);
  };
  form.hidden = false;
  form.addEventListener("input", update);
  form.addEventListener("submit", event => event.preventDefault());
  update();
}
