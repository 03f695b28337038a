"use strict";
// Draws the views of the JSON block.  Text reaches the document by textContent alone; nothing is fetched or stored.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const WORDS = {
    en: {
      other: "한국어", sentence: "Where does each word look?",
      sentenceHelp: "Point at a word of the translation, or move with the arrow keys: the source words it looked at are shaded.",
      source: "Source", target: "Translation", matrix: "Alignment",
      matrixHelp: "One row per word written, one column per word read. The darker (on a dark page: the brighter), the more attention.",
      matrixName: "Attention weights; move with the arrow keys", hint: "Point at a cell, or move with the arrow keys.",
      table: "The numbers as a table", grid: "Layers and heads",
      gridHelp: "One small map per head; choose one to enlarge it. Each map is coloured up to its own largest weight. The bits say how widely a head looks: 0 is always one token.",
      encoder: "Encoder self-attention", decoder: "Decoder self-attention", cross: "Cross-attention",
      layer: "Layer", head: "Head", bits: "bits", close: "Close", previous: "Previous head", next: "Next head",
      pooled: (n) => `Long sentence: each cell stands for ${n} × ${n} tokens and shows the strongest of them.`,
      eos: "end of sentence", bos: "start", pad: "padding", unk: "unknown token", mask: "mask",
      made: "Made by qkv. This file is complete in itself and sends nothing.",
    },
    ko: {
      other: "English", sentence: "낱말마다 어디를 보았을까요?",
      sentenceHelp: "번역문의 낱말을 가리키거나 화살표 키로 옮겨 보세요. 그 낱말을 쓸 때 본 원문의 낱말이 칠해집니다.",
      source: "원문", target: "번역문", matrix: "정렬",
      matrixHelp: "행은 쓴 낱말, 열은 읽은 낱말입니다. 색이 짙을수록(어두운 화면에서는 밝을수록) 많이 본 것입니다.",
      matrixName: "주의 가중치. 화살표 키로 옮깁니다", hint: "칸을 가리키거나 화살표 키로 옮겨 보세요.",
      table: "숫자를 표로 보기", grid: "층과 헤드",
      gridHelp: "작은 그림 하나가 헤드 하나입니다. 누르면 커집니다. 색은 그림마다 가장 큰 가중치를 기준으로 칠합니다. 비트는 헤드가 얼마나 넓게 보는지를 나타내며, 0이면 늘 한 토큰만 봅니다.",
      encoder: "인코더 자기 주의", decoder: "디코더 자기 주의", cross: "교차 주의",
      layer: "층", head: "헤드", bits: "비트", close: "닫기", previous: "이전 헤드", next: "다음 헤드",
      pooled: (n) => `문장이 길어서 한 칸이 토큰 ${n} × ${n}개를 나타내며, 그중 가장 큰 값을 보입니다.`,
      eos: "문장 끝", bos: "시작", pad: "채움", unk: "모르는 토큰", mask: "가림",
      made: "qkv가 만들었습니다. 이 파일은 그 자체로 완전하며 아무것도 보내지 않습니다.",
    },
  };
  let lang = data.lang;
  const speakers = [];
  const redraws = new Set();
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  function make(tag, className, ...children) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    node.append(...children);
    return node;
  }
  function words(write) { // run now and again whenever the language changes
    speakers.push(write);
    write(WORDS[lang]);
  }
  function said(node, pick) {
    words((w) => { node.textContent = pick(w); });
    return node;
  }
  function named(node, pick) {
    words((w) => { node.setAttribute("aria-label", pick(w)); });
    return node;
  }
  const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
  const number = (thousandths) => (thousandths / 1000).toFixed(3);
  const spoken = (token) => (token.name ? WORDS[lang][token.name] : token.text);
  const largest = (weights) => Math.max(1, ...weights.map((row) => row.reduce((a, b) => Math.max(a, b), 0)));

  // ---- colour: t in 0..1 on the computed map of the current theme
  const rgb = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));
  const maps = { light: data.palettes.light.map(rgb), dark: data.palettes.dark.map(rgb) };
  function colour(t) {
    const stops = maps[dark.matches ? "dark" : "light"];
    const at = clamp(t, 0, 1) * (stops.length - 1);
    const k = Math.min(Math.floor(at), stops.length - 2);
    return stops[k].map((c, i) => Math.round(c + (at - k) * (stops[k + 1][i] - c)));
  }
  const css = (c) => `rgb(${c[0]} ${c[1]} ${c[2]})`;
  function inkOn(c) {
    const [r, g, b] = c.map((v) => (v / 255) ** 2.2);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.2 ? "#16181d" : "#ffffff";
  }
  function pixels(canvas, weights, top) { // one pixel per cell; CSS enlarges it
    canvas.height = Math.max(1, weights.length);
    canvas.width = Math.max(1, weights.length ? weights[0].length : 1);
    const context = canvas.getContext("2d");
    const image = context.createImageData(canvas.width, canvas.height);
    weights.forEach((row, i) => row.forEach((w, j) => {
      image.data.set([...colour(w / top), 255], 4 * (i * canvas.width + j));
    }));
    context.putImageData(image, 0, 0);
  }

  // ---- the matrix: labels, cells, and one cursor shared by pointer and keys
  const ruler = document.createElement("canvas").getContext("2d");
  function widths(tokens, size) {
    ruler.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
    return tokens.map((t) => ruler.measureText(t.text).width);
  }
  function tick(token) {
    const node = make("span", `tick ${token.kind}`);
    node.textContent = token.text;
    if (token.name) words((w) => { node.title = w[token.name]; });
    return node;
  }
  function matrix(rows, columns, weights, picked) {
    const top = largest(weights);
    const T = rows.length, S = columns.length;
    const canvas = make("canvas");
    const rowTicks = rows.map(tick), columnTicks = columns.map(tick);
    const rowBand = make("div", "band"), columnBand = make("div", "band"), spot = make("div", "spot");
    const cells = named(make("div", "cells", canvas, rowBand, columnBand, spot), (w) => w.matrixName);
    cells.tabIndex = 0;
    cells.setAttribute("role", "application");
    const rowBox = make("div", "rows", ...rowTicks), columnBox = make("div", "columns", ...columnTicks);
    rowBox.setAttribute("aria-hidden", "true");
    columnBox.setAttribute("aria-hidden", "true");
    const scroll = make("div", "scroll", make("div", "plane", make("div", "corner"), columnBox, rowBox, cells));
    let wide = 0, high = 0, i = -1, j = -1; // size of a cell; the cursor

    function place(node, x, y, width, height) {
      Object.assign(node.style, { left: `${x}px`, top: `${y}px`, width: `${width}px`, height: `${height}px` });
    }
    function layout() {
      const space = scroll.clientWidth;
      if (!space || !T || !S) return;
      const roomy = space > 600, font0 = roomy ? 16 : 14;
      const least = Math.max(T, S) > 130 ? 5 : 13;
      const labels = Math.min(Math.max(...widths(rows, font0)) + 14, space * 0.3, 200);
      const fit = (room) => clamp(Math.floor(room / S), least, roomy ? 88 : 56);
      wide = fit(space - labels - 6);
      const font = clamp(Math.floor(wide * 0.86), 11, font0);
      const across = widths(columns, font).map((w) => Math.min(w, 150) + 2);
      const angle = Math.max(...across) <= wide - 4 ? 0 : wide < 22 ? -90 : -48;
      const lean = (-angle * Math.PI) / 180;
      // labels that lean out to the right of the last column need room of their own
      const overhang = () => (angle === -48 ? Math.max(0, ...across.map((w, k) => (k + 0.5 - S) * wide + w * Math.cos(lean) + 10)) : 0);
      wide = fit(space - labels - 6 - overhang());
      high = clamp(wide, least, T > 24 ? 26 : 48);
      const tall = angle ? Math.max(...across) * Math.sin(lean) + font * 1.2 + 4 : font * 1.2 + 10;
      const skip = (size) => Math.max(1, Math.ceil((font + 1) / size));
      rowTicks.forEach((node, k) => {
        node.hidden = k % skip(high) > 0;
        Object.assign(node.style, { top: `${(k + 0.5) * high - font * 0.6}px`, fontSize: `${font}px`, maxWidth: `${labels - 10}px` });
      });
      columnTicks.forEach((node, k) => {
        node.hidden = k % skip(wide) > 0;
        const shift = angle === 0 ? 1 - across[k] / 2 : angle === -90 ? font * 0.6 : font * 0.3;
        Object.assign(node.style, { left: `${(k + 0.5) * wide + shift}px`, fontSize: `${font}px`, transform: angle ? `rotate(${angle}deg)` : "none" });
      });
      Object.assign(rowBox.style, { width: `${labels}px`, height: `${T * high}px` });
      Object.assign(columnBox.style, { width: `${S * wide + overhang()}px`, height: `${tall}px` });
      Object.assign(cells.style, { width: `${S * wide}px`, height: `${T * high}px` });
      draw();
      mark();
    }
    function draw() {
      if (!wide) return;
      const sharp = window.devicePixelRatio || 1;
      canvas.width = Math.round(S * wide * sharp);
      canvas.height = Math.round(T * high * sharp);
      Object.assign(canvas.style, { width: `${S * wide}px`, height: `${T * high}px` });
      const context = canvas.getContext("2d");
      context.scale(sharp, sharp);
      if (wide < 9) { // too many cells to draw one by one
        const small = document.createElement("canvas");
        pixels(small, weights, top);
        context.imageSmoothingEnabled = false;
        context.drawImage(small, 0, 0, S * wide, T * high);
        return;
      }
      const gap = wide > 24 ? 2 : 1;
      context.font = `${Math.min(15, Math.floor(wide * 0.29))}px ${getComputedStyle(document.body).fontFamily}`;
      context.textAlign = "center";
      context.textBaseline = "middle";
      weights.forEach((row, y) => row.forEach((w, x) => {
        const c = colour(w / top);
        context.fillStyle = css(c);
        context.beginPath();
        context.roundRect(x * wide + gap / 2, y * high + gap / 2, wide - gap, high - gap, Math.min(6, high / 7));
        context.fill();
        if (wide < 40 || high < 24 || w < 10) return;
        context.fillStyle = inkOn(c);
        context.globalAlpha = w < 100 ? 0.62 : 1;
        context.fillText((w / 1000).toFixed(2), (x + 0.5) * wide, (y + 0.5) * high + 1);
        context.globalAlpha = 1;
      }));
    }
    function mark() {
      rowTicks.forEach((node, k) => node.classList.toggle("lit", k === i));
      columnTicks.forEach((node, k) => node.classList.toggle("lit", k === j));
      rowBand.hidden = i < 0;
      columnBand.hidden = j < 0;
      spot.hidden = i < 0 || j < 0;
      place(rowBand, 0, i * high, S * wide, high);
      place(columnBand, j * wide, 0, wide, T * high);
      place(spot, j * wide, i * high, wide, high);
    }
    function pick(newI, newJ) {
      i = newI;
      j = newJ;
      mark();
    }
    cells.addEventListener("pointermove", (event) => {
      const box = cells.getBoundingClientRect();
      const y = clamp(Math.floor((event.clientY - box.top) / high), 0, T - 1);
      const x = clamp(Math.floor((event.clientX - box.left) / wide), 0, S - 1);
      if (y !== i || x !== j) picked(y, x);
    });
    cells.addEventListener("keydown", (event) => {
      const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!move) return;
      event.preventDefault();
      const y = clamp(Math.max(i, 0) + move[0], 0, T - 1), x = clamp(j < 0 ? 0 : j + move[1], 0, S - 1);
      picked(y, x);
      scroll.scrollLeft = clamp(scroll.scrollLeft, (x + 1) * wide + rowBox.clientWidth - scroll.clientWidth, x * wide);
    });
    new ResizeObserver(layout).observe(scroll);
    redraws.add(draw);
    return { node: scroll, pick, top, forget: () => redraws.delete(draw) };
  }

  function readout() {
    const left = make("span", "token"), right = make("span", "token"), value = make("span", "number");
    const arrow = make("span", "arrow"), line = make("div", "readout", left, arrow, right, value);
    arrow.textContent = "→";
    line.setAttribute("role", "status");
    const state = { show: null };
    function write(w) {
      const on = state.show !== null;
      left.textContent = on ? spoken(state.show[0]) : w.hint;
      right.textContent = on ? spoken(state.show[1]) : "";
      value.textContent = on ? number(state.show[2]) : "";
      arrow.hidden = !on;
      left.classList.toggle("arrow", !on);
    }
    words(write);
    return { node: line, show: (a, b, w) => { state.show = [a, b, w]; write(WORDS[lang]); } };
  }
  function scale(top) {
    const canvas = make("canvas"), most = make("span"), none = make("span");
    none.textContent = "0";
    most.textContent = number(top);
    canvas.setAttribute("aria-hidden", "true");
    const draw = () => pixels(canvas, [Array.from({ length: 128 }, (_, k) => k)], 127);
    draw();
    redraws.add(draw);
    return { node: make("div", "scale", none, canvas, most), forget: () => redraws.delete(draw) };
  }
  function table(rows, columns, weights) {
    const box = make("div", "scroll"), details = make("details", "", said(make("summary"), (w) => w.table), box);
    const cell = (tag, text) => { const node = make(tag); node.textContent = text; return node; };
    details.addEventListener("toggle", () => {
      if (box.firstChild) return;
      const head = make("tr", "", make("td"), ...columns.map((t) => cell("th", t.text)));
      const body = weights.map((row, i) => make("tr", "", cell("th", rows[i].text), ...row.map((w) => cell("td", number(w)))));
      box.append(make("table", "", make("thead", "", head), make("tbody", "", ...body)));
    });
    return details;
  }

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
        chip.value.textContent = weights && w >= 10 ? (w / 1000).toFixed(2) : "";
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
    const bar = make("div", "bar", title, button("←", (w) => w.previous, () => show(-1)), button("→", (w) => w.next, () => show(1)), close);
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
  const views = data.views.flatMap((view) => (view.type === "grid" ? gridView(view) : alignmentView(view)));
  document.getElementById("page").append(make("header", "", title, toggle), ...views, said(make("footer"), (w) => w.made));
})();
