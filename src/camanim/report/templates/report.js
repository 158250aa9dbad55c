"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const colors = bytes(read("colors"));
  const viewers = {};

  /** Return the decompressed bytes of a text in base64. */
  async function unpacked(text) {
    const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  /** Format a number in three significant digits. */
  function shown(value) {
    if (value === 0) return "0";
    const size = Math.abs(value);
    return size >= 0.001 && size < 10000 ? String(Number(value.toPrecision(3))) : value.toExponential(2);
  }

  /** Return for each of `count` pixels, centred in a range, the cell below, the one above, and its weight. */
  function samples(first, count, low, high, total, cells) {
    const below = new Int32Array(count), above = new Int32Array(count), weight = new Float32Array(count);
    for (let k = 0; k < count; k++) {
      const share = ((first + k + 0.5) / total - low) / (high - low);
      // Cells are areas: the centre of the first one lies half a cell from the edge.
      const at = Math.min(Math.max(share * cells - 0.5, 0), cells - 1);
      below[k] = Math.floor(at);
      above[k] = Math.min(below[k] + 1, cells - 1);
      weight[k] = at - below[k];
    }
    return { below, above, weight };
  }

  /** Return the first pixel and the number of pixels whose centres lie between two shares of an axis. */
  function span(low, high, total) {
    const first = Math.min(Math.max(Math.ceil(low * total - 0.5), 0), total - 1);
    const last = Math.min(Math.floor(high * total - 0.5), total - 1);
    return [first, Math.max(last - first + 1, 1)];
  }

  class Viewer {
    constructor(root) {
      this.key = root.dataset.result;
      this.root = root;
      this.section = document.getElementById(this.key);
      this.data = read(`${this.key}-data`);
      this.layer = this.data.first;
      this.plane = this.data.plane;
      this.timer = 0;
      this.maps = [];
      this.starts = [0];
      for (const { shape } of this.data.layers) this.starts.push(this.starts.at(-1) + shape[0] * shape[1]);
      this.canvas = this.find("canvas");
      this.context = this.canvas.getContext("2d");
      this.slider = this.find("input.layer");
      this.planeSlider = this.find("input.plane");
      this.opacity = this.find("input.opacity");
      const [width, height] = this.data.size, [left, top, right, bottom] = this.data.box;
      [this.x, this.width] = span(left, right, width);
      [this.y, this.height] = span(top, bottom, height);
      this.scratch = document.createElement("canvas");
      this.scratch.width = this.width;
      this.scratch.height = this.height;
      this.listen();
      this.show(this.layer);
    }

    find(selector) {
      return this.root.querySelector(selector);
    }

    chosen(name) {
      return this.find(`input.${name}:checked`).value;
    }

    listen() {
      this.slider.addEventListener("input", () => this.show(this.slider.value - 1));
      this.opacity.addEventListener("input", () => {
        this.find("label.opacity output").textContent = `${this.opacity.value} %`;
        this.draw();
      });
      for (const input of this.root.querySelectorAll("input[type=radio]")) {
        input.addEventListener("change", () => this.draw());
      }
      if (this.planeSlider) this.planeSlider.addEventListener("input", () => this.showPlane());
      this.find(".previous").addEventListener("click", () => this.show(this.layer - 1));
      this.find(".next").addEventListener("click", () => this.show(this.layer + 1));
      const play = this.find(".play");
      play.addEventListener("click", () => this.play(!this.timer));
      // Nothing moves unasked for those who prefer reduced motion.
      if (matchMedia("(prefers-reduced-motion: reduce)").matches) play.hidden = true;
      this.find(".controls").addEventListener("keydown", (event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (event.target.matches("input") && !(event.key === " " && event.target.matches("[type=range]"))) return;
        if (step) this.show(this.layer + step);
        else if (event.key === " " && event.target.matches("[type=range]") && !play.hidden) this.play(!this.timer);
        else return;
        event.preventDefault();
      });
      for (const link of this.section.querySelectorAll("a[data-place]")) {
        link.addEventListener("click", (event) => {
          event.preventDefault();
          this.show(Number(link.dataset.place));
          this.root.scrollIntoView();
          this.slider.focus({ preventScroll: true });
        });
      }
      const chart = this.section.querySelector(".chart");
      if (chart && this.data.chart) {
        chart.addEventListener("click", (event) => {
          const box = chart.getBoundingClientRect(), { width, first, step } = this.data.chart;
          const number = Math.round(((event.clientX - box.left) * width / box.width - first) / step);
          let nearest = 0;
          this.data.layers.forEach((layer, k) => {
            const distance = (j) => Math.abs(this.data.layers[j].number - number);
            if (distance(k) < distance(nearest)) nearest = k;
          });
          this.show(nearest);
        });
      }
    }

    play(on) {
      clearInterval(this.timer);
      this.timer = on ? setInterval(() => this.show((this.layer + 1) % this.data.layers.length), 250) : 0;
      this.find(".play").textContent = on ? "Pause" : "Play";
    }

    show(index) {
      this.layer = Math.min(Math.max(index, 0), this.data.layers.length - 1);
      const layer = this.data.layers[this.layer];
      this.slider.value = this.layer + 1;
      this.slider.setAttribute("aria-valuetext", `${this.layer + 1}: ${layer.label}`);
      this.find("label.slider output").textContent = this.layer + 1;
      const name = document.createElement("strong");
      name.textContent = layer.label;
      const cells = layer.native.join(" x ");
      const reduced = layer.native.slice(-2).join() !== layer.shape.join();
      const lines = [...layer.caption, `map of ${cells} cells${reduced ? `, shown with ${layer.shape.join(" x ")}` : ""}`];
      this.find(".overlay figcaption").replaceChildren(name, ...lines.map((line) => {
        const element = document.createElement("span");
        element.textContent = line;
        return element;
      }));
      this.canvas.setAttribute("aria-label", `Map of layer ${this.layer + 1}, ${layer.label}, over the image`);
      const cursor = this.section.querySelector(".cursor line");
      if (cursor && this.data.chart) {
        const x = this.data.chart.first + this.data.chart.step * layer.number;
        cursor.setAttribute("x1", x);
        cursor.setAttribute("x2", x);
      }
      for (const row of this.section.querySelectorAll("tr.current")) row.classList.remove("current");
      const row = this.section.querySelector(`tr[data-row="${this.layer}"]`), box = row?.closest(".tall");
      if (row) {
        row.classList.add("current");
        const hidden = row.offsetTop < box.scrollTop + 60 || row.offsetTop > box.scrollTop + box.clientHeight - 40;
        if (hidden) box.scrollTop = row.offsetTop - box.clientHeight / 2;
      }
      this.draw();
    }

    showPlane() {
      this.plane = Number(this.planeSlider.value);
      for (const picture of this.root.querySelectorAll("img[data-plane]")) {
        picture.hidden = Number(picture.dataset.plane) !== this.plane;
      }
      const words = this.find(".plane-words");
      words.textContent = words.textContent.replace(/\d+/, this.data.planes[this.plane]);
      this.planeSlider.parentElement.querySelector("output").textContent = this.data.planes[this.plane];
      this.draw();
    }

    /** Return the raw values of the ends of the colour bar. */
    limits() {
      const [low, high] = this.chosen("scale") === "global" ? this.data.limits : this.data.layers[this.layer].limits;
      return [this.data.signed ? -high : low, high];
    }

    async draw() {
      const picture = this.find(`img[data-plane="${this.plane}"]`);
      this.maps[this.plane] ??= unpacked(this.data.maps[this.plane]);
      const drawn = [this.layer, this.plane].join();
      const [maps] = await Promise.all([this.maps[this.plane], picture.decode()]);
      // Another step may have come first.
      if (drawn !== [this.layer, this.plane].join()) return;
      const { context } = this, shownAs = this.chosen("shown");
      context.globalAlpha = 1;
      context.imageSmoothingQuality = "high";
      context.drawImage(picture, 0, 0, this.canvas.width, this.canvas.height);
      if (shownAs !== "image") {
        this.scratch.getContext("2d").putImageData(this.colored(maps), 0, 0);
        context.globalAlpha = shownAs === "map" ? 1 : this.opacity.value / 100;
        context.drawImage(this.scratch, this.x, this.y);
      }
      this.label();
      this.canvas.dataset.drawn = [drawn, this.chosen("scale"), shownAs, this.opacity.value].join();
    }

    /** Return the map of the shown layer in colours, interpolated linearly. */
    colored(maps) {
      const layer = this.data.layers[this.layer], [rows, columns] = layer.shape;
      const cells = maps.subarray(this.starts[this.layer], this.starts[this.layer + 1]);
      const [width, height] = this.data.size, [left, top, right, bottom] = this.data.box;
      const xs = samples(this.x, this.width, left, right, width, columns);
      const ys = samples(this.y, this.height, top, bottom, height, rows);
      // From the levels of the layer to those of the colour bar.
      const [low, high] = this.limits(), own = layer.limits, start = this.data.signed ? -own[1] : own[0];
      const range = high > low ? high - low : Infinity;
      const factor = (own[1] - start) / range, offset = 255 * (start - low) / range;
      const image = new ImageData(this.width, this.height), pixels = image.data;
      for (let y = 0, p = 0; y < this.height; y++) {
        const above = ys.below[y] * columns, below = ys.above[y] * columns, v = ys.weight[y];
        for (let x = 0; x < this.width; x++, p += 4) {
          const a = xs.below[x], b = xs.above[x], u = xs.weight[x];
          const upper = cells[above + a] * (1 - u) + cells[above + b] * u;
          const lower = cells[below + a] * (1 - u) + cells[below + b] * u;
          const level = Math.min(Math.max(Math.round((upper * (1 - v) + lower * v) * factor + offset), 0), 255);
          pixels[p] = colors[3 * level];
          pixels[p + 1] = colors[3 * level + 1];
          pixels[p + 2] = colors[3 * level + 2];
          pixels[p + 3] = 255;
        }
      }
      return image;
    }

    label() {
      const [low, high] = this.limits(), constant = !(high > low);
      this.find(".low").textContent = constant && this.data.signed ? "" : shown(low);
      this.find(".middle").textContent = constant ? "" : shown((low + high) / 2);
      this.find(".high").textContent = constant ? "" : shown(high);
      const which = this.chosen("scale") === "global" ? "global (all layers)" : "local (this layer)";
      const negative = this.data.signed ? "" : "; negative values are drawn as 0";
      this.find("p.scale").textContent = `raw values, ${which}${negative}`;
    }
  }

  /** Sort a table by a column; cells without a value come last. */
  function sort(table, column, head) {
    const ascending = head.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const numeric = head.classList.contains("number");
    const value = (row) => {
      const cell = row.cells[column];
      if (!cell || row.classList.contains("failed")) return null;
      if (numeric) return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
      return cell.textContent.trim() || null;
    };
    const rows = [...table.tBodies[0].rows].map((row) => [value(row), row]);
    const order = (a, b) => (numeric ? a - b : a.localeCompare(b, "en", { numeric: true }));
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return ascending ? order(a, b) : order(b, a);
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }

  for (const head of document.querySelectorAll("table.sortable th")) {
    const button = head.querySelector("button");
    if (button) button.addEventListener("click", () => sort(head.closest("table"), head.cellIndex, head));
  }
  if (typeof DecompressionStream === "undefined") return;
  document.documentElement.classList.add("js");
  const start = (root) => (viewers[root.dataset.result] ??= new Viewer(root));
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        observer.unobserve(entry.target);
        start(entry.target);
      }
    }
  }, { rootMargin: "600px" });
  for (const root of document.querySelectorAll(".viewer")) observer.observe(root);
})();
