"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const [photos, status, drop, tokenForm] = ["photos", "status", "drop", "token-form"].map(byId);
  const MOST = 24; // photos on the page; the browser holds each
  const COLOUR = [255, 90, 0], OPAQUE = 0.8; // of a place that was looked at most
  let token = "";
  let waiting = []; // photos that were refused for want of a token
  let model = null; // what the service says of itself

  function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  async function ask(path, request = {}) {
    const headers = { ...(token && { Authorization: `Bearer ${token}` }), ...request.headers };
    const answer = await fetch(path, { ...request, headers });
    const body = await answer.json().catch(() => ({ error: { message: `the server answers ${answer.status}` } }));
    if (answer.status === 401) throw Object.assign(new Error(body.error.message), { needsToken: true });
    if (!answer.ok && !body.images) throw new Error(body.error.message);
    return body;
  }

  async function captions(file) {
    model ??= await ask("v1/model");
    const query = model.attention ? "?attention=true" : "";
    const headers = { "Content-Type": "application/octet-stream" };
    const { images: [image] } = await ask("v1/captions" + query, { method: "POST", body: file, headers });
    if (image.error) throw new Error(`${image.error.error}: ${image.error.message}`);
    return image;
  }

  // A photo on the page, from when it is chosen until its captions stand beside it.
  function show(file) {
    const picture = element("img", { alt: "", src: URL.createObjectURL(file) });
    const photo = element("div", { className: "photo" }, picture);
    const name = element("p", { className: "name", dir: "auto", textContent: file.name });
    const answer = element("div", {}, element("p", { className: "waiting", textContent: "waiting for its captions" }));
    const figure = element("figure", {}, photo, element("figcaption", {}, name, answer));
    picture.addEventListener("error", () => {
      picture.replaceWith(element("p", { className: "missing", textContent: "this browser cannot show the file" }));
    });
    figure.letGo = () => URL.revokeObjectURL(picture.src);
    photos.prepend(figure);
    while (photos.childElementCount > MOST) {
      photos.lastElementChild.letGo();
      photos.lastElementChild.remove();
    }
    return { file, picture, photo, answer };
  }

  async function caption(shown) {
    try {
      const image = await captions(shown.file);
      shown.picture.alt = image.captions[0].caption;
      shown.answer.replaceChildren(list(image.captions), ...(image.attention ? words(shown, image.attention) : []));
      status.textContent = `${shown.file.name}: ${image.captions[0].caption}`;
    } catch (error) {
      if (error.needsToken) {
        waiting.push(shown);
        tokenForm.hidden = false;
        byId("token").focus();
      }
      shown.answer.replaceChildren(element("p", { className: "problem", textContent: error.message }));
      status.textContent = `${shown.file.name}: ${error.message}`;
    }
  }

  function list(found) {
    const best = Math.max(...found.map((one) => one.log_prob));
    const items = found.map((one) => {
      const bar = element("span", { className: "bar", ariaHidden: "true" });
      bar.style.setProperty("--share", Math.exp(one.log_prob - best));
      const p = `p = ${Number(Math.exp(one.log_prob).toPrecision(3))}`;
      return element("li", {}, element("span", { className: "text", dir: "auto", textContent: one.caption }), " ",
        element("span", { className: "p", textContent: p }), bar);
    });
    return element("ol", { className: "captions" }, ...items);
  }

  // Where the model looked: one scale for all words of the caption, from nothing at all to the largest weight of any.
  function words(shown, attention) {
    const most = Math.max(...attention.flatMap((one) => one.weights));
    const percent = (weight) => `${(100 * weight).toFixed(1)} %`;
    const canvas = element("canvas", { width: 0, height: 0, ariaHidden: "true" });
    const rest = `Choose a word to see where the model looked. Full colour is ${percent(most)} of its attention.`;
    const looks = element("p", { className: "looks", textContent: rest });
    looks.setAttribute("aria-live", "polite");
    const buttons = attention.map((one) => {
      const button = element("button", { type: "button", textContent: one.word, ariaPressed: "false" });
      button.look = () => {
        draw(canvas, shown.picture, one.weights, most);
        looks.textContent = `${one.word}: ${place(one.weights)}, ${percent(Math.max(...one.weights))} at one place`;
      };
      return button;
    });
    const pressed = () => buttons.find((button) => button.ariaPressed === "true");
    function point(button) {
      for (const each of buttons) each.classList.toggle("shown", each === button);
      canvas.classList.toggle("shown", Boolean(button));
      if (button) button.look();
      else looks.textContent = rest;
    }
    for (const [number, button] of buttons.entries()) {
      for (const kind of ["pointerenter", "focus"]) button.addEventListener(kind, () => point(button));
      for (const kind of ["pointerleave", "blur"]) button.addEventListener(kind, () => point(pressed()));
      button.addEventListener("click", () => {
        const before = pressed();
        if (before) before.ariaPressed = "false";
        if (before !== button) button.ariaPressed = "true";
        point(pressed());
      });
      button.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (event.key === "Escape") {
          if (pressed()) pressed().ariaPressed = "false";
          point(undefined);
        }
        if (!step) return;
        buttons[number + step]?.focus();
        event.preventDefault();
      });
    }
    shown.photo.append(canvas);
    const spaced = buttons.flatMap((button) => [button, " "]);
    return [element("p", { className: "words", role: "group", ariaLabel: "Words of the first caption" }, ...spaced), looks];
  }

  function draw(canvas, picture, weights, most) {
    const side = Math.sqrt(weights.length);
    const grid = new OffscreenCanvas(side, side);
    const cells = new ImageData(side, side);
    weights.forEach((weight, i) => cells.data.set([...COLOUR, 255 * OPAQUE * weight / most], 4 * i));
    grid.getContext("2d").putImageData(cells, 0, 0);
    const { offsetLeft, offsetTop, offsetWidth, offsetHeight } = picture;
    [canvas.width, canvas.height] = [offsetWidth, offsetHeight];
    Object.assign(canvas.style, { left: `${offsetLeft}px`, top: `${offsetTop}px` });
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(grid, 0, 0, offsetWidth, offsetHeight);
  }

  function place(weights) {
    const side = Math.sqrt(weights.length);
    const highest = weights.indexOf(Math.max(...weights));
    const third = (index) => Math.floor((index + 0.5) / side * 3);
    const names = [["upper", "middle", "lower"][third(Math.floor(highest / side))],
      ["left", "centre", "right"][third(highest % side)]];
    return "most at the " + (names.join(" ") === "middle centre" ? "centre" : names.join(" "));
  }

  // Ways in. One after the other, so that a hundred photos do not fill the server's queue.
  let before = Promise.resolve();
  function take(files) {
    const shown = [...files].reverse().map(show).reverse();
    status.textContent = shown.length ? "waiting for captions" : "there is no photo in it";
    for (const one of shown) before = before.then(() => caption(one));
  }
  for (const id of ["choose", "take"]) {
    byId(id).addEventListener("change", (event) => {
      take(event.target.files);
      event.target.value = ""; // the same file may be chosen again
    });
  }
  document.addEventListener("paste", (event) => {
    if (event.target.matches?.("input[type=password]")) return;
    take(event.clipboardData.files);
  });
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragenter" || kind === "dragover");
      if (kind === "drop") take(event.dataTransfer.files);
    });
  }
  tokenForm.addEventListener("submit", (event) => {
    event.preventDefault();
    token = byId("token").value;
    tokenForm.hidden = true;
    const again = waiting;
    waiting = [];
    for (const one of again) before = before.then(() => caption(one));
  });
})();
