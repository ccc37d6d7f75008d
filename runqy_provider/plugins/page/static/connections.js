// SPDX-FileCopyrightText: The runqy for Airflow authors
// SPDX-License-Identifier: Apache-2.0

// Connections and their health, their queues, and the last deliveries.

import { element, showNote, updateTable } from "./tables.js";
import { NUMBER, ago, size } from "./texts.js";

// The newest of all, and some of each connection: a busy one hides no other.
const MOST_DELIVERIES = 25;
const OF_EACH = 5;

// As old as a state becomes only if the page was not open for a while.
const OLD_SECONDS = 12;

const CONFLICT = "conflict: another result came first";

export function showConnections({ now, connections }) {
  showNote(
    "connections-note",
    connections.length
      ? ""
      : "There is no runqy connection that you may read. Create one under Admin, Connections, with the type runqy.",
  );
  updateTable(element("connections"), connections, (one) => one.conn_id, (one) => [
    one.conn_id,
    checkCell(one, one.server),
    one.problem ? "–" : checkCell(one, one.inbox),
    one.checked_at ? ago(one.checked_at, now) : "",
  ]);
  showQueues(connections);
  showDeliveries(connections, now);
  // Whether a newer state will be known soon.
  return connections.some((one) => !one.checked_at || now - one.checked_at > OLD_SECONDS);
}

function checkCell(connection, check) {
  if (connection.problem) return { text: connection.problem, kind: "bad" };
  if (!check) return { text: "Checking …", kind: "muted" };
  if (!check.problem) return { text: check.address, kind: "good" };
  return { text: [check.address, check.problem].filter(Boolean).join(": "), kind: "bad" };
}

function showQueues(connections) {
  const queues = connections.flatMap((one) =>
    (one.queues ?? []).map((queue) => ({ ...queue, conn_id: one.conn_id })),
  );
  const problems = connections
    .filter((one) => one.queues_problem)
    .map((one) => `${one.conn_id}: ${one.queues_problem}`);
  const isUnknown = connections.some((one) => !one.problem && one.queues === undefined);
  if (isUnknown && !queues.length) problems.push("Checking …");
  if (!isUnknown && !queues.length && connections.some((one) => one.queues)) {
    problems.push("runqy has no queues yet.");
  }
  showNote("queues-note", problems.join("\n"));
  updateTable(element("queues"), queues, (one) => `${one.conn_id} ${one.name}`, (one) => [
    one.name,
    one.conn_id,
    NUMBER.format(one.pending),
    NUMBER.format(one.active),
    NUMBER.format(one.retry),
    NUMBER.format(one.archived),
    one.failed_today === null
      ? { text: "–", title: "Not known: the connection does not name runqy's own Redis" }
      : NUMBER.format(one.failed_today),
    workersCell(one),
  ]);
}

function workersCell(queue) {
  if (queue.workers || !(queue.pending || queue.retry)) return NUMBER.format(queue.workers);
  return { text: "0", kind: "warning", title: "Jobs are waiting, and no live worker serves this queue" };
}

function showDeliveries(connections, now) {
  const accepted = newest(connections, "accepted");
  const rejected = newest(connections, "rejected");
  const unknown = unknownNote(connections);
  const none = "None yet. Webhook deliveries appear here when they reach the receiver.";
  showNote("accepted-note", unknown || (accepted.length ? "" : none));
  showNote("rejected-note", unknown || (rejected.length ? "" : "None."));
  updateTable(element("accepted"), accepted, deliveryKey, (one) => [
    ago(one.at, now),
    { text: one.delivery_id, id: true },
    one.conn_id,
    { text: one.status, kind: one.status === "failed" ? "bad" : "" },
    size(one.size),
    one.outcome,
  ]);
  updateTable(element("rejected"), rejected, deliveryKey, (one) => [
    ago(one.at, now),
    { text: one.delivery_id, id: true },
    one.conn_id,
    NUMBER.format(one.count),
    one.outcome === "conflict" ? CONFLICT : one.outcome,
  ]);
}

// Whose deliveries are not shown.
function unknownNote(connections) {
  const unknown = connections.filter((one) => one.problem || !one.inbox || one.inbox.problem);
  const names = unknown.map((one) => one.conn_id).join(", ");
  return names && `Not shown: deliveries of ${names}, whose inbox has not been read.`;
}

function newest(connections, name) {
  return connections
    .flatMap(({ conn_id, recent }) =>
      (recent?.[name] ?? []).map((one, n) => ({ ...one, conn_id, isShown: n < OF_EACH })),
    )
    .sort((a, b) => b.at - a.at)
    .filter((one, n) => n < MOST_DELIVERIES || one.isShown);
}

const deliveryKey = (one) => [one.conn_id, one.at, one.delivery_id, one.outcome].join(" ");

// Says to a user without the right why these parts are empty.
export function hideConnections() {
  for (const id of ["connections", "queues", "accepted", "rejected"]) {
    updateTable(element(id), [], String, () => []);
    showNote(`${id}-note`, "Only users who may read connections see this.");
  }
}
