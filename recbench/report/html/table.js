"use strict";
// Sorting and filtering of tables. Without this script the page is complete, only still.
for (const grid of document.querySelectorAll("[data-interactive]")) {
  const table = grid.querySelector("table"), body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const original = [...body.rows];
  const value = (row, at) => {
    const cell = row.cells[at], text = cell.textContent.trim();
    return cell.dataset.sort === undefined ? text : Number(cell.dataset.sort);
  };
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });

  heads.forEach((head, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const numeric = original.some((row) => row.cells[at].dataset.sort !== undefined);
      const order = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
      const now = before === null ? order[0] : before === order[0] ? order[1] : null;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (now !== null) head.setAttribute("aria-sort", now);
      const rows = [...original];
      if (now !== null) rows.sort((one, other) => {
        const a = value(one, at), b = value(other, at);
        if (a === "" || b === "") return (a === "") - (b === "");  // empty cells last, either way
        return now === "ascending" ? compare(a, b) : compare(b, a);
      });
      body.append(...rows);
    });
  });

  if (original.length < 4) continue;
  const label = document.createElement("label"), input = document.createElement("input"), told = document.createElement("output");
  label.className = "filter";
  input.type = "search";
  input.setAttribute("aria-controls", table.id);
  label.append("Show rows with", input, told);
  grid.prepend(label);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of original) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    told.textContent = words.length ? `${shown} of ${original.length}` : "";
  });
}
