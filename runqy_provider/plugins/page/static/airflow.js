// SPDX-FileCopyrightText: The runqy for Airflow authors
// SPDX-License-Identifier: Apache-2.0

// What this page has to do with the page of Airflow around it.

// The address of Airflow, whatever path it is served under.
export const AIRFLOW = new URL("../../", document.baseURI);

// The root of Airflow's own page; null if this page is not in a frame of it.
function outerRoot() {
  if (window.parent === window) return null;
  try {
    return window.parent.document.documentElement;
  } catch {
    return null;
  }
}

// Follows the mode that was chosen in Airflow, else that of the system.
export function followTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = outerRoot();
  const modes = ["dark", "light"];
  const apply = () => {
    const chosen =
      modes.find((mode) => root?.classList.contains(mode)) ??
      modes.find((mode) => localStorage.getItem("theme") === mode);
    document.documentElement.dataset.theme = chosen ?? (system.matches ? "dark" : "light");
  };
  apply();
  system.addEventListener("change", apply);
  window.addEventListener("storage", apply);
  if (root) new MutationObserver(apply).observe(root, { attributeFilter: ["class"] });
}

// Airflow's frame may neither replace the page around it nor open a window. So the page
// around it follows the link itself.
function followLink(event) {
  const link = event.target.closest("a[href]");
  const root = outerRoot();
  if (!link || !root || event.button > 1) return;
  event.preventDefault();
  const copy = root.ownerDocument.createElement("a");
  copy.href = link.href;
  const isNewTab = event.ctrlKey || event.metaKey || event.shiftKey || event.button === 1;
  if (isNewTab) Object.assign(copy, { target: "_blank", rel: "noopener" });
  root.ownerDocument.body.append(copy);
  copy.click();
  copy.remove();
}

export function followLinks() {
  document.addEventListener("click", followLink);
  document.addEventListener("auxclick", followLink);
}
