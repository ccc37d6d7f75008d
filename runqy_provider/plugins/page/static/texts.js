// SPDX-FileCopyrightText: The runqy for Airflow authors
// SPDX-License-Identifier: Apache-2.0

// How numbers and times are written.

export const NUMBER = new Intl.NumberFormat("en");

export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export const ago = (at, now) => ({ text: `${duration(now - at)} ago`, title: clock(at) });

export const clock = (at) => new Date(at * 1000).toLocaleString();

export function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  const [value, unit] = bytes < 1e6 ? [bytes / 1e3, "kB"] : [bytes / 1e6, "MB"];
  return `${value.toFixed(1)} ${unit}`;
}
