(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const { rows, images } = data;
  const REFERENCE = "#ffe04d", PREFERENCES = "ibisagent-review";
  const INTENTS = {
    start: "First action", missed: "Misses a part", excess: "Covers too much", wrong: "Wrong on purpose", undo: "Take it back",
    discard: "Drop the given mask", fits: "It fits: stop", rough: "Stop: uncertain", absent: "Not there: refuse",
  };
  const OUTCOMES = { done: "Done", absent: "Target absent", uncertain: "Uncertain", out_of_steps: "Out of steps", error: "Failed", stopped: "Stopped" };
  const state = { at: 0, overlay: true, reference: false, zoom: false, large: 0 };
  const filters = { scenario: "", target: "", decision: "" };
  const store = decisionStore(data, (text, bad) => {
    $("saved").textContent = text;
    $("saved").classList.toggle("bad", bad);
  });
  const words = (text) => String(text ?? "").replace(/_/g, " ");

  function el(name, attributes, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value === null || value === false) continue;
      if (key === "class") node.className = value;
      else node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null));
    return node;
  }

  /* Pictures and masks, each decoded once; masks are forgotten with their trajectory. */
  const loaded = new Map();
  function picture(number) {
    if (!loaded.has(number)) {
      const image = new Image();
      image.src = images[number].src;
      loaded.set(number, image.decode().then(() => image));
    }
    return loaded.get(number);
  }
  function masksOf(row) {
    const { width, height } = images[row.image], tools = drawing.masks(width, height), decoded = new Map();
    return (number) => {
      if (number < 0) return null;
      if (!decoded.has(number)) {
        const mask = tools.decode(row.masks[number]);
        mask.tint = mask.count ? tools.tint(mask.bits, 0, 255, 0) : null;
        decoded.set(number, mask);
      }
      return decoded.get(number);
    };
  }

  function draw(canvas, image, row, frame, maskAt, options) {
    const context = canvas.getContext("2d"), { width: W, height: H } = images[row.image];
    const view = options.view || { x: 0, y: 0, w: W, h: H }, { width: w, height: h } = canvas;
    context.imageSmoothingQuality = "high";
    context.clearRect(0, 0, w, h);
    context.drawImage(image, view.x, view.y, view.w, view.h, 0, 0, w, h);
    const matrix = new DOMMatrix([w / view.w, 0, 0, h / view.h, (-view.x * w) / view.w, (-view.y * h) / view.h]);
    const mask = maskAt(frame.mask), reference = options.reference ? maskAt(row.reference) : null;
    if (options.overlay && mask && mask.count) { /* half green, as the agent is shown it */
      context.globalAlpha = 0.5;
      context.drawImage(mask.tint, view.x, view.y, view.w, view.h, 0, 0, w, h);
      context.globalAlpha = 1;
    }
    if (reference && reference.count) drawing.outline(context, reference.path, matrix, REFERENCE, 1.4 * options.unit, 1.2);
    if (!options.marks) return;
    const at = (x, y) => matrix.transformPoint({ x: x * W, y: y * H });
    if (frame.box) drawing.box(context, at(frame.box[0], frame.box[1]), at(frame.box[2], frame.box[3]), options.unit);
    for (const [x, y, positive] of frame.marks) {
      const point = at(x, y);
      drawing.click(context, { x: point.x, y: point.y, positive }, 7.5 * options.unit, options.unit, true);
    }
  }
  function resize(canvas, width, height) {
    const dpr = Math.min(devicePixelRatio || 1, 3);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    canvas.width = Math.max(1, Math.round(width * dpr));
    canvas.height = Math.max(1, Math.round(height * dpr));
    return dpr;
  }

  /* The list, drawn as it comes into sight. */
  const entries = rows.map((row, index) => {
    const canvas = el("canvas", { width: 88, height: 88, "aria-hidden": "true" });
    const score = row.iou === null ? OUTCOMES[row.outcome] || words(row.outcome) : `IoU ${row.iou.toFixed(2)}`;
    const mark = el("span", { class: "mark" });
    const said = el("span", { class: "sr" });
    const text = el("span", {}, el("b", { dir: "auto" }, row.target), el("small", {}, `${score} · ${words(row.scenario)}`));
    const button = el("button", { type: "button", class: "row", title: row.id }, canvas, text, el("span", {}, mark, said));
    button.addEventListener("click", () => { document.body.classList.remove("listed"); show(index); });
    return { button, canvas, mark, said, item: el("li", {}, button) };
  });
  const seen = new IntersectionObserver((found) => {
    for (const { isIntersecting, target } of found) if (isIntersecting) {
      seen.unobserve(target);
      thumb(+target.dataset.index);
    }
  }, { root: $("rows"), rootMargin: "200px" });
  entries.forEach(({ item }, index) => { item.dataset.index = index; seen.observe(item); });
  $("rows").append(...entries.map(({ item }) => item));
  async function thumb(index) {
    const row = rows[index], { width: W, height: H, aspect } = images[row.image], image = await picture(row.image);
    const inner = document.createElement("canvas"), tile = entries[index].canvas, shape = (H * aspect) / W;
    inner.width = Math.max(1, Math.round(tile.width * Math.min(1, 1 / shape)));
    inner.height = Math.max(1, Math.round(tile.height * Math.min(1, shape)));
    draw(inner, image, row, row.frames[row.frames.length - 1], masksOf(row), { overlay: true, unit: 1 });
    tile.getContext("2d").drawImage(inner, (tile.width - inner.width) / 2, (tile.height - inner.height) / 2);
  }

  const fits = (row) => Object.entries(filters).every(
    ([key, wanted]) => !wanted || (key === "decision" ? store.get(row.id).decision : String(row[key])) === wanted);
  function refresh() {
    const count = { accept: 0, reject: 0, undecided: 0 };
    let shown = 0, place = 0;
    rows.forEach((row, index) => {
      const { decision, note } = store.get(row.id), { item, mark, said } = entries[index], fit = fits(row);
      count[decision]++;
      shown += fit;
      if (fit && index <= state.at) place = shown;
      item.hidden = !fit;
      mark.className = `mark ${decision}${note ? " noted" : ""}`;
      mark.textContent = { accept: "✓", reject: "✕", undecided: note ? "…" : "" }[decision];
      mark.style.color = decision === "undecided" ? "inherit" : "";
      said.textContent = { accept: "accepted", reject: "rejected", undecided: "undecided" }[decision];
    });
    $("tally").replaceChildren(
      el("span", { class: "accept" }, `✓ ${count.accept} accepted`), el("span", { class: "reject" }, `✕ ${count.reject} rejected`),
      el("span", {}, `${count.undecided} open`));
    $("progress").value = count.accept + count.reject;
    $("listcount").textContent = shown === rows.length ? `${shown} trajectories` : `${shown} of ${rows.length} trajectories`;
    $("place").textContent = rows[state.at] && fits(rows[state.at]) ? `${place} of ${shown}` : `– of ${shown}`;
    $("prev").disabled = seek(state.at, -1) < 0;
    $("next").disabled = seek(state.at, 1) < 0;
    const { decision } = store.get(rows[state.at].id);
    for (const button of document.querySelectorAll("[data-decision]")) button.setAttribute("aria-pressed", String(button.dataset.decision === decision));
    /* Whoever filters by decision still sees what was decided just now; only an empty filter hides it. */
    $("nothing").hidden = shown > 0;
    $("trajectory").hidden = $("dock").hidden = shown === 0 && !fits(rows[state.at]) && !state.decided;
  }
  function seek(from, direction) {
    for (let k = from + direction; k >= 0 && k < rows.length; k += direction) if (fits(rows[k])) return k;
    return -1;
  }

  /* One trajectory. */
  let maskAt = null, tiles = [];
  function show(index) {
    leaveNote();
    state.at = index;
    state.decided = false;
    const row = rows[index];
    maskAt = masksOf(row);
    entries.forEach(({ button }, k) => (k === index ? button.setAttribute("aria-current", "true") : button.removeAttribute("aria-current")));
    const list = $("rows"), item = entries[index].item;
    if (item.offsetTop < list.scrollTop || item.offsetTop + item.offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = item.offsetTop - list.clientHeight / 3;
    $("instruction").textContent = row.instruction;
    $("answer").replaceChildren(...(row.answer ? [el("span", { class: "key" }, "Answer"), ` ${row.answer}`] : []));
    const known = OUTCOMES[row.outcome] !== undefined;
    $("tags").replaceChildren(
      el("span", { class: "target", dir: "auto" }, row.target), el("span", { class: "scenario" }, words(row.scenario)),
      el("span", { class: known ? `badge ${row.outcome}` : "badge" }, OUTCOMES[row.outcome] || words(row.outcome)),
      ...[
        row.iou !== null && `IoU ${row.iou.toFixed(3)}`, row.dice !== null && `Dice ${row.dice.toFixed(3)}`,
        row.steps !== null && `${row.steps} step${row.steps === 1 ? "" : "s"}`,
        [row.modality, row.view].filter(Boolean).join(", "), row.split, ...images[row.image].facts,
      ].filter(Boolean).map((text) => el("span", {}, text)));
    $("facts").replaceChildren(...[["id", row.id], ...row.facts].map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", { dir: "auto" }, value))));
    tiles = row.frames.map((frame, number) => card(row, frame, number));
    $("film").replaceChildren(...tiles.map(({ node }) => node));
    $("film").scrollLeft = 0;
    scrollTo(0, Math.min(scrollY, $("review").offsetTop));
    $("zoom").disabled = !region(row);
    $("reference").disabled = row.reference < 0;
    document.body.classList.toggle("refer", state.reference && row.reference >= 0);
    $("note").value = store.get(row.id).note;
    refresh();
    paint();
    try { history.replaceState(null, "", `#t=${encodeURIComponent(row.id)}`); } catch { /* some viewers forbid it */ }
    const coming = seek(index, 1);
    if (coming >= 0) picture(rows[coming].image);
  }
  function region(row) {
    const { width: W, height: H } = images[row.image], boxes = [];
    const add = (mask) => { if (mask && mask.bounds) boxes.push(mask.bounds); };
    add(maskAt(row.reference));
    for (const frame of row.frames) {
      add(maskAt(frame.mask));
      for (const [x, y] of frame.marks) boxes.push([x * W, y * H, x * W + 1, y * H + 1]);
      if (frame.box) boxes.push([frame.box[0] * W, frame.box[1] * H, frame.box[2] * W, frame.box[3] * H]);
    }
    return drawing.region(boxes, W, H);
  }
  const viewOf = (row) => {
    const { width, height } = images[row.image];
    return (state.zoom && region(row)) || { x: 0, y: 0, w: width, h: height };
  };
  function sign(frame) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    for (const [name, value] of [["width", 16], ["height", 16], ["aria-hidden", "true"]]) svg.setAttribute(name, value);
    const add = (css, d) => {
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      path.setAttribute("class", css);
      path.setAttribute("d", d);
      svg.append(path);
    };
    if (frame.marks.some((mark) => mark[2])) { add("k-pos", "M2 8a6 6 0 1 0 12 0a6 6 0 1 0-12 0z"); add("k-sign", "M5 8h6M8 5v6"); }
    else { add("k-neg", "M8 1l7 7-7 7-7-7z"); add("k-sign", "M5 8h6"); }
    return svg;
  }
  function describe(frame) {
    const parts = [];
    if (frame.kind === "terminate" || frame.kind === "result") return "";
    if (frame.iou !== null) parts.push(`IoU ${frame.iou.toFixed(3)}`);
    if (frame.changed !== null) parts.push(`${frame.changed.toLocaleString("en")} px changed`);
    if (frame.score !== null) parts.push(`score ${frame.score.toFixed(2)}`);
    return parts.length ? `then ${parts.join(" · ")}` : "";
  }
  function card(row, frame, number) {
    const canvas = el("canvas", {}), mask = maskAt(frame.mask);
    const intent = frame.kind === "result" ? "Final mask" : INTENTS[frame.intent] || words(frame.intent) || words(frame.kind);
    const label = `Step ${number + 1}, ${intent}, ${mask ? `mask of ${mask.count} pixels` : "no mask"}: enlarge`;
    const button = el("button", { type: "button", class: "picture", "aria-label": label }, canvas);
    button.addEventListener("click", () => enlarge(number));
    const head = el("header", {}, el("span", { class: "n" }, frame.kind === "result" ? "End" : String(number + 1)), el("span", { class: "intent" }, intent),
      frame.learn ? null : el("span", { class: "notice" }, "shown, not learnt"));
    const effect = describe(frame);
    const body = el("div", { class: "words" }, head,
      frame.kind === "result" ? null : el("p", { class: frame.thought ? "thought" : "thought none", dir: "auto" }, frame.thought || "no thought"),
      frame.action ? el("p", { class: "did" }, frame.marks.length ? sign(frame) : null, el("span", {}, frame.action.replace(/, /g, ",\u00a0"))) : null, /* one pair stays on one line */
      effect ? el("p", { class: "effect", title: "after this action; the score is the segmenter's own" }, effect) : null);
    return { canvas, button, frame, node: el("li", { class: frame.learn ? "frame" : "frame unlearnt" }, button, body) };
  }
  async function paint() {
    const row = rows[state.at], image = await picture(row.image);
    if (row !== rows[state.at] || !tiles.length) return;
    const view = viewOf(row), shape = (view.h * images[row.image].aspect) / view.w;
    const room = tiles[0].button.clientWidth, tall = Math.max(180, Math.min(room * 1.1, innerHeight * 0.45));
    const width = Math.max(1, Math.min(room, tall / shape));
    for (const { canvas, frame } of tiles) {
      const unit = resize(canvas, width, width * shape);
      draw(canvas, image, row, frame, maskAt, { overlay: state.overlay, reference: state.reference, marks: true, unit, view });
    }
    document.documentElement.dataset.painted = String(state.at);
    if ($("large").open) paintLarge(row, image, view, shape);
  }
  function paintLarge(row, image, view, shape) {
    const frame = row.frames[state.large], canvas = $("large-canvas"), { node } = tiles[state.large];
    const width = Math.max(1, Math.min(innerWidth * 0.96 - 40, 1100, (innerHeight * 0.92 - 210) / shape));
    const unit = resize(canvas, width, width * shape);
    draw(canvas, image, row, frame, maskAt, { overlay: state.overlay, reference: state.reference, marks: true, unit, view });
    $("large-title").textContent = `${[...node.querySelectorAll("header > *")].map((part) => part.textContent).join(" · ")}`;
    $("large-text").textContent = [frame.thought, frame.action].filter(Boolean).join("\n");
    canvas.setAttribute("aria-label", tiles[state.large].button.getAttribute("aria-label").replace(": enlarge", ""));
  }
  function enlarge(number) {
    state.large = Math.min(Math.max(number, 0), tiles.length - 1);
    if (!$("large").open) $("large").showModal();
    paint();
  }

  /* Deciding. */
  function decide(decision) {
    if ($("trajectory").hidden) return;
    leaveNote();
    const from = state.at, { id } = rows[from];
    const following = seek(from, 1);
    store.set(id, { decision });
    state.decided = true;
    store.send();
    if (decision !== "undecided" && $("advance").checked && following >= 0) show(following);
    else refresh();
  }
  function noteTyped() {
    store.set(rows[state.at].id, { note: $("note").value });
    refresh();
  }
  function leaveNote() {
    if (document.activeElement === $("note")) $("note").blur();
  }

  function flip(name) {
    state[name] = !state[name];
    press();
    remember();
    paint();
  }
  function press() {
    for (const name of ["overlay", "reference", "zoom"]) $(name).setAttribute("aria-pressed", String(state[name]));
    document.body.classList.toggle("refer", state.reference && rows[state.at].reference >= 0);
  }
  function remember() {
    try { localStorage.setItem(PREFERENCES, JSON.stringify({ reference: state.reference, zoom: state.zoom, advance: $("advance").checked })); } catch { /* for this visit only, then */ }
  }
  function recall() {
    try {
      const { reference, zoom, advance } = JSON.parse(localStorage.getItem(PREFERENCES) || "{}");
      Object.assign(state, { reference: reference === true, zoom: zoom === true });
      $("advance").checked = advance !== false;
    } catch { /* none are known */ }
  }
  function go(direction) {
    const found = seek(state.at, direction);
    if (found >= 0) show(found);
  }
  function toggleList() {
    const narrow = matchMedia("(max-width: 860px)").matches;
    const open = narrow ? document.body.classList.toggle("listed") : !document.body.classList.toggle("unlisted");
    $("listing").setAttribute("aria-pressed", String(open));
    paint();
  }
  function download() {
    leaveNote();
    const address = URL.createObjectURL(new Blob([store.lines()], { type: "application/jsonl" }));
    el("a", { href: address, download: "decisions.jsonl" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }
  function fill(name, label, values) {
    const count = new Map();
    for (const value of values) count.set(String(value), (count.get(String(value)) || 0) + 1);
    const select = $(`by-${name}`), options = [...count.keys()].sort().map((value) => el("option", { value }, `${words(value)} (${count.get(value)})`));
    select.replaceChildren(el("option", { value: "" }, label), ...options);
    listen(name, select);
  }
  function listen(name, select) {
    select.addEventListener("change", () => {
      filters[name] = select.value;
      state.decided = false;
      const found = fits(rows[state.at]) ? state.at : Math.max(seek(state.at, 1), seek(-1, 1));
      if (found >= 0 && found !== state.at) show(found);
      else refresh();
    });
  }

  const keys = {
    ArrowLeft: () => go(-1), ArrowRight: () => go(1), a: () => decide("accept"), r: () => decide("reject"), u: () => decide("undecided"),
    n: () => $("note").focus(), o: () => flip("overlay"), g: () => rows[state.at].reference >= 0 && flip("reference"),
    z: () => region(rows[state.at]) && flip("zoom"), l: toggleList, "?": () => $("keys").showModal(),
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key, { target } = event;
    if (target === $("note")) {
      if (key === "Escape" || (key === "Enter" && !event.shiftKey)) { event.preventDefault(); target.blur(); }
      return;
    }
    if (target.tagName === "SELECT") return;
    if ($("large").open) {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
      if (step) { event.preventDefault(); enlarge(state.large + step); }
      if (!["o", "g", "z"].includes(key)) return;
    }
    if (keys[key]) { event.preventDefault(); keys[key](); }
  });
  const on = (id, action) => $(id).addEventListener("click", action);
  on("prev", keys.ArrowLeft); on("next", keys.ArrowRight); on("overlay", keys.o); on("reference", keys.g); on("zoom", keys.z);
  on("listing", toggleList); on("unlist", toggleList); on("download", download); on("help", keys["?"]); on("large-close", () => $("large").close());
  on("unfilter", () => {
    for (const name of Object.keys(filters)) filters[name] = $(`by-${name}`).value = "";
    refresh();
  });
  for (const button of document.querySelectorAll("[data-decision]")) button.addEventListener("click", () => decide(button.dataset.decision));
  $("note").addEventListener("input", noteTyped);
  $("note").addEventListener("change", () => store.send());
  $("advance").addEventListener("change", remember);
  addEventListener("resize", paint);
  addEventListener("focus", () => store.send());

  function fromHash() {
    const found = /^#t=(.+)$/.exec(location.hash);
    if (!found) return 0;
    try { return Math.max(0, rows.findIndex((row) => row.id === decodeURIComponent(found[1]))); } catch { return 0; }
  }
  fill("scenario", "all", rows.map((row) => row.scenario));
  fill("target", "all", rows.map((row) => row.target));
  $("by-decision").replaceChildren(...[["", "all"], ["undecided", "undecided"], ["accept", "accepted"], ["reject", "rejected"]].map(([value, text]) => el("option", { value }, text)));
  listen("decision", $("by-decision"));
  recall();
  press();
  $("listing").setAttribute("aria-pressed", String(!matchMedia("(max-width: 860px)").matches));
  show(fromHash());
  store.say();
  store.send();
  picture(rows[state.at].image).then(() => { document.documentElement.dataset.ready = "1"; });
})();
