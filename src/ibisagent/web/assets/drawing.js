"use strict";
/* What every page draws on an image: masks, their outlines, clicks and boxes. */
const drawing = (() => {
  const POSITIVE = "#009e73", NEGATIVE = "#d55e00";

  /* COCO's compressed runs, column by column. */
  function runsOf(text) {
    const runs = [];
    for (let i = 0; i < text.length;) {
      let value = 0, shift = 0, more = true;
      while (more) {
        const code = text.charCodeAt(i++) - 48;
        value += (code & 31) * 2 ** shift;
        shift += 5;
        more = (code & 32) !== 0;
        if (!more && code & 16) value -= 2 ** shift;
      }
      if (runs.length > 2) value += runs[runs.length - 2];
      runs.push(value);
    }
    return runs;
  }

  /* Masks on a grid of W x H pixels. */
  function masks(W, H) {
    function decode(text) {
      const bits = new Uint8Array(W * H);
      let at = 0, on = 0, count = 0, x0 = W, y0 = H, x1 = -1, y1 = -1;
      for (const run of runsOf(text)) {
        if (on) for (let k = at; k < at + run; k++) {
          const x = Math.floor(k / H), y = k % H;
          bits[y * W + x] = 1;
          count++;
          if (x < x0) x0 = x;
          if (x > x1) x1 = x;
          if (y < y0) y0 = y;
          if (y > y1) y1 = y;
        }
        at += run;
        on ^= 1;
      }
      const bounds = count ? [x0, y0, x1 + 1, y1 + 1] : null;
      let line;
      return { bits, count, bounds, get path() { return (line ??= contour(bits, bounds)); } };
    }
    function tint(bits, red, green, blue) {
      const tile = document.createElement("canvas");
      tile.width = W;
      tile.height = H;
      const context = tile.getContext("2d"), pixels = context.createImageData(W, H), out = pixels.data;
      for (let i = 0; i < bits.length; i++) if (bits[i]) {
        out[4 * i] = red; out[4 * i + 1] = green; out[4 * i + 2] = blue; out[4 * i + 3] = 255;
      }
      context.putImageData(pixels, 0, 0);
      return tile;
    }
    /* The line half-way between pixels inside and outside (marching squares). Beyond the image the mask goes on
       as at its border, so that no line runs along the image's edge. */
    function contour(bits, bounds) {
      const path = new Path2D();
      if (!bounds) return path;
      const at = (x, y) => bits[Math.min(Math.max(y, 0), H - 1) * W + Math.min(Math.max(x, 0), W - 1)];
      for (let y = bounds[1] - 1; y < bounds[3]; y++) for (let x = bounds[0] - 1; x < bounds[2]; x++) {
        const kind = at(x, y) * 8 + at(x + 1, y) * 4 + at(x + 1, y + 1) * 2 + at(x, y + 1);
        if (kind === 0 || kind === 15) continue;
        const top = [x + 1, y + 0.5], right = [x + 1.5, y + 1], bottom = [x + 1, y + 1.5], left = [x + 0.5, y + 1];
        const line = (a, b) => { path.moveTo(a[0], a[1]); path.lineTo(b[0], b[1]); };
        if (kind === 1 || kind === 14) line(left, bottom);
        else if (kind === 2 || kind === 13) line(bottom, right);
        else if (kind === 3 || kind === 12) line(left, right);
        else if (kind === 4 || kind === 11) line(top, right);
        else if (kind === 6 || kind === 9) line(top, bottom);
        else if (kind === 7 || kind === 8) line(left, top);
        else if (kind === 5) { line(left, top); line(bottom, right); }
        else { line(top, right); line(left, bottom); }
      }
      return path;
    }
    return { decode, tint };
  }

  /* The part of the image that holds some boxes [x0, y0, x1, y1], with room around it; null if it is all of it. */
  function region(boxes, W, H) {
    let [x0, y0, x1, y1] = [W, H, 0, 0];
    for (const [a, b, c, d] of boxes) { x0 = Math.min(x0, a); y0 = Math.min(y0, b); x1 = Math.max(x1, c); y1 = Math.max(y1, d); }
    if (x1 <= x0 || y1 <= y0) return null;
    const share = Math.min(1, Math.max((x1 - x0) / W, (y1 - y0) / H, 24 / Math.max(W, H)) * 1.5);
    const w = W * share, h = H * share;
    const x = Math.min(Math.max((x0 + x1 - w) / 2, 0), W - w), y = Math.min(Math.max((y0 + y1 - h) / 2, 0), H - h);
    return share < 0.999 ? { x, y, w, h } : null;
  }

  function outline(context, line, matrix, color, width, casing = 2) {
    const path = new Path2D();
    path.addPath(line, matrix);
    context.lineCap = "round";
    context.strokeStyle = "rgba(0,0,0,.5)";
    context.lineWidth = width + casing * (devicePixelRatio || 1);
    context.stroke(path);
    context.strokeStyle = color;
    context.lineWidth = width;
    context.stroke(path);
  }

  /* A box between two corners on the canvas. */
  function box(context, a, b, unit) {
    for (const [color, width] of [["rgba(0,0,0,.6)", 3.5], ["#fff", 1.5]]) {
      context.setLineDash([6 * unit, 4 * unit]);
      context.strokeStyle = color;
      context.lineWidth = width * unit;
      context.strokeRect(a.x, a.y, b.x - a.x, b.y - a.y);
    }
    context.setLineDash([]);
  }

  /* A click inside is a disc, one outside a diamond: shape and sign tell them apart without colour. */
  function click(context, mark, radius, unit, signed) {
    context.beginPath();
    if (mark.positive) context.arc(mark.x, mark.y, radius, 0, 2 * Math.PI);
    else {
      const r = radius * 1.2;
      context.moveTo(mark.x, mark.y - r);
      for (const [dx, dy] of [[r, 0], [0, r], [-r, 0]]) context.lineTo(mark.x + dx, mark.y + dy);
      context.closePath();
    }
    context.fillStyle = mark.positive ? POSITIVE : NEGATIVE;
    context.fill();
    context.lineWidth = 1.4 * unit;
    context.strokeStyle = "#fff";
    context.stroke();
    if (!signed) return;
    context.lineWidth = 1.8 * unit;
    context.beginPath();
    const arm = radius * 0.52;
    context.moveTo(mark.x - arm, mark.y);
    context.lineTo(mark.x + arm, mark.y);
    if (mark.positive) { context.moveTo(mark.x, mark.y - arm); context.lineTo(mark.x, mark.y + arm); }
    context.stroke();
  }

  return { masks, region, outline, box, click };
})();
