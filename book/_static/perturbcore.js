// Tables: a wide one scrolls in its own frame, and a click on a heading sorts it.
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
    Array.from(head.cells).forEach((cell, column) => {
      if (!cell.textContent.trim()) return;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      while (cell.firstChild) button.appendChild(cell.firstChild);
      cell.appendChild(button);
      button.addEventListener("click", () => {
        const ascending = cell.getAttribute("aria-sort") !== "ascending";
        Array.from(head.cells).forEach((other) => other.removeAttribute("aria-sort"));
        cell.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        sort(table, column, ascending);
      });
    });
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("article table, .bd-article table").forEach((table) => {
      if (!table.closest(".table-frame") && !table.closest(".highlighttable")) prepare(table);
    });
  });
})();
