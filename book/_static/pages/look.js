// Predictions of two losses beside each other; a threshold on their stored logits moves both masks and their scores.
// The data stand in the page (#look-data), so that it works from a file and without a network.
"use strict";

document.addEventListener("DOMContentLoaded", async () => {
  const root = document.getElementById("look");
  const source = document.getElementById("look-data");
  if (!root || !source) return;
  const data = JSON.parse(source.textContent);
  // Each group's bytes are one zlib stream: images, targets, then the logits of each loss.
  const inflated = async (text) => {
    const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };
  for (const group of data.groups) {
    const bytes = await inflated(group.bytes);
    const pixels = group.shape.reduce((a, b) => a * b);
    const part = (k) => bytes.subarray(k * pixels, (k + 1) * pixels);
    group.images = part(0);
    group.targets = part(1);
    group.logits = Object.fromEntries(group.losses.map((loss, k) => [loss, part(k + 2)]));
  }
  const VOID = 2; // a pixel without a label counts nowhere
  const HIT = [0, 158, 115], MISSED = [213, 94, 0], FALSE_ALARM = [86, 180, 233];
  // The threshold and the stored logits are in steps of asinh: fine near ½, and as far out as Dice's networks go. Those of
  // the digits are in tenths, up to 12.7.
  const LEAST = -127, MOST = 127;
  const steps = (z) => (group().unit ? z * group().unit : group().scale * Math.asinh(z));
  const step = (z) => Math.max(LEAST, Math.min(MOST, Math.round(steps(z))));
  const logit = (t) => (group().unit ? t / group().unit : Math.sinh(t / group().scale));

  const make = (tag, properties = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  };
  const chooser = (name, label) => {
    const select = make("select", { id: `look-${name}` });
    select.addEventListener("change", draw);
    return [select, make("label", {}, `${label} `, select)];
  };
  const [groups, groupsLabel] = chooser("group", "Data and last layer");
  const [images, imagesLabel] = chooser("image", "Image");
  const [left, leftLabel] = chooser("left", "Left");
  const [right, rightLabel] = chooser("right", "Right");
  const [view, viewLabel] = chooser("view", "View");
  const slider = make("input", { type: "range", id: "look-threshold", min: LEAST, max: MOST, step: 1, value: 0 });
  const shown = make("output", { htmlFor: "look-threshold" });
  const large = make("input", { type: "checkbox", id: "look-large" });
  const pictures = make("div", { className: "look-pictures" });
  const sides = ["image", "left", "right"].map((name) => {
    const canvas = make("canvas", { id: `look-canvas-${name}` });
    canvas.setAttribute("role", "img");
    const caption = make("figcaption");
    pictures.append(make("figure", {}, canvas, caption));
    return { canvas, caption };
  });
  const table = make("tbody");
  const curve = make("div", { className: "look-curve" });
  const runs = make("p", { className: "look-runs" });

  groups.append(...data.groups.map((group, k) => new Option(group.title, k)));
  view.append(new Option("errors", "errors"), new Option("truth", "truth"), new Option("probability", "probability"));
  groups.addEventListener("change", fill);
  slider.addEventListener("input", draw);
  large.addEventListener("change", () => pictures.classList.toggle("large", large.checked));

  const button = (text, threshold) => {
    const node = make("button", { type: "button", textContent: text });
    node.addEventListener("click", () => {
      slider.value = step(threshold());
      draw();
    });
    // A threshold farther out than the logits that were kept cannot be shown.
    node.update = () => {
      node.disabled = Math.abs(steps(threshold())) > MOST;
      node.title = node.disabled ? `at logit ${threshold().toFixed(1)}, beyond the logits that were kept` : "";
    };
    return node;
  };
  const group = () => data.groups[Number(groups.value)];
  const own = [
    button("½", () => 0),
    button("left's own threshold", () => -group().tuned[left.value]),
    button("right's own threshold", () => -group().tuned[right.value])];
  const buttons = make("div", { className: "look-buttons" }, ...own);

  const heading = make("tr");
  for (const name of ["", "Dice", "precision", "recall"]) heading.append(make("th", { scope: "col", textContent: name }));
  const scores = make("table", {}, make("caption", { textContent: "Scores at this threshold" }), make("thead", {}, heading), table);
  scores.setAttribute("aria-live", "polite");
  root.replaceChildren(
    make("div", { className: "look-tools" }, groupsLabel, imagesLabel, leftLabel, rightLabel, viewLabel,
      make("label", {}, large, " large pictures")),
    make("label", { className: "look-slider" }, "Threshold ", shown, slider), buttons, pictures,
    make("div", { className: "look-scores" }, scores), curve, runs);

  // The images and the losses of a group; a chosen loss stays where the group has it.
  function fill() {
    for (const [select, usual] of [[left, "ce"], [right, "dice"]]) {
      const before = select.value;
      select.replaceChildren(...group().losses.map((loss) => new Option(loss, loss)));
      select.value = group().losses.includes(before) ? before : usual;
    }
    images.replaceChildren(...group().rules.map((rule, k) => new Option(`${k + 1}: ${rule}`, k)));
    draw();
  }

  // Counts of hit, predicted and true pixels among the bytes from..to, at a threshold in steps.
  function counts(loss, threshold, from, to) {
    const { logits, targets } = group();
    const edge = threshold + data.zero;
    let hit = 0, predicted = 0, truth = 0;
    for (let k = from; k < to; k += 1) {
      if (targets[k] === VOID) continue;
      const on = logits[loss][k] >= edge ? 1 : 0;
      predicted += on;
      truth += targets[k];
      hit += on & targets[k];
    }
    return { hit, predicted, truth };
  }
  const ratio = (a, b) => (b === 0 ? "–" : (a / b).toFixed(3));
  const dice = ({ hit, predicted, truth }) => (predicted + truth === 0 ? 1 : (2 * hit) / (predicted + truth));

  function paint({ canvas, caption }, loss, at, threshold) {
    const { shape, images: grey, targets, logits } = group();
    const [, height, width] = shape;
    const pixels = height * width;
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d");
    const drawn = context.createImageData(width, height);
    for (let k = 0; k < pixels; k += 1) {
      const place = at * pixels + k;
      let colour = [grey[place], grey[place], grey[place]];
      if (loss !== null) {
        const on = logits[loss][place] >= threshold + data.zero;
        const true_ = targets[place] === 1;
        colour = colour.map((value) => 0.55 * value);
        if (view.value === "probability") {
          colour = Array(3).fill(255 / (1 + Math.exp(-logit(logits[loss][place] - data.zero))));
        } else if (view.value === "truth") {
          if (true_) colour = [255, 255, 255];
        } else if (targets[place] === VOID) colour = [0, 0, 0];
        else if (on && true_) colour = HIT;
        else if (true_) colour = MISSED;
        else if (on) colour = FALSE_ALARM;
      }
      drawn.data.set([...colour, 255], 4 * k);
    }
    context.putImageData(drawn, 0, 0);
    if (loss === null) {
      caption.textContent = `test image ${group().ids[at]}, ${group().rules[at]}`;
      canvas.setAttribute("aria-label", caption.textContent);
      return;
    }
    const found = counts(loss, threshold, at * pixels, (at + 1) * pixels);
    caption.textContent = `${loss}: Dice ${dice(found).toFixed(3)}`;
    canvas.setAttribute("aria-label", `${view.value} of ${loss} at this threshold: ${found.hit} pixels found, ` +
      `${found.truth - found.hit} missed, ${found.predicted - found.hit} false alarms`);
  }

  function row(name, { hit, predicted, truth }) {
    const cells = [dice({ hit, predicted, truth }).toFixed(3), ratio(hit, predicted), ratio(hit, truth)];
    return make("tr", {}, make("th", { scope: "row", textContent: name }), ...cells.map((text) => make("td", { textContent: text })));
  }

  // Dice over all images of the group against the threshold: a curve a loss, named above.
  function drawCurve(all, threshold) {
    const x = (t) => 40 + (500 * (t - LEAST)) / (MOST - LEAST);
    const y = (value) => 150 - 130 * value;
    const lines = [...new Set([left.value, right.value])].map((loss, k) => {
      const points = [];
      for (let t = LEAST; t <= MOST; t += 3) {
        points.push(`${x(t).toFixed(1)},${y(dice(counts(loss, t, 0, all))).toFixed(1)}`);
      }
      const dash = k ? ' stroke-dasharray="6 3"' : "";
      return `<polyline points="${points.join(" ")}" fill="none" stroke="${data.colours[loss]}" stroke-width="2"${dash}/>` +
        `<path d="M${330 + 120 * k} 12h24" stroke="${data.colours[loss]}" stroke-width="2"${dash}/>` +
        `<text x="${360 + 120 * k}" y="16">${loss}</text>`;
    });
    const marks = group().unit ? [-10, -5, 0, 5, 10] : [-50, -10, -3, -1, 0, 1, 3, 10, 50];
    const ticks = marks.map((z) => `<text x="${x(steps(z))}" y="168" text-anchor="middle">${z}</text>`);
    curve.innerHTML = `<svg viewBox="0 0 560 190" role="img" aria-label="Dice over all images of the group against the threshold">` +
      `<path d="M40 20V150H540" fill="none" stroke="#666"/><text x="34" y="154" text-anchor="end">0</text>` +
      `<text x="34" y="24" text-anchor="end">1</text>${ticks.join("")}` +
      `<text x="290" y="185" text-anchor="middle">threshold as a logit (½ is 0); Dice over all images</text>` +
      `<line x1="${x(threshold)}" x2="${x(threshold)}" y1="20" y2="150" stroke="#888" stroke-dasharray="3 3"/>${lines.join("")}</svg>`;
  }

  function draw() {
    const threshold = Number(slider.value);
    const p = 1 / (1 + Math.exp(-logit(threshold)));
    const text = p > 0.999 ? "0.999…" : p < 0.001 ? p.toExponential(1) : p.toFixed(3);
    shown.textContent = `p = ${text}`;
    slider.setAttribute("aria-valuetext", `probability ${text}`);
    for (const node of own) node.update();
    const at = Number(images.value);
    const [count, height, width] = group().shape;
    const pixels = height * width;
    paint(sides[0], null, at, threshold);
    paint(sides[1], left.value, at, threshold);
    paint(sides[2], right.value, at, threshold);
    const rows = [left.value, right.value];
    table.replaceChildren(
      ...rows.map((loss) => row(`${loss}, this image`, counts(loss, threshold, at * pixels, (at + 1) * pixels))),
      ...rows.map((loss) => row(`${loss}, all ${count} images`, counts(loss, threshold, 0, count * pixels))));
    drawCurve(count * pixels, threshold);
    runs.textContent = `Runs, seed ${group().seed}: ${rows.map((loss) => `${loss} ${group().runs[loss]}`).join(", ")}.`;
  }
  fill();
});
