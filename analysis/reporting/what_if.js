"use strict";
/* Sliders over a grid of estimates: batch, pattern, density; a line for each device. */
(function () {
  const data = JSON.parse(document.getElementById("grid").textContent);
  const root = document.getElementById("what-if");
  const COLOURS = ["vermilion", "sky", "green", "orange", "purple", "ink"];
  const DASHES = ["", "6 3", "2 2", "8 3 2 3"];
  const { escaped, short, seconds } = nettime;
  const state = { batch: Math.floor(data.batches.length / 2), pattern: 0, density: 0 };
  state.density = Math.max(0, data.patterns[0].asked.indexOf(0.1));

  function field(label, control) {
    const box = document.createElement("label"), said = document.createElement("output");
    box.className = "dial";
    box.append(label + " ", control, " ", said);
    return [box, said];
  }

  function slider(name, most) {
    const made = document.createElement("input");
    made.type = "range"; made.min = 0; made.max = most; made.step = 1; made.value = state[name];
    made.disabled = most === 0;
    made.addEventListener("input", () => { state[name] = Number(made.value); show(); });
    return made;
  }

  const batch = slider("batch", data.batches.length - 1);
  const density = slider("density", data.patterns[0].asked.length - 1);
  const pattern = document.createElement("select");
  data.patterns.forEach((p, i) => pattern.append(new Option(p.name, i)));
  pattern.addEventListener("change", () => {
    const before = data.patterns[state.pattern].share[state.density];
    state.pattern = Number(pattern.value);
    const shares = data.patterns[state.pattern].share;
    state.density = shares.reduce((best, s, i) =>
      Math.abs(Math.log(s / before)) < Math.abs(Math.log(shares[best] / before)) ? i : best, 0);
    density.max = shares.length - 1; density.value = state.density; density.disabled = shares.length === 1;
    show();
  });
  const [patternBox] = field("pattern", pattern);
  const [densityBox, densitySaid] = field("density", density);
  const [batchBox, batchSaid] = field("batch", batch);
  const controls = document.createElement("div");
  controls.className = "controls"; controls.append(patternBox, densityBox, batchBox);
  const answer = document.createElement("p"), table = document.createElement("div"), chart = document.createElement("figure");
  answer.className = "said"; answer.setAttribute("aria-live", "polite"); table.className = "scroll";
  root.append(controls, answer, table, chart);

  function gains(i) { return data.patterns[state.pattern].share.map((_, k) => data.dense[state.batch][i][0] / data.sparse[state.batch][state.pattern][k][i][0]); }

  function curve() {
    const own = data.patterns[state.pattern], width = Math.max(300, Math.min(720, root.clientWidth)), height = 280;
    const left = 44, right = width - 12, top = 12, bottom = height - 44;
    const shares = own.share, all = data.devices.map((_, i) => gains(i));
    const y0 = Math.min(0.9, ...all.flat()), y1 = Math.max(1.1, ...all.flat()) * 1.04;
    const x0 = Math.log(Math.min(...shares) / 1.15), x1 = Math.log(Math.max(...shares) * 1.15);
    const px = (s) => left + (Math.log(s) - x0) / (x1 - x0) * (right - left);
    const py = (g) => bottom - (Math.log(g) - Math.log(y0)) / (Math.log(y1) - Math.log(y0)) * (bottom - top);
    let svg = `<svg role="img" aria-label="Speed-up over the dense step by density" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="system-ui, sans-serif" font-size="12">`;
    for (const g of [0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 20, 50]) if (g >= y0 && g <= y1) svg += `<path d="M${left} ${py(g)}H${right}" stroke="${g === 1 ? "var(--ink)" : "var(--grid)"}"/><text x="${left - 6}" y="${py(g) + 4}" text-anchor="end" fill="var(--ink)">${g}×</text>`;
    let last = -100;
    shares.forEach((s, k) => { if (px(s) - last > 42) { last = px(s); svg += `<text x="${px(s)}" y="${bottom + 18}" text-anchor="middle" fill="var(--ink)">${escaped(own.density[k])}</text>`; } });
    svg += `<path d="M${px(shares[state.density])} ${top}V${bottom}" stroke="var(--muted)" stroke-dasharray="3 3"/>`;
    data.devices.forEach((_, i) => {
      const colour = `var(--${COLOURS[i % COLOURS.length]})`, dash = DASHES[Math.floor(i / COLOURS.length + i) % DASHES.length];
      svg += `<polyline points="${shares.map((s, k) => px(s).toFixed(1) + "," + py(all[i][k]).toFixed(1)).join(" ")}" fill="none" stroke="${colour}" stroke-width="1.8" stroke-dasharray="${dash}"/>`;
      svg += `<circle cx="${px(shares[state.density])}" cy="${py(all[i][state.density])}" r="4" fill="${colour}"/>`;
    });
    svg += `<text x="${(left + right) / 2}" y="${height - 6}" text-anchor="middle" fill="var(--ink)">density of the masked weights (1× is the dense step)</text></svg>`;
    const key = data.devices.map((d, i) => `<span class="key"><svg width="26" height="8" aria-hidden="true"><path d="M0 4H26" stroke="var(--${COLOURS[i % COLOURS.length]})" stroke-width="2" stroke-dasharray="${DASHES[Math.floor(i / COLOURS.length + i) % DASHES.length]}"/></svg> ${escaped(d)}</span>`).join(" ");
    chart.innerHTML = `<figcaption>Speed-up over the dense step by density, ${escaped(own.name)}, ${data.batches[state.batch]} ${escaped(data.unit)}</figcaption>${svg}<div class="controls">${key}</div>`;
  }

  function show() {
    const own = data.patterns[state.pattern], dense = data.dense[state.batch];
    const sparse = data.sparse[state.batch][state.pattern][state.density];
    densitySaid.textContent = own.density[state.density];
    batchSaid.textContent = data.batches[state.batch] + " " + data.unit;
    const rows = data.devices.map((device, i) => {
      const [s, low, high, bound, checked] = sparse[i], gain = dense[i][0] / s;
      const between = high > low ? ` <small>(${seconds(low)} to ${seconds(high)})</small>` : "";
      return `<tr><td>${escaped(device)}${checked ? "" : " *"}</td><td>${short(gain)}×</td><td>${seconds(dense[i][0])}</td><td>${seconds(s)}${between}</td><td>${escaped(bound)}</td></tr>`;
    });
    table.innerHTML = `<table><thead><tr><th scope="col">device</th><th scope="col">speed-up</th><th scope="col">dense</th><th scope="col">sparse</th><th scope="col">bound</th></tr></thead><tbody>${rows.join("")}</tbody></table>` + (sparse.every((c) => c[4]) ? "" : '<p class="note">* no real kernel has been held against some of these prices (unverified)</p>');
    const best = data.devices.map((d, i) => [d, dense[i][0] / sparse[i][0]]).sort((a, b) => b[1] - a[1])[0];
    answer.textContent = best[1] > 1
      ? `Most gained on ${best[0]}: ${short(best[1])} times as fast as its dense step.`
      : "On none of these devices is the sparse step faster than the dense one.";
    curve();
  }

  root.hidden = false;
  document.getElementById("what-if-table").open = false;
  show();
  window.addEventListener("resize", curve);
})();
