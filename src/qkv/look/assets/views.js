// ---- one sentence as words that can be pointed at
function sentence(tokens, name, picked) {
  const chips = tokens.map((token, k) => {
    const text = make("span", "text"), value = make("span", "value");
    text.textContent = token.text;
    const node = make("button", `chip ${token.kind}`, text, value);
    node.type = "button";
    node.tabIndex = k ? -1 : 0;
    if (token.name) words((w) => { node.title = w[token.name]; });
    node.addEventListener("pointerenter", () => picked(k));
    node.addEventListener("focus", () => picked(k));
    node.addEventListener("keydown", (event) => {
      const to = k + ({ ArrowLeft: -1, ArrowRight: 1 }[event.key] || 0);
      if (to !== k && chips[to]) chips[to].node.focus();
    });
    return { node, text, value };
  });
  const groups = []; // the pieces of one word stay together
  chips.forEach((chip, k) => {
    if (!k || tokens[k].kind !== "piece") groups.push(make("span", "group"));
    groups[groups.length - 1].append(chip.node);
  });
  const box = named(make("div", "sentence" + (tokens.length > 28 ? " long" : ""), ...groups), name);
  box.setAttribute("role", "group");
  function shade(weights, top) { // weights null: no shading, values cleared
    chips.forEach((chip, k) => {
      const w = weights ? weights[k] : 0, c = weights ? colour(w / top) : null;
      chip.text.style.backgroundColor = c ? css(c) : "";
      chip.text.style.color = c ? inkOn(c) : "";
      chip.value.textContent = weights && w >= 10 ? short(w) : "";
    });
  }
  function choose(k) {
    chips.forEach((chip, n) => {
      chip.node.classList.toggle("picked", n === k);
      chip.node.tabIndex = n === Math.max(k, 0) ? 0 : -1;
    });
  }
  return { node: box, shade, choose, chips };
}

// ---- curves from the words written to the words read, where each sentence fits on one line
function links(sources, targets, weights, top) {
  const shape = (tag) => document.createElementNS("http://www.w3.org/2000/svg", tag);
  const svg = shape("svg"), box = make("div", "links", svg);
  svg.setAttribute("aria-hidden", "true");
  let last = [-1, -1];
  const middle = (chip) => chip.node.offsetLeft + chip.node.offsetWidth / 2;
  const oneLine = (chips) => chips.every((c) => c.node.offsetTop === chips[0].node.offsetTop);
  function curve(i, j, lit) {
    const path = shape("path"), w = weights[i][j] / top;
    const x0 = middle(sources[j]) - box.offsetLeft, x1 = middle(targets[i]) - box.offsetLeft, h = box.clientHeight;
    path.setAttribute("d", `M${x0} 0C${x0} ${h * 0.5} ${x1} ${h * 0.5} ${x1} ${h}`);
    path.setAttribute("class", lit ? "lit" : "");
    path.style.strokeWidth = `${lit ? 1 + 5 * w : 1 + 2 * w}px`;
    path.style.opacity = lit ? 0.25 + 0.75 * w : 0.32 * w;
    svg.append(path);
  }
  function draw([i, j] = last) { // the picked row or column on top, -1 for none; the rest faint
    last = [i, j];
    svg.replaceChildren();
    box.hidden = !(sources.length && targets.length && oneLine(sources) && oneLine(targets));
    if (box.hidden) return;
    const shown = (lit) => weights.forEach((row, y) => row.forEach((w, x) => {
      if ((y === i || x === j) === lit && w > (lit ? 20 : 80)) curve(y, x, lit);
    }));
    shown(false);
    shown(true);
  }
  new ResizeObserver(() => draw()).observe(document.body);
  return { node: box, draw };
}

function alignmentView(view) {
  const { source, target, weights } = view;
  const first = make("section"), second = make("section");
  const caption = (node) => { if (view.label) { const p = make("p"); p.textContent = view.label; node.append(p); } };
  const top = largest(weights);
  const line = readout();
  let seen = null; // what is shaded now, to repaint when the theme changes
  const column = (j) => weights.map((row) => row[j]);
  const strongest = (list) => list.reduce((best, w, k) => (w > list[best] ? k : best), 0);
  function paint() {
    if (!seen) return;
    const [i, j, side] = seen;
    sources.shade(side === "target" ? weights[i] : null, top);
    targets.shade(side === "source" ? column(j) : null, top);
    sources.choose(side === "source" ? j : -1);
    targets.choose(side === "target" ? i : -1);
    web.draw(side === "target" ? [i, -1] : [-1, j]);
  }
  function look(i, j, side) {
    seen = [i, j, side];
    paint();
    grid.pick(i, j);
    line.show(target[i], source[j], weights[i][j]);
  }
  const sources = sentence(source, (w) => w.source, (j) => look(strongest(column(j)), j, "source"));
  const targets = sentence(target, (w) => w.target, (i) => look(i, strongest(weights[i]), "target"));
  const grid = matrix(target, source, weights, (i, j) => look(i, j, "target"));
  const web = links(sources.chips, targets.chips, weights, top);
  first.append(said(make("h2"), (w) => w.sentence), said(make("p"), (w) => w.sentenceHelp));
  const names = ["source", "target"].map((side) => said(make("div", `side ${side}`), (w) => w[side]));
  targets.node.classList.add("target");
  first.append(make("div", "pair", names[0], sources.node, web.node, names[1], targets.node));
  second.append(said(make("h2"), (w) => w.matrix), said(make("p"), (w) => w.matrixHelp));
  caption(second);
  if (view.pooled > 1) second.append(said(make("p"), (w) => w.pooled(view.pooled)));
  second.append(line.node, grid.node, scale(top).node);
  if (target.length * source.length <= 10000) second.append(table(target, source, weights));
  redraws.add(paint);
  if (target.length && source.length) look(0, strongest(weights[0]), "target");
  return view.pooled > 1 ? [second] : [first, second]; // a sentence of thousands of words is no sentence
}

// ---- layers × heads
function enlarge(group, start) {
  const heads = group.layers.flatMap((layer, l) => layer.heads.map((weights, h) => ({ l, h, weights, bits: layer.entropy[h] })));
  let at = heads.findIndex((x) => x.l === start.l && x.h === start.h);
  const title = make("h2"), body = make("div"), dialog = make("dialog");
  const known = speakers.length;
  let clean = () => {};
  function show(step) {
    clean();
    speakers.length = known;
    at = (at + step + heads.length) % heads.length;
    const head = heads[at], line = readout();
    const map = matrix(group.rows, group.columns, head.weights, (i, j) => {
      map.pick(i, j);
      line.show(group.rows[i], group.columns[j], head.weights[i][j]);
    });
    const legend = scale(map.top);
    const w = WORDS[lang];
    title.textContent = `${w[group.kind]} · ${w.layer} ${head.l + 1} · ${w.head} ${head.h + 1} · ${head.bits.toFixed(2)} ${w.bits}`;
    body.replaceChildren(line.node, map.node, legend.node);
    clean = () => { map.forget(); legend.forget(); };
  }
  const button = (sign, pick, act) => {
    const node = make("button", "pill");
    node.textContent = sign;
    node.setAttribute("aria-label", pick(WORDS[lang]));
    node.addEventListener("click", act);
    return node;
  };
  const close = button("✕", (w) => w.close, () => dialog.close());
  const bar = make("div", "bar", title, make("div", "buttons", button("←", (w) => w.previous, () => show(-1)), button("→", (w) => w.next, () => show(1)), close));
  dialog.append(make("div", "inside", bar, body)); // a click outside it falls on the dialog itself
  dialog.setAttribute("aria-label", WORDS[lang][group.kind]);
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => { clean(); speakers.length = known; dialog.remove(); });
  document.body.append(dialog);
  dialog.showModal();
  show(0);
  body.querySelector(".cells").focus();
}
function thumbnails(group) {
  const box = make("div");
  group.layers.forEach((layer, l) => {
    const row = make("div", "layer"), H = layer.heads.length;
    row.style.setProperty("--heads", Math.ceil(H / Math.ceil(H / 8)));
    layer.heads.forEach((weights, h) => {
      const canvas = make("canvas"), label = make("span"), node = make("button", "thumb", canvas, label);
      const draw = () => pixels(canvas, weights, largest(weights));
      node.type = "button";
      canvas.setAttribute("aria-hidden", "true");
      const bits = layer.entropy[h].toFixed(2);
      said(label, (w) => `${w.head} ${h + 1}\n${bits} ${w.bits}`);
      named(node, (w) => `${w.layer} ${l + 1}, ${w.head} ${h + 1}, ${bits} ${w.bits}`);
      node.addEventListener("click", () => enlarge(group, { l, h }));
      draw();
      redraws.add(draw);
      row.append(node);
    });
    const title = said(make("h3"), (w) => `${w.layer} ${l + 1}`);
    title.title = layer.name;
    box.append(title, row);
  });
  return box;
}
let groups = 0;
function gridView(view) {
  const section = make("section"), tabs = make("div", "tabs"), prefix = `grid${(groups += 1)}`;
  tabs.setAttribute("role", "tablist");
  named(tabs, (w) => w.grid);
  const items = view.groups.map((group, k) => {
    const tab = said(make("button", "pill"), (w) => w[group.kind]), panel = make("div", "", thumbnails(group));
    tab.type = "button";
    tab.id = `${prefix}tab${k}`;
    panel.id = `${prefix}panel${k}`;
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-controls", panel.id);
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", tab.id);
    tab.addEventListener("click", () => choose(k));
    tab.addEventListener("keydown", (event) => {
      const to = items[k + ({ ArrowLeft: -1, ArrowRight: 1 }[event.key] || 0)];
      if (to && to.tab !== tab) { choose(items.indexOf(to)); to.tab.focus(); }
    });
    return { tab, panel };
  });
  function choose(chosen) {
    items.forEach(({ tab, panel }, k) => {
      tab.setAttribute("aria-selected", String(k === chosen));
      tab.tabIndex = k === chosen ? 0 : -1;
      panel.hidden = k !== chosen;
    });
  }
  tabs.append(...items.map((x) => x.tab));
  section.append(said(make("h2"), (w) => w.grid), said(make("p"), (w) => w.gridHelp));
  if (view.pooled > 1) section.append(said(make("p"), (w) => w.pooled(view.pooled)));
  section.append(tabs, ...items.map((x) => x.panel));
  choose(view.groups.length - 1); // cross attention, where there is any
  return [section];
}

// ---- the page
const title = make("h1"), toggle = said(make("button", "pill"), (w) => w.other);
title.textContent = data.title;
toggle.type = "button";
words(() => { toggle.lang = lang === "en" ? "ko" : "en"; });
toggle.addEventListener("click", () => {
  lang = lang === "en" ? "ko" : "en";
  document.documentElement.lang = lang;
  speakers.forEach((write) => write(WORDS[lang]));
});
dark.addEventListener("change", () => redraws.forEach((draw) => draw()));
const shown = { grid: gridView, alignment: alignmentView, overlay: overlayView };
const views = data.views.flatMap((view) => shown[view.type](view));
document.getElementById("page").append(make("header", "", title, toggle), ...views, said(make("footer"), (w) => w.made));
