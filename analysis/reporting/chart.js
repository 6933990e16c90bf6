"use strict";
/* Loss curves that can be looked into: hover, zoom, choose runs and device, export. */
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.getElementById("charts");
  const state = { device: data.devices[0], hidden: new Set(), log: data.log_time };
  const { escaped, short, seconds } = nettime;
  const charts = [
    { id: "steps", name: () => "Validation loss by training steps", x: (r) => r.steps, log: () => false, show: short, label: () => "training steps" },
    { id: "time", name: () => "Validation loss by net training time on " + state.device, x: (r) => r.seconds[state.device].expected, log: () => state.log, show: seconds, label: () => "net training time" },
  ];

  function shown() { return data.runs.filter((r) => !state.hidden.has(r.name)); }

  function points(chart, run) {
    const x = chart.x(run), made = [];
    run.losses.forEach((y, i) => {
      if (y !== null && !(chart.log() && x[i] <= 0)) made.push([x[i], y]);
    });
    return made;
  }

  function range(values) {
    const low = Math.min(...values), high = Math.max(...values);
    return low < high ? [low, high] : [low - 1, high + 1];
  }

  function linearTicks(low, high, count) {
    const raw = (high - low) / count, power = Math.pow(10, Math.floor(Math.log10(raw)));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
    const made = [];
    for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) made.push(Math.abs(v) < step * 1e-9 ? 0 : v);
    return made;
  }

  function logTicks(low, high, count) {
    const made = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e++)
      for (const m of [1, 2, 5]) { const v = m * Math.pow(10, e); if (v >= low && v <= high) made.push(v); }
    const every = Math.max(1, Math.ceil(made.length / count));
    return made.length > 1 ? made.filter((_, i) => i % every === 0) : linearTicks(low, high, count);
  }

  function mark(kind, x, y, colour) {
    const at = `fill="${colour}"`;
    if (kind === 0) return `<circle cx="${x}" cy="${y}" r="3.5" ${at}/>`;
    if (kind === 1) return `<rect x="${x - 3}" y="${y - 3}" width="6" height="6" ${at}/>`;
    if (kind === 2) return `<path d="M${x} ${y - 4}l4 7h-8z" ${at}/>`;
    if (kind === 3) return `<path d="M${x} ${y - 5}l4 5l-4 5l-4 -5z" ${at}/>`;
    return `<path d="M${x} ${y + 4}l4 -7h-8z" ${at}/>`;
  }

  function draw(chart) {
    const runs = shown(), box = chart.box;
    const width = Math.max(300, box.clientWidth), height = Math.max(260, Math.min(420, width * 0.55));
    const left = 48, right = width - 12, top = 10, bottom = height - 44;
    const all = runs.map((r) => points(chart, r));
    const flat = all.flat();
    if (!flat.length) { box.innerHTML = "<p>No run is chosen.</p>"; return; }
    const full = range(flat.map((p) => p[0]));
    const [x0, x1] = chart.zoom || full;
    const inside = flat.filter((p) => p[0] >= x0 && p[0] <= x1);
    const y = range((inside.length ? inside : flat).map((p) => p[1]));
    const pad = 0.05 * (y[1] - y[0]), y0 = y[0] - pad, y1 = y[1] + pad;
    const f = chart.log() ? Math.log : (v) => v;
    const px = (v) => left + (f(v) - f(x0)) / (f(x1) - f(x0)) * (right - left);
    const py = (v) => bottom - (v - y0) / (y1 - y0) * (bottom - top);
    chart.back = (p) => { const s = f(x0) + (p - left) / (right - left) * (f(x1) - f(x0)); return chart.log() ? Math.exp(s) : s; };
    chart.px = px; chart.sides = [left, right, top, bottom]; chart.full = full; chart.view = [x0, x1];
    const count = Math.max(3, Math.floor(width / 110));
    const ticks = (chart.log() ? logTicks : linearTicks)(x0, x1, count);
    let svg = `<svg role="img" aria-label="${escaped(chart.name())}" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="system-ui, sans-serif" font-size="12">`;
    svg += `<clipPath id="clip-${chart.id}"><rect x="${left}" y="${top}" width="${right - left}" height="${bottom - top}"/></clipPath>`;
    for (const t of linearTicks(y0, y1, 5)) svg += `<path d="M${left} ${py(t)}H${right}" stroke="var(--grid)"/><text x="${left - 6}" y="${py(t) + 4}" text-anchor="end" fill="var(--ink)">${short(t)}</text>`;
    for (const t of ticks) svg += `<path d="M${px(t)} ${bottom}v5" stroke="var(--ink)"/><text x="${px(t)}" y="${bottom + 19}" text-anchor="middle" fill="var(--ink)">${chart.show(t)}</text>`;
    svg += `<path d="M${left} ${top}V${bottom}H${right}" fill="none" stroke="var(--ink)"/>`;
    svg += `<text x="${(left + right) / 2}" y="${height - 6}" text-anchor="middle" fill="var(--ink)">${escaped(chart.label())}</text>`;
    svg += `<g clip-path="url(#clip-${chart.id})">`;
    runs.forEach((run, i) => {
      const line = all[i].map((p) => [px(p[0]), py(p[1])]);
      const colour = `var(--${run.colour})`;
      svg += `<polyline points="${line.map((p) => p.map((v) => v.toFixed(1)).join(",")).join(" ")}" fill="none" stroke="${colour}" stroke-width="1.8" stroke-dasharray="${run.dash}"/>`;
      const every = Math.max(1, Math.round(line.length / 8));
      line.forEach((p, k) => { if (k % every === run.place % every) svg += mark(run.place % 5, p[0], p[1], colour); });
    });
    svg += `</g><path class="cross" d="" stroke="var(--ink)" stroke-dasharray="3 3"/><rect class="drag" x="0" y="${top}" width="0" height="${bottom - top}" fill="var(--ink)" opacity="0.12"/></svg>`;
    box.innerHTML = svg;
    chart.title.textContent = chart.name() + (chart.zoom ? " (part)" : "");
  }

  function at(list, x) {
    for (let i = 1; i < list.length; i++)
      if (x <= list[i][0]) {
        const [a, b] = [list[i - 1], list[i]];
        return x < a[0] ? null : a[1] + (b[0] === a[0] ? 0 : (x - a[0]) / (b[0] - a[0]) * (b[1] - a[1]));
      }
    return null;
  }

  function tell(chart, x) {
    const rows = shown().map((r) => [r, at(points(chart, r), x)]).filter((p) => p[1] !== null).sort((a, b) => a[1] - b[1]);
    const said = rows.map(([r, y]) => `<span style="color:var(--${r.colour})">${escaped(r.name)}</span> ${y.toFixed(3)}`);
    chart.said.innerHTML = `<b>${chart.show(x)}</b>: ${said.join(" · ") || "no run has come here"}`;
  }

  function listen(chart) {
    const box = chart.box;
    let from = null;
    const place = (event) => {
      const [left, right] = chart.sides;
      return Math.max(left, Math.min(right, event.clientX - box.getBoundingClientRect().left));
    };
    box.addEventListener("pointermove", (event) => {
      if (!chart.sides || !box.querySelector(".cross")) return;
      const p = place(event), [, , top, bottom] = chart.sides;
      box.querySelector(".cross").setAttribute("d", `M${p} ${top}V${bottom}`);
      tell(chart, chart.back(p));
      if (from !== null) {
        const drag = box.querySelector(".drag");
        drag.setAttribute("x", Math.min(p, from)); drag.setAttribute("width", Math.abs(p - from));
      }
    });
    box.addEventListener("pointerdown", (event) => { if (chart.sides && event.pointerType === "mouse") from = place(event); });
    window.addEventListener("pointerup", (event) => {
      if (from === null) return;
      const p = place(event), pair = [chart.back(Math.min(from, p)), chart.back(Math.max(from, p))];
      if (Math.abs(p - from) > 8) chart.zoom = pair;
      from = null; draw(chart);
    });
    box.addEventListener("dblclick", () => { chart.zoom = null; draw(chart); });
  }

  function zoom(chart, factor) {
    const f = chart.log() ? Math.log : (v) => v, g = chart.log() ? Math.exp : (v) => v;
    const [a, b] = chart.view.map(f), middle = (a + b) / 2, half = (b - a) / 2 * factor;
    const [low, high] = chart.full.map(f);
    const pair = [Math.max(low, middle - half), Math.min(high, middle + half)];
    chart.zoom = pair[0] <= low && pair[1] >= high ? null : pair.map(g);
    draw(chart);
  }

  function save(name, type, text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name; link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  function csv() {
    const quoted = (v) => (/[",\n]/.test(v) ? '"' + String(v).replace(/"/g, '""') + '"' : v);
    const lines = [["run", "step", "validation_loss", ...data.devices.flatMap((d) => [d + "_s", d + "_low_s", d + "_high_s"])]];
    for (const r of shown())
      r.steps.forEach((step, i) => lines.push([r.name, step, r.losses[i] ?? "", ...data.devices.flatMap((d) => ["expected", "low", "high"].map((k) => r.seconds[d][k][i]))]));
    return lines.map((l) => l.map(quoted).join(",")).join("\n") + "\n";
  }

  function svgOf(chart) {
    const style = getComputedStyle(document.documentElement);
    const text = chart.box.innerHTML.replace(/var\((--[a-z]+)\)/g, (_, name) => style.getPropertyValue(name).trim());
    return text.replace("<svg", '<svg xmlns="http:' + '/' + '/www.w3.org/2000/svg"');
  }

  function button(parent, text, act) {
    const made = document.createElement("button");
    made.type = "button"; made.textContent = text; made.addEventListener("click", act);
    parent.append(made);
  }

  function controls() {
    const bar = document.createElement("div");
    bar.className = "controls";
    const runs = document.createElement("fieldset");
    runs.innerHTML = "<legend>Runs</legend>";
    for (const run of data.runs) {
      const label = document.createElement("label");
      label.innerHTML = `<input type="checkbox" checked> <svg width="34" height="12"><path d="M0 6H34" stroke="var(--${run.colour})" stroke-width="2" stroke-dasharray="${run.dash}"/>${mark(run.place % 5, 17, 6, `var(--${run.colour})`)}</svg> ${escaped(run.name)}`;
      label.querySelector("input").addEventListener("change", (event) => {
        event.target.checked ? state.hidden.delete(run.name) : state.hidden.add(run.name);
        charts.forEach((c) => { c.zoom = null; draw(c); });
      });
      runs.append(label);
    }
    bar.append(runs);
    const device = document.createElement("label");
    device.innerHTML = "Device <select>" + data.devices.map((d) => `<option>${escaped(d)}</option>`).join("") + "</select>";
    device.querySelector("select").addEventListener("change", (event) => { state.device = event.target.value; charts[1].zoom = null; draw(charts[1]); });
    const log = document.createElement("label");
    log.innerHTML = `<input type="checkbox"${state.log ? " checked" : ""}> logarithmic time`;
    log.querySelector("input").addEventListener("change", (event) => { state.log = event.target.checked; charts[1].zoom = null; draw(charts[1]); });
    bar.append(device, log);
    button(bar, "CSV", () => save("runs.csv", "text/csv", csv()));
    return bar;
  }

  root.hidden = false;
  root.append(controls());
  for (const chart of charts) {
    const figure = document.createElement("figure");
    chart.title = document.createElement("h3");
    chart.box = document.createElement("div"); chart.box.className = "chart";
    chart.said = document.createElement("p"); chart.said.className = "said note";
    chart.said.textContent = "Point at a curve to read it; drag to zoom, double-click for all.";
    const tools = document.createElement("div"); tools.className = "controls";
    button(tools, "Zoom in", () => zoom(chart, 0.5));
    button(tools, "Zoom out", () => zoom(chart, 2));
    button(tools, "All", () => { chart.zoom = null; draw(chart); });
    button(tools, "SVG", () => save(chart.id + ".svg", "image/svg+xml", svgOf(chart)));
    figure.append(chart.title, chart.box, chart.said, tools);
    root.append(figure);
    draw(chart); listen(chart);
  }
  // The still figures come after this script.
  document.addEventListener("DOMContentLoaded", () =>
    document.querySelectorAll(".static").forEach((one) => { one.hidden = true; }));
  new ResizeObserver(() => charts.forEach(draw)).observe(root);
})();
