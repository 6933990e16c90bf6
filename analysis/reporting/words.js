"use strict";
/* Numbers and names as all parts of a page write them. */
const nettime = (function () {
  const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1], ["ms", 1e-3], ["µs", 1e-6], ["ns", 1e-9]];
  const escaped = (text) => String(text).replace(/[&<>"]/g, (c) => "&#" + c.charCodeAt(0) + ";");
  const short = (v) => String(Number(v.toPrecision(3)));
  const unitOf = (s) => UNITS.find((u) => s >= u[1]) || UNITS[UNITS.length - 1];
  const seconds = (s) => (s === 0 ? "0" : short(s / unitOf(s)[1]) + " " + unitOf(s)[0]);
  return { escaped, short, seconds };
})();
