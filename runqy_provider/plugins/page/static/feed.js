// SPDX-FileCopyrightText: The runqy for Airflow authors
// SPDX-License-Identifier: Apache-2.0

// Fetches data again and again.

const REFRESH_SECONDS = 5;

// While a connection is being looked at for the first time.
const SOON_SECONDS = 1;

// After so long without an answer a request is given up.
const REQUEST_SECONDS = 15;

// The user may not see the data.
export class Refusal extends Error {}

// One path. `show` shows an answer, and returns whether more will be known soon; `hide`
// says that the user may not see it; `report` is called after each try.
export class Feed {
  constructor({ path, show, hide, report }) {
    Object.assign(this, { path, show, hide, report });
    this.problem = "";
    this.updatedAt = null;
    this.isPaused = false;
    this.turn = 0;
  }

  // Fetches now, and then regularly; a request that is under way is given up.
  async start() {
    clearTimeout(this.timer);
    this.abort?.abort();
    this.abort = new AbortController();
    const turn = ++this.turn;
    let seconds = REFRESH_SECONDS;
    try {
      const answer = await this.fetch(this.abort.signal);
      if (turn !== this.turn) return;
      if (this.show(answer)) seconds = SOON_SECONDS;
      this.problem = "";
      this.updatedAt = new Date();
    } catch (error) {
      if (turn !== this.turn) return;
      this.problem = error instanceof Refusal ? "" : error.message;
      if (error instanceof Refusal) this.hide();
    }
    this.report();
    this.timer = setTimeout(() => this.startIfSeen(), seconds * 1000);
  }

  startIfSeen() {
    if (!document.hidden && !this.isPaused) this.start();
  }

  pause(isPaused) {
    this.isPaused = isPaused;
    this.startIfSeen();
  }

  async fetch(signal) {
    const limit = AbortSignal.timeout(REQUEST_SECONDS * 1000);
    const headers = { Accept: "application/json" };
    let response;
    try {
      response = await fetch(this.path(), { headers, signal: AbortSignal.any([signal, limit]) });
    } catch {
      throw new Error("Airflow cannot be reached");
    }
    if (response.status === 401) throw new Error("Your login has expired: reload the page");
    if (response.status === 403) throw new Refusal();
    if (!response.ok) throw new Error(`Airflow answered ${response.status}`);
    return response.json();
  }
}
