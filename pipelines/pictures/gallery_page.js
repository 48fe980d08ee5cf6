"use strict";
(() => {
  const images = document.getElementById("images");
  const looks = document.getElementById("looks");

  // The filter. It is hidden where no script runs, as it would do nothing there.
  const filter = document.getElementById("filter");
  const count = document.getElementById("shown");
  const fold = (text) => text.normalize("NFKC").toLowerCase();
  const figures = [...images.querySelectorAll("figure")].map(
    (figure) => ({ figure, caption: fold(figure.querySelector(".caption").textContent) }));

  function applyFilter() {
    const wanted = fold(filter.value.trim());
    let shown = 0;
    for (const { figure, caption } of figures) {
      figure.hidden = !caption.includes(wanted);
      shown += !figure.hidden;
    }
    count.textContent = `${shown} of ${figures.length} shown`;
  }
  filter.addEventListener("input", applyFilter);
  document.querySelector(".filter").hidden = false;
  applyFilter();

  // Where the model looked, as looks.py has it: from no colour, through nearly black, to pale yellow.
  const STOPS = [[8, 5, 28], [101, 21, 110], [190, 55, 82], [245, 125, 21], [252, 250, 160]];
  const OPAQUE = 0.8;
  const COLOURS = new Uint8ClampedArray(4 * 256); // red, green, blue and opacity, by how far a weight is seen
  for (let far = 0; far < 256; far++) {
    const place = far / 255 * (STOPS.length - 1);
    const below = Math.min(Math.floor(place), STOPS.length - 2);
    const mix = STOPS[below].map((value, i) => value + (STOPS[below + 1][i] - value) * (place - below));
    COLOURS.set([...mix, OPAQUE * far], 4 * far);
  }

  function seenOf(word) {
    return Uint8Array.from(atob(word.dataset.seen), (character) => character.charCodeAt(0));
  }

  function draw(canvas, seen) {
    const side = Math.sqrt(seen.length);
    const grid = new OffscreenCanvas(side, side);
    const cells = new ImageData(side, side);
    seen.forEach((far, i) => cells.data.set([far, far, far, 255], 4 * i));
    grid.getContext("2d").putImageData(cells, 0, 0);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.imageSmoothingQuality = "high";
    context.drawImage(grid, 0, 0, canvas.width, canvas.height);
    // Colours come after the interpolation: a mixture of two colours would be that of no weight.
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
    const whole = new Uint32Array(pixels.data.buffer), colours = new Uint32Array(COLOURS.buffer);
    for (let i = 0; i < whole.length; i++) whole[i] = colours[pixels.data[4 * i]];
    context.putImageData(pixels, 0, 0);
  }

  function place(seen) {
    const side = Math.sqrt(seen.length);
    if (seen.every((far) => far === seen[0])) return "everywhere alike";
    const highest = seen.indexOf(Math.max(...seen));
    const third = (index) => Math.floor((index + 0.5) / side * 3);
    const names = [["upper", "middle", "lower"][third(Math.floor(highest / side))],
      ["left", "centre", "right"][third(highest % side)]];
    return "most at the " + (names.join(" ") === "middle centre" ? "centre" : names.join(" "));
  }

  function show(figure, word) {
    for (const shown of figure.querySelectorAll("button.shown, canvas.shown, .largest.shown")) shown.classList.remove("shown");
    looks.textContent = "";
    if (!word) return;
    const image = figure.querySelector("img");
    let canvas = figure.querySelector("canvas");
    if (!canvas) {
      canvas = document.createElement("canvas"); // of the image's own shape, so that both are fitted alike
      canvas.setAttribute("aria-hidden", "true");
      [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
      const largest = document.createElement("span");
      largest.className = "largest";
      largest.setAttribute("aria-hidden", "true");
      image.after(canvas, largest);
    }
    const seen = seenOf(word);
    draw(canvas, seen);
    const largest = figure.querySelector(".largest");
    largest.textContent = word.dataset.largest;
    for (const shown of [canvas, largest, word]) shown.classList.add("shown");
    looks.textContent =
      `${word.textContent}: the model looks ${place(seen)}, largest weight ${word.dataset.largest}`;
  }

  const wordOf = (event) => event.target.closest("button[data-seen]");
  const pressedIn = (figure) => figure.querySelector('button[aria-pressed="true"]');
  const on = (kind, act) => images.addEventListener(kind, (event) => {
    const word = wordOf(event);
    if (word) act(word, word.closest("figure"), event);
  });

  on("pointerover", (word, figure) => show(figure, word));
  on("focusin", (word, figure) => show(figure, word));
  on("pointerout", (_, figure) => show(figure, pressedIn(figure)));
  on("focusout", (_, figure) => show(figure, pressedIn(figure)));
  on("click", (word, figure) => {
    const before = pressedIn(figure);
    before?.setAttribute("aria-pressed", "false");
    if (before !== word) word.setAttribute("aria-pressed", "true");
    show(figure, pressedIn(figure));
  });
  on("keydown", (word, _, event) => {
    const words = [...word.parentElement.querySelectorAll("button")];
    const forward = getComputedStyle(word.parentElement).direction === "rtl" ? "ArrowLeft" : "ArrowRight";
    const steps = { ArrowLeft: -1, ArrowRight: 1 };
    if (!(event.key in steps)) return;
    words[words.indexOf(word) + (event.key === forward ? 1 : -1)]?.focus();
    event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const word of images.querySelectorAll('[aria-pressed="true"]')) word.setAttribute("aria-pressed", "false");
    for (const canvas of images.querySelectorAll("canvas.shown")) show(canvas.closest("figure"), null);
  });
})();
