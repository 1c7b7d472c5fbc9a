"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const { planes, visits } = data;
  const MASK = "#40c4ff", OWN = "#f0c446";
  const base = $("base"), canvas = $("canvas"), rail = $("rail"), strip = $("railcanvas");
  const stops = [...document.querySelectorAll(".stop")];
  const rows = new Map([...document.querySelectorAll("tr[data-visit]")].map((row) => [+row.dataset.visit, row]));
  const stopOf = new Map();
  stops.forEach((stop, k) => stop.dataset.visits.split(" ").forEach((number) => stopOf.set(+number, k)));
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const state = { plane: 0, at: planes.map(() => 0), visit: null, overlay: true, style: 0, opacity: 0.25, marks: true, zoom: false, pixels: false, all: false, timer: 0 };
  planes.forEach((plane) => {
    plane.draw = drawing.masks(plane.width, plane.height);
    plane.pictures = new Map();
    plane.decoded = new Map();
  });
  const plane = () => planes[state.plane];
  const index = () => plane().slices[state.at[state.plane]];

  function keep(cache, key, make) { /* the latest few of what is dear to make */
    if (!cache.has(key)) {
      if (cache.size > 32) cache.delete(cache.keys().next().value);
      cache.set(key, make());
    }
    return cache.get(key);
  }
  function picture(p, place) {
    return keep(p.pictures, place, () => {
      const image = new Image();
      image.src = p.images[place];
      image.decode().then(() => { if (p === plane() && place === state.at[state.plane]) paint(); }, () => {});
      return image;
    });
  }
  function decoded(p, counts) {
    return keep(p.decoded, counts, () => {
      const mask = p.draw.decode(counts);
      mask.tint = mask.count ? p.draw.tint(mask.bits, 64, 196, 255) : null;
      return mask;
    });
  }
  function maskAt(p, slice) { return p.masks[slice] === undefined ? null : decoded(p, p.masks[slice]); }

  /* The part that holds all of the mask, and the clicks of its visits. */
  function region(p) {
    if (p.region === undefined) {
      const boxes = [];
      for (const counts of Object.values(p.masks)) {
        const mask = p.draw.decode(counts);
        if (mask.bounds) boxes.push(mask.bounds);
      }
      p.region = drawing.region(boxes, p.width, p.height);
    }
    return p.region;
  }
  const viewNow = () => (state.zoom && region(plane())) || { x: 0, y: 0, w: plane().width, h: plane().height };

  /* -- the slice ------------------------------------------------------------------------------- */
  function paint() {
    const p = plane(), view = viewNow(), context = canvas.getContext("2d"), { width: w, height: h } = canvas;
    const unit = w / (parseFloat(canvas.style.width) || w), sx = w / view.w, sy = h / view.h;
    const image = picture(p, state.at[state.plane]);
    context.imageSmoothingEnabled = !state.pixels;
    context.imageSmoothingQuality = "high";
    context.clearRect(0, 0, w, h);
    if (image.complete && image.naturalWidth) {
      const rx = image.naturalWidth / p.width, ry = image.naturalHeight / p.height;
      context.drawImage(image, view.x * rx, view.y * ry, view.w * rx, view.h * ry, 0, 0, w, h);
    }
    if (!state.overlay) return;
    const matrix = new DOMMatrix([sx, 0, 0, sy, -view.x * sx, -view.y * sy]), mask = maskAt(p, index());
    if (mask && mask.count) {
      if (state.style !== 1 && state.opacity > 0) {
        context.globalAlpha = state.opacity;
        context.drawImage(mask.tint, view.x, view.y, view.w, view.h, 0, 0, w, h);
        context.globalAlpha = 1;
      }
      if (state.style !== 2) drawing.outline(context, mask.path, matrix, MASK, 1.7 * unit);
    }
    const visit = state.visit === null ? null : visits[state.visit];
    if (!state.marks || !visit || visit.plane !== p.name || visit.index !== index()) return;
    if (visit.mask !== null && visit.mask !== p.masks[visit.index]) {
      const own = decoded(p, visit.mask);
      if (own.count) drawing.outline(context, own.path, matrix, OWN, 1.3 * unit);
    }
    if (visit.box) {
      const [x0, y0, x1, y1] = visit.box;
      drawing.box(context, matrix.transformPoint({ x: x0, y: y0 }), matrix.transformPoint({ x: x1 + 1, y: y1 + 1 }), unit);
    }
    for (const [x, y, positive, step] of visit.clicks) {
      const at = matrix.transformPoint({ x: x + 0.5, y: y + 0.5 });
      drawing.click(context, { x: at.x, y: at.y, positive }, 7 * unit, unit, true);
      context.font = `600 ${13 * unit}px system-ui, sans-serif`;
      context.textBaseline = "middle";
      context.lineJoin = "round";
      context.lineWidth = 3.2 * unit;
      context.strokeStyle = "rgba(0,0,0,.85)";
      const right = at.x + 26 * unit < w, tx = at.x + (right ? 11 : -11) * unit, ty = Math.max(at.y - 8 * unit, 8 * unit);
      context.textAlign = right ? "left" : "right";
      context.strokeText(String(step), tx, ty);
      context.fillStyle = "#fff";
      context.fillText(String(step), tx, ty);
    }
  }

  /* -- the rail: where the mask is, and where the agent was ------------------------------------- */
  const INSET = 10;
  const railX = (slice, w) => INSET + ((slice + 0.5) / plane().areas.length) * (w - 2 * INSET);
  function paintRail() {
    const dpr = Math.min(devicePixelRatio || 1, 3), w = rail.clientWidth, h = rail.clientHeight, p = plane();
    strip.width = Math.round(w * dpr);
    strip.height = Math.round(h * dpr);
    const c = strip.getContext("2d");
    c.scale(dpr, dpr);
    const count = p.areas.length, most = Math.max(1, ...p.areas), cell = (w - 2 * INSET) / count, ground = h - 22;
    const here = visits.filter((visit) => visit.plane === p.name);
    c.fillStyle = "#151b22";
    const gap = p.slices.length < count;
    for (const slice of gap ? p.slices : []) c.fillRect(railX(slice, w) - Math.max(0.5, cell / 2), 0, Math.max(1, cell), h); /* slices that the page has */
    c.fillStyle = "#2b6f93";
    p.areas.forEach((area, slice) => {
      if (!area) return;
      const tall = Math.max(2, (area / most) * (ground - 6));
      c.fillRect(railX(slice, w) - Math.max(0.5, cell * 0.42), ground - tall, Math.max(1, cell * 0.84), tall);
    });
    c.fillStyle = "#2f3944";
    c.fillRect(INSET, ground, w - 2 * INSET, 1);
    for (const visit of here) {
      const x = railX(visit.index, w);
      if (visit.kind === "scan") { c.fillStyle = visit.absent ? "#59646f" : "#b9c4ce"; c.fillRect(x - 1, ground + 4, 2, 9); }
      if (visit.kind === "carry") { c.fillStyle = visit.absent ? "#59646f" : "#40c4ff"; c.fillRect(x - Math.max(1, cell * 0.35), ground + 15, Math.max(2, cell * 0.7), 2); }
    }
    for (const visit of here) {
      const x = railX(visit.index, w), y = ground + 9;
      c.fillStyle = c.strokeStyle = "#f0c446";
      if (visit.kind === "revisit") { c.beginPath(); c.arc(x, y, 4, 0, 7); c.lineWidth = 1.8; c.fillStyle = "#0b0e12"; c.fill(); c.stroke(); }
      if (visit.kind === "key") { c.beginPath(); c.moveTo(x, y - 6); c.lineTo(x + 6, y); c.lineTo(x, y + 6); c.lineTo(x - 6, y); c.fill(); }
    }
    const x = railX(index(), w);
    c.fillStyle = "rgba(255,255,255,.16)";
    c.fillRect(x - Math.max(2, cell / 2), 0, Math.max(4, cell), h);
    c.fillStyle = "#fff";
    c.fillRect(x - 0.75, 0, 1.5, h);
  }

  function layout() {
    const stage = $("stage"), p = plane();
    const rest = Math.ceil(stage.getBoundingClientRect().height - canvas.getBoundingClientRect().height); /* so that all of the stage is in sight */
    const room = Math.max(120, stage.clientWidth - (innerWidth <= 560 ? 48 : 64)), tall = Math.max(300, innerHeight - stage.offsetTop - rest - 12);
    const shape = Math.max(...planes.map((q) => (q.height * q.aspect) / q.width)); /* one size for all planes: nothing jumps */
    const high = Math.min(tall, room * shape), own = (p.height * p.aspect) / p.width;
    const w = Math.max(1, Math.floor(Math.min(room, high / own))), dpr = Math.min(devicePixelRatio || 1, 3);
    canvas.style.width = `${w}px`;
    canvas.style.height = `${w * own}px`;
    $("screen").style.minHeight = `${Math.floor(high)}px`;
    $("screen").style.alignItems = "center";
    canvas.width = Math.max(1, Math.round(w * dpr));
    canvas.height = Math.max(1, Math.round(w * own * dpr));
    const [left, right, top, bottom] = p.letters || ["", "", "", ""];
    Object.entries({ left, right, top, bottom, railstart: p.ends[0], railend: p.ends[1] }).forEach(([id, text]) => { $(id).textContent = text; });
    $("scale").hidden = !p.mmPerPixel;
    if (p.mmPerPixel) {
      const wide = viewNow().w * p.mmPerPixel, budget = wide * 0.25, power = 10 ** Math.floor(Math.log10(budget));
      const length = Math.max(...[1, 2, 5].map((k) => k * power).filter((v) => v <= budget * 1.000001));
      $("scalebar").style.width = `${(length / wide) * w}px`;
      $("scaletext").textContent = length >= 100 ? `${+(length / 10).toPrecision(3)} cm` : `${+length.toPrecision(3)} mm`;
    }
    paint();
    paintRail();
  }

  /* -- going about ------------------------------------------------------------------------------ */
  const RANK = { key: 0, revisit: 1, carry: 2, scan: 3 };
  function visitAt(name, slice) { /* the one that says most about the mask */
    let best = null;
    visits.forEach((visit, number) => {
      if (visit.plane === name && visit.index === slice && (best === null || RANK[visit.kind] < RANK[visits[best].kind])) best = number;
    });
    return best;
  }
  function area(p, slice) {
    const pixels = p.areas[slice];
    if (!pixels) return "no mask";
    if (p.mm2 === null) return `${pixels} voxels`;
    const mm2 = pixels * p.mm2;
    return mm2 >= 1000 ? `${(mm2 / 100).toFixed(1)} cm²` : `${mm2.toFixed(1)} mm²`;
  }
  function show(place, visit, speak = true) {
    const p = plane();
    state.at[state.plane] = Math.min(Math.max(place, 0), p.slices.length - 1);
    const slice = index();
    state.visit = visit !== undefined ? visit : visitAt(p.name, slice);
    const words = `${p.name[0].toUpperCase()}${p.name.slice(1)} ${slice} of 0–${p.areas.length - 1}`;
    $("where").textContent = `${words} · ${area(p, slice)}`;
    canvas.setAttribute("aria-label", `${words}, ${area(p, slice)}`);
    rail.setAttribute("aria-valuemax", String(p.areas.length - 1));
    rail.setAttribute("aria-valuenow", String(slice));
    rail.setAttribute("aria-valuetext", `${words}, ${area(p, slice)}`);
    $("prev").disabled = state.at[state.plane] === 0;
    $("next").disabled = state.at[state.plane] === p.slices.length - 1;
    const current = state.visit === null ? -1 : stopOf.get(state.visit);
    stops.forEach((stop, k) => stop.classList.toggle("current", k === current));
    rows.forEach((row, number) => row.classList.toggle("at", number === state.visit));
    if (current >= 0) {
      const list = $("stops"), stop = stops[current], row = rows.get(state.visit);
      const top = row ? Math.max(0, row.offsetTop + stop.offsetTop - list.clientHeight / 2) : stop.offsetTop - 4;
      if (row ? true : stop.offsetTop < list.scrollTop || stop.offsetTop + stop.offsetHeight > list.scrollTop + list.clientHeight)
        list.scrollTo({ top: row && stop.offsetHeight < list.clientHeight ? stop.offsetTop - 4 : top, behavior: "auto" });
    }
    if (speak) $("live").textContent = `${words}, ${area(p, slice)}`;
    try { history.replaceState(null, "", `#${p.name}=${slice}`); } catch { /* some viewers forbid it */ }
    [state.at[state.plane] - 1, state.at[state.plane] + 1].forEach((near) => p.images[near] && picture(p, near));
    paint();
    paintRail();
  }
  const nearest = (p, slice) => p.slices.reduce((best, one, k) => (Math.abs(one - slice) < Math.abs(p.slices[best] - slice) ? k : best), 0);
  function turn(number, place = null) {
    if (!planes[number]) return;
    state.plane = number;
    document.querySelectorAll(".plane").forEach((b, k) => b.setAttribute("aria-pressed", String(k === number)));
    $("zoom").disabled = !region(plane());
    layout();
    show(place === null ? state.at[number] : place);
    layout();
  }
  function goVisit(number) {
    if (number === undefined || number === null || !visits[number]) return;
    play(false);
    const at = planes.findIndex((p) => p.name === visits[number].plane);
    if (at < 0) return;
    if (at !== state.plane) turn(at);
    show(nearest(planes[at], visits[number].index), number);
  }
  function stepVisit(by) {
    const now = state.visit === null ? (by > 0 ? -1 : visits.length) : state.visit;
    goVisit(Math.min(Math.max(now + by, 0), visits.length - 1));
  }
  function nextKey() {
    const keys = visits.map((visit, k) => k).filter((k) => visits[k].kind === "key");
    if (keys.length) goVisit(keys.find((k) => state.visit !== null && k > state.visit) ?? keys[0]);
  }
  function go(place) { play(false); show(place); }
  function play(on) {
    clearInterval(state.timer);
    state.timer = 0;
    if (on) state.timer = setInterval(() => show((state.at[state.plane] + 1) % plane().slices.length, undefined, false), 140);
    $("play").textContent = on ? "Pause" : "Play";
  }
  function press(id, on) { $(id).setAttribute("aria-pressed", String(on)); }
  function flip(name, id = name) { state[name] = !state[name]; press(id, state[name]); layout(); }
  function restyle() {
    state.style = (state.style + 1) % 3;
    $("style").textContent = ["Contour + tint", "Contour", "Tint"][state.style];
    paint();
  }
  function tint(value) {
    state.opacity = Math.min(Math.max(value, 0), 1);
    $("opacity").value = Math.round(state.opacity * 100);
    paint();
  }
  function openAll() { state.all = !state.all; $("stops").classList.toggle("all", state.all); press("all", state.all); }
  function help() { if (!$("keys").open) $("keys").showModal(); }

  const at = () => state.at[state.plane];
  const keys = {
    ArrowLeft: () => go(at() - 1), ArrowRight: () => go(at() + 1), ArrowUp: () => stepVisit(-1), ArrowDown: () => stepVisit(1),
    PageUp: () => go(at() - 10), PageDown: () => go(at() + 10), Home: () => go(0), End: () => go(plane().slices.length - 1),
    " ": () => play(!state.timer), k: nextKey, o: () => flip("overlay"), c: restyle, v: () => flip("marks", "visit"),
    z: () => region(plane()) && flip("zoom"), p: () => flip("pixels"), a: openAll, 1: () => turn(0), 2: () => turn(1), 3: () => turn(2),
    "+": () => tint(state.opacity + 0.1), "=": () => tint(state.opacity + 0.1), "-": () => tint(state.opacity - 0.1), "−": () => tint(state.opacity - 0.1), "?": help,
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key, inside = event.target.closest && event.target.closest("button, summary, a, input");
    if (key === " " && inside) return;
    if (inside && inside.tagName === "INPUT" && key.length > 1) return;
    if (keys[key]) { event.preventDefault(); keys[key](); }
  });
  const on = (id, action) => $(id).addEventListener("click", action);
  on("prev", keys.ArrowLeft); on("next", keys.ArrowRight); on("play", keys[" "]); on("key", nextKey); on("overlay", keys.o); on("style", keys.c);
  on("visit", keys.v); on("zoom", keys.z); on("pixels", keys.p); on("all", openAll); on("help", help);
  $("opacity").addEventListener("input", (event) => tint(event.target.value / 100));
  document.querySelectorAll(".plane").forEach((button) => button.addEventListener("click", () => turn(+button.dataset.plane)));
  stops.forEach((stop) => stop.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-visit]");
    if (row) goVisit(+row.dataset.visit);
    else if (event.target.closest("header")) goVisit(+stop.dataset.visits.split(" ")[0]);
  }));
  function scrub(event) {
    const box = rail.getBoundingClientRect(), share = (event.clientX - box.left - INSET) / (box.width - 2 * INSET);
    go(nearest(plane(), Math.floor(share * plane().areas.length)));
  }
  rail.addEventListener("pointerdown", (event) => { rail.setPointerCapture(event.pointerId); scrub(event); });
  rail.addEventListener("pointermove", (event) => { if (event.buttons) scrub(event); });
  let rolled = 0;
  canvas.addEventListener("wheel", (event) => {
    if (event.ctrlKey) return; /* that is the browser's zoom */
    event.preventDefault();
    rolled += event.deltaMode ? Math.sign(event.deltaY) * 40 : event.deltaY;
    while (Math.abs(rolled) >= 40) { go(at() + Math.sign(rolled)); rolled -= Math.sign(rolled) * 40; }
  }, { passive: false });
  canvas.addEventListener("pointermove", (event) => {
    const p = plane(), view = viewNow(), box = canvas.getBoundingClientRect();
    const x = Math.min(Math.max(Math.floor(view.x + ((event.clientX - box.left) / box.width) * view.w), 0), p.width - 1);
    const y = Math.min(Math.max(Math.floor(view.y + ((event.clientY - box.top) / box.height) * view.h), 0), p.height - 1);
    const text = [`pixel ${x}, ${y}`];
    if (p.world) {
      const mm = p.world.map((row) => row[0] * x + row[1] * y + row[2] + row[3] * index());
      text.push(mm.map((v, k) => `${(v >= 0 ? "RAS" : "LPI")[k]} ${Math.abs(v).toFixed(1)}`).join(" ") + " mm");
    }
    const mask = maskAt(p, index());
    if (mask && mask.count) text.push(mask.bits[y * p.width + x] ? "inside" : "outside");
    $("readout").textContent = text.join(" · ");
  });
  canvas.addEventListener("pointerleave", () => { $("readout").textContent = ""; });
  addEventListener("hashchange", () => fromHash());
  function fromHash() {
    const found = /^#([a-z]+)=(\d+)$/.exec(location.hash), number = found ? planes.findIndex((p) => p.name === found[1]) : -1;
    if (number >= 0) turn(number, nearest(planes[number], +found[2]));
    return number >= 0;
  }

  function start() {
    document.documentElement.classList.add("js");
    for (const id of ["canvas", "tools", "railrow", "all"]) $(id).hidden = false;
    base.hidden = true;
    planes.forEach((p, k) => { /* where the mask is largest */
      state.at[k] = nearest(p, p.areas.reduce((best, one, i) => (one > p.areas[best] ? i : best), p.areas.length >> 1));
    });
    $("key").disabled = !visits.some((visit) => visit.kind === "key");
    $("visit").disabled = !visits.length;
    if (!fromHash()) turn(0, planes[0].slices.indexOf(data.start));
    addEventListener("resize", layout);
    const first = picture(plane(), at());
    first.decode().then(() => { paint(); document.documentElement.dataset.ready = "1"; }, () => { document.documentElement.dataset.ready = "1"; });
  }
  base.decode().then(start, () => { $("live").textContent = "The pictures could not be read."; });
})();
