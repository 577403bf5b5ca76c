// The gradient explorer: losses and their gradients at a constant answer, from closed forms.
//
// An image of N pixels, T of them foreground, answered with the probability p everywhere. Each loss
// returns its value and the gradient at the logit, averaged over the foreground and over the
// background pixels (they differ within a class only where a loss sorts ties). The formulas are those
// of lossatlas.theory.forms; tests/book/test_explorer.py compares them with lossatlas.losses.
"use strict";

(() => {
  const ln = Math.log;

  // --- losses: (state) -> {loss, fg, bg} ------------------------------------------------------

  // Mean of per-pixel losses with weights: value and slope on either class, and a divisor.
  const pixelwise = (s, fg, bg, divisor = s.N) => ({
    loss: (s.T * fg.value + s.B * bg.value) / divisor,
    fg: fg.slope / divisor,
    bg: bg.slope / divisor,
  });
  const surprise = (s, a = 1, b = 1) => [
    { value: -a * ln(s.p), slope: -a * (1 - s.p) },
    { value: -b * ln(1 - s.p), slope: b * s.p },
  ];

  // A region loss from its value and its derivative by the probability of one pixel of each class.
  const region = (s, loss, byFg, byBg) => ({
    loss,
    fg: s.p * (1 - s.p) * byFg,
    bg: s.p * (1 - s.p) * byBg,
  });

  function dice(s) {
    const bottom = s.N * s.p + s.T + s.eps;
    const D = (2 * s.T * s.p + s.eps) / bottom;
    return region(s, 1 - D, -(2 - D) / bottom, D / bottom);
  }

  function inverseDice(s) {
    const bottom = 2 * s.N - s.N * s.p - s.T + s.eps;
    const D = (2 * s.B * (1 - s.p) + s.eps) / bottom;
    return region(s, 1 - D, -D / bottom, (2 - D) / bottom);
  }

  function diceSquared(s) {
    const bottom = s.N * s.p * s.p + s.T + s.eps;
    const D = (2 * s.T * s.p + s.eps) / bottom;
    return region(s, 1 - D, (-2 * (1 - s.p * D)) / bottom, (2 * s.p * D) / bottom);
  }

  function tverskyOf(s, alpha, beta) {
    const I = s.T * s.p;
    const bottom = I + alpha * (s.N * s.p - I) + beta * (s.T - I) + s.eps;
    const TI = (I + s.eps) / bottom;
    return {
      TI,
      ...region(s, 1 - TI, -(1 - TI * (1 - beta)) / bottom, (alpha * TI) / bottom),
    };
  }

  const scaled = (part, factor) => ({ fg: factor * part.fg, bg: factor * part.bg });

  function focalTversky(s) {
    const part = tverskyOf(s, s.alpha, s.beta);
    const power = 3 / 4; // 1/γ with the published γ = 4/3
    const factor = power * Math.pow(1 - part.TI, power - 1);
    return { loss: Math.pow(1 - part.TI, power), ...scaled(part, factor) };
  }

  function logCosh(s) {
    const part = dice(s);
    return { loss: ln(Math.cosh(part.loss)), ...scaled(part, Math.tanh(part.loss)) };
  }

  function generalised(s) {
    const w1 = 1 / (s.T * s.T);
    const w0 = 1 / (s.B * s.B);
    const S1 = s.N * s.p;
    const S0 = s.N - S1;
    const bottom = w1 * (S1 + s.T) + w0 * (S0 + s.B) + s.eps;
    const G = (2 * (w1 * s.T * s.p + w0 * s.B * (1 - s.p)) + s.eps) / bottom;
    return region(
      s,
      1 - G,
      -(2 * w1 - G * (w1 - w0)) / bottom,
      (2 * w0 + G * (w1 - w0)) / bottom,
    );
  }

  function focal(s) {
    const { p, gamma } = s;
    const slope = (q) => Math.pow(1 - q, gamma) * (gamma * q * ln(q) + q - 1);
    return pixelwise(
      s,
      { value: -Math.pow(1 - p, gamma) * ln(p), slope: slope(p) },
      { value: -Math.pow(p, gamma) * ln(1 - p), slope: -slope(1 - p) },
    );
  }

  function poly1(s) {
    const { p } = s;
    return pixelwise(
      s,
      { value: -ln(p) + (1 - p), slope: -(1 - p) * (1 + p) },
      { value: -ln(1 - p) + p, slope: p * (2 - p) },
    );
  }

  function unifiedFocal(s) {
    const { p } = s;
    const [lambda, delta, gamma] = [0.5, 0.6, 0.5];
    const pixel = pixelwise(
      s,
      { value: -delta * ln(p), slope: -delta * (1 - p) },
      {
        value: -(1 - delta) * Math.pow(p, gamma) * ln(1 - p),
        slope: (1 - delta) * Math.pow(p, gamma) * (p - gamma * (1 - p) * ln(1 - p)),
      },
    );
    const part = tverskyOf(s, 1 - delta, delta);
    const factor = (1 - gamma) * Math.pow(1 - part.TI, -gamma);
    return {
      loss: lambda * pixel.loss + (1 - lambda) * Math.pow(1 - part.TI, 1 - gamma),
      fg: lambda * pixel.fg + (1 - lambda) * factor * part.fg,
      bg: lambda * pixel.bg + (1 - lambda) * factor * part.bg,
    };
  }

  // The hardest tenth: the class with the larger loss first, ties within it shared out evenly.
  function topk(s) {
    const keep = Math.max(1, Math.round(0.1 * s.N));
    const [fg, bg] = surprise(s);
    const fgKept = s.p < 0.5 ? Math.min(s.T, keep) : Math.max(0, keep - s.B);
    const bgKept = keep - fgKept;
    return {
      loss: (fgKept * fg.value + bgKept * bg.value) / keep,
      fg: (fg.slope * fgKept) / keep / s.T,
      bg: (bg.slope * bgKept) / keep / s.B,
    };
  }

  // Sorted errors: the class with the larger error takes its increments first.
  function lovasz(s, errorFg, errorBg, slopeFg, slopeBg) {
    const fgFirst = errorFg > errorBg;
    const fgWeight = fgFirst ? 1 : s.T / s.N;
    const bgWeight = fgFirst ? 0 : s.B / s.N;
    return {
      loss: fgWeight * Math.max(errorFg, 0) + bgWeight * Math.max(errorBg, 0),
      fg: errorFg > 0 ? (slopeFg * fgWeight) / s.T : 0,
      bg: errorBg > 0 ? (slopeBg * bgWeight) / s.B : 0,
    };
  }

  const z = (s) => ln(s.p / (1 - s.p));
  const slopeOf = (s) => s.p * (1 - s.p);

  const LOSSES = {
    ce: { title: "cross-entropy", colour: "#000000", of: (s) => pixelwise(s, ...surprise(s)) },
    weighted_ce: {
      title: "inverse-frequency CE",
      colour: "#0072B2",
      of: (s) => pixelwise(s, ...surprise(s, s.B / s.T), 2 * s.B),
    },
    balanced_ce: {
      title: "balanced CE",
      colour: "#003F66",
      of: (s) => pixelwise(s, ...surprise(s, s.B / s.N, s.T / s.N)),
    },
    topk_ce: { title: "top-k, hardest tenth", colour: "#8C8C8C", of: topk },
    focal: { title: "focal (γ)", colour: "#56B4E9", of: focal },
    poly1: { title: "Poly-1", colour: "#2C7FB0", of: poly1 },
    dice: { title: "Dice", colour: "#D55E00", of: dice },
    dice_squared: { title: "Dice, squared", colour: "#8F3F00", of: diceSquared },
    inverse_dice: { title: "inverse Dice", colour: "#5E2A00", of: inverseDice },
    generalized_dice: { title: "generalised Dice", colour: "#B8510A", of: generalised },
    log_cosh_dice: { title: "log-cosh Dice", colour: "#F7B184", of: logCosh },
    jaccard: {
      title: "Jaccard",
      colour: "#E69F00",
      of: (s) => {
        const I = s.T * s.p;
        const U = s.N * s.p + s.T - I + s.eps;
        const J = (I + s.eps) / U;
        return region(s, 1 - J, -1 / U, J / U);
      },
    },
    tversky: {
      title: "Tversky (α, β)",
      colour: "#A67300",
      of: (s) => tverskyOf(s, s.alpha, s.beta),
    },
    focal_tversky: { title: "focal Tversky (α, β)", colour: "#FFC845", of: focalTversky },
    lovasz_softmax: {
      title: "Lovász-softmax",
      colour: "#009E73",
      of: (s) => lovasz(s, 1 - s.p, s.p, -slopeOf(s), slopeOf(s)),
    },
    lovasz_hinge: {
      title: "Lovász hinge",
      colour: "#004D38",
      of: (s) => lovasz(s, 1 - z(s), 1 + z(s), -1, 1),
    },
    unified_focal: { title: "unified focal", colour: "#1F5C8A", of: unifiedFocal },
  };

  function evaluate(name, state) {
    const s = { ...state, B: state.N - state.T };
    const { loss, fg, bg } = LOSSES[name].of(s);
    const onFg = s.T * Math.abs(fg);
    const total = onFg + s.B * Math.abs(bg);
    return { loss, fg, bg, share: total > 0 ? onFg / total : NaN };
  }

  // For the tests, and for whoever opens the console.
  window.lossExplorer = { names: Object.keys(LOSSES), losses: LOSSES, evaluate };

  // --- page -----------------------------------------------------------------------------------

  // key, label, lowest, highest, step, start; `log` sliders hold the decimal logarithm.
  const SLIDERS = [
    { key: "p", label: "probability p everywhere", min: 0.001, max: 0.999, step: 0.001, start: 0.4 },
    { key: "pi", label: "foreground fraction π", min: -4, max: -0.3, step: 0.01, start: -2, log: true },
    { key: "T", label: "object size T (pixels)", min: 0, max: 4, step: 0.01, start: 2, log: true },
    { key: "gamma", label: "γ (focal)", min: 0, max: 5, step: 0.1, start: 2 },
    { key: "alpha", label: "α (Tversky, false positives)", min: 0.05, max: 1, step: 0.05, start: 0.3 },
    { key: "beta", label: "β (Tversky, false negatives)", min: 0.05, max: 1, step: 0.05, start: 0.7 },
    { key: "eps", label: "smoothing ε", min: 0, max: 10, step: 0.1, start: 0 },
  ];
  const START = ["ce", "focal", "dice", "tversky"];

  const make = (tag, attributes = {}, ...children) => {
    const svg = ["svg", "path", "line", "text", "g", "title"].includes(tag);
    const node = svg
      ? document.createElementNS("http://www.w3.org/2000/svg", tag)
      : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };

  const number = (value) => {
    if (!Number.isFinite(value)) return "—";
    const size = Math.abs(value);
    return size === 0 || (size >= 1e-3 && size < 1e5) ? value.toPrecision(4) : value.toExponential(2);
  };

  function start(root) {
    const asked = new URLSearchParams(location.search);
    const values = {};
    const outputs = {};
    const chosen = new Set(
      (asked.get("losses") ?? START.join(",")).split(",").filter((name) => name in LOSSES),
    );

    const controls = make("div", { class: "explorer-sliders" });
    for (const slider of SLIDERS) {
      const given = Number.parseFloat(asked.get(slider.key) ?? "");
      const raw = Number.isFinite(given)
        ? slider.log
          ? Math.log10(given)
          : given
        : slider.start;
      values[slider.key] = Math.min(slider.max, Math.max(slider.min, raw));
      const id = `explorer-${slider.key}`;
      const { min, max, step } = slider;
      const input = make("input", { id, type: "range", min, max, step, value: values[slider.key] });
      outputs[slider.key] = make("output", { for: id });
      input.addEventListener("input", () => {
        values[slider.key] = Number(input.value);
        update();
      });
      controls.append(
        make("label", { for: id }, make("span", {}, slider.label), outputs[slider.key], input),
      );
    }

    const boxes = make("fieldset", { class: "explorer-losses" }, make("legend", {}, "Losses"));
    for (const [name, loss] of Object.entries(LOSSES)) {
      const box = make("input", { type: "checkbox", value: name });
      box.checked = chosen.has(name);
      box.addEventListener("change", () => {
        if (box.checked) chosen.add(name);
        else chosen.delete(name);
        update();
      });
      const mark = make("span", { class: "explorer-mark", style: `background:${loss.colour}` });
      boxes.append(make("label", {}, box, mark, loss.title));
    }

    const summary = make("p", { "aria-live": "polite" });
    const body = make("tbody");
    const heads = ["loss", "value", "∂/∂z, foreground", "∂/∂z, background", "foreground’s share"];
    const table = make(
      "table",
      { class: "table" },
      make("caption", {}, "One pixel of each class, at the values above"),
      make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
      body,
    );
    const figure = make("div", { class: "explorer-figure" });
    const scroll = make("div", { class: "explorer-table", tabindex: "0" }, table);
    root.replaceChildren(controls, boxes, summary, scroll, figure);

    function state(fraction = 10 ** values.pi) {
      const T = Math.max(1, Math.round(10 ** values.T));
      const N = Math.max(T + 1, Math.round(T / fraction));
      const { p, gamma, alpha, beta, eps } = values;
      return { p, T, N, gamma, alpha, beta, eps };
    }

    function draw() {
      const [width, height, left, right, bottom, top] = [560, 300, 48, 30, 40, 12];
      const [low, high] = [SLIDERS[1].min, SLIDERS[1].max];
      const x = (logPi) => left + ((high - logPi) / (high - low)) * (width - left - right);
      const y = (share) => height - bottom - share * (height - bottom - top);
      const svg = make("svg", {
        viewBox: `0 0 ${width} ${height}`,
        role: "img",
        "aria-label": "Foreground’s share of the gradient against the foreground fraction",
      });
      for (const share of [0, 0.25, 0.5, 0.75, 1]) {
        svg.append(
          make("line", { x1: left, x2: width - right, y1: y(share), y2: y(share), class: "grid" }),
          make("text", { x: left - 6, y: y(share) + 4, "text-anchor": "end" }, String(share)),
        );
      }
      for (const power of [-1, -2, -3, -4]) {
        const label = `${100 * 10 ** power} %`;
        svg.append(
          make("text", { x: x(power), y: height - bottom + 16, "text-anchor": "middle" }, label),
        );
      }
      svg.append(
        make("line", { x1: x(values.pi), x2: x(values.pi), y1: y(0), y2: y(1), class: "here" }),
        make("text", { x: (left + width) / 2, y: height - 6, "text-anchor": "middle" },
          "foreground fraction π"),
      );
      for (const name of chosen) {
        const points = [];
        for (let i = 0; i <= 120; i += 1) {
          const logPi = high + ((low - high) * i) / 120;
          // A share needs no whole pixels: T stays, N = T/π.
          const at = { ...state(), N: Math.max(state().T * 1.000001, state().T / 10 ** logPi) };
          const { share } = evaluate(name, at);
          if (Number.isFinite(share)) points.push(`${x(logPi).toFixed(1)},${y(share).toFixed(1)}`);
        }
        const line = make("path", { d: `M${points.join("L")}`, stroke: LOSSES[name].colour });
        line.append(make("title", {}, LOSSES[name].title));
        if (points.length) svg.append(line);
      }
      figure.replaceChildren(svg);
    }

    function update() {
      const s = state();
      for (const slider of SLIDERS) outputs[slider.key].textContent = number(values[slider.key]);
      outputs.pi.textContent = `${number((100 * s.T) / s.N)} %`;
      outputs.T.textContent = String(s.T);
      summary.textContent = `${s.N} pixels, ${s.T} of them foreground, all answered with ${s.p}.`;
      body.replaceChildren(
        ...[...chosen].map((name) => {
          const { loss, fg, bg, share } = evaluate(name, s);
          const cells = [loss, fg, bg, share].map((value) => make("td", {}, number(value)));
          const mark = make("span", {
            class: "explorer-mark",
            style: `background:${LOSSES[name].colour}`,
          });
          const head = make("th", { scope: "row" }, mark, LOSSES[name].title);
          return make("tr", { "data-loss": name }, head, ...cells);
        }),
      );
      draw();
      const query = new URLSearchParams();
      for (const { key, log } of SLIDERS) {
        query.set(key, String(Number((log ? 10 ** values[key] : values[key]).toPrecision(6))));
      }
      query.set("losses", [...chosen].join(","));
      history.replaceState(null, "", `${location.pathname}?${query}${location.hash}`);
    }
    update();
  }

  document.addEventListener("DOMContentLoaded", () => {
    const root = document.getElementById("explorer");
    if (root) start(root);
  });
})();
