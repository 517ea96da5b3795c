"use strict";

// Tables: a click on a column's name sorts by it, a second click the other way round.

function compareCells(a, b) {
  if ("number" in a.dataset && "number" in b.dataset) {
    return Number(a.dataset.sort) - Number(b.dataset.sort);
  }
  return a.dataset.sort.localeCompare(b.dataset.sort, undefined, { numeric: true });
}

function sortBy(header) {
  const table = header.closest("table");
  const column = header.cellIndex;
  const firstOrder = header.classList.contains("number") ? "descending" : "ascending";
  const otherOrder = firstOrder === "ascending" ? "descending" : "ascending";
  const order = header.getAttribute("aria-sort") === firstOrder ? otherOrder : firstOrder;
  const sign = order === "ascending" ? 1 : -1;
  const rows = [...table.tBodies[0].rows];
  rows.sort((rowA, rowB) => {
    const a = rowA.cells[column];
    const b = rowB.cells[column];
    const missing = !("sort" in a.dataset) - !("sort" in b.dataset); // last in both orders
    return missing || sign * compareCells(a, b);
  });
  table.tBodies[0].append(...rows);
  for (const other of table.tHead.rows[0].cells) {
    other.removeAttribute("aria-sort");
  }
  header.setAttribute("aria-sort", order);
}

for (const button of document.querySelectorAll("table.sortable th button")) {
  button.addEventListener("click", () => sortBy(button.closest("th")));
}

for (const field of document.querySelectorAll("input.filter")) {
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase();
    for (const row of field.closest(".table").querySelectorAll("tbody tr")) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
    }
  });
}

// The image viewer: a click enlarges, arrow keys go to the neighbours, Esc (the dialog's) closes.

const viewer = document.getElementById("viewer");
const views = [...document.querySelectorAll("button.view")];
let current = 0;

function show(index) {
  current = (index + views.length) % views.length;
  const image = views[current].querySelector("img");
  const caption = views[current].closest("figure").querySelector("figcaption");
  viewer.querySelector("img").src = image.src;
  viewer.querySelector("img").alt = image.alt;
  viewer.querySelector("p").textContent = caption ? caption.textContent : "";
}

views.forEach((button, index) =>
  button.addEventListener("click", () => {
    show(index);
    viewer.showModal();
  }),
);
viewer.querySelector(".previous").addEventListener("click", () => show(current - 1));
viewer.querySelector(".next").addEventListener("click", () => show(current + 1));
viewer.addEventListener("click", (event) => {
  if (!event.target.matches(".previous, .next")) {
    viewer.close();
  }
});
viewer.addEventListener("keydown", (event) => {
  if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
    event.preventDefault();
    show(current + (event.key === "ArrowRight" ? 1 : -1));
  }
});
viewer.addEventListener("close", () => views[current].focus());
