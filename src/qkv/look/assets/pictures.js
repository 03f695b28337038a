// ---- a picture with a map laid over it: where little is looked at, it is veiled
function overlayView(view) {
  const section = make("section"), chips = make("div", "tabs"), layers = make("div", "tabs");
  const canvas = make("canvas", "picture"), context = canvas.getContext("2d");
  const bytes = Uint8Array.from(atob(view.rgb), (c) => c.charCodeAt(0));
  const plain = make("canvas"), pixel = plain.getContext("2d"); // one pixel each; a small picture is shown larger
  const zoom = Math.max(1, Math.ceil(640 / Math.max(view.width, view.height)));
  plain.width = view.width;
  plain.height = view.height;
  canvas.width = view.width * zoom;
  canvas.height = view.height * zoom;
  canvas.setAttribute("role", "img");
  let at = 0, map = 0, strength = 0.85, field = -1, query = 0; // field -1: what the answer looks at
  const [rows, columns] = view.grid;
  const names = [...new Set(view.things.flatMap((thing) => thing.maps.map((m) => m.name)))];
  function weight(weights, x, y) { // between the middles of four cells
    const h = weights.length, w = weights[0].length;
    const v = clamp((y + 0.5) * h / view.height - 0.5, 0, h - 1), u = clamp((x + 0.5) * w / view.width - 0.5, 0, w - 1);
    const i = Math.floor(v), j = Math.floor(u), I = Math.min(i + 1, h - 1), J = Math.min(j + 1, w - 1);
    const top = weights[i][j] + (u - j) * (weights[i][J] - weights[i][j]);
    const low = weights[I][j] + (u - j) * (weights[I][J] - weights[I][j]);
    return top + (v - i) * (low - top);
  }
  function frame(box, chosen) {
    const scale = Math.max(1, canvas.width / 480), [left, top, right, low] = box.map((x) => x * zoom);
    [[4 * scale, "#ffffff"], [2 * scale, chosen ? "#d55e00" : "#0072b2"]].forEach(([width, ink]) => {
      context.lineWidth = width;
      context.strokeStyle = ink;
      context.strokeRect(left, top, right - left, low - top);
    });
  }
  function ofCell() { // where the chosen cell looks, as a map
    const flat = view.fields[field].weights[query];
    return { weights: Array.from({ length: rows }, (_, i) => flat.slice(i * columns, (i + 1) * columns)) };
  }
  function draw() {
    const thing = view.things[at], asked = thing && (thing.maps.find((m) => m.name === names[map]) || thing.maps[0]);
    const layer = field < 0 ? asked : ofCell();
    const image = pixel.createImageData(view.width, view.height);
    const paper = dark.matches ? 16 : 255, veil = view.heat ? [213, 94, 0] : [paper, paper, paper];
    for (let y = 0, p = 0; y < view.height; y += 1) {
      for (let x = 0; x < view.width; x += 1, p += 1) {
        const seen = layer ? weight(layer.weights, x, y) * view.unit : 0;
        const hide = layer ? strength * (view.heat ? seen : 1 - seen) : 0;
        for (let c = 0; c < 3; c += 1) image.data[4 * p + c] = bytes[3 * p + c] * (1 - hide) + veil[c] * hide;
        image.data[4 * p + 3] = 255;
      }
    }
    pixel.putImageData(image, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(plain, 0, 0, canvas.width, canvas.height);
    view.things.forEach((other, k) => { if (other.box && k !== at) frame(other.box, false); });
    if (thing && thing.box) frame(thing.box, true);
    if (field >= 0) {
      const i = Math.floor(query / columns), j = query % columns, h = view.height / rows, w = view.width / columns;
      frame([j * w, i * h, (j + 1) * w, (i + 1) * h], true);
    }
    canvas.setAttribute("aria-label", thing ? thing.name : view.label);
  }
  function buttons(box, list, pick) {
    const nodes = list.map((name, k) => {
      const node = make("button", "pill");
      node.type = "button";
      node.textContent = name;
      node.addEventListener("click", () => { pick(k); show(); });
      return node;
    });
    box.append(...nodes);
    return nodes;
  }
  const ofThings = buttons(chips, view.things.map((thing) => thing.name), (k) => { at = k; field = -1; });
  const ofMaps = buttons(layers, names, (k) => { map = k; field = -1; });
  const cells = make("div", "tabs"), ofFields = buttons(cells, view.fields.map((f) => f.name), (k) => { field = k; });
  function choose(cell) {
    query = clamp(cell, 0, rows * columns - 1);
    if (field < 0) field = 0;
    show();
  }
  if (view.fields.length) {
    canvas.tabIndex = 0;
    canvas.addEventListener("click", (event) => {
      const i = Math.floor(event.offsetY / canvas.clientHeight * rows), j = Math.floor(event.offsetX / canvas.clientWidth * columns);
      choose(clamp(i, 0, rows - 1) * columns + clamp(j, 0, columns - 1));
    });
    canvas.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
      if (by) { event.preventDefault(); choose(query + by); }
    });
  }
  function show() {
    [[ofThings, field < 0 ? at : -1], [ofMaps, field < 0 ? map : -1], [ofFields, field]].forEach(([nodes, chosen]) => nodes.forEach((node, k) => node.setAttribute("aria-pressed", String(k === chosen))));
    draw();
  }
  const slider = named(make("input", "veil"), (w) => w.veil);
  slider.type = "range";
  slider.min = "0";
  slider.max = "1";
  slider.step = "0.05";
  slider.value = String(strength);
  slider.addEventListener("input", () => { strength = Number(slider.value); draw(); });
  section.append(said(make("h2"), (w) => w.overlay), said(make("p"), (w) => (view.heat ? w.heatHelp : w.overlayHelp)));
  if (view.label) { const p = make("p"); p.textContent = view.label; section.append(p); }
  section.append(chips, layers, slider, canvas);
  if (view.fields.length) section.append(said(make("p"), (w) => w.cellHelp), cells);
  map = Math.max(0, names.length - 1); // the mean, where there is one
  redraws.add(draw);
  show();
  return [section];
}
