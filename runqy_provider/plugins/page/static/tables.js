// SPDX-FileCopyrightText: The runqy for Airflow authors
// SPDX-License-Identifier: Apache-2.0

// Tables and notes that are updated in place. All texts of others become text nodes,
// never HTML.

export const element = (id) => document.getElementById(id);

// Updates a table row by row: what has not changed stays, with its focus and selection.
// A cell is a text, or {text, title, href, kind, fraction}.
export function updateTable(table, items, keyOf, cellsOf) {
  const body = table.tBodies[0];
  const keys = new Set(items.map(keyOf));
  const known = new Map();
  for (const row of [...body.rows]) {
    if (keys.has(row.dataset.key)) known.set(row.dataset.key, row);
    else row.remove();
  }
  let next = body.firstElementChild;
  for (const item of items) {
    const row = known.get(keyOf(item)) ?? newRow(table, keyOf(item));
    cellsOf(item).forEach((cell, n) => updateCell(row.cells[n], cell));
    if (row === next) next = row.nextElementSibling;
    else body.insertBefore(row, next);
  }
  table.hidden = items.length === 0;
}

function newRow(table, key) {
  const row = document.createElement("tr");
  row.dataset.key = key;
  for (const head of table.tHead.rows[0].cells) {
    const cell = row.insertCell();
    if (head.classList.contains("number")) cell.className = "number";
  }
  return row;
}

function updateCell(cell, value) {
  const { text, title, href, kind = "", id, fraction = null } =
    typeof value === "object" ? value : { text: value };
  cell.classList.toggle("id", Boolean(id));
  updateBar(cell, fraction);
  const tag = href ? "a" : "span";
  let part = cell.querySelector(tag);
  if (!part) part = cell.appendChild(document.createElement(tag));
  if (href && part.getAttribute("href") !== href) part.href = href;
  if (part.textContent !== String(text)) part.textContent = text;
  if (part.title !== (title ?? text)) part.title = title ?? text;
  if (part.className !== kind) part.className = kind;
}

function updateBar(cell, fraction) {
  let bar = cell.querySelector("progress");
  if (fraction === null) return bar?.remove();
  if (!bar) {
    bar = document.createElement("progress");
    cell.prepend(bar);
  }
  bar.value = fraction;
}

export function showNote(id, text) {
  const note = element(id);
  note.hidden = !text;
  if (note.textContent !== text) note.textContent = text;
}
