// The tree browser: a list with filters, a drawing, and what is known of the step that was clicked.

const blocks = document.querySelectorAll("script.block");
const unpacked = new Map();
const view = { tree: null, entry: null, picked: 0, all: false, box: null, home: null };
const LIMIT = 250; // steps drawn at once, unless all are asked for
const PAGE = 200; // entries of the list that exist at once
const LABELLED = 90; // steps up to which each carries its text in the drawing

async function treeOf(entry) {
  if (!unpacked.has(entry.block)) {
    const bytes = Uint8Array.from(atob(blocks[entry.block].textContent.trim()), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    unpacked.set(entry.block, await new Response(stream).json());
  }
  return unpacked.get(entry.block)[entry.place];
}

const kinds = {
  "": () => true,
  pairs: (e) => e.pairs > 0,
  mixed: (e) => e.right > 0 && e.wrong > 0,
  right: (e) => e.right > 0 && e.wrong === 0,
  wrong: (e) => e.right === 0 && e.status !== "failed",
  failed: (e) => e.status === "failed",
};

function matches() {
  const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  const round = byId("round").value;
  const kind = kinds[byId("kind").value];
  return DATA.trees.filter((e) => (!round || e.round === Number(round)) && kind(e) && words.every((w) => `${e.id} ${e.question}`.toLowerCase().includes(w)));
}

function showList() {
  const found = matches();
  byId("count").textContent = `${found.length} of ${DATA.trees.length} trees`;
  const list = byId("list");
  list.replaceChildren();
  const page = (from) => {
    for (const entry of found.slice(from, from + PAGE)) list.append(listItem(entry));
    if (from + PAGE < found.length) {
      const next = element("li", {}, element("button", { onclick: () => { next.remove(); page(from + PAGE); } }, `${found.length - from - PAGE} more`));
      list.append(next);
    }
  };
  page(0);
  return found;
}

function listItem(entry) {
  const facts = entry.status === "failed" ? "failed" : `${many(entry.nodes, "step")} · ${entry.right} right, ${entry.wrong} wrong · ${many(entry.pairs, "pair")}`;
  const button = element("button", { onclick: () => open(entry) }, element("b", {}, `${entry.id} · round ${entry.round}`), facts, element("small", {}, entry.question));
  button.entry = entry;
  return element("li", {}, button);
}

async function open(entry) {
  view.entry = entry;
  view.tree = await treeOf(entry);
  view.all = false;
  // A reader first wants to know why: the widest pair, else the root.
  const pairs = [...view.tree.pairs].sort((a, b) => b.margin - a.margin);
  view.picked = pairs.length ? pairs[0].chosen : 0;
  for (const button of byId("list").querySelectorAll("button")) button.setAttribute("aria-current", String(button.entry === entry));
  draw();
  fit();
  showDetail();
}

// Red at the lowest value of the tree, grey in the middle, green at the highest.
function colourOf(q, low, high) {
  const share = high > low ? (q - low) / (high - low) : 0.5;
  const [from, to, at] = share < 0.5 ? [[200, 80, 70], [190, 196, 202], share * 2] : [[190, 196, 202], [45, 150, 105], share * 2 - 1];
  return `rgb(${from.map((c, i) => Math.round(c + (to[i] - c) * at)).join(",")})`;
}

function draw() {
  const tree = view.tree;
  const svg = byId("tree");
  svg.replaceChildren();
  const shown = shownNodes(tree, view.all ? Infinity : LIMIT);
  const labelled = shown.size <= LABELLED;
  const { x, y, width, height } = layout(tree, shown, labelled ? 150 : 110, labelled ? 60 : 34);
  const steps = tree.q.filter((_, node) => node > 0);
  const low = Math.min(...steps), high = Math.max(...steps);
  const marks = new Map();
  for (const pair of tree.pairs) { marks.set(pair.chosen, "chosen"); if (!marks.has(pair.rejected)) marks.set(pair.rejected, "rejected"); }
  const edges = shape("g"), nodes = shape("g");
  for (const node of shown) {
    const parent = tree.parent[node];
    const [cx, cy] = [x.get(node), y.get(node)];
    if (parent >= 0) {
      const middle = (x.get(parent) + cx) / 2;
      edges.append(shape("path", { class: `edge ${marks.get(node) || ""}`, d: `M${x.get(parent)},${y.get(parent)}C${middle},${y.get(parent)} ${middle},${cy} ${cx},${cy}` }));
    }
    const size = Math.min(16, 3.5 + Math.sqrt(tree.visits[node]) * 1.6);
    const fill = node ? colourOf(tree.q[node], low, high) : "#8a94a0";
    const judged = tree.outcome[node] > 0 ? "right" : tree.outcome[node] < 0 ? "wrong" : "";
    const mark = tree.terminal[node]
      ? shape("rect", { x: cx - size, y: cy - size, width: 2 * size, height: 2 * size, rx: 2 })
      : shape("circle", { cx, cy, r: size });
    mark.setAttribute("class", `node ${judged} ${node === view.picked ? "picked" : ""}`);
    mark.setAttribute("fill", fill);
    mark.setAttribute("data-node", node);
    mark.append(shape("title", {}, `${tree.text[node] || "(question)"}\nN ${tree.visits[node]}  Q ${short(tree.q[node])}`));
    nodes.append(mark);
    if (labelled && node) nodes.append(shape("text", { x: cx, y: cy + size + 13, "text-anchor": "middle" }, brief(tree.text[node], 24)));
  }
  svg.append(edges, nodes);
  view.home = { x: -90, y: -40, w: width + 180, h: height + 90 };
  byId("more").textContent = shown.size < tree.parent.length ? `all ${tree.parent.length} steps` : `${shown.size} steps`;
  byId("more").disabled = shown.size === tree.parent.length;
}

function setBox(box) {
  view.box = box;
  byId("tree").setAttribute("viewBox", `${box.x} ${box.y} ${box.w} ${box.h}`);
}

const fit = () => setBox({ ...view.home });

function pick(node) {
  view.picked = node;
  for (const mark of byId("tree").querySelectorAll(".node")) mark.classList.toggle("picked", Number(mark.dataset.node) === node);
  showDetail();
}

function facts(entries) {
  const list = element("dl");
  for (const [name, value] of entries) if (value !== null && value !== undefined && value !== "") list.append(element("dt", {}, name), element("dd", {}, String(value)));
  return list;
}

const many = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;

function showDetail() {
  const { tree, picked: node } = view;
  const panel = byId("detail");
  panel.replaceChildren();
  if (tree.reason) panel.append(element("p", { class: "bad" }, tree.reason));
  if (node === 0) {
    panel.append(element("h3", {}, "The question, as the policy reads it"), element("pre", {}, tree.prompt));
    panel.append(facts([["V", short(tree.v[0])], ["samples drawn", tree.visits[0]], ["simulations", tree.simulations], ["tokens", tree.generated], ["ended", tree.status]]));
    for (const note of tree.notes) panel.append(element("p", { class: "hint" }, note));
  } else {
    panel.append(element("h3", {}, "The question"), element("p", { class: "asked" }, view.entry.question));
    panel.append(element("h3", {}, tree.terminal[node] ? "The last step, after those before it" : "The step, after those before it"));
    panel.append(element("pre", {}, ...solution(tree, tree.parent[node]), element("b", {}, written(tree, node).trimEnd() || "(nothing but the end)"), ...reply(tree, node)));
    panel.append(pairList(tree, tree.pairs.filter((pair) => pair.chosen === node || pair.rejected === node), "Why this step is in a preference pair", ""));
    const end = !tree.terminal[node] ? "" : tree.outcome[node] > 0 ? "right" : tree.outcome[node] < 0 ? "wrong" : "not verified";
    panel.append(element("h3", {}, "Its figures"), facts([
      ["visits N", tree.visits[node]], ["times sampled", tree.samples[node]], ["action value Q", short(tree.q[node])], ["state value V", short(tree.v[node])],
      ["prior p", short(tree.prior[node])], ["reward R", short(tree.reward[node])],
      ...Object.entries(tree.scores).map(([kind, scores]) => [`score: ${kind.replaceAll("_", " ")}`, short(scores[node])]),
      ["log-probability", tree.logprob[node] === null ? "not sampled" : `${short(tree.logprob[node])} nats, ${short(tree.logprob[node] / Math.max(1, tree.length[node] - tree.reply_length[node]))} per token`],
      ["tokens", tree.length[node] - tree.reply_length[node]], ["tokens of the reply", tree.reply_length[node] || ""],
      ["outcome", end], ["answer", tree.answer[node]], ["ended by", tree.finish[node]],
    ]));
    if (tree.tokens?.[node]?.length) panel.append(tokenBars(tree.tokens[node]));
  }
  const others = tree.pairs.filter((pair) => !node || (pair.chosen !== node && pair.rejected !== node));
  panel.append(pairList(tree, others, others.length < tree.pairs.length ? "Other pairs of this tree" : "The preference pairs of this tree", tree.pairs.length ? "" : "No preference pair came from this tree"));
}

// The steps up to a node, each with the environment's reply in a colour of its own.
function solution(tree, node) {
  const steps = [];
  for (let at = node; at > 0; at = tree.parent[at]) steps.unshift(written(tree, at), ...reply(tree, at));
  return steps;
}

function written(tree, node) {
  return tree.text[node].slice(0, tree.text[node].length - tree.reply[node].length);
}

function reply(tree, node) {
  return tree.reply[node] ? [element("span", { class: "reply", title: "the environment's reply" }, tree.reply[node])] : [];
}

function tokenBars(values) {
  const width = 320, height = 44, worst = Math.min(-0.01, ...values);
  const svg = shape("svg", { width, height, role: "img", "aria-label": "log-probability of each token" });
  const step = width / values.length;
  values.forEach((value, i) => {
    if (value === null) return; // a token that was not sampled
    const bar = shape("rect", { x: i * step, y: 0, width: Math.max(1, step - 1), height: Math.max(1, (value / worst) * height), fill: "#b8433c" });
    bar.append(shape("title", {}, `token ${i + 1}: ${value} nats`));
    svg.append(bar);
  });
  return element("figure", {}, element("figcaption", {}, "log-probability of each token (longer is less likely)"), svg);
}

// Of the solutions sampled through a step, how many ended right, and how many were verified at all.
function endsBelow(tree, node) {
  const found = { right: 0, all: 0 };
  tree.terminal.forEach((terminal, end) => {
    if (!terminal || !tree.outcome[end]) return;
    let at = end;
    while (at > node) at = tree.parent[at];
    if (at !== node) return;
    found.all += tree.samples[end];
    if (tree.outcome[end] > 0) found.right += tree.samples[end];
  });
  return found;
}

// Why pairs were made, in words, from the values that decided it. title: above them; none: said where there is none.
function pairList(tree, pairs, title, none) {
  const box = element("div", {}, pairs.length || none ? element("h3", {}, pairs.length ? title : none) : null);
  const side = (which) => {
    const { right, all } = endsBelow(tree, which);
    return `${all ? `${right} of the ${many(all, "solution")} sampled through it ended right · ` : ""}Q ${short(tree.q[which])} after ${many(tree.visits[which], "visit")}`;
  };
  const { min_gap: gap, min_visits: visits } = DATA.preferences;
  for (const pair of [...pairs].sort((a, b) => b.margin - a.margin)) {
    const rule = gap === undefined ? "" : ` (${short(gap)} or more makes a pair${visits > 1 ? `, if both have ${visits} visits or more` : ""})`;
    const reason = `Two ways to continue from the same place. Their values differ by ${short(pair.margin)}${rule}: the better one is chosen.`;
    const doubt = pair.smoothing ? ` Training takes this label for wrong with probability ${short(pair.smoothing)}, which follows from the visits.` : "";
    box.append(element("button", { class: "pair", onclick: () => pick(pair.chosen) },
      element("span", { class: "good" }, "chosen "), brief(tree.text[pair.chosen]), element("br"), element("small", {}, side(pair.chosen)), element("br"),
      element("span", { class: "bad" }, "rejected "), brief(tree.text[pair.rejected]), element("br"), element("small", {}, side(pair.rejected)), element("br"),
      element("small", {}, reason + doubt)));
  }
  return box;
}

function brief(text, most = 70) {
  const line = text.trim().replace(/\s+/g, " ");
  return line.length > most ? line.slice(0, most - 1) + "…" : line || "(end)";
}

function startBrowser() {
  const rounds = [...new Set(DATA.trees.map((e) => e.round))];
  byId("round").append(element("option", { value: "" }, "all rounds"), ...rounds.map((r) => element("option", { value: r }, `round ${r}`)));
  for (const id of ["find", "round", "kind"]) byId(id).addEventListener("input", showList);
  byId("fit").addEventListener("click", () => view.tree && fit());
  byId("more").addEventListener("click", () => { if (view.tree) { view.all = true; draw(); fit(); } });
  const svg = byId("tree");
  svg.addEventListener("click", (event) => { const node = event.target.closest("[data-node]"); if (node) pick(Number(node.dataset.node)); });
  let drag = null;
  svg.addEventListener("pointerdown", (event) => { if (view.box && !event.target.closest("[data-node]")) drag = { x: event.clientX, y: event.clientY, box: view.box }; });
  addEventListener("pointermove", (event) => {
    if (!drag) return;
    const scale = Math.max(drag.box.w / svg.clientWidth, drag.box.h / svg.clientHeight);
    setBox({ ...drag.box, x: drag.box.x - (event.clientX - drag.x) * scale, y: drag.box.y - (event.clientY - drag.y) * scale });
  });
  addEventListener("pointerup", () => { drag = null; });
  svg.addEventListener("wheel", (event) => {
    if (!view.box) return;
    event.preventDefault();
    const factor = event.deltaY > 0 ? 1.15 : 1 / 1.15, { x, y, w, h } = view.box, rect = svg.getBoundingClientRect();
    const [sx, sy] = [(event.clientX - rect.left) / rect.width, (event.clientY - rect.top) / rect.height];
    setBox({ x: x + w * sx * (1 - factor), y: y + h * sy * (1 - factor), w: w * factor, h: h * factor });
  }, { passive: false });
  const first = showList().find((e) => e.pairs > 0) || DATA.trees[0];
  if (first) open(first);
}

startBrowser();
