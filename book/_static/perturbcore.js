// Tables: a wide one scrolls in its own frame, a click on a heading sorts it, a long one is filtered.
(function () {
  "use strict";

  const number = (text) => {
    const plain = text.replace(/[,\u2009\u202f]/g, "").replace(/\u2212/g, "-").trim();
    const found = plain.match(/^[<>~≈]?\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)/i);
    return found ? parseFloat(found[1]) : NaN;
  };

  const cellText = (row, column) => (row.cells[column] ? row.cells[column].textContent.trim() : "");

  function sort(table, column, ascending) {
    const body = table.tBodies[0];
    const rows = Array.from(body.rows);
    const filled = rows.map((row) => cellText(row, column)).filter((text) => text !== "");
    const numeric = filled.length > 0 &&
      filled.filter((text) => !Number.isNaN(number(text))).length > filled.length / 2;
    const sign = ascending ? 1 : -1;
    rows.sort((a, b) => {
      const x = cellText(a, column), y = cellText(b, column);
      if (!numeric) return sign * x.localeCompare(y, undefined, { numeric: true });
      const p = number(x), q = number(y);
      // What is not a number stays at the end, whichever way the rest runs.
      if (Number.isNaN(p) || Number.isNaN(q)) return Number.isNaN(p) - Number.isNaN(q);
      return sign * (p - q);
    });
    rows.forEach((row) => body.appendChild(row));
  }

  // One choice for each column of words with few different ones; a row is shown where all agree.
  function addFilters(table, frame) {
    const rows = Array.from(table.tBodies[0].rows), choices = [], bar = document.createElement("div");
    bar.className = "table-filters";
    const show = () => rows.forEach((row) => {
      row.hidden = choices.some(([column, box]) => box.value && cellText(row, column) !== box.value);
    });
    Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
      const values = Array.from(new Set(rows.map((row) => cellText(row, column)).filter((text) => text)));
      if (values.length < 2 || values.length > 8 || values.some((text) => !Number.isNaN(number(text)))) return;
      const box = document.createElement("select"), name = head.textContent.trim();
      box.setAttribute("aria-label", "show only: " + name);
      box.add(new Option(name + ": all", ""));
      values.forEach((text) => box.add(new Option(text, text)));
      box.addEventListener("change", show);
      choices.push([column, box]);
      bar.appendChild(box);
    });
    if (choices.length) frame.parentNode.insertBefore(bar, frame);
  }

  function button(text, act) {
    const made = document.createElement("button");
    made.type = "button";
    made.className = "page-switch";
    made.textContent = text;
    made.addEventListener("click", () => act(made));
    return made;
  }

  // A long table shows ten rows until one asks for all of them, or filters it.
  function shorten(table, frame) {
    const n = table.tBodies[0].rows.length;
    if (n <= 12) return;
    table.classList.add("short");
    const all = () => { table.classList.remove("short"); more.remove(); };
    const more = button("all " + n + " rows", all);
    frame.parentNode.insertBefore(more, frame.nextSibling);
    const bar = frame.previousElementSibling;
    if (bar && bar.className === "table-filters") bar.addEventListener("change", all);
  }

  // One switch per page shows its code.
  function switchCode() {
    const folded = Array.from(document.querySelectorAll(".bd-article details.hide.above-input"));
    const title = document.querySelector(".bd-article h1");
    if (folded.length < 2 || !title) return;
    const root = document.documentElement;
    root.classList.add("code-off");
    title.after(button("Show the code", (made) => {
      const off = root.classList.toggle("code-off");
      folded.forEach((one) => { one.open = !off; });
      made.textContent = off ? "Show the code" : "Hide the code";
    }));
  }

  // A link to a folded card opens it.
  function openTarget() {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    const near = target && [target, target.querySelector("details"), target.closest("details"), target.nextElementSibling];
    const card = near && near.find((one) => one && one.tagName === "DETAILS");
    if (card) { card.open = true; card.scrollIntoView(); }
  }

  function prepare(table) {
    const frame = document.createElement("div");
    frame.className = "table-frame";
    table.parentNode.insertBefore(frame, table);
    frame.appendChild(table);
    const caption = table.caption ? table.caption.textContent.trim() : "";
    const reachable = () => {
      if (frame.scrollWidth > frame.clientWidth) {
        frame.tabIndex = 0;
        frame.setAttribute("role", "region");
        frame.setAttribute("aria-label", caption || "wide table, scrolls sideways");
      }
    };
    reachable();
    window.addEventListener("resize", reachable);

    const head = table.tHead && table.tHead.rows[0];
    const body = table.tBodies[0];
    const merged = table.querySelector("tbody [rowspan], tbody [colspan], thead [colspan]");
    if (!head || table.tHead.rows.length !== 1 || !body || body.rows.length < 3 || merged) return;
    if (body.rows.length >= 60) addFilters(table, frame);
    shorten(table, frame);
    Array.from(head.cells).forEach((cell, column) => {
      if (!cell.textContent.trim()) return;
      const sorter = document.createElement("button");
      sorter.type = "button";
      sorter.className = "sort";
      while (cell.firstChild) sorter.appendChild(cell.firstChild);
      cell.appendChild(sorter);
      sorter.addEventListener("click", () => {
        const ascending = cell.getAttribute("aria-sort") !== "ascending";
        Array.from(head.cells).forEach((other) => other.removeAttribute("aria-sort"));
        cell.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        sort(table, column, ascending);
      });
    });
  }

  window.addEventListener("hashchange", openTarget);
  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("article table, .bd-article table").forEach((table) => {
      if (!table.closest(".table-frame") && !table.closest(".highlighttable")) prepare(table);
    });
    switchCode();
    openTarget();
  });
})();
