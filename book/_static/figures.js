// Figures whose points say more: point at one, tap it or step with the arrow keys; choose and search above.
(function () {
  "use strict";

  const kept = {};
  const NEAR = 18; // pixels from a point that still mean it
  const STYLE = "svg { display: block; max-width: 100%; height: auto; margin: 0 auto; }" +
    ".off { opacity: 0.08 !important; } circle.on { fill: none; stroke: #000; stroke-width: 1.5; }";
  const phone = matchMedia("screen and (max-width: 576px)"); // as the sources of the images have it

  const make = (kind, name, text) => {
    const made = document.createElement(kind);
    made.className = name;
    if (text) made.textContent = text;
    return made;
  };

  function enliven(template) {
    const before = template.previousElementSibling;
    const image = before.matches("img") ? before : before.querySelector("img");
    const frame = make("div", "live-figure"), bar = make("div", "table-filters");
    const host = make("div", "live-drawing"), tip = make("div", "live-tip");
    const shadow = host.attachShadow({ mode: "open" }); // ids and styles of the drawing stay its own
    if (template.content.childElementCount) kept[template.dataset.of] = template.content;
    const kinds = kept[template.dataset.of].children; // a second time on a page, they are not laid again
    const narrow = phone.matches && kinds.length > 1;
    const drawing = shadow.appendChild(kinds[narrow ? 1 : 0].cloneNode(true));
    shadow.appendChild(make("style", "", STYLE));
    host.dataset.of = narrow ? new URL(before.querySelector("source").srcset, location.href).href : image.src;
    drawing.setAttribute("role", "group");
    drawing.setAttribute("aria-label", image.alt + " Arrow keys step through its points.");
    drawing.setAttribute("tabindex", "0");
    tip.setAttribute("role", "status");

    const groups = Array.from(shadow.querySelectorAll(".marks"), (node) => ({ node, by: JSON.parse(node.dataset.by) }));
    const points = groups.flatMap((group) => Array.from(group.node.querySelectorAll("use > title"), (title) => {
      const point = { node: title.parentNode, text: title.textContent, group };
      title.remove(); // the browser would show it as well
      return point;
    }));

    let current = null;
    const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    ring.setAttribute("class", "on");
    ring.setAttribute("r", "6.5");
    function show(point) {
      ring.remove();
      current = point;
      tip.hidden = !point;
      if (!point) return;
      ring.setAttribute("cx", point.node.getAttribute("x"));
      ring.setAttribute("cy", point.node.getAttribute("y"));
      point.node.after(ring);
      const [name, ...facts] = point.text.split("\n");
      tip.replaceChildren(make("strong", "", name), ...facts.map((fact) => make("div", "", fact)));
      const at = point.node.getBoundingClientRect(), box = frame.getBoundingClientRect();
      const left = Math.min(at.right - box.left + 8, box.width - tip.offsetWidth);
      tip.style.left = Math.max(0, left) + "px";
      tip.style.top = at.bottom - box.top + 6 + "px";
    }

    const seen = () => points.filter((point) => !point.off);
    function nearest(event) {
      let best = null, least = NEAR;
      seen().forEach((point) => {
        const box = point.node.getBoundingClientRect();
        const far = Math.hypot(event.clientX - (box.left + box.right) / 2, event.clientY - (box.top + box.bottom) / 2);
        if (far < least) { best = point; least = far; }
      });
      return best;
    }

    // One choice for each key that has a few values, and words to look for where there are many points.
    const choices = [], counted = make("span", "live-count"), search = make("input", "");
    function choose() {
      const words = search.value.toLowerCase().trim();
      groups.forEach((group) => {
        group.off = choices.some(([key, box]) => box.value && group.by[key] !== box.value);
        const named = !group.by[""] || group.by[""].toLowerCase().includes(words);
        const empty = !points.some((point) => point.group === group);
        group.node.classList.toggle("off", group.off || (empty && !named));
      });
      points.forEach((point) => {
        point.off = point.group.off || !point.text.toLowerCase().includes(words);
        point.node.classList.toggle("off", point.off && !point.group.off);
      });
      const n = seen().length;
      counted.textContent = n < points.length ? n + " of " + points.length + " points" : "";
      if (current && current.off) show(null);
    }
    const keys = new Set(groups.flatMap((group) => Object.keys(group.by).filter((key) => key)));
    keys.forEach((key) => {
      const values = Array.from(new Set(groups.map((group) => group.by[key]).filter((value) => value)));
      if (values.length < 2 || values.length > 16) return;
      const box = make("select", "");
      box.setAttribute("aria-label", "show only: " + key);
      box.add(new Option(key + ": all", ""));
      values.forEach((value) => box.add(new Option(value, value)));
      box.addEventListener("change", choose);
      choices.push([key, box]);
    });
    search.type = "search";
    search.placeholder = "search the points";
    search.setAttribute("aria-label", "search the points");
    search.addEventListener("input", choose);
    bar.append(...choices.map(([, box]) => box), ...(points.length > 12 ? [search] : []), counted);

    drawing.addEventListener("pointermove", (event) => { if (event.pointerType === "mouse") show(nearest(event)); });
    drawing.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") show(null); });
    drawing.addEventListener("click", (event) => show(nearest(event)));
    drawing.addEventListener("blur", () => show(null));
    drawing.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const there = seen();
      if (event.key === "Escape") show(null);
      if (!step || !there.length) return;
      event.preventDefault();
      const from = current ? there.indexOf(current) : step > 0 ? -1 : 0;
      show(there[(from + step + there.length) % there.length]);
    });

    show(null);
    frame.append(bar, host, tip);
    template.replaceWith(frame);
    image.hidden = true;
    phone.addEventListener("change", () => {
      frame.replaceWith(template);
      enliven(template);
    }, { once: true });
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("template.live-figure").forEach(enliven);
  });
})();
