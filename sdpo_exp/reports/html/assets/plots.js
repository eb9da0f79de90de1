"use strict";
// Plots: drawn when they come into view, the rest while idle, and all of them before printing.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const plots = [...document.querySelectorAll(".plot")];
  const drawn = new Set();
  const hidden = new Set();
  let printing = false;

  // Okabe and Ito's colours, lighter on dark; dashes tell apart what comes after them.
  const light = { off: "#c44e00", on: "#0068a8" };
  const dark = { off: "#ff9152", on: "#5ab4f0" };
  const more = [["#00805f", "#3fc79f"], ["#9c3587", "#e08fd0"], ["#8a6d00", "#e3c04a"], ["#3c4a5a", "#b9c6d4"], ["#5b4bd0", "#a79cff"]];
  const dashes = ["solid", "dash", "dot", "dashdot", "longdash"];
  const isDark = () => root.dataset.theme === "dark" && !printing;
  const styles = () => {
    let next = 0;
    const used = new Set();
    return new Map(data.columns.map((column, i) => {
      const name = data.safeguards[i];
      if (name in light && !used.has(name)) {
        used.add(name);
        return [column, { color: (isDark() ? dark : light)[name], dash: "solid" }];
      }
      const at = next++;
      return [column, { color: more[at % more.length][isDark() ? 1 : 0], dash: dashes[Math.floor(at / more.length) % dashes.length] }];
    }));
  };
  const faint = (color, alpha) => {
    const [r, g, b] = [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16));
    return `rgba(${r},${g},${b},${alpha})`;
  };
  const option = (id) => document.getElementById(id)?.checked ?? true;
  const text = (value) => String(value).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const steps = (curve) => (curve.even ? curve.y.map((_, i) => curve.x[0] + i * curve.x[1]) : curve.x);
  const smooth = (values) => {
    const half = Math.floor(values.length / 30);
    if (!half) return values;
    const sums = [0];
    for (const value of values) sums.push(sums.at(-1) + value);
    return values.map((_, i) => {
      const [from, to] = [Math.max(0, i - half), Math.min(values.length, i + half + 1)];
      return (sums[to] - sums[from]) / (to - from);
    });
  };
  const show = (values, panel) => (option("smooth") && !panel.sparse ? smooth(values) : values);
  const ofRow = (list, row) => list.filter((one) => {
    const cell = data.cells[one.cell];
    return (row === undefined || cell.row === row) && !hidden.has(cell.column);
  });

  // One scale is for what compares: runs of one model on the same data.
  const ofGroup = (list, row) => {
    const { group } = Object.values(data.cells).find((cell) => cell.row === row);
    return ofRow(list).filter((one) => data.cells[one.cell].group === group);
  };
  // A line that lies on an earlier one is dashed, so that both are seen.
  const apart = (traces) => {
    const bold = traces.filter((one) => one.name && one.line.dash !== "dot");
    const size = Math.max(...bold.flatMap((one) => one.y.map(Math.abs)), 0);
    const same = (a, b) => a.y.length === b.y.length && a.y.every((v, i) => Math.abs(v - b.y[i]) <= size * 0.005);
    bold.forEach((one, i) => {
      const below = bold.slice(0, i).filter((other) => same(one, other)).length;
      if (below) one.line = { ...one.line, dash: `${14 / (below + 1)}px,14px` };
    });
  };

  const layout = (el, extra) => {
    const [ink, line, zero] = isDark() ? ["#b4c0ce", "#27313c", "#7c8a9a"] : ["#4d5a69", "#e8ebef", "#8d99a6"];
    const axis = { gridcolor: line, zeroline: false, linecolor: line, tickfont: { size: 11 }, automargin: true, nticks: 5 };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
      font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif", size: 11, color: ink },
      margin: { l: 46, r: 10, t: 8, b: 34 }, hovermode: "x unified",
      hoverlabel: { bgcolor: isDark() ? "#1c2530" : "#ffffff", bordercolor: line, font: { color: isDark() ? "#e5ebf2" : "#18212c", size: 12 } },
      width: printing ? (el.classList.contains("tall") ? 640 : 216) : undefined,
      height: printing ? (el.classList.contains("tall") ? 300 : 165) : el.clientHeight || 230, autosize: !printing,
      modebar: { bgcolor: "rgba(0,0,0,0)", color: zero, activecolor: ink },
      ...extra(axis, zero),
    };
  };
  const neutral = (value, colour, along = "y") => {
    const ends = along === "y" ? { xref: "paper", x0: 0, x1: 1, y0: value, y1: value } : { yref: "paper", y0: 0, y1: 1, x0: value, x1: value };
    return { type: "line", layer: "below", line: { color: colour, width: 1.2, dash: "dash" }, ...ends };
  };
  const padded = (values, anchor) => {
    const all = anchor == null ? values : [...values, anchor];
    let [low, high] = [Infinity, -Infinity];
    for (const v of all) { low = Math.min(low, v); high = Math.max(high, v); }
    const room = (high - low || Math.abs(high) || 1) * 0.06;
    return [low - room, high + room];
  };

  const curve = (el) => {
    const panel = data.panels.find((one) => one.key === el.dataset.panel);
    const [look, traces] = [styles(), []];
    const mode = panel.sparse ? "lines+markers" : "lines";
    for (const cell of ofRow(panel.cells, el.dataset.row)) {
      const { column } = data.cells[cell.cell];
      const { color, dash } = look.get(column);
      const several = cell.runs.length > 1 || !cell.mean;
      if (option("seeds") && several) {
        for (const run of cell.runs) {
          traces.push({ x: steps(run), y: show(run.y, panel), mode: "lines", line: { color: faint(color, 0.32), width: 1, dash: run.status === "finished" ? dash : "dot" }, hoverinfo: "skip" });
        }
      }
      if (cell.mean) traces.push({ x: steps(cell.mean), y: show(cell.mean.y, panel), mode, name: text(column), line: { color, width: 2.4, dash }, marker: { size: 5.5, color }, hovertemplate: "%{y:.4g}" });
      if (cell.second) traces.push({ x: steps(cell.second), y: show(cell.second.y, panel), mode: "lines", name: text(`${column}, would be`), line: { color: isDark() ? "#e5ebf2" : "#18212c", width: 1.4, dash: "dot" }, hovertemplate: "%{y:.4g}" });
    }
    apart(traces);
    const all = () => ofGroup(panel.cells, el.dataset.row).flatMap((cell) => [...cell.runs, cell.mean, cell.second].filter(Boolean).flatMap((one) => show(one.y, panel)));
    const range = option("shared") ? padded(all(), panel.neutral) : undefined;
    return [traces, layout(el, (axis, zero) => ({
      xaxis: { ...axis, title: { text: "optimiser step", font: { size: 11 }, standoff: 6 } },
      yaxis: { ...axis, range },
      shapes: panel.neutral == null ? [] : [neutral(panel.neutral, zero)],
    }))];
  };

  const bars = (list, pick) => {
    const spans = list.map(pick);
    return spans.some((one) => one.ends) ? {
      type: "data", symmetric: false, thickness: 1.4, width: 4,
      array: spans.map((one) => (one.ends ? one.ends[1] - one.mean : 0)),
      arrayminus: spans.map((one) => (one.ends ? one.mean - one.ends[0] : 0)),
    } : undefined;
  };
  // Two seeds have a wide interval: it may leave the picture, the means may not.
  const around = (spans, anchor) => {
    const inner = padded(spans.map((one) => one.mean), anchor);
    const outer = padded(spans.flatMap((one) => one.ends ?? [one.mean]), anchor);
    const room = inner[1] - inner[0];
    return [Math.max(outer[0], inner[0] - room), Math.min(outer[1], inner[1] + room)];
  };

  const bins = (el) => {
    const look = styles();
    const traces = ofRow(data.bins, el.dataset.row).map((one) => {
      const { column } = data.cells[one.cell];
      const { color, dash } = look.get(column);
      return { x: one.bins.map((b) => b.t), y: one.bins.map((b) => b.mean), mode: "lines+markers", name: text(column), line: { color, width: 2, dash }, marker: { size: 7, color }, error_y: bars(one.bins, (b) => b), hovertemplate: "%{y:.4g}" };
    });
    const spans = (option("shared") ? ofGroup : ofRow)(data.bins, el.dataset.row).flatMap((one) => one.bins);
    return [traces, layout(el, (axis, zero) => ({
      xaxis: { ...axis, title: { text: "place in the noise schedule", font: { size: 11 }, standoff: 6 } },
      yaxis: { ...axis, range: spans.length ? around(spans, 0) : undefined },
      shapes: [neutral(0, zero)],
    }))];
  };

  const symbols = ["circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "triangle-down"];
  const ends = (el) => {
    const look = styles();
    const rows = [...new Set(Object.values(data.cells).map((cell) => cell.row))];
    const list = ofRow(data.ends);
    const symbolOf = (row) => symbols[rows.indexOf(row) % symbols.length];
    const traces = list.map((one) => {
      const { row, column, label } = data.cells[one.cell];
      const { color } = look.get(column);
      const bar = (span) => ({ ...bars([span], (s) => s), color: faint(color, 0.5) });
      return { x: [one.x.mean], y: [one.y.mean], mode: "markers", showlegend: false, name: text(label), marker: { size: 11, color, symbol: symbolOf(row), line: { width: 1.5, color: isDark() ? "#161d25" : "#ffffff" } }, error_x: one.x.ends ? bar(one.x) : undefined, error_y: one.y.ends ? bar(one.y) : undefined, hovertemplate: `<b>${text(label)}</b><br>drift %{x:.4f}<br>change %{y:.4f}<extra></extra>` };
    });
    // One key for both: shapes are rows, colours are columns.
    const key = (name, marker) => ({ x: [null], y: [null], mode: "markers", name: text(name), marker: { size: 9, ...marker }, hoverinfo: "skip" });
    const shown = new Set(list.map((one) => one.cell));
    const has = (what, name) => [...shown].some((cell) => data.cells[cell][what] === name);
    for (const row of rows.filter((name) => has("row", name))) traces.push(key(row, { symbol: symbolOf(row), color: isDark() ? "#97a5b6" : "#5b6878" }));
    for (const column of data.columns.filter((name) => has("column", name))) traces.push(key(column, { symbol: "square", color: look.get(column).color }));
    return [traces, layout(el, (axis, zero) => ({
      hovermode: "closest", showlegend: traces.length - list.length <= 16,
      legend: { orientation: "h", y: printing ? -0.26 : -0.17, x: 0, font: { size: 12 }, itemclick: false, itemdoubleclick: false },
      margin: { l: 56, r: 14, t: 10, b: 42 },
      xaxis: { ...axis, range: list.length ? around(list.map((one) => one.x), 0) : undefined, title: { text: "winner drift (right: worse)", font: { size: 12 } } },
      yaxis: { ...axis, range: list.length ? around(list.map((one) => one.y), 0) : undefined, title: { text: text(`${data.metric} change (up: better)`), font: { size: 12 } } },
      shapes: [neutral(0, zero), neutral(0, zero, "x")],
    }))];
  };

  const kinds = { curve, bins, ends };
  const settings = { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "resetScale2d"]] };
  const draw = (el) => {
    drawn.add(el);
    watch.unobserve(el);
    const [traces, shape] = kinds[el.dataset.kind](el);
    return Plotly.react(el, traces, shape, settings);
  };
  const isOpen = (el) => !el.closest("details:not([open])");
  const redraw = () => { [...drawn].filter(isOpen).forEach(draw); paint(); };
  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) if (isIntersecting && !drawn.has(target)) draw(target);
  }, { rootMargin: "300px" });

  const legend = document.querySelector(".legend");
  const paint = () => {
    const look = styles();
    for (const swatch of document.querySelectorAll(".swatch[data-column]")) {
      swatch.style.background = look.get(swatch.dataset.column)?.color;
    }
  };
  for (const column of legend && data.columns.length > 1 ? data.columns : []) {
    const button = Object.assign(document.createElement("button"), { type: "button" });
    const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
    swatch.dataset.column = column;
    button.append(swatch, column);
    button.setAttribute("aria-pressed", "true");
    button.addEventListener("click", () => {
      const off = hidden.has(column) ? !hidden.delete(column) : Boolean(hidden.add(column));
      button.setAttribute("aria-pressed", String(!off));
      redraw();
    });
    legend.append(button);
  }
  for (const id of ["seeds", "smooth", "shared"]) document.getElementById(id)?.addEventListener("change", redraw);
  document.addEventListener("theme", redraw);
  if (!data.ends.length) document.getElementById("ends-card").hidden = true;
  paint();
  // What is in view at once is there with the page itself, and not a moment later.
  for (const el of plots) {
    const { top, bottom } = el.getBoundingClientRect();
    if (top < innerHeight && bottom > 0) draw(el);
    else watch.observe(el);
  }

  const idle = window.requestIdleCallback ?? ((call) => setTimeout(call, 60));
  const next = () => {
    const el = plots.find((one) => !drawn.has(one) && !one.closest("[hidden], details:not([open])"));
    if (!el) { root.dataset.plots = "all"; return; }
    draw(el);
    idle(next);
  };
  idle(next);
  // What was folded away has no size until it is opened.
  for (const panel of document.querySelectorAll("details.panel")) {
    panel.addEventListener("toggle", () => { if (panel.open) panel.querySelectorAll(".plot").forEach(draw); });
  }
  addEventListener("beforeprint", () => {
    printing = true;
    document.querySelectorAll("details.panel, details.settings").forEach((panel) => { panel.open = true; });
    plots.forEach(draw);
  });
  addEventListener("afterprint", () => { printing = false; plots.forEach(draw); });
  matchMedia("print").addEventListener("change", (e) => { if (e.matches && !printing) { printing = true; plots.forEach(draw); } });
})();
