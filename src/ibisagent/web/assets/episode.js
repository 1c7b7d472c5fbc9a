"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const { width: W, height: H, frames } = data;
  const MASK = "#40c4ff", GIVEN = "#f0c446", REFERENCE = "#ff6fae";
  const base = $("base"), canvas = $("canvas");
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const thumbs = [...document.querySelectorAll(".thumb")];
  const cards = [...document.querySelectorAll(".card")];
  const state = {
    at: frames.length - 1, overlay: true, style: 0, opacity: 0.25, clicks: true, ghost: false, zoom: false,
    pixels: false, reference: data.reference !== null, all: false, timer: 0,
  };

  const masks = drawing.masks(W, H), decoded = new Map(); /* each mask is decoded once */
  function maskAt(index) {
    if (index === null) return null;
    if (!decoded.has(index)) {
      if (decoded.size > 24) decoded.delete(decoded.keys().next().value);
      decoded.set(index, tinted(masks.decode(data.masks[index])));
    }
    return decoded.get(index);
  }
  function tinted(mask) {
    mask.tint = mask.count ? masks.tint(mask.bits, 64, 196, 255) : null;
    return mask;
  }

  /* The marked region of the whole episode: it stays put while one steps through. */
  let regionCache;
  function region() {
    if (regionCache !== undefined) return regionCache;
    const boxes = [], wanted = maskAt(data.reference);
    if (wanted && wanted.bounds) boxes.push(wanted.bounds);
    for (const frame of frames) {
      const mask = maskAt(frame.mask);
      if (mask && mask.bounds) boxes.push(mask.bounds);
      for (const [x, y] of frame.clicks) boxes.push([x, y, x + 1, y + 1]);
      if (frame.box) boxes.push([frame.box[0], frame.box[1], frame.box[2] + 1, frame.box[3] + 1]);
    }
    return (regionCache = drawing.region(boxes, W, H));
  }
  const whole = { x: 0, y: 0, w: W, h: H };
  const viewNow = () => (state.zoom && region()) || whole;

  function draw(context, index, view, options) {
    const frame = frames[index], { width: w, height: h } = context.canvas;
    const sx = w / view.w, sy = h / view.h, unit = options.unit;
    context.imageSmoothingEnabled = !options.pixels;
    context.imageSmoothingQuality = "high";
    const ratio = base.naturalWidth / W, ratioY = base.naturalHeight / H;
    context.clearRect(0, 0, w, h);
    context.drawImage(base, view.x * ratio, view.y * ratioY, view.w * ratio, view.h * ratioY, 0, 0, w, h);
    if (!options.overlay) return;
    const matrix = new DOMMatrix([sx, 0, 0, sy, -view.x * sx, -view.y * sy]);
    const mask = maskAt(frame.mask), color = frame.given ? GIVEN : MASK;
    if (options.style === 3) { /* what the agent was shown: half green, nothing else */
      if (!mask || !mask.count) return;
      mask.shown ??= masks.tint(mask.bits, 0, 255, 0);
      context.globalAlpha = 0.5;
      context.drawImage(mask.shown, view.x, view.y, view.w, view.h, 0, 0, w, h);
      context.globalAlpha = 1;
      return;
    }
    if (mask && mask.count) {
      if (options.style !== 1 && options.opacity > 0 && !frame.given) {
        context.globalAlpha = options.opacity;
        context.drawImage(mask.tint, view.x, view.y, view.w, view.h, 0, 0, w, h);
        context.globalAlpha = 1;
      }
      if (options.style !== 2) drawing.outline(context, mask.path, matrix, color, 1.7 * unit);
    }
    if (options.ghost && index > 0) {
      const before = maskAt(frames[index - 1].mask);
      if (before && before !== mask && before.count) drawing.outline(context, before.path, matrix, GIVEN, 1.1 * unit);
    }
    const wanted = options.reference ? maskAt(data.reference) : null;
    if (wanted && wanted.count) drawing.outline(context, wanted.path, matrix, REFERENCE, 1.3 * unit);
    if (options.clicks) drawPrompts(context, frame, matrix, unit, options.numbers);
  }
  function drawPrompts(context, frame, matrix, unit, numbers) {
    if (frame.box) {
      const [x0, y0, x1, y1] = frame.box;
      const a = matrix.transformPoint({ x: x0, y: y0 }), b = matrix.transformPoint({ x: x1 + 1, y: y1 + 1 });
      drawing.box(context, a, b, unit);
    }
    const radius = (numbers ? 7 : 3.5) * unit, taken = [];
    const marks = frame.clicks.map(([x, y, positive, step]) => {
      const p = matrix.transformPoint({ x: x + 0.5, y: y + 0.5 });
      taken.push([p.x - radius, p.y - radius, p.x + radius, p.y + radius]);
      return { x: p.x, y: p.y, positive, step };
    });
    for (const mark of marks) {
      if (numbers && String(mark.step) === frame.label) {
        context.beginPath();
        context.arc(mark.x, mark.y, radius * 1.75, 0, 2 * Math.PI);
        context.lineWidth = 1.3 * unit;
        context.strokeStyle = "#fff";
        context.stroke();
      }
      drawing.click(context, mark, radius, unit, numbers);
    }
    if (!numbers) return;
    context.font = `600 ${13 * unit}px system-ui, sans-serif`;
    context.textBaseline = "middle";
    context.textAlign = "center";
    const size = context.canvas;
    for (const mark of marks) {
      const text = String(mark.step), w = context.measureText(text).width + 3 * unit, h = 14 * unit, gap = radius + 2 * unit;
      let best = null, fewest = Infinity;
      for (const [dx, dy] of [[1, -0.6], [1, 0.6], [-1, -0.6], [-1, 0.6], [0, -1], [0, 1], [1, 0], [-1, 0]]) {
        const cx = mark.x + dx * (gap + w / 2), cy = mark.y + (dx ? dy * gap : dy * (gap + h / 2));
        const box = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2];
        let cost = taken.filter((t) => box[0] < t[2] && t[0] < box[2] && box[1] < t[3] && t[1] < box[3]).length;
        if (box[0] < 0 || box[1] < 0 || box[2] > size.width || box[3] > size.height) cost += 100;
        if (cost < fewest) { fewest = cost; best = { cx, cy, box }; }
      }
      taken.push(best.box);
      context.lineJoin = "round";
      context.lineWidth = 3.2 * unit;
      context.strokeStyle = "rgba(0,0,0,.85)";
      context.strokeText(text, best.cx, best.cy);
      context.fillStyle = "#fff";
      context.fillText(text, best.cx, best.cy);
    }
  }

  /* The screen: as large as the window allows, with the true shape of the pixels. */
  function layout() {
    const stage = $("stage"), rest = Math.ceil(stage.getBoundingClientRect().height - canvas.getBoundingClientRect().height); /* so that all of the stage is in sight */
    const room = Math.max(120, stage.clientWidth - (innerWidth <= 560 ? 44 : 60)), tall = Math.max(320, innerHeight - stage.offsetTop - rest - 12);
    const shape = (H * data.aspect) / W;
    const w = Math.max(1, Math.floor(Math.min(room, tall / shape))), dpr = Math.min(devicePixelRatio || 1, 3);
    canvas.style.width = `${w}px`;
    canvas.style.height = `${w * shape}px`;
    canvas.width = Math.max(1, Math.round(w * dpr));
    canvas.height = Math.max(1, Math.round(w * shape * dpr));
    paint();
    if (data.mmPerPixel) {
      const wide = viewNow().w * data.mmPerPixel, budget = wide * 0.25, power = 10 ** Math.floor(Math.log10(budget));
      const length = Math.max(...[1, 2, 5].map((k) => k * power).filter((v) => v <= budget * 1.000001));
      $("scale").hidden = false;
      $("scalebar").style.width = `${(length / wide) * w}px`;
      $("scaletext").textContent = length >= 100 ? `${+(length / 10).toPrecision(3)} cm` : `${+length.toPrecision(3)} mm`;
    }
  }
  function paint() {
    const unit = canvas.width / (parseFloat(canvas.style.width) || canvas.width);
    draw(canvas.getContext("2d"), state.at, viewNow(), { ...state, unit, numbers: true });
  }
  function paintThumbs() {
    const view = region() || whole, dpr = Math.min(devicePixelRatio || 1, 2), shape = (view.h * data.aspect) / view.w;
    thumbs.forEach((thumb, index) => {
      const tile = thumb.querySelector("canvas");
      const inner = document.createElement("canvas");
      inner.width = Math.max(1, Math.round(64 * dpr * Math.min(1, 1 / shape)));
      inner.height = Math.max(1, Math.round(64 * dpr * Math.min(1, shape)));
      draw(inner.getContext("2d"), index, view, { overlay: true, style: 0, opacity: 0.35, clicks: true, unit: dpr, numbers: false });
      tile.width = tile.height = Math.round(64 * dpr);
      tile.getContext("2d").drawImage(inner, (tile.width - inner.width) / 2, (tile.height - inner.height) / 2);
    });
  }

  function show(index, speak = true) {
    state.at = Math.min(Math.max(index, 0), frames.length - 1);
    const frame = frames[state.at];
    thumbs.forEach((thumb, k) => (k === state.at ? thumb.setAttribute("aria-current", "step") : thumb.removeAttribute("aria-current")));
    cards.forEach((card, k) => card.classList.toggle("current", k === state.at));
    const strip = $("timeline"), thumb = thumbs[state.at];
    strip.scrollTo({ left: thumb.parentElement.offsetLeft - strip.clientWidth / 2 + 40, behavior: still.matches ? "auto" : "smooth" });
    if (state.all) $("cards").scrollTop = cards[state.at].offsetTop;
    for (const id of ["first", "prev"]) $(id).disabled = state.at === 0;
    for (const id of ["last", "next"]) $(id).disabled = state.at === frames.length - 1;
    const mask = maskAt(frame.mask), what = mask ? (mask.count ? `mask of ${mask.count} pixels` : "empty mask") : "no mask";
    const words = `${/^\d+$/.test(frame.label) ? "Step " : ""}${frame.label}: ${frame.heading}, ${what}`;
    canvas.setAttribute("aria-label", `${words}, ${frame.clicks.length} clicks${frame.box ? ", a box" : ""}`);
    if (speak) $("live").textContent = words;
    const cursor = $("cursor"), stops = frames.filter((f) => f.label !== "Result").length;
    if (cursor) {
      const { left, right, top, bottom } = cursor.dataset;
      const x = +left + ((right - left) * Math.min(state.at, stops - 1)) / Math.max(1, stops - 1);
      cursor.setAttribute("d", `M${x} ${top}V${bottom}`);
    }
    try { history.replaceState(null, "", `#step=${state.at}`); } catch { /* some viewers forbid it */ }
    paint();
  }
  function press(id, on) { $(id).setAttribute("aria-pressed", String(on)); }
  function flip(name, id = name) {
    state[name] = !state[name];
    press(id, state[name]);
    layout();
  }
  function play(on) {
    clearInterval(state.timer);
    state.timer = 0;
    if (on) {
      if (state.at === frames.length - 1) show(0);
      state.timer = setInterval(() => {
        if (state.at >= frames.length - 1) play(false);
        else show(state.at + 1);
      }, 1300);
    }
    $("play").textContent = on ? "Pause" : "Play";
  }
  function go(index) { play(false); show(index); }
  function restyle() {
    state.style = (state.style + 1) % 4;
    $("style").textContent = ["Contour + tint", "Contour", "Tint", "Agent's view"][state.style];
    paint();
  }
  function tint(value) {
    state.opacity = Math.min(Math.max(value, 0), 1);
    $("opacity").value = Math.round(state.opacity * 100);
    paint();
  }
  function showAll() {
    state.all = !state.all;
    $("cards").classList.toggle("all", state.all);
    press("all", state.all);
    if (state.all) $("cards").scrollTop = cards[state.at].offsetTop;
  }
  function help() { if (!$("keys").open) $("keys").showModal(); }

  const keys = {
    ArrowLeft: () => go(state.at - 1), ArrowRight: () => go(state.at + 1), Home: () => go(0), End: () => go(frames.length - 1),
    " ": () => play(!state.timer), o: () => flip("overlay"), c: restyle, m: () => flip("clicks"), d: () => flip("ghost"),
    r: () => data.reference !== null && flip("reference"),
    z: () => region() && flip("zoom"), p: () => flip("pixels"), a: showAll, "+": () => tint(state.opacity + 0.1),
    "=": () => tint(state.opacity + 0.1), "-": () => tint(state.opacity - 0.1), "−": () => tint(state.opacity - 0.1), "?": help,
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key, inside = event.target.closest && event.target.closest("button, summary, a, input");
    if (key === " " && inside) return;
    if (inside && inside.tagName === "INPUT" && key.length > 1) return;
    if (keys[key]) { event.preventDefault(); keys[key](); }
  });
  const on = (id, action) => $(id).addEventListener("click", action);
  on("first", keys.Home); on("prev", keys.ArrowLeft); on("next", keys.ArrowRight); on("last", keys.End);
  on("play", keys[" "]); on("overlay", keys.o); on("style", keys.c); on("clicks", keys.m); on("ghost", keys.d);
  if (data.reference !== null) on("reference", keys.r);
  on("zoom", keys.z); on("pixels", keys.p); on("all", keys.a); on("help", keys["?"]);
  $("opacity").addEventListener("input", (event) => tint(event.target.value / 100));
  thumbs.forEach((thumb) => thumb.addEventListener("click", () => go(+thumb.dataset.go)));
  cards.forEach((card, index) => card.addEventListener("click", (event) => {
    if (state.all && !event.target.closest("summary, pre, a") && !String(getSelection())) go(index);
  }));
  canvas.addEventListener("pointermove", (event) => {
    const view = viewNow(), box = canvas.getBoundingClientRect();
    const x = Math.min(Math.max(Math.floor(view.x + ((event.clientX - box.left) / box.width) * view.w), 0), W - 1);
    const y = Math.min(Math.max(Math.floor(view.y + ((event.clientY - box.top) / box.height) * view.h), 0), H - 1);
    const text = [`pixel ${x}, ${y}`, `${((x + 0.5) / W).toFixed(4)}, ${((y + 0.5) / H).toFixed(4)}`];
    if (data.world) {
      const mm = data.world.map((row) => row[0] * x + row[1] * y + row[2]);
      text.push(mm.map((v, k) => `${(v >= 0 ? "RAS" : "LPI")[k]} ${Math.abs(v).toFixed(1)}`).join(" ") + " mm");
    }
    const mask = maskAt(frames[state.at].mask);
    if (mask && mask.count) text.push(mask.bits[y * W + x] ? "inside" : "outside");
    $("readout").textContent = text.join(" · ");
  });
  canvas.addEventListener("pointerleave", () => { $("readout").textContent = ""; });
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.dataset.was = d.open ? "1" : ""; d.open = true; }));
  addEventListener("afterprint", () => document.querySelectorAll("details").forEach((d) => { d.open = d.dataset.was === "1"; }));
  addEventListener("hashchange", () => fromHash());
  function fromHash() {
    const found = /^#step=(\d+)$/.exec(location.hash);
    if (found) show(+found[1], false);
    return Boolean(found);
  }

  function start() {
    document.documentElement.classList.add("js");
    for (const id of ["canvas", "tools", "timeline", "all"]) $(id).hidden = false;
    base.hidden = true;
    $("zoom").disabled = !region();
    $("ghost").disabled = frames.length < 2;
    layout();
    layout(); /* again, now that the scale has its room */
    paintThumbs();
    if (!fromHash()) show(state.at, false);
    addEventListener("resize", layout);
    document.documentElement.dataset.ready = "1";
  }
  base.decode().then(start, () => { $("live").textContent = "The image could not be read."; });
})();
