"use strict";
// Draws the maps of a layer study and says what is under the pointer or the keyboard's cell.
for (const box of document.querySelectorAll(".map")) start(box);

function start(box) {
  const study = JSON.parse(box.querySelector("script").textContent);
  const select = box.querySelector("select"), readout = box.querySelector("output");
  const canvases = [...box.querySelectorAll("canvas")], abouts = [...box.querySelectorAll(".about")];
  const rows = study.layers.length, columns = study.features.length;
  const left = 64, foot = 18, height = Math.max(9, Math.min(18, Math.round(240 / rows)));
  let view = 0, maps = [], cell = null;

  study.views.forEach((each, i) => select.add(new Option(each.name, i)));
  select.addEventListener("change", () => show(+select.value));
  canvases.forEach((canvas) => {
    canvas.addEventListener("pointermove", (event) => point(canvas, event));
    canvas.addEventListener("pointerdown", (event) => point(canvas, event));
    canvas.addEventListener("focus", () => move(cell || [0, 0]));
    canvas.addEventListener("keydown", key);
  });
  for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", draw);
  box.hidden = false;
  new ResizeObserver(draw).observe(box);
  show(0);

  function show(number) {
    view = number;
    maps = study.views[view].maps.map(unpack);
    box.querySelectorAll(".scale").forEach((mark) => { mark.textContent = mark.dataset.sign + study.views[view].scale.toFixed(1); });
    canvases.forEach((canvas, i) => {
      abouts[i].textContent = study.views[view].about[i];
      canvas.setAttribute("aria-label", `Heat map of ${study.targets[i]}, ${study.views[view].name}. ${study.views[view].about[i]} Arrow keys go from cell to cell.`);
    });
    draw();
    say();
  }

  function unpack(text) {
    const bytes = atob(text), cells = new Array(bytes.length / 2);
    for (let i = 0; i < cells.length; i++) {
      const code = bytes.charCodeAt(2 * i) + 256 * bytes.charCodeAt(2 * i + 1);
      cells[i] = { state: code >> 14, r: ((code & 16383) - 8192) / study.states.resolution };
    }
    return cells;
  }

  function draw() {
    const style = getComputedStyle(document.documentElement), colour = {};
    for (const name of ["paper", "ink", "muted", "positive", "negative", "noise"]) {
      colour[name] = style.getPropertyValue("--" + name).trim();
      colour[name + "Rgb"] = [1, 3, 5].map((i) => parseInt(colour[name].slice(i, i + 2), 16));
    }
    canvases.forEach((canvas, i) => drawMap(canvas, maps[i], colour));
  }

  function drawMap(canvas, cells, colour) {
    const dense = window.devicePixelRatio || 1, wide = canvas.clientWidth, high = rows * height + foot;
    canvas.width = Math.round(wide * dense);
    canvas.height = Math.round(high * dense);
    canvas.style.height = high + "px";
    const pen = canvas.getContext("2d"), scale = study.views[view].scale;
    const x = (column) => Math.round((left + (wide - left) * column / columns) * dense), y = (row) => Math.round(row * height * dense);
    const hatch = hatching(colour, dense);
    pen.fillStyle = colour.paper;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    cells.forEach(({ state, r }, i) => {
      const column = i % columns, row = Math.floor(i / columns), at = [x(column), y(row)], size = [x(column + 1) - at[0], y(row + 1) - at[1]];
      const strength = Math.min(1, Math.abs(r) / scale), outside = state >= study.states.outside;
      const share = outside ? study.weakest + (1 - study.weakest) * strength : study.noise * strength;
      const full = colour[outside ? (r < 0 ? "negativeRgb" : "positiveRgb") : "noiseRgb"];
      pen.fillStyle = state ? `rgb(${full.map((value, k) => Math.round(colour.paperRgb[k] + share * (value - colour.paperRgb[k])))})` : hatch;
      pen.fillRect(...at, ...size);
      if (state === study.states.beyond) {
        const dot = Math.max(1, Math.round(1.5 * dense));
        pen.fillStyle = colour.paper;
        pen.fillRect(Math.round(at[0] + (size[0] - dot) / 2), Math.round(at[1] + (size[1] - dot) / 2), dot, dot);
      }
    });
    pen.fillStyle = colour.muted;
    pen.font = `${Math.min(11, height) * dense}px system-ui, sans-serif`;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    study.layers.forEach((name, row) => pen.fillText(name, (left - 6) * dense, y(row + 0.5), (left - 8) * dense));
    pen.textAlign = "center";
    for (let column = 0; column < columns; column += Math.max(1, Math.floor(columns / 8))) pen.fillText(column, x(column + 0.5), y(rows) + foot / 2 * dense);
    if (cell) {
      const place = [x(cell[1]), y(cell[0]), x(cell[1] + 1) - x(cell[1]), y(cell[0] + 1) - y(cell[0])];
      for (const [width, name] of [[4, "paper"], [2, "ink"]]) {
        pen.lineWidth = width * dense;
        pen.strokeStyle = colour[name];
        pen.strokeRect(place[0] - dense, place[1] - dense, place[2] + 2 * dense, place[3] + 2 * dense);
      }
    }
  }

  function hatching(colour, dense) {
    const tile = document.createElement("canvas");
    tile.width = tile.height = Math.round(4 * dense);
    const pen = tile.getContext("2d");
    pen.fillStyle = colour.paper;
    pen.fillRect(0, 0, tile.width, tile.width);
    pen.fillStyle = colour.muted;
    for (let i = 0; i < tile.width; i++) pen.fillRect(i, tile.width - 1 - i, Math.ceil(dense / 2), 1);
    return pen.createPattern(tile, "repeat");
  }

  function point(canvas, event) {
    const column = Math.floor((event.offsetX - left) / (canvas.clientWidth - left) * columns), row = Math.floor(event.offsetY / height);
    if (column >= 0 && column < columns && row >= 0 && row < rows) move([row, column]);
  }

  function key(event) {
    const [row, column] = cell || [0, 0];
    const to = { ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
      Home: [row, 0], End: [row, columns - 1], PageUp: [0, column], PageDown: [rows - 1, column] }[event.key];
    if (!to || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    move([Math.max(0, Math.min(rows - 1, to[0])), Math.max(0, Math.min(columns - 1, to[1]))]);
  }

  function move(to) {
    if (cell && cell[0] === to[0] && cell[1] === to[1]) return;
    cell = to;
    draw();
    say();
  }

  function say() {
    if (!cell) return;
    const words = ["undefined", "inside the band (noise)", "outside the band", "outside the band, beyond the limit of all cells"];
    const texts = study.targets.map((target, i) => {
      const { state, r } = maps[i][cell[0] * columns + cell[1]];
      return state ? `${target} r = ${r.toFixed(3).replace("-", "−")}, ${words[state]}` : `${target} ${words[0]}`;
    });
    readout.textContent = `${study.layers[cell[0]]}, feature ${study.features[cell[1]]}: ${texts.join("; ")}`;
  }
}
