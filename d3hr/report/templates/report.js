"use strict";

/* Tables that sort by a column; a row without a figure stays last, in either direction. */
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const usual = column === 0 ? "ascending" : "descending";
      const other = column === 0 ? "descending" : "ascending";
      const order = heading.getAttribute("aria-sort") === usual ? other : usual;
      const sign = order === "ascending" ? 1 : -1;
      headings.forEach((cell) => cell.setAttribute("aria-sort", cell === heading ? order : "none"));
      const keyed = [...body.rows].map((row) => [row.cells[column].dataset.value ?? "", row]);
      keyed.sort(([a], [b]) => {
        if (a === "" || b === "") return (a === "") - (b === "");
        return sign * (column === 0 ? a.localeCompare(b, undefined, { numeric: true }) : Number(a) - Number(b));
      });
      body.append(...keyed.map(([, row]) => row));
    });
  });
}

/* One dialog shows any picture large; arrow keys step through its section. */
const dialog = document.querySelector("dialog");
let series = [];
let place = 0;

function show(to) {
  place = (to + series.length) % series.length;
  const chosen = series[place];
  const views = dialog.querySelector(".views");
  views.replaceChildren(...[...chosen.querySelectorAll("img")].map((image) => image.cloneNode()));
  views.classList.toggle("two", views.children.length > 1);
  dialog.querySelector("p").textContent = chosen.dataset.caption;
}

for (const button of document.querySelectorAll("button.zoom")) {
  button.addEventListener("click", () => {
    series = [...button.closest("section").querySelectorAll("button.zoom")];
    show(series.indexOf(button));
    dialog.showModal();
  });
}
dialog.querySelector("[data-step='-1']").addEventListener("click", () => show(place - 1));
dialog.querySelector("[data-step='1']").addEventListener("click", () => show(place + 1));
dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowRight") show(place + 1);
  if (event.key === "ArrowLeft") show(place - 1);
});
dialog.addEventListener("close", () => series[place]?.focus());

/* The plane: a pointer on a dot names it, a class in the legend stands out alone. */
const plane = document.querySelector(".plane");
if (plane) {
  const peek = plane.querySelector(".peek");
  const names = [...document.querySelectorAll("#embedding .legend button")];
  plane.addEventListener("pointerover", (event) => {
    const dot = event.target.closest("circle");
    peek.hidden = !dot;
    if (!dot) return;
    const number = dot.parentNode.dataset.class;
    const distilled = dot.closest(".distilled") !== null;
    const picture = distilled && document.querySelector(`[data-picture="${number}-${dot.dataset.index}"] img`);
    const line = document.createElement("span");
    line.textContent = `${names[number].dataset.name}, ${distilled ? "distilled" : "real"} image ${dot.dataset.index}`;
    peek.replaceChildren(...(picture ? [picture.cloneNode()] : []), line);
    const [box, at] = [plane.getBoundingClientRect(), dot.getBoundingClientRect()];
    peek.style.left = `${Math.max(0, Math.min(at.right - box.left + 6, box.width - peek.offsetWidth))}px`;
    peek.style.top = `${Math.max(0, Math.min(at.bottom - box.top + 6, box.height - peek.offsetHeight))}px`;
  });
  plane.addEventListener("pointerleave", () => { peek.hidden = true; });
  names.forEach((button) => button.addEventListener("click", () => {
    const pressed = button.getAttribute("aria-pressed") === "true";
    names.forEach((other) => other.setAttribute("aria-pressed", String(other === button && !pressed)));
    plane.querySelectorAll("g[data-class]").forEach((group) =>
      group.classList.toggle("dim", !pressed && group.dataset.class !== button.dataset.class));
  }));
}

/* Paper shows what is folded on the screen. */
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
