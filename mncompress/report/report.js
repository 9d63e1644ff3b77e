"use strict";
// The gallery: filters, sorts and draws what is asked for. Its data is the document that mncompress.report._pack makes.
// Everything is put on the page as text or as attributes, never as markup.
(() => {
  const $ = (id) => document.getElementById(id);
  const gallery = JSON.parse($("gallery-data").textContent);
  const SVG = document.querySelector("svg").namespaceURI;
  const PAGE = 24;
  const START = { layer: "", kind: "", sort: "sensitivity", view: "pictures", neuron: "" };
  const ORDERS = {
    sensitivity: (a, b) => b.sensitivity - a.sensitivity,
    error: (a, b) => b.error - a.error,
    outside: (a, b) => b.outside - a.outside,
    number: (a, b) => a.layer - b.layer || a.index - b.index,
  };
  let state = { ...START };
  let shown = PAGE;

  const name = (neuron) => `${neuron.layer}.${neuron.index}`;
  const words = (kind) => (kind === "left" ? "left the network" : kind.replaceAll("_", " "));
  const number = (value, digits = 4) => String(Number(value.toPrecision(digits))).replaceAll("-", "\u2212");

  function make(tag, attributes = {}, ...children) {
    const drawn = ["svg", "path", "text", "g"].includes(tag);
    const element = drawn ? document.createElementNS(SVG, tag) : document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  // --- drawing

  function unpack(neuron) {
    const bytes = Uint8Array.from(atob(neuron.curves), (letter) => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer), n = gallery.points;
    const [bottom, top] = neuron.y, height = top - bottom;
    const read = (start, each) => Array.from({ length: n }, (_, k) => each(start, k));
    const value = (start, k) => {
      const code = view.getUint16(start + 2 * k, true);
      return code === 65535 ? NaN : bottom - height + 3 * height * code / 65534;
    };
    const difference = (start, k) => {
      const code = view.getInt8(start + k);
      return code === -128 ? NaN : neuron.peak * code / 100;
    };
    return {
      learned: read(0, value), replacement: read(2 * n, value), difference: read(4 * n, difference),
      heights: Array.from({ length: gallery.bins }, (_, k) => bytes[5 * n + k] / 255),
    };
  }

  function ticks(low, high, most) {
    const power = 10 ** Math.floor(Math.log10((high - low) / most));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => (high - low) / each <= most);
    const found = [];
    for (let k = Math.ceil(low / step); k <= Math.floor(high / step); k++) found.push(k * step);
    return found;
  }

  // A polyline over the neuron's grid, with a gap at every value that is not finite.
  function line(neuron, values, x, y) {
    const [first, last] = neuron.x;
    let path = "", open = false;
    values.forEach((value, k) => {
      if (Number.isFinite(value)) {
        const u = first + (last - first) * k / (values.length - 1);
        path += `${open ? "L" : "M"}${x(u).toFixed(1)} ${y(value).toFixed(1)}`;
      }
      open = Number.isFinite(value);
    });
    return path;
  }

  function frame(svg, neuron, box, low, high, most) {
    const x = (u) => box.left + box.width * (u - neuron.x[0]) / (neuron.x[1] - neuron.x[0]);
    const y = (value) => box.top + box.height * (high - value) / (high - low);
    const base = box.top + box.height;
    const inner = make("svg", { x: box.left, y: box.top, width: box.width, height: box.height,
      viewBox: `${box.left} ${box.top} ${box.width} ${box.height}` });
    for (const edge of new Set(neuron.domain)) {
      inner.append(make("path", { class: "edge", d: `M${x(edge).toFixed(1)} ${box.top}V${base}` }));
    }
    svg.append(inner, make("path", { class: "axis", d: `M${box.left} ${box.top}V${base}H${box.left + box.width}` }));
    for (const tick of ticks(low, high, most)) {
      svg.append(make("text", { x: box.left - 5, y: (y(tick) + 3.5).toFixed(1), "text-anchor": "end" }, number(tick)));
    }
    return { inner, x, y, base };
  }

  function labelled(neuron, width, height, what) {
    return make("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label":
      `${what} ${name(neuron)}, ${words(neuron.kind)}; largest error ${neuron.shown.error} on its domain, ${neuron.shown.domain}` });
  }

  function drawFunction(neuron, width, height, detail) {
    const curves = unpack(neuron);
    const svg = labelled(neuron, width, height, "Learned activation and replacement of neuron");
    const box = { left: detail ? 48 : 36, top: 6, width: width - (detail ? 56 : 42), height: height - 26 };
    const { inner, x, y, base } = frame(svg, neuron, box, ...neuron.y, detail ? 6 : 4);
    const step = (neuron.bins[1] - neuron.bins[0]) / gallery.bins;
    const steps = curves.heights.map((share, k) =>
      `V${(base - 0.45 * box.height * share).toFixed(1)}H${x(neuron.bins[0] + (k + 1) * step).toFixed(1)}`);
    inner.prepend(make("path", { class: "histogram", d: `M${x(neuron.bins[0]).toFixed(1)} ${base}${steps.join("")}V${base}Z` }));
    inner.append(make("path", { class: "learned", d: line(neuron, curves.learned, x, y) }));
    inner.append(make("path", { class: "replacement", d: line(neuron, curves.replacement, x, y) }));
    const places = detail ? ticks(...neuron.x, Math.max(3, Math.floor(width / 90))) : [...new Set(neuron.domain)];
    for (const place of places) {
      svg.append(make("text", { x: x(place).toFixed(1), y: height - 5, "text-anchor": "middle" }, number(place, 3)));
    }
    return svg;
  }

  function drawDifference(neuron, width, height) {
    const curves = unpack(neuron), peak = (neuron.peak || 1) * 1.15;
    const svg = labelled(neuron, width, height, "Difference of replacement and learned activation of neuron");
    const box = { left: 48, top: 4, width: width - 56, height: height - 10 };
    const { inner, x, y } = frame(svg, neuron, box, -peak, peak, 3);
    inner.append(make("path", { class: "zero", d: `M${box.left} ${y(0)}H${box.left + box.width}` }));
    inner.append(make("path", { class: "difference", d: line(neuron, curves.difference, x, y) }));
    return svg;
  }

  // --- what is shown

  function matching() {
    const found = gallery.neurons.filter((neuron) =>
      (state.layer === "" || String(neuron.layer) === state.layer) && (state.kind === "" || neuron.kind === state.kind));
    return found.sort(ORDERS[state.sort]);
  }

  function swatch(kind) {
    return make("span", { class: `swatch ${kind}`, "aria-hidden": "true" });
  }

  function opener(neuron) {
    const button = make("button", { type: "button", "aria-label": `Neuron ${name(neuron)}: details` }, name(neuron));
    button.addEventListener("click", () => go({ neuron: name(neuron) }));
    return button;
  }

  function card(neuron, width) {
    const kind = make("span", { class: "quiet" }, swatch(neuron.kind), words(neuron.kind));
    const caption = make("figcaption", {}, opener(neuron), kind,
      make("span", { class: "quiet" }, `error ${neuron.shown.error}`));
    const figure = make("figure", {}, caption);
    figure.prepend(neuron.curves ? drawFunction(neuron, width, Math.round(0.42 * width + 30), false) : "not drawn");
    return make("li", { "data-neuron": name(neuron) }, figure);
  }

  function row(neuron) {
    const why = make("td", {}, neuron.reason);
    if (neuron.shown.settings) why.append(make("span", { class: "quiet" }, `; ${neuron.shown.settings}`));
    return make("tr", { "data-neuron": name(neuron) },
      make("th", { scope: "row" }, opener(neuron)),
      make("td", { class: "name" }, swatch(neuron.kind), words(neuron.kind)),
      make("td", { class: "name" }, neuron.shown.domain),
      make("td", { class: "n" }, neuron.shown.error), make("td", { class: "n" }, neuron.shown.sensitivity),
      make("td", { class: "n" }, neuron.shown.outside), why);
  }

  function render() {
    const found = matching(), visible = found.slice(0, shown), pictures = state.view === "pictures";
    $("pictures").hidden = $("legend").hidden = !pictures;
    $("table").hidden = pictures;
    $("pictures").replaceChildren();
    $("rows").replaceChildren();
    if (pictures) {
      const columns = getComputedStyle($("pictures")).gridTemplateColumns;
      const width = Math.round(parseFloat(columns)) || 240;
      $("pictures").append(...visible.map((neuron) => card(neuron, width)));
    } else $("rows").append(...visible.map(row));
    $("count").textContent = found.length ? `${visible.length} of ${found.length} shown` : "No neuron matches; choose another layer or kind.";
    $("more").hidden = visible.length === found.length;
    $("more").textContent = `Show ${Math.min(2 * PAGE, found.length - visible.length)} more`;
  }

  function facts(neuron) {
    const pairs = [
      ["became", words(neuron.kind) + (neuron.shown.settings ? ` (${neuron.shown.settings})` : "")], ["why", neuron.reason],
      ["domain", neuron.shown.domain], ["largest error", neuron.shown.error], ["sensitivity", neuron.shown.sensitivity],
      ["test samples outside", neuron.shown.outside],
      ...Object.entries(neuron.refused).map(([kind, reason]) => [`not ${words(kind)}`, reason]),
    ];
    return pairs.flatMap(([term, text]) => [make("dt", {}, term), make("dd", {}, text)]);
  }

  function showDetail() {
    const neuron = gallery.neurons.find((each) => name(each) === state.neuron), dialog = $("detail");
    if (!neuron) {
      if (dialog.open) dialog.close();
      return;
    }
    if (!dialog.open) {
      dialog.showModal();
      $("close").focus();
    }
    $("detail-title").replaceChildren(`Neuron ${name(neuron)} `, make("span", { class: "quiet" }, swatch(neuron.kind), words(neuron.kind)));
    const width = Math.max(240, $("detail-pictures").clientWidth);
    $("detail-pictures").replaceChildren();
    if (neuron.curves) {
      $("detail-pictures").append(drawFunction(neuron, width, Math.round(0.4 * width + 60), true));
      if (neuron.peak > 0) {
        $("detail-pictures").append(make("p", { class: "strip" }, "Difference, replacement less learned"), drawDifference(neuron, width, 96));
      }
    }
    $("detail-facts").replaceChildren(...facts(neuron));
    const found = matching(), place = found.indexOf(neuron);
    $("previous").disabled = place <= 0;
    $("next").disabled = place < 0 || place === found.length - 1;
    if (document.activeElement.disabled || document.activeElement === document.body) $("close").focus();
  }

  function step(by) {
    const found = matching(), place = found.findIndex((each) => name(each) === state.neuron);
    const next = found[place + by];
    if (place >= 0 && next) go({ neuron: name(next) });
  }

  // --- state: in the page's address, so that a view can be kept and sent

  function read() {
    const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    state = { ...START };
    for (const key of Object.keys(START)) if (key in given) state[key] = given[key];
    if (!ORDERS[state.sort]) state.sort = START.sort;
    if (state.view !== "table") state.view = START.view;
    if (![...$("layer").options].some((option) => option.value === state.layer)) state.layer = "";
    if (!document.querySelector(`input[name=kind][value="${CSS.escape(state.kind)}"]`)) state.kind = "";
    $("layer").value = state.layer;
    $("sort").value = state.sort;
    for (const key of ["kind", "view"]) {
      for (const input of document.getElementsByName(key)) input.checked = input.value === state[key];
    }
  }

  function go(change) {
    const before = { ...state };
    Object.assign(state, change);
    const changed = Object.entries(state).filter(([key, value]) => value !== START[key]);
    history.replaceState(null, "", `#${new URLSearchParams(changed)}`);
    if (["layer", "kind", "sort", "view"].some((key) => before[key] !== state[key])) {
      shown = PAGE;
      render();
    }
    showDetail();
  }

  for (const id of ["layer", "sort"]) $(id).addEventListener("change", () => go({ [id]: $(id).value }));
  for (const key of ["kind", "view"]) {
    for (const input of document.getElementsByName(key)) input.addEventListener("change", () => go({ [key]: input.value }));
  }
  $("more").addEventListener("click", () => {
    const first = shown;
    shown += 2 * PAGE;
    render();
    const buttons = document.querySelectorAll("#pictures button, #rows button");
    if (buttons[first]) buttons[first].focus({ preventScroll: true });
  });
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("close").addEventListener("click", () => $("detail").close());
  $("detail").addEventListener("close", () => {
    const last = state.neuron;
    if (!last) return;
    go({ neuron: "" });
    document.querySelector(`[data-neuron="${CSS.escape(last)}"] button`)?.focus();
  });
  document.addEventListener("keydown", (event) => {
    if ($("detail").open && event.key === "ArrowLeft") step(-1);
    if ($("detail").open && event.key === "ArrowRight") step(1);
  });
  window.addEventListener("hashchange", () => { read(); render(); showDetail(); });
  let wait = 0, width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;
    width = window.innerWidth;
    clearTimeout(wait);
    wait = setTimeout(() => { render(); showDetail(); }, 120);
  });
  read();
  render();
  showDetail();
})();
