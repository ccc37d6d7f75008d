// SPDX-FileCopyrightText: The runqy for Airflow authors
// SPDX-License-Identifier: Apache-2.0

// The page: shows what its own server says, and again every few seconds.

import { followLinks, followTheme } from "./airflow.js";
import { hideConnections, showConnections } from "./connections.js";
import { Feed } from "./feed.js";
import { element } from "./tables.js";
import { addControls, hideWaits, showWaits, waitsPath } from "./waits.js";

const connections = new Feed({
  path: () => "api/connections",
  show: showConnections,
  hide: hideConnections,
  report: showStatus,
});
const waits = new Feed({ path: waitsPath, show: showWaits, hide: hideWaits, report: showStatus });
const feeds = [connections, waits];

function showStatus() {
  const broken = feeds.find((feed) => feed.problem);
  const status = element("status");
  status.classList.toggle("bad", Boolean(broken));
  const text = statusText(broken);
  // Screen readers say it only when it changes.
  if (status.textContent !== text) status.textContent = text;
}

function statusText(broken) {
  if (!broken) return feeds[0].isPaused ? "Paused" : "Live";
  const { problem, updatedAt } = broken;
  return updatedAt ? `${problem}. Shown: as of ${updatedAt.toLocaleTimeString()}.` : `${problem}.`;
}

element("pause").addEventListener("click", ({ currentTarget: button }) => {
  const isPaused = !feeds[0].isPaused;
  button.setAttribute("aria-pressed", isPaused);
  button.textContent = isPaused ? "Continue" : "Pause";
  feeds.forEach((feed) => feed.pause(isPaused));
  showStatus();
});
document.addEventListener("visibilitychange", () => feeds.forEach((feed) => feed.startIfSeen()));

followTheme();
followLinks();
addControls(() => waits.start());
feeds.forEach((feed) => feed.start());
