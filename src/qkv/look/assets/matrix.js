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
      context.fillText(short(w), (x + 0.5) * wide, (y + 0.5) * high + 1);
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
