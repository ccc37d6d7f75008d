// SPDX-FileCopyrightText: The runqy for Airflow authors
// SPDX-License-Identifier: Apache-2.0

// One page of the waiting tasks, its filter, and its paging.

import { AIRFLOW } from "./airflow.js";
import { element, showNote, updateTable } from "./tables.js";
import { NUMBER, ago, clock, duration } from "./texts.js";

const ROWS = 50;

let offset = 0;

export function waitsPath() {
  const query = new URLSearchParams({
    text: element("filter-text").value,
    queue: element("filter-queue").value,
    order: element("filter-order").value,
    offset,
    limit: ROWS,
  });
  return `api/waits?${query}`;
}

export function showWaits(answer) {
  const { now, rows, total, matching } = answer;
  offset = answer.offset;
  element("waits-part").hidden = total === 0;
  element("waits-total").textContent = total ? NUMBER.format(total) : "";
  showNote("triggerer-note", answer.triggerer_problem);
  showNote("waits-note", waitsNote(answer));
  showQueueOptions(answer.queues);
  element("range").textContent = matching
    ? `${NUMBER.format(offset + 1)}–${NUMBER.format(offset + rows.length)} of ${NUMBER.format(matching)}`
    : "";
  element("previous").disabled = offset === 0;
  element("next").disabled = offset + rows.length >= matching;
  updateTable(element("waits"), rows, (one) => one.key, (one) => waitCells(one, now));
  return false;
}

function waitsNote({ total, matching, is_complete: isComplete }) {
  if (!total) return "No task waits for a delivery. Tasks appear here while their job runs.";
  if (!isComplete) return "More tasks wait than are listed here. These are the oldest.";
  return matching ? "" : "No waiting task matches the filter.";
}

function waitCells(one, now) {
  const { progress } = one;
  return [
    { text: taskText(one), href: taskUrl(one) },
    { text: one.dag_id, href: urlOf("dags", one.dag_id) },
    { text: one.run_id, href: urlOf("dags", one.dag_id, "runs", one.run_id) },
    { text: one.runqy_queue || "–", title: one.job_id ? `Job ${one.job_id}` : "" },
    { text: one.sink, title: `${one.sink}, delivery ${one.delivery_id}` },
    { text: duration(now - one.since), title: `Since ${clock(one.since)}` },
    one.deadline
      ? { text: duration(one.deadline - now), title: `At ${clock(one.deadline)}` }
      : "–",
    progress
      ? { text: progressText(progress), fraction: progress.fraction }
      : { text: "–", title: "The task code has not reported progress" },
    progress ? ago(progress.at, now) : "–",
  ];
}

function progressText({ fraction, text }) {
  const share = fraction === null ? "" : `${Math.round(fraction * 100)} %`;
  return [share, text].filter(Boolean).join(", ") || "alive";
}

function taskText(one) {
  const index = one.map_index < 0 ? "" : ` [${one.map_index}]`;
  const iteration = one.iteration === null ? "" : `, iteration ${one.iteration}`;
  return one.task_id + index + iteration;
}

function taskUrl(one) {
  const mapped = one.map_index < 0 ? [] : ["mapped", one.map_index];
  const url = urlOf("dags", one.dag_id, "runs", one.run_id, "tasks", one.task_id, ...mapped);
  const region = { region_id: one.region_id, region_index: one.region_index };
  return one.region_id ? `${url}?${new URLSearchParams(region)}` : url;
}

// The page of Airflow at a path.
function urlOf(...parts) {
  return new URL(parts.map(encodeURIComponent).join("/"), AIRFLOW).href;
}

// The chosen queue stays an option when nothing waits for it any more.
function showQueueOptions(queues) {
  const select = element("filter-queue");
  const counts = new Map(queues.filter((one) => one.name).map((one) => [one.name, one.waits]));
  if (select.value && !counts.has(select.value)) counts.set(select.value, 0);
  const known = new Map([...select.options].slice(1).map((option) => [option.value, option]));
  for (const [name, option] of known) if (!counts.has(name)) option.remove();
  for (const [name, count] of counts) {
    const text = `${name} (${NUMBER.format(count)})`;
    const option = known.get(name) ?? select.appendChild(new Option(text, name));
    if (option.text !== text) option.text = text;
  }
}

export function hideWaits() {
  element("waits-part").hidden = true;
  showNote("triggerer-note", "");
  showNote("waits-note", "Only users who may read task instances see this.");
}

// Calls `refresh` whenever the user asks for other rows.
export function addControls(refresh) {
  const goTo = (newOffset) => {
    offset = Math.max(0, newOffset);
    refresh();
  };
  let typing;
  element("filter-text").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => goTo(0), 250);
  });
  element("filter-queue").addEventListener("change", () => goTo(0));
  element("filter-order").addEventListener("change", () => goTo(0));
  element("filter").addEventListener("submit", (event) => {
    event.preventDefault();
    goTo(0);
  });
  element("previous").addEventListener("click", () => goTo(offset - ROWS));
  element("next").addEventListener("click", () => goTo(offset + ROWS));
}
