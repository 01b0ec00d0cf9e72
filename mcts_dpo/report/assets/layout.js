// Where each step of a tree is drawn. Pure: a tree in, positions out.

// Children of every node, in the order in which they were sampled.
function childrenOf(tree) {
  const found = tree.parent.map(() => []);
  tree.parent.forEach((parent, node) => { if (parent >= 0) found[parent].push(node); });
  return found;
}

// Which nodes are shown of a big tree: the most visited ones, and all ends and pairs with what leads to them.
function shownNodes(tree, limit) {
  const count = tree.parent.length;
  if (count <= limit) return new Set(tree.parent.keys());
  const shown = new Set([0]);
  const add = (node) => { for (let at = node; at >= 0 && !shown.has(at); at = tree.parent[at]) shown.add(at); };
  for (const pair of tree.pairs) { add(pair.chosen); add(pair.rejected); }
  const order = [...tree.parent.keys()].sort((a, b) => tree.visits[b] - tree.visits[a] || a - b);
  for (const node of order) { if (shown.size >= limit) break; add(node); }
  return shown;
}

// A layered layout from left to right: leaves one below the other, a parent in the middle of its children.
function layout(tree, shown, across, down) {
  const children = childrenOf(tree).map((nodes) => nodes.filter((node) => shown.has(node)));
  const x = new Map(), y = new Map();
  let row = 0;
  const visit = [[0, 0, false]];
  while (visit.length) {
    const [node, depth, done] = visit.pop();
    if (done) {
      const rows = children[node].map((child) => y.get(child));
      y.set(node, (rows[0] + rows.at(-1)) / 2);
      continue;
    }
    x.set(node, depth * across);
    if (!children[node].length) { y.set(node, row * down); row += 1; continue; }
    visit.push([node, depth, true]);
    for (const child of [...children[node]].reverse()) visit.push([child, depth + 1, false]);
  }
  return { x, y, width: Math.max(...x.values()), height: Math.max(1, row - 1) * down };
}
