"use strict";
// Theme, tables and buttons: all that needs no plots.
(() => {
  const root = document.documentElement;
  const stored = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = (theme) => {
    root.dataset.theme = theme;
    document.dispatchEvent(new CustomEvent("theme"));
  };
  apply(stored() ?? (system.matches ? "dark" : "light"));
  system.addEventListener("change", (e) => { if (!stored()) apply(e.matches ? "dark" : "light"); });
  document.getElementById("theme").addEventListener("click", () => {
    const next = root.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("theme", next); } catch { /* a page opened from a file may not */ }
    apply(next);
  });

  const valueOf = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value ?? cell.textContent.trim();
  };
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, undefined, { numeric: true }) : x - y;
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const body = table.tBodies[0];
      // What has no value stays at the end, whichever way.
      const rows = [...body.rows].map((row) => [valueOf(row, column), row]);
      rows.sort(([a], [b]) => (a === "" || b === "" || up ? compare(a, b) : compare(b, a)));
      body.append(...rows.map(([, row]) => row));
    }));
  }

  for (const input of document.querySelectorAll("input[data-filter]")) {
    const folded = input.closest("section").querySelector(".folded");
    const tables = [document.getElementById(input.dataset.filter), folded?.querySelector("table")];
    const rows = tables.flatMap((table) => [...(table?.tBodies[0].rows ?? [])]);
    const count = input.closest(".tools").querySelector(".count");
    const texts = rows.map((row) => row.textContent.replace(/\s+/g, " ").toLowerCase());
    const filter = () => {
      const words = input.value.toLowerCase().split(/[\s,]+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, i) => {
        row.hidden = !words.every((word) => texts[i].includes(word));
        shown += !row.hidden;
      });
      if (folded) folded.open = words.length > 0 && [...folded.querySelectorAll("tbody tr")].some((row) => !row.hidden);
      count.textContent = words.length ? `${shown} of ${rows.length}` : `${rows.length}`;
    };
    input.addEventListener("input", filter);
    filter();
  }

  const copied = async (text) => {
    try { await navigator.clipboard.writeText(text); return true; } catch { /* not from a file */ }
    const area = Object.assign(document.createElement("textarea"), { value: text });
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  };
  for (const button of document.querySelectorAll("button.copy")) {
    button.addEventListener("click", async () => {
      button.textContent = (await copied(button.dataset.text)) ? "copied" : "select it";
      button.focus();
      setTimeout(() => { button.textContent = "copy"; }, 1500);
    });
  }

  const links = new Map([...document.querySelectorAll(".links a")].map((a) => [a.hash.slice(1), a]));
  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      links.forEach((link) => link.removeAttribute("aria-current"));
      links.get(target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-20% 0px -75% 0px" });
  document.querySelectorAll("main > section").forEach((section) => watch.observe(section));
})();
