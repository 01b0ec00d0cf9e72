"use strict";
// Small SVG charts from plain data, and the sections that show them. Knows no trees.

const DATA = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const COLOURS = ["#2c5c9e", "#c2772b", "#23865f", "#8a5aa8", "#b8433c", "#5b6b7a", "#12a0b5", "#b5a01e"];
const byId = (id) => document.getElementById(id);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function shape(name, attributes = {}, text = null) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  return made;
}

function ticks(low, high, count = 5) {
  const span = high - low || 1;
  const raw = span / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= raw);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(at);
  return found;
}

const short = (x) => {
  if (x === null || x === undefined || Number.isNaN(x)) return "";
  const size = Math.abs(x);
  if (size >= 1e6) return (x / 1e6).toPrecision(3) + "M";
  if (size >= 1e4) return (x / 1e3).toPrecision(3) + "k";
  if (size !== 0 && size < 1e-3) return x.toExponential(1);
  return String(Number(x.toPrecision(3)));
};

const fixed = (x, digits = 3) => (x === null || x === undefined ? "–" : x.toFixed(digits));

// A frame with axes. x and y are [low, high]; names: {index: label} replaces the numbers below the x axis.
function frame(title, x, y, { names = null, xLabel = "", yLabel = "", width = 430, height = 250 } = {}) {
  const edge = { left: 52, right: 14, top: 10, bottom: 40 };
  const svg = shape("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
  const px = (v) => edge.left + ((v - x[0]) / (x[1] - x[0] || 1)) * (width - edge.left - edge.right);
  const py = (v) => height - edge.bottom - ((v - y[0]) / (y[1] - y[0] || 1)) * (height - edge.top - edge.bottom);
  for (const v of ticks(y[0], y[1])) {
    svg.append(shape("line", { x1: edge.left, x2: width - edge.right, y1: py(v), y2: py(v), class: "axis" }));
    svg.append(shape("text", { x: edge.left - 6, y: py(v) + 4, "text-anchor": "end" }, short(v)));
  }
  const marks = names ? Object.entries(names).map(([v, label]) => [Number(v), label]) : ticks(x[0], x[1]).map((v) => [v, short(v)]);
  for (const [v, label] of marks) svg.append(shape("text", { x: px(v), y: height - edge.bottom + 16, "text-anchor": "middle" }, label));
  svg.append(shape("text", { x: (edge.left + width - edge.right) / 2, y: height - 6, "text-anchor": "middle" }, xLabel));
  svg.append(shape("text", { x: 12, y: (height - edge.bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(height - edge.bottom) / 2})` }, yLabel));
  const figure = element("figure", {}, element("figcaption", {}, title));
  figure.append(svg);
  return { figure, svg, px, py };
}

function legend(figure, entries) {
  if (entries.length < 2) return;
  const line = element("div", { class: "legend" });
  for (const [name, colour] of entries) line.append(element("i", { style: `background:${colour}` }), name);
  figure.append(line);
}

// series: [{name, x, y, low?, high?, dashed?}] with gaps where y is null.
function lineChart(title, series, options = {}) {
  const all = (key) => series.flatMap((s) => s[key] || []).filter((v) => v !== null && v !== undefined);
  const ys = [...all("y"), ...all("low"), ...all("high")];
  if (!ys.length) return null;
  const pad = (Math.max(...ys) - Math.min(...ys)) * 0.06 || 0.05;
  const y = options.y || [Math.min(...ys) - pad, Math.max(...ys) + pad];
  const xs = all("x");
  const x = [Math.min(...xs) - (options.names ? 0.3 : 0), Math.max(...xs) + (options.names ? 0.3 : 0)];
  const { figure, svg, px, py } = frame(title, x, y, options);
  series.forEach((s, index) => {
    const colour = s.colour || COLOURS[index % COLOURS.length];
    let path = "";
    let pen = "M";
    s.x.forEach((v, i) => {
      if (s.y[i] === null || s.y[i] === undefined) { pen = "M"; return; }
      path += `${pen}${px(v).toFixed(1)},${py(s.y[i]).toFixed(1)}`;
      pen = "L";
      if (s.low) svg.append(shape("line", { x1: px(v), x2: px(v), y1: py(s.low[i]), y2: py(s.high[i]), stroke: colour }));
      if (s.x.length <= 30 && !s.plain) {
        const dot = shape("circle", { cx: px(v), cy: py(s.y[i]), r: 3, fill: colour });
        dot.append(shape("title", {}, `${s.name}: ${short(s.y[i])}` + (s.low ? ` [${short(s.low[i])}, ${short(s.high[i])}]` : "")));
        svg.append(dot);
      }
    });
    svg.append(shape("path", { d: path, fill: "none", stroke: colour, "stroke-width": 1.8, "stroke-dasharray": s.dashed ? "5 4" : "none" }));
  });
  legend(figure, series.map((s, i) => [s.name, s.colour || COLOURS[i % COLOURS.length]]));
  return figure;
}

// series: [{name, edges, counts}], drawn as steps of shares so that rounds of different size compare.
function histogram(title, series, options = {}) {
  const steps = series.map((s, index) => {
    const total = s.counts.reduce((a, b) => a + b, 0) || 1;
    const at = options.log ? s.edges.map((e) => Math.log2(e)) : s.edges;
    const x = [], y = [];
    s.counts.forEach((count, i) => { x.push(at[i], at[i + 1]); y.push(count / total, count / total); });
    return { name: s.name, x, y, colour: COLOURS[index % COLOURS.length], plain: true };
  });
  const names = options.log ? Object.fromEntries(Array.from({ length: Math.max(...steps.map((s) => s.x.at(-1) || 0)) + 1 }, (_, i) => [i, String(2 ** i)])) : null;
  return lineChart(title, steps, { ...options, names, y: [0, Math.max(...steps.flatMap((s) => s.y)) * 1.05 || 1], yLabel: "share" });
}

function bars(title, entries, { xLabel = "" } = {}) {
  if (!entries.length) return null;
  const top = Math.max(...entries.map((e) => e.value));
  const names = Object.fromEntries(entries.map((e, i) => [i, e.name]));
  const { figure, svg, px, py } = frame(title, [-0.6, entries.length - 0.4], [0, top * 1.1 || 1], { names, xLabel });
  entries.forEach((e, i) => {
    const left = px(i - 0.35);
    const bar = shape("rect", { x: left, y: py(e.value), width: px(i + 0.35) - left, height: py(0) - py(e.value), fill: e.colour || COLOURS[0] });
    bar.append(shape("title", {}, `${e.name}: ${short(e.value)}`));
    svg.append(bar);
    svg.append(shape("text", { x: px(i), y: py(e.value) - 4, "text-anchor": "middle" }, short(e.value)));
  });
  return figure;
}

const put = (id, ...charts) => byId(id).append(...charts.filter(Boolean));

function accuracySection() {
  const rounds = DATA.rounds;
  const at = rounds.map((_, i) => i);
  const names = Object.fromEntries(rounds.map((r, i) => [i, r.name]));
  const greedy = { name: "greedy, test", x: at, y: rounds.map((r) => r.greedy.value), low: rounds.map((r) => r.greedy.low), high: rounds.map((r) => r.greedy.high) };
  const sampled = { name: "sampled, test", x: at, y: rounds.map((r) => r.sampled?.value ?? null) };
  // A round's fresh problems are searched with the policy that the round starts from.
  const first = { name: "first sample, fresh problems", x: at, y: rounds.map((_, i) => rounds[i + 1]?.first ?? null), dashed: true };
  const series = [greedy, sampled, first].filter((s) => s.y.some((v) => v !== null));
  put("accuracy-charts", lineChart("Accuracy per round, 95 % intervals", series, { names, y: [0, 1] }));
  const last = rounds.at(-1);
  if (last?.against) {
    const { difference: d, gained, lost, p_value: p } = last.against;
    const clear = d.low > 0 || d.high < 0 ? "beyond noise" : "within noise";
    byId("verdict-line").textContent = `Last round against the start: ${fixed(d.value)} [${fixed(d.low)}, ${fixed(d.high)}], ${gained} gained, ${lost} lost, McNemar p = ${p?.toPrecision(2) ?? "–"}: ${clear}.`;
  }
  const table = element("table");
  table.append(element("tr", {}, ...["policy", "greedy on test", "95 %", "pairs", "tokens", "seconds", "kept"].map((h) => element("th", {}, h))));
  for (const r of rounds) {
    const cells = [r.name, fixed(r.greedy.value), `${fixed(r.greedy.low)} – ${fixed(r.greedy.high)}`, r.pairs ?? "", r.tokens?.toLocaleString("en") ?? "", r.seconds, r.accepted ? "yes" : "no, rolled back"];
    table.append(element("tr", {}, ...cells.map((c) => element("td", {}, String(c)))));
  }
  put("rounds-table", table);
  for (const r of rounds) for (const alarm of r.alarms) put("rounds-table", element("p", { class: "bad" }, `${r.name}: ${alarm}`));
}

function strategySection() {
  for (const { name, problems, rows, sentences } of DATA.strategies) {
    const where = `${problems} problems` + (name ? `, ${name}` : "");
    const budgets = [...new Set(rows.map((r) => r.budget))].sort((a, b) => a - b);
    const names = Object.fromEntries(budgets.map((b) => [Math.log2(b), short(b)]));
    const series = [...new Set(rows.map((r) => r.strategy))].map((strategy) => {
      const mine = rows.filter((r) => r.strategy === strategy).sort((a, b) => a.tokens - b.tokens);
      const column = (key) => mine.map((r) => r[key]);
      return { name: strategy, x: mine.map((r) => Math.log2(Math.max(1, r.tokens))), y: column("accuracy"), low: column("accuracy_low"), high: column("accuracy_high") };
    });
    const said = (lines) => element("ul", { class: "hint" }, ...lines.map((line) => element("li", {}, line)));
    const single = (line) => / at [\d,]+ tokens: /.test(line); // one comparison; what follows from all comes first
    const text = element("div", {}, said(sentences.filter((line) => !single(line))), element("details", {}, element("summary", {}, "every comparison"), said(sentences.filter(single))));
    put("strategy-charts", lineChart(`Accuracy against tokens per strategy, 95 % intervals (${where})`, series, { names, xLabel: "tokens generated per problem (mean)", yLabel: "accuracy", width: 720, height: 360 }), text);
  }
}

function judgeSection() {
  if (!DATA.judges.length) {
    byId("judges").remove();
    document.querySelector('nav a[href="#judges"]').remove();
    return;
  }
  const interval = (e) => (e ? `${fixed(e.value)} [${fixed(e.low)}, ${fixed(e.high)}]` : "–");
  const table = element("table");
  table.append(element("tr", {}, ...["95 % intervals over problems", ...DATA.judges.map((j) => j.name)].map((h) => element("th", {}, h))));
  for (const [key, words] of Object.entries(DATA.judges[0].measures)) {
    table.append(element("tr", {}, ...[words, ...DATA.judges.map((j) => interval(j.metrics[key]))].map((c) => element("td", {}, c))));
  }
  put("judge-tables", table);
  for (const { name, metrics, sentences } of DATA.judges) {
    put("judge-tables", element("p", { class: "hint" }, `${name}: ${sentences.join(" ")}`));
    const bins = (found, label) => ({ name: label, x: found.map((b) => b.score), y: found.map((b) => b.right) });
    const curves = [bins(metrics.reliability, "steps, all before right"), bins(metrics.reliability_final, "solutions")].filter((s) => s.x.length);
    const even = { name: "calibrated", x: [0, 1], y: [0, 1], dashed: true, plain: true, colour: "#8a94a0" };
    const depths = metrics.by_depth.map((row) => row.depth + 1);
    const rate = (key, label, colour) => ({ name: label, x: depths, y: metrics.by_depth.map((row) => row[key]), colour });
    put("judge-charts",
      curves.length ? lineChart(`${name}: share that is right by score`, [...curves, even], { y: [0, 1], xLabel: "score", yLabel: "share right" }) : null,
      lineChart(`${name}: errors by step`, [rate("false_alarm", "false alarms", "#c2772b"), rate("miss", "misses", "#b8433c"), rate("auc", "AUC", "#2c5c9e")], { y: [0, 1], xLabel: "step" }));
  }
}

function trainingSection() {
  // All rounds one after the other on one axis.
  const join = (column) => {
    let offset = 0;
    const x = [], y = [];
    for (const curve of DATA.training) {
      const values = curve.columns[column];
      if (values) curve.update.forEach((u, i) => { x.push(offset + u); y.push(values[i]); });
      offset += curve.update.at(-1);
      if (values) { x.push(offset); y.push(null); }
    }
    return { x, y };
  };
  const draw = (title, columns, yLabel) => {
    const series = Object.entries(columns).map(([column, look]) => ({ ...join(column), ...look })).filter((s) => s.y.some((v) => v !== null && v !== undefined));
    return series.length ? lineChart(title, series, { xLabel: "update, all rounds", yLabel }) : null;
  };
  put("training-charts",
    draw("Loss", { loss: { name: "loss" } }, ""),
    draw("Log-probability of the steps compared", { chosen_logprob: { name: "chosen", colour: "#23865f" }, rejected_logprob: { name: "rejected", colour: "#b8433c" } }, "nats"),
    draw("Implicit reward, divided by β: log π − log π_ref of the steps compared", { chosen_displacement: { name: "chosen", colour: "#23865f" }, rejected_displacement: { name: "rejected", colour: "#b8433c" } }, "nats"),
    draw("Implicit reward: margin", { margin: { name: "margin" } }, ""),
    draw("Implicit reward: pairs ranked rightly", { accuracy: { name: "accuracy" } }, "share"),
    draw("Distance from the reference", { kl: { name: "KL per token" } }, "nats"),
    draw("Gradient norm", { gradient_norm: { name: "norm" } }, ""));
  if (!DATA.training.length) put("training-charts", element("p", { class: "hint" }, "No training log in this run."));
}

function searchSection() {
  const named = (key) => DATA.searches.map((s) => ({ name: `round ${s.round}`, ...s[key] })).filter((s) => s.counts.length);
  if (DATA.searches.length) {
    put("search-charts", histogram("Action values Q of all steps", named("q"), { xLabel: "Q" }), histogram("Visits of all steps", named("visits"), { xLabel: "visits", log: true }));
  }
  const tone = { equal: "#23865f", unequal: "#b8433c" };
  put("search-charts", bars("Where verdicts on test answers came from", DATA.verdicts.map((v) => ({ name: `${v.layer}${v.outcome === "equal" ? " =" : v.outcome === "unequal" ? " ≠" : " ?"}`, value: v.count, colour: tone[v.outcome] || "#8a94a0" })), { xLabel: "layer, and what it said (= equal, ≠ unequal, ? neither)" }));
}

function costSection() {
  const sum = new Map();
  for (const s of DATA.stages) sum.set(s.stage, (sum.get(s.stage) || 0) + s.seconds);
  put("cost-charts",
    bars("Seconds by stage, all rounds", [...sum].map(([name, value]) => ({ name, value }))),
    bars("Tokens sampled by the search", DATA.rounds.filter((r) => r.tokens).map((r) => ({ name: r.name, value: r.tokens }))),
    bars("Tokens sampled by searches and evaluations, computed by trainings", [["search", "tokens"], ["training", "trained"], ["evaluation", "evaluated"]]
      .map(([name, key]) => ({ name, value: DATA.rounds.reduce((total, r) => total + (r[key] || 0), 0) })).filter((e) => e.value)));
}

accuracySection();
strategySection();
judgeSection();
trainingSection();
searchSection();
costSection();
byId("config-text").textContent = DATA.config;
byId("environment-text").textContent = JSON.stringify(DATA.environment, null, 2);
