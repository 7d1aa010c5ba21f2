"use strict";
(() => {
  const table = document.querySelector("table.layers");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const texts = rows.map((row) => [...row.cells].map((cell) => cell.textContent).join("\n").toLowerCase());
  const count = new Intl.NumberFormat("en-US");

  // Search and filters: a row stays when it has every word and the filter's tag.
  const search = document.getElementById("search");
  const shown = document.getElementById("shown");
  const filters = [...document.querySelectorAll("[data-filter]")];
  let tag = "";
  const apply = () => {
    const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    rows.forEach((row, i) => {
      const fits = (!tag || row.dataset.tags.split(" ").includes(tag)) && wanted.every((word) => texts[i].includes(word));
      row.hidden = !fits;
      left += fits;
    });
    shown.textContent = `${count.format(left)} of ${count.format(rows.length)} layers`;
    document.querySelector(".none").hidden = left > 0;
  };
  document.querySelector(".controls").hidden = false;
  document.querySelector(".controls").addEventListener("submit", (event) => event.preventDefault());
  search.addEventListener("input", apply);
  for (const button of filters) {
    button.addEventListener("click", () => {
      tag = button.dataset.filter;
      for (const other of filters) other.setAttribute("aria-pressed", String(other === button));
      apply();
    });
  }
  apply();

  // Sorting: numbers as numbers, NaN and inf as the worst, what was not compared last.
  const key = (cell) => {
    const text = cell.textContent.trim();
    if (text === "–" || text === "") return null;
    if (text === "NaN" || text === "inf") return Infinity;
    const number = Number(text.replaceAll(",", ""));
    return Number.isNaN(number) ? text.toLowerCase() : number;
  };
  const compare = (a, b) => (typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1);
  const headings = [...table.tHead.rows[1].cells];
  headings.forEach((heading, column) => {
    if (heading.tagName !== "TH") return;
    // A span: a <button> is not repeated on each printed page.
    const button = Object.assign(document.createElement("span"), { textContent: heading.textContent, tabIndex: 0, role: "button" });
    heading.replaceChildren(button);
    button.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); button.click(); }
    });
    button.addEventListener("click", () => {
      const first = heading.classList.contains("num") && heading.textContent !== "#" ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = heading.getAttribute("aria-sort") === first ? other : first;
      for (const one of headings) one.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const keyed = rows.map((row) => [key(row.cells[column]), row]);
      keyed.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b)));
      body.append(...keyed.map(([, row]) => row));
    });
  });

  // The chart: series on and off, and the layer under the pointer.
  const figure = document.querySelector("figure.pointed");
  if (!figure) return;
  for (const button of document.querySelectorAll("[data-series]")) {
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(on));
      figure.classList.toggle(`off-${button.dataset.series}`, !on);
    });
  }
  const tip = figure.querySelector(".tip");
  const cells = (row) => [...row.cells].slice(-4).map((cell) => cell.textContent);
  const element = (tagName, text) => Object.assign(document.createElement(tagName), { textContent: text });
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  line.setAttribute("style", "stroke: var(--muted); stroke-width: 1");
  const place = (event) => {
    const chart = [...figure.querySelectorAll("svg.chart")].find((svg) => svg.getBoundingClientRect().width > 0);
    const box = chart.getBoundingClientRect();
    const scale = box.width / chart.viewBox.baseVal.width;
    const [x0, x1] = [Number(chart.dataset.x0), Number(chart.dataset.x1)];
    const share = ((event.clientX - box.left) / scale - x0) / (x1 - x0);
    const index = Math.min(rows.length - 1, Math.max(0, Math.round(share * Math.max(1, rows.length - 1))));
    return { chart, box, scale, index, x: x0 + ((x1 - x0) * index) / Math.max(1, rows.length - 1) };
  };
  const show = (event) => {
    const { chart, box, scale, index, x } = place(event);
    for (const [name, value] of [["x1", x], ["x2", x], ["y1", chart.dataset.top], ["y2", chart.dataset.bottom]]) line.setAttribute(name, value);
    chart.append(line);
    const names = [...rows[index].querySelectorAll(".name")].map((cell) => cell.firstElementChild.textContent);
    const [a32, a64, m32, m64] = cells(rows[index]);
    const grid = document.createElement("table");
    for (const [label, one, other] of [["", "float32", "float64"], ["alone", a32, a64], ["in the model", m32, m64]]) {
      const row = grid.insertRow();
      row.append(element("th", label), element("td", one), element("td", other));
    }
    tip.replaceChildren(element("b", names[0]), element("b", names[1]), grid);
    tip.hidden = false;
    const at = x * scale;
    tip.style.left = `${Math.max(0, Math.min(box.width - tip.offsetWidth, at > box.width / 2 ? at - tip.offsetWidth - 14 : at + 14))}px`;
  };
  const hide = () => { tip.hidden = true; line.remove(); };
  figure.addEventListener("pointermove", show);
  figure.addEventListener("pointerdown", show);
  figure.addEventListener("pointerleave", hide);
  figure.addEventListener("click", (event) => {
    const row = rows[place(event).index];
    if (row.hidden) { search.value = ""; filters[0].click(); }
    for (const other of body.querySelectorAll(".here")) other.classList.remove("here");
    row.classList.add("here");
    row.scrollIntoView({ block: "center" });
  });
})();
